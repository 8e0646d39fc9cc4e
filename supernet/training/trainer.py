"""The training loop: every teacher, supernet, extracted subnet and compression method is trained here.

It is decoupled from the search. Its whole state is the step number, the weights and the optimisers: data order,
augmentation, sampled subnets and dropout are functions of (seed, step), so a resumed training goes on exactly as if
it had never stopped.
"""

from __future__ import annotations

import errno
import json
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from gantailor.supernet.errors import CheckpointError, ConfigError, GantailorError
from gantailor.supernet.files import load_optimizer_tensors, load_tensors, optimizer_tensors, save_tensors
from gantailor.supernet.subnets.copying import copied
from gantailor.supernet.training import distributed
from gantailor.supernet.training.batches import Batches
from gantailor.supernet.training.loading import Loading, is_lost
from gantailor.supernet.training.recipe import Recipe

EXPLODED = 1e6  # a weighted loss term of this size is no training any more


def adam(parameters: Iterable[nn.Parameter], recipe: Recipe, lr: float | None = None) -> torch.optim.Optimizer:
    """The recipe's optimiser; ``lr`` where it is not the generator's."""
    r = recipe
    betas = (r.beta1, r.beta2)
    return torch.optim.Adam(parameters, lr=lr or r.lr, betas=betas, weight_decay=r.weight_decay, fused=True)


class Task(Protocol):
    """What is trained and by which losses; the loop calls it in this order.

    Attributes:
        optimizers: by name; the ``lr`` they are made with is scaled by the recipe's schedule.
    """

    optimizers: dict[str, torch.optim.Optimizer]

    @property
    def generator(self) -> nn.Module:
        """What the training is for; its weights are averaged."""

    @property
    def batches(self) -> Batches:
        """What a step reads; it is called in other processes and threads, and holds no networks."""

    def parts(self) -> dict[str, nn.Module]:
        """Everything with state, the generator included."""

    def backward(self, step: int, batch: Any, share: float) -> dict[str, Tensor]:
        """Add ``share`` of the gradients of a part of the step's batch; the loss terms, detached scalars."""

    def after_step(self, step: int) -> None:
        """After the optimisers' update (a proximal step, a projection)."""


@dataclass(frozen=True)
class Progress:
    """What a listener is told after a step: losses are means since the last report."""

    step: int
    steps: int
    kimg: float
    images_per_second: float
    losses: dict[str, float]


class TrainingError(GantailorError):
    """Training cannot go on; the message names the step, the loss and what is safe on disk."""


def check_parts(recipe: Recipe) -> None:
    """That a batch can be shared by the processes that train.

    Raises:
        ConfigError: it cannot.
    """
    processes = distributed.world()
    parts = recipe.accumulate * processes
    if recipe.batch % parts:
        raise ConfigError(
            f"batch {recipe.batch} cannot be shared by {processes} processes in {recipe.accumulate} parts; "
            f"make it a multiple of {parts}"
        )


class Trainer:
    """Trains a task by a recipe's schedule, on one device or, under ``torchrun``, on several.

    Args:
        workers: processes that read batches, for each process that trains; the result is the same bit for bit.
    """

    def __init__(self, task: Task, recipe: Recipe, *, workers: int = 0) -> None:
        self.task, self.recipe = task, recipe
        self.average = copied(task.generator) if recipe.ema_kimg else None
        self._rates = {name: [g["lr"] for g in o.param_groups] for name, o in task.optimizers.items()}
        on_device = any(parameter.is_cuda for parameter in task.generator.parameters())
        self._loading = Loading(task.batches, recipe, workers=workers, on_device=on_device)
        self._stop = False
        self._saved = "no checkpoint was written yet"
        self.step = 0
        check_parts(recipe)

    def run(
        self,
        checkpoint: Path | None = None,
        *,
        on_progress: Callable[[Progress], None] | None = None,
        on_watch: Callable[[nn.Module, int], None] | None = None,
        save_every_s: float = 60.0,
        stop_after: int | None = None,
    ) -> nn.Module:
        """Train to the recipe's length and return the generator (its weight average where there is one).

        Args:
            checkpoint: an existing file is continued; the state is saved to it every ``save_every_s`` seconds, on an
                interruption, and at the end. Losses go to the ``.jsonl`` beside it.
            on_progress: told about once a second.
            on_watch: called with the result so far and the step, every ``recipe.watch_kimg``, and at the end.
            stop_after: end early, at a step (for tests and trials).

        Raises:
            TrainingError: a loss is not finite or has exploded, memory or disk is full, a worker was killed.
            GantailorError: the data cannot be read.
        """
        if checkpoint is not None and checkpoint.exists():
            self.load(checkpoint)
        end = min(self.recipe.steps, stop_after or self.recipe.steps)
        report = _Report(self.recipe, self.step, None if checkpoint is None else checkpoint.with_suffix(".jsonl"))
        last_save = time.monotonic()
        watch = max(1, round(self.recipe.watch_kimg * 1000 / self.recipe.batch)) if self.recipe.watch_kimg else 0
        stop = False
        with self._interruptible(), self._explaining(), self._loading.ahead(range(self.step, end)):
            while self.step < end and not stop:
                report.add(self.train_step())
                finished = self.step == self.recipe.steps
                if report.due() or self.step == end:
                    progress = report.take(self.step)
                    self._check(progress.losses)
                    if on_progress and distributed.rank() == 0:
                        on_progress(progress)
                if on_watch and distributed.rank() == 0 and (finished or (watch and self.step % watch == 0)):
                    started = time.monotonic()
                    on_watch(self.result(), self.step)
                    self.task.generator.train()
                    report.since += time.monotonic() - started  # looking is not training
                late = checkpoint is not None and time.monotonic() - last_save > save_every_s
                late, stop = distributed.agree(late, self._stop)
                if checkpoint is not None and late:
                    self.save(checkpoint)
                    last_save = time.monotonic()
        if checkpoint is not None:
            self.save(checkpoint)
        if stop or self._stop:
            raise KeyboardInterrupt
        return self.result()

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """The first Ctrl-C or SIGTERM ends the running step and is then saved; the second one kills at once."""

        def ask(number: int, _frame: object) -> None:
            self._stop = True
            signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.default_int_handler)

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def result(self) -> nn.Module:
        """The trained generator: the weight average, or the weights themselves without one; in eval mode."""
        return (self.average if self.average is not None else self.task.generator).eval()

    def train_step(self) -> dict[str, Tensor]:
        """One step of all optimisers; the loss terms, weighted, means over the whole batch."""
        recipe, task = self.recipe, self.task
        # For dropout and the noise of forwards: what a batch holds is drawn from generators of its own.
        torch.manual_seed(recipe.seed * 1_000_003 + self.step + 7_919 * distributed.rank())
        factor = recipe.decay_at(self.step)
        for name, optimizer in task.optimizers.items():
            optimizer.zero_grad(set_to_none=True)
            for group, rate in zip(optimizer.param_groups, self._rates[name], strict=True):
                group["lr"] = rate * factor
        with self._explaining():
            parts = self._loading.parts(self.step)
            rows = [task.backward(self.step, part, 1 / recipe.accumulate) for part in parts]
        names = list(rows[0])
        values = distributed.average(torch.stack([torch.stack([row[name] for row in rows]).mean() for name in names]))
        losses = dict(zip(names, values.unbind(), strict=True))
        if values.device.type == "cpu":  # elsewhere reading them would stop the device at every step
            self._check({name: float(value) for name, value in losses.items()})
        for optimizer in task.optimizers.values():
            distributed.average_gradients(p for group in optimizer.param_groups for p in group["params"])
            optimizer.step()
        task.after_step(self.step)
        self._update_average()
        self.step += 1
        return losses

    def _update_average(self) -> None:
        if self.average is None:
            return
        decay = 0.5 ** (self.recipe.batch / (self.recipe.ema_kimg * 1000))
        decay = min(decay, (1 + self.step) / (10 + self.step))  # young averages follow quickly
        with torch.no_grad():
            means: list[Tensor] = list(self.average.parameters())
            values: list[Tensor] = list(self.task.generator.parameters())
            torch._foreach_lerp_(means, values, 1 - decay)
            for mine, held in zip(self.average.buffers(), self.task.generator.buffers(), strict=True):
                mine.copy_(held)

    def _check(self, losses: dict[str, float]) -> None:
        for name, value in losses.items():
            if not abs(value) < EXPLODED:
                raise TrainingError(
                    f"the {name} loss is {value:.3g} at step {self.step}; {self._saved}. Lower lr (now "
                    f"{self.recipe.lr}) or use precision float32"
                )

    @contextmanager
    def _explaining(self) -> Iterator[None]:
        try:
            yield
        except (MemoryError, RuntimeError) as error:
            raise self._explained(error) from error

    def _explained(self, error: Exception) -> Exception:
        """Out of memory, or a lost worker, as one clear message; anything else as it is."""
        text = str(error)
        if is_lost(error):
            return TrainingError(
                f"a process that reads pictures was lost at step {self.step}; {self._saved}. If memory ran out, lower "
                f"data.workers (now {self._loading.workers}); the same command continues: {text.splitlines()[0]}"
            )
        if isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in text:
            return TrainingError(
                f"out of memory at step {self.step}; {self._saved}. Raise accumulate (now {self.recipe.accumulate}) or "
                f"lower batch (now {self.recipe.batch}): {text.splitlines()[0] if text else ''}"
            )
        return error

    def _parts(self) -> dict[str, nn.Module]:
        return self.task.parts() | ({"average": self.average} if self.average is not None else {})

    def save(self, path: Path) -> None:
        """Write the whole state to ``path``, atomically (the first process does).

        Raises:
            TrainingError: the disk is full; the checkpoint before is whole.
        """
        if distributed.rank() == 0:
            tensors = {f"{name}.{k}": v for name, part in self._parts().items() for k, v in part.state_dict().items()}
            for name, optimizer in self.task.optimizers.items():
                tensors |= {f"optimizer-{name}.{k}": v for k, v in optimizer_tensors(optimizer).items()}
            try:
                save_tensors(path, tensors, {"step": self.step, "recipe": self.recipe.model_dump()})
            except OSError as error:
                full = error.errno in (errno.ENOSPC, errno.EDQUOT)
                what = "the disk is full" if full else str(error)
                raise TrainingError(
                    f"step {self.step} cannot be saved to {str(path)!r}: {what}; {self._saved}"
                ) from None
            self._saved = f"the last good checkpoint is step {self.step}, {path}"
        distributed.wait()

    def load(self, path: Path) -> None:
        """Go on from what ``save`` wrote.

        Raises:
            CheckpointError: the file is damaged, or belongs to another recipe or architecture.
        """
        tensors, info = load_tensors(path)
        if info.get("recipe") != self.recipe.model_dump():
            raise CheckpointError(
                f"{str(path)!r} was made by another recipe; give another folder, or delete the file to start anew"
            )
        for name, part in self._parts().items():
            try:
                part.load_state_dict(_under(tensors, name))
            except RuntimeError as error:
                raise CheckpointError(
                    f"{str(path)!r} does not fit the {name}: {str(error).splitlines()[-1].strip()}; another version or "
                    "architecture made it: delete it to start anew"
                ) from None
        for name, optimizer in self.task.optimizers.items():
            load_optimizer_tensors(optimizer, _under(tensors, f"optimizer-{name}"))
        self.step = info["step"]
        self._saved = f"the last good checkpoint is step {self.step}, {path}"


class _Report:
    """Sums losses between reports, and writes each report as a line of JSON."""

    def __init__(self, recipe: Recipe, step: int, log: Path | None) -> None:
        self.recipe, self.log = recipe, log if distributed.rank() == 0 else None
        self.sums: dict[str, Tensor] = {}
        self.counted, self.since = 0, time.monotonic()

    def add(self, losses: dict[str, Tensor]) -> None:
        self.counted += 1
        for name, value in losses.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value

    def due(self) -> bool:
        return time.monotonic() - self.since > 1

    def take(self, step: int) -> Progress:
        losses = {name: float(total) / self.counted for name, total in self.sums.items()}
        speed = self.counted * self.recipe.batch / max(time.monotonic() - self.since, 1e-9)
        kimg = step * self.recipe.batch / 1000
        if self.log is not None:
            row = {"step": step, "kimg": kimg, "images_per_second": round(speed, 1)} | losses
            with self.log.open("a") as file:
                file.write(json.dumps(row) + "\n")
        self.sums, self.counted, self.since = {}, 0, time.monotonic()
        return Progress(step, self.recipe.steps, kimg, speed, losses)


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key[len(prefix) + 1 :]: value for key, value in tensors.items() if key.startswith(prefix + ".")}
