"""One training with a run's progress, and what is looked at while it goes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from gantailor.evaluators.scores import Pairs, evenly
from gantailor.pipeline.training.step_profile import StepProfile
from gantailor.run.inputs import placed_teacher
from gantailor.run.run import Run
from gantailor.supernet.calling import first
from gantailor.supernet.device import computed, peak_memory
from gantailor.supernet.files import cut_rows, read_rows, save_tensors, write_bytes
from gantailor.supernet.subnets.copying import copied
from gantailor.supernet.training import distributed
from gantailor.supernet.training.recipe import Recipe
from gantailor.supernet.training.task import Task
from gantailor.supernet.training.trainer import Trainer
from gantailor.zoo.data.pictures import is_picture, picture_grid, to_rgb

Nets = Callable[[nn.Module], dict[str, nn.Module]]
SHOWN = 6  # rows of a sheet


def fit(
    run: Run,
    task: Task,
    recipe: Recipe,
    *,
    checkpoint: Path,
    title: str,
    on_watch: Callable[[nn.Module, int], None] | None = None,
) -> nn.Module:
    """Train a task with the run's progress; the trained generator."""
    anew = on_watch if isinstance(on_watch, Watcher) and not checkpoint.exists() else None
    if anew is not None:
        anew.forget()
    started = time.monotonic()
    tensorboard = run.folder.tensorboard if run.config.tensorboard else None
    with run.report.training(title, tensorboard) as listener:
        trainer = Trainer(task, recipe, workers=run.config.data.workers)
        trainer.on_note = lambda text: run.report.note(f"{title}: {text}")
        if anew is not None and recipe.kimg:
            anew.begin(trainer.result())
        with _profiled(run, trainer, title):
            trained = trainer.run(checkpoint, on_progress=listener, on_watch=on_watch)
    if distributed.rank() == 0:
        spent = time.monotonic() - started
        run.report.note(f"{title}: {spent / 60:.1f} minutes, at most {peak_memory(run.setup.device) / 2**30:.2f} GiB")
    return trained


@contextmanager
def _profiled(run: Run, trainer: Trainer, title: str) -> Iterator[None]:
    """Where the run is to tell where a step's time goes: after a few steps it does, and the training goes on."""
    if not run.profiled or distributed.rank():
        yield
        return
    table = run.folder.file("profile") / f"{title.replace(' ', '-')}.csv"
    measured = StepProfile(table.with_suffix(".trace.json"))

    def tell(ended: bool) -> None:
        if ended:
            write_bytes(table, measured.to_csv())
            run.report.note(f"{measured}\n{table}: every operation; {measured.trace.name} beside it opens in Perfetto")

    trainer.on_step = lambda: tell(measured())
    try:
        yield
    finally:
        tell(measured.close())


class Watcher:
    """Looks at a training as it goes: pictures, and the search's score on the search split; keeps the best weights.

    Writes ``samples/<name>-<step>.png`` and a line of ``<name>.watch.jsonl`` each time.

    Args:
        nets: those to look at, by name, from the model in training.
        best: file for the weights of the best score so far; none are kept without it.
    """

    def __init__(self, run: Run, name: str, nets: Nets, *, best: Path | None = None) -> None:
        self.run, self.name, self.nets, self.best = run, name, nets, best
        self.pairs = run.sample
        self.evaluator = run.setup.scoring.evaluator([run.setup.search_metric])
        self.log = run.folder.log_of(name)

    def rows(self) -> list[dict[str, float]]:
        """What was written so far, the runs before an interruption included."""
        return read_rows(self.log)

    def forget(self) -> None:
        """A training begins anew: what another one wrote under this name is not its own."""
        for file in (self.log, self.best):
            if file is not None:
                file.unlink(missing_ok=True)

    def begin(self, model: nn.Module) -> None:
        """Pictures of what the training begins with; its scores come with the first look."""
        with torch.random.fork_rng(devices=[]):  # a continued training does not draw them
            file = self._draw({name: copied(net).eval() for name, net in self.nets(model).items()}, 0)
        self.run.report.note(f"{self.name} begins with {file}; another {self._pace()}")

    def _pace(self) -> str:
        recipe = self.run.config.finetune if self.name == "finetune" else self.run.config.train
        return f"each {recipe.watch_kimg:g} kimg" if recipe.watch_kimg else "at its end"

    def __call__(self, model: nn.Module, step: int) -> None:
        nets = {name: copied(net).eval() for name, net in self.nets(model).items()}
        self._draw(nets, step)
        row: dict[str, float] = {"step": step}
        for name, net in nets.items():
            score = next(iter(self.evaluator(net, self.pairs).values()))
            row[name] = score.value
        (main,) = list(row)[1:2]
        sign = 1 if score.lower_is_better else -1
        known = [sign * earlier[main] for earlier in cut_rows(self.log, step - 1)]
        if self.best is not None and (not known or sign * row[main] < min(known)):
            save_tensors(self.best, nets[main].state_dict(), {"stage": self.name, "step": step})
        with self.log.open("a") as file:
            file.write(json.dumps(row) + "\n")

    def _draw(self, nets: dict[str, nn.Module], step: int) -> Path:
        taught = [placed_teacher(self.run.setup)] if self.run.setup.taught else []
        file = self.run.folder.file("samples") / f"{self.name}-{step:07d}.png"
        write_bytes(file, sheet([*taught, *nets.values()], self.pairs, self.run.config.data.background))
        return file


def sheet(nets: Sequence[nn.Module], pairs: Pairs, background: str) -> bytes:
    """A PNG with a row for each of a few inputs: the input, what each net makes of it, and the real picture.

    What are no pictures are left out.
    """
    inputs, targets = pairs.batch(evenly(len(pairs), SHOWN))
    columns = [first(inputs), *(computed(net, inputs) for net in nets), targets]
    return picture_grid([to_rgb(images, background) for images in columns if is_picture(images)])
