"""Reads the batches of a training while it computes: in worker processes, or in a thread where a device computes.

What is read is a function of (seed, step), so nothing of it depends on how it is read.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from gantailor.supernet.errors import ConfigError, DataError, GantailorError, with_place
from gantailor.supernet.training import distributed
from gantailor.supernet.training.batches import Batches
from gantailor.supernet.training.recipe import Recipe

AHEAD = 2  # steps that each worker reads ahead
LOST = ("DataLoader worker", "Pin memory thread")  # how messages of the loader begin where a worker was killed


@dataclass(frozen=True)
class Read:
    """What was read for a step: the parts of its batch, pickled where shared memory is full, or why it could not be."""

    content: tuple[Any, ...] | bytes | Exception

    def parts(self) -> tuple[Any, ...]:
        """The parts.

        Raises:
            GantailorError, MemoryError: reading them failed.
        """
        if isinstance(self.content, Exception):
            raise self.content
        found: tuple[Any, ...] = pickle.loads(self.content) if isinstance(self.content, bytes) else self.content
        return found

    def shared(self) -> Read:
        """As it travels to another process: tensors in shared memory, or by value where there is no room for them."""
        try:
            return Read(_changed(self.content, Tensor.share_memory_))
        except RuntimeError:  # containers have 64 MB of it if nobody asks for more
            return Read(pickle.dumps(self.content, protocol=pickle.HIGHEST_PROTOCOL))

    def pin_memory(self) -> Read:
        """As it travels to a device; the ``DataLoader`` asks for it."""
        return self if isinstance(self.content, Exception) else Read(_changed(self.parts(), Tensor.pin_memory))


def _changed(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Every tensor of a batch changed: of dataclasses, tuples, lists and dictionaries; anything else stays."""
    if isinstance(value, Tensor):
        return change(value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: _changed(getattr(value, field.name), change) for field in fields(value)})
    if isinstance(value, dict):
        return {key: _changed(item, change) for key, item in value.items()}
    if isinstance(value, tuple | list):
        items = [_changed(item, change) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value


class Steps(Dataset[Read]):
    """From a step to what this process works through in it: its ``accumulate`` parts of the whole batch."""

    def __init__(self, batches: Batches, recipe: Recipe) -> None:
        self.batches, self.mine = batches, recipe.accumulate
        self.first, self.of = recipe.accumulate * distributed.rank(), recipe.accumulate * distributed.world()

    def __getitem__(self, step: int) -> Read:
        try:
            read = Read(tuple(self.batches(step, self.first + number, self.of) for number in range(self.mine)))
        except Exception as error:
            return Read(_told(error, step))
        return read if get_worker_info() is None else read.shared()


def _told(error: Exception, step: int) -> Exception:
    """The error, as one that travels between processes."""
    if isinstance(error, MemoryError):
        return MemoryError(f"while the batch of step {step} was read")
    if isinstance(error, GantailorError):
        try:
            return pickle.loads(pickle.dumps(error))  # type: ignore[no-any-return]
        except Exception:  # one of their own, with arguments of its own
            return DataError(str(error))
    return DataError(f"the batch of step {step} cannot be read: {with_place(error)}")


class Loading:
    """Hands out what is read for each step.

    Args:
        workers: processes that read; 0: this one does.
        on_device: a device computes: batches are read ahead even without workers, and pinned.
    """

    def __init__(self, batches: Batches, recipe: Recipe, *, workers: int = 0, on_device: bool = False) -> None:
        self.steps, self.workers, self.on_device = Steps(batches, recipe), workers, on_device
        self._coming: Iterator[Read] | None = None

    @contextmanager
    def ahead(self, steps: range) -> Iterator[None]:
        """Inside, ``parts`` is asked for exactly these steps in their order, and they are read ahead.

        Raises:
            ConfigError: workers cannot be started.
            RuntimeError: one is lost, at any time; ``is_lost`` tells it from others.
        """
        if not steps or not (self.workers or self.on_device):
            yield
            return
        coming = self._from_workers(steps) if self.workers else self._from_thread(steps)
        with closing(coming):
            self._coming = coming
            try:
                yield
            finally:
                self._coming = None

    def parts(self, step: int) -> tuple[Any, ...]:
        """The parts of a step's batch that this process works through.

        Raises:
            GantailorError: the data cannot be read.
            MemoryError: there was no memory for it.
        """
        return (self.steps[step] if self._coming is None else next(self._coming)).parts()

    def _from_thread(self, steps: range) -> Generator[Read, None, None]:
        def read(step: int) -> Read:
            return self.steps[step].pin_memory()

        with ThreadPoolExecutor(1) as pool:
            coming = pool.submit(read, steps[0])
            for step in steps:
                found = coming.result()
                if step + 1 in steps:
                    coming = pool.submit(read, step + 1)
                yield found

    def _from_workers(self, steps: range) -> Generator[Read, None, None]:
        loader = DataLoader(
            self.steps,
            batch_size=None,
            sampler=steps,
            num_workers=min(self.workers, len(steps)),
            prefetch_factor=AHEAD,
            pin_memory=self.on_device,
            worker_init_fn=_start,
            generator=torch.Generator(),  # of seeds that nobody uses; the training's generators stay as they are
        )
        others = multiprocessing.active_children()
        coming: Any = None
        try:
            try:
                coming = iter(loader)
            except OSError as error:
                raise ConfigError(
                    f"data.workers {self.workers}: the processes cannot be started ({error}); lower it, or set it to 0"
                ) from None
            for _ in steps:
                yield _next(coming)
        finally:
            mine = [process for process in multiprocessing.active_children() if process not in others]
            if coming is not None:
                coming._shutdown_workers()
            for process in mine:
                process.kill()
                process.join()


def _next(coming: Iterator[Read]) -> Read:
    try:
        return next(coming)
    except (OSError, EOFError) as error:  # shared memory is handed over by the worker, which is gone
        raise RuntimeError(f"{LOST[0]} does not answer: {error}") from error


def is_lost(error: Exception) -> bool:
    """Whether an error is the ``DataLoader``'s about a worker that was killed."""
    return isinstance(error, RuntimeError) and str(error).startswith(LOST)


def _start(_number: int) -> None:
    """In a worker: the training decides when it ends, also where a terminal or a batch system tells every process."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=end_with_parent, daemon=True).start()


def end_with_parent() -> None:
    """In a thread of a worker: a parent that is killed cannot end its workers."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
