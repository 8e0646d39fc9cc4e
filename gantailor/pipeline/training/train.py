"""Stage "train": the method's training of the whole generator."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from gantailor.pipeline.context import RunContext
from gantailor.pipeline.training.fit import Nets, Watcher, fit
from gantailor.pipeline.training.rate import at_its_rate
from gantailor.run.folder import write_config
from gantailor.run.run import Run
from gantailor.search.methods.method import DISCRIMINATOR, Trained
from gantailor.supernet.files import save_tensors
from gantailor.supernet.quantization.activation_ranges import save_activation_ranges
from gantailor.supernet.subnets.slicing import reordered_channels
from gantailor.supernet.training import distributed
from gantailor.supernet.training.task import Task
from gantailor.supernet.training.teaching.distillation import FeatureMaps, for_channels
from gantailor.zoo.tasks.training import judge_of


def train(run: Run) -> None:
    """Train by the run's method.

    Writes ``supernet.safetensors``; where the method chose widths, the kept channels lead there, and ``selected.json``
    says how many. Nets that were narrowed along lie beside it under their own names.
    """
    folder, method = run.folder, run.method
    if run.is_trained:
        return
    run = at_its_rate(run, "train", _begin)
    recipe = run.config.train
    context = RunContext(run)
    if not recipe.kimg and method.searches:
        _save_whole(run, Trained(weights=context.supernet().generator.state_dict(), path=run.setup.path), "untrained")
        return
    task = method.task(context)
    title = "supernet" if method.searches else method.name
    watcher = None
    if distributed.rank() == 0:
        watcher = Watcher(run, title, lambda model: method.watch(context, task, model))
    model = fit(run, task, recipe, checkpoint=folder.supernet_checkpoint, title=title, on_watch=watcher)
    if distributed.rank() == 0:
        trained = method.select(context, task, model)
        _hand_on(run, task, trained.orders)
        store(run, trained)


def _begin(run: Run) -> tuple[Task, Nets]:
    """The method's training at its beginning, and the nets that are looked at."""
    method, context = run.method, RunContext(run)
    task = method.task(context)
    return task, lambda model: dict(method.watch(context, task, model))


def _hand_on(run: Run, task: Task, orders: Mapping[str, np.ndarray]) -> None:
    """Write what another training may go on with: the discriminator, and the 1x1 maps in the order of the supernet.

    A discriminator that was narrowed along is a partner.
    """
    folder, judge, maps, info = run.folder, judge_of(task), task.parts().get("maps"), {"stage": run.method.name}
    if judge is not None and DISCRIMINATOR not in run.method.partners:
        save_tensors(folder.supernet_discriminator, judge.state_dict(), info)
    if isinstance(maps, FeatureMaps):
        lie = reordered_channels(run.setup.supernet.graph, maps.layers, orders)
        save_tensors(folder.supernet_maps, for_channels(maps.by_layer(), lie), info)


def store(run: Run, trained: Trained) -> None:
    """Write what a training left behind; the file that marks it as done comes last."""
    folder, stage = run.folder, "supernet" if trained.config is None else run.method.name
    for note in trained.notes:
        run.report.note(note)
    if trained.quantisers is not None:
        save_activation_ranges(folder.ranges, trained.quantisers)
    for name, partner in trained.partners.items():
        save_tensors(folder.weights_of(name), partner.weights, {"stage": stage})
        write_config(folder.file(f"{name}.json"), partner.config)
    _save_whole(run, trained, stage)
    if trained.config is not None:
        write_config(folder.selected, trained.config)


def _save_whole(run: Run, trained: Trained, stage: str) -> None:
    """Write the whole net, and its path in the same file."""
    path = {} if trained.path is None else {"path": trained.path.to_json()}
    save_tensors(run.folder.supernet, trained.weights, {"stage": stage, **path})
    run.setup.look_again()
