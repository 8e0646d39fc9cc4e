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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gantailor.supernet.calibration import WeightAverages, has_running_statistics, renew_statistics
from gantailor.supernet.calling import Inputs, each
from gantailor.supernet.device import HOST, LossScaling, device_of, trained_by
from gantailor.supernet.errors import CheckpointError, GantailorError
from gantailor.supernet.files import cut_rows, load_optimizer_tensors, load_tensors, optimizer_tensors, save_tensors
from gantailor.supernet.training import distributed
from gantailor.supernet.training.layout import measured
from gantailor.supernet.training.loading import Loading, is_lost
from gantailor.supernet.training.recipe import Recipe
from gantailor.supernet.training.task import Task, check_coupled, check_parts, counterparts, coupled_terms, inner

CALIBRATED = 128  # pictures that the statistics of averaged norms are of
EXPLODED = 1e6  # a weighted loss term of this size is no training any more


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


class DivergedError(TrainingError):
    """A loss or a weight is no finite number any more, or has exploded."""


class Trainer:
    """Trains a task by a recipe's schedule, on one device or, under ``torchrun``, on several.

    Args:
        workers: processes that read batches, for each process that trains; the result is the same bit for bit.

    Attributes:
        on_step: called after every step.
        on_note: told what was decided before the first, in words.
    """

    def __init__(self, task: Task, recipe: Recipe, *, workers: int = 0) -> None:
        self.task, self.recipe = task, recipe
        trained = {"average": task.generator} | {f"average-{k}": v for k, v in counterparts(task).items()}
        self._averages = WeightAverages(trained, recipe.ema_kimg) if recipe.ema_kimg else None
        self._rates = {name: [g["lr"] for g in o.param_groups] for name, o in task.optimizers.items()}
        self.device = device_of(task.generator)
        self._loading = Loading(task.batches, recipe, workers=workers, on_device=self.device != HOST)
        self.scaling = LossScaling(self.device, recipe.precision)
        self.on_step: Callable[[], object] = bool
        self.on_note: Callable[[str], object] = bool
        self._stop = False
        self._saved = "no checkpoint was written yet"
        self.step = 0
        check_parts(recipe)
        check_coupled(recipe, coupled_terms(task.parts(), getattr(task, "coupled", ())))

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
            DivergedError: a loss is not finite or has exploded.
            TrainingError: memory or disk is full, a worker was killed.
            GantailorError: the data cannot be read.
        """
        self._begin(checkpoint)
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
        result = self.result()
        if self._averages is not None and self.step == self.recipe.steps:
            self._averages.hand_over()
        return result

    def _begin(self, checkpoint: Path | None) -> None:
        if checkpoint is not None and checkpoint.exists():
            self.load(checkpoint)
        elif self.recipe.channels_last == "auto":
            found = measured(inner(self.task), self._loading.parts(0)[0], steps=self.recipe.steps)
            if found and distributed.rank() == 0:
                self.on_note(found)

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
        """The trained generator: the weight average, or the weights themselves without one; in eval mode.

        Norms of an average have statistics of its own, of training pictures, where the task's batches have ``inputs``:
        those of the last step belong to other weights.
        """
        if self._averages is None:
            return self.task.generator.eval()
        for name, average in self._averages.means.items():
            side = "inputs" if name == "average" else "counterpart_inputs"
            if has_running_statistics(average) and hasattr(self.task.batches(0), side):
                renew_statistics(average, self._shown(side))
        return self.average.eval()  # type: ignore[union-attr]

    @property
    def average(self) -> nn.Module | None:
        """The average of the generator's weights, where the recipe has one."""
        return None if self._averages is None else self._averages.means["average"]

    def _shown(self, side: str) -> Iterator[Inputs]:
        """Inputs of the first steps, in the parts that fit into memory."""
        parts = self.recipe.accumulate * distributed.world()
        for step in range(-(-CALIBRATED // self.recipe.batch)):
            for part in range(parts):
                inputs: Inputs = getattr(self.task.batches(step, part, parts), side)
                yield each(inputs, lambda one: one.to(self.device))

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
            parts, share = self._loading.parts(self.step), self.scaling.scale / recipe.accumulate
            rows = [task.backward(self.step, part, share) for part in parts]
        names = list(rows[0])
        means = [torch.stack([row[name] for row in rows]).mean().to(self.device) for name in names]
        values = distributed.average(torch.stack(means))
        losses = dict(zip(names, values.unbind(), strict=True))
        if values.device == HOST:  # elsewhere reading them would stop the device at every step
            self._check({name: float(value) for name, value in losses.items()})
        for optimizer in task.optimizers.values():
            distributed.average_gradients(trained_by(optimizer))
        self.scaling.step(task.optimizers.values())
        task.after_step(self.step)
        if self._averages is not None:
            self._averages.update(self.step, recipe.batch)
        self.step += 1
        self.on_step()
        return losses

    def _check(self, losses: dict[str, float]) -> None:
        for name, value in losses.items():
            if not abs(value) < EXPLODED:
                raise DivergedError(
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
        return self.task.parts() | (self._averages.means if self._averages is not None else {})

    def save(self, path: Path) -> None:
        """Write the whole state to ``path``, atomically (the first process does).

        What each process has of its own, the modules whose ``of_process`` is true, is written for each.

        Raises:
            DivergedError: a weight is not finite; the checkpoint before is whole.
            TrainingError: the disk is full; the same.
        """
        self._check_weights()
        parts = self._parts()
        own = {f"{n}.{k}": v for n, part in parts.items() if _of_process(part) for k, v in part.state_dict().items()}
        others = distributed.gathered(own)[1:] if own else []
        if distributed.rank() == 0:
            tensors = {f"{name}.{k}": v for name, part in parts.items() for k, v in part.state_dict().items()}
            for number, state in enumerate(others, 1):
                tensors |= {f"process-{number}.{key}": value for key, value in state.items()}
            for name, optimizer in self.task.optimizers.items():
                tensors |= {f"optimizer-{name}.{k}": v for k, v in optimizer_tensors(optimizer).items()}
            info = {"step": self.step, "recipe": self.recipe.model_dump(), **self.scaling.state()}
            info["channels_last"] = getattr(inner(self.task), "layout", None) is torch.channels_last
            try:
                save_tensors(path, tensors, info)
            except OSError as error:
                full = error.errno in (errno.ENOSPC, errno.EDQUOT)
                what = "the disk is full" if full else str(error)
                raise TrainingError(
                    f"step {self.step} cannot be saved to {str(path)!r}: {what}; {self._saved}"
                ) from None
            self._saved = f"the last good checkpoint is step {self.step}, {path}"
        distributed.wait()

    def _check_weights(self) -> None:
        """That what is saved is sound: where losses are read late, weights break before a loss is seen to."""
        broken = next((name for name, part in self._parts().items() if not _is_finite(part)), "")
        broken = broken or next((f"{k}'s optimiser" for k, o in self.task.optimizers.items() if not _can_go_on(o)), "")
        if any(distributed.agree(bool(broken))):
            raise DivergedError(
                f"the weights of the {broken or 'other processes'} hold NaN or infinity at step {self.step}; "
                f"{self._saved}. Lower lr (now {self.recipe.lr}) or use precision float32"
            )

    def load(self, path: Path) -> None:
        """Go on from what ``save`` wrote.

        Raises:
            CheckpointError: the file is damaged, or belongs to another recipe or architecture.
        """
        tensors, info = load_tensors(path)
        if not _same_recipe(info.get("recipe"), self.recipe):
            raise CheckpointError(
                f"{str(path)!r} was made by another recipe; give another folder, or delete the file to start anew"
            )
        if info.get("channels_last") and hasattr(inner(self.task), "lay_out"):
            inner(self.task).lay_out(True)  # before the optimisers' moments, which lie as their parameters do
        mine = _under(tensors, f"process-{distributed.rank()}")  # of another number of processes: the first one's
        for name, part in self._parts().items():
            try:
                part.load_state_dict(_under(mine, name) or _under(tensors, name))
            except RuntimeError as error:
                raise CheckpointError(
                    f"{str(path)!r} does not fit the {name}: {str(error).splitlines()[-1].strip()}; another version or "
                    "architecture made it: delete it to start anew"
                ) from None
        for name, optimizer in self.task.optimizers.items():
            load_optimizer_tensors(optimizer, _under(tensors, f"optimizer-{name}"))
        self.scaling.load(info)
        self.step = info["step"]
        self._saved = f"the last good checkpoint is step {self.step}, {path}"


class _Report:
    """Sums losses between reports, and writes each report as a line of JSON."""

    def __init__(self, recipe: Recipe, step: int, log: Path | None) -> None:
        self.recipe, self.log = recipe, log if distributed.rank() == 0 else None
        if self.log is not None:
            cut_rows(self.log, step)  # what a process that was killed had seen after its last checkpoint
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


def _of_process(part: nn.Module) -> bool:
    return any(getattr(module, "of_process", False) for module in part.modules())


def _is_finite(part: nn.Module) -> bool:
    """Whether all weights are, and no buffer is NaN (infinite ones may be meant, masks say)."""
    weights = all(bool(torch.isfinite(weight).all()) for weight in part.parameters())
    return weights and not any(bool(buffer.isnan().any()) for buffer in part.buffers())


def _can_go_on(optimizer: torch.optim.Optimizer) -> bool:
    held = (value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor))
    return all(bool(torch.isfinite(value).all()) for value in held)


def _same_recipe(stored: Any, recipe: Recipe) -> bool:
    try:
        return Recipe.stored(stored or {}) == recipe
    except ValueError:
        return False


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key[len(prefix) + 1 :]: value for key, value in tensors.items() if key.startswith(prefix + ".")}
