"""``lr: auto``: short trainings at a few learning rates, of which the best by the search's score goes on.

The rate belongs to a task: what won 13% on one lost 18% on another. Which one it is shows early, so each is tried for a
share of the length, with the whole schedule on it, from the same beginning and with the same seed.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from gantailor.evaluators.metric import metric_of
from gantailor.pipeline.training.fit import Nets, fit
from gantailor.run.run import Run
from gantailor.supernet.files import write_json
from gantailor.supernet.subnets.copying import copied
from gantailor.supernet.training import distributed
from gantailor.supernet.training.recipe import RATE, Recipe
from gantailor.supernet.training.task import Task
from gantailor.supernet.training.trainer import DivergedError

SHARE, STEPS = 0.1, 20  # of the length, and steps at least
FACTOR, LEAST, MOST = 2.0, 1e-5, 0.05  # between two rates, and bounds of them
USUAL = 3.5  # rates that are tried, for an estimate

Begin = Callable[[Run], tuple[Task, Nets]]


def at_its_rate(run: Run, section: str, begin: Begin) -> Run:
    """The run itself, or one like it whose ``section`` has a number where it said ``auto``.

    What was tried lies in ``<section>.rates.json``; an unfinished sweep goes on. That of fine-tuning goes with its
    subnet (``pipeline.search.stage.set_aside``).

    Args:
        begin: a training of such a run at its beginning, and the nets that are looked at, of which the first is scored.
    """
    recipe: Recipe = getattr(run.config, section)
    if recipe.lr != "auto" or not recipe.kimg:
        return run
    metric, file = run.setup.search_metric, run.folder.file(f"{section}.rates.json")
    short = max(SHARE * recipe.kimg, min(recipe.kimg, STEPS * recipe.batch / 1000))
    known: dict[str, Any] = run.folder.stored(file) or {"metric": metric, "kimg": short, "scores": {}}

    def score(rate: float) -> float:
        if f"{rate:g}" not in known["scores"]:
            known["scores"][f"{rate:g}"] = _tried(_with(run, section, lr=rate, kimg=short), section, begin)
            if distributed.rank() == 0:
                write_json(file, known)
        found: float | None = known["scores"][f"{rate:g}"]
        sign = 1 if metric_of(metric).lower_is_better else -1
        return math.inf if found is None else sign * found

    scores = around(score)
    best = min(scores, key=lambda rate: scores[rate])
    if distributed.rank() == 0:
        told = ", ".join(f"{rate:g} ({_said(known['scores'][f'{rate:g}'])})" for rate in sorted(scores))
        run.report.note(f"{section}.lr auto: {best:g}, of {told}, {metric} after {short:g} kimg each")
    return _with(run, section, lr=best)


def around(score: Callable[[float], float], first: float = RATE) -> dict[float, float]:
    """Scores of a rate, its neighbours, and further ones while the best is the outermost; the least is the best."""
    scores = {rate: score(rate) for rate in (first, first * FACTOR, first / FACTOR)}
    while True:
        best = min(scores, key=lambda rate: scores[rate])
        if best not in (min(scores), max(scores)):
            return scores
        beyond = best * FACTOR if best == max(scores) else best / FACTOR
        if not LEAST <= beyond <= MOST:
            return scores
        scores[beyond] = score(beyond)


def _tried(run: Run, section: str, begin: Begin) -> float | None:
    """The score after a short training, in every process; None where that did not hold."""
    recipe: Recipe = getattr(run.config, section)
    value = math.nan
    with torch.random.fork_rng(devices=[]):  # numbers go on as if there had been no trial
        task, nets = begin(run)
        checkpoint = run.folder.file(f"{section}.rate-{recipe.lr:g}.ckpt.safetensors")
        try:
            trained = fit(run, task, recipe, checkpoint=checkpoint, title=f"{section} at lr {recipe.lr:g}")
            if distributed.rank() == 0:
                value = _score(run, next(iter(nets(trained).values())))
        except DivergedError as error:
            run.report.note(f"{section} at lr {recipe.lr:g}: {error}")
        if distributed.rank() == 0:
            for left in (checkpoint, checkpoint.with_suffix(".jsonl")):
                left.unlink(missing_ok=True)
    value = distributed.from_first(value)
    return value if math.isfinite(value) else None


def _score(run: Run, net: nn.Module) -> float:
    evaluator = run.setup.scoring.evaluator([run.setup.search_metric])
    return next(iter(evaluator(copied(net).eval(), run.sample).values())).value


def _with(run: Run, section: str, **values: Any) -> Run:
    """The same run, but for numbers of one training."""
    found = copy.copy(run)
    recipe = getattr(run.config, section).model_copy(update=values)
    found.config = run.config.model_copy(update={section: recipe})
    return found


def _said(score: float | None) -> str:
    return "diverged" if score is None else f"{score:.4g}"
