"""What "check" finds out about the data: too few pictures, the same ones in two splits, other ones than before."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sized
from typing import Any

import numpy as np

from gantailor.evaluators.metric import Metric, find_metric
from gantailor.evaluators.pictures.rgb import l1_of
from gantailor.evaluators.scores import spread
from gantailor.run.run import Run
from gantailor.supernet.calibration import has_running_statistics, per_picture
from gantailor.supernet.errors import ConfigError
from gantailor.supernet.files import state_digest
from gantailor.zoo.data import SPLITS
from gantailor.zoo.data.pairs import Pairs, digests_of

BEFORE_SCORES = ("check", "train", "search", "finetune")  # stages of a run that computes no last scores
# Training pairs that the teacher's two kinds of statistics are compared on, fewer where these take longer than so many
COMPARED, FEWEST, LONG = 16, 2, 15.0  # seconds.
MUCH_NEARER = 0.8  # share of the L1 below which the other kind is told


def check_counts(run: Run) -> None:
    """That scores can be had of as few pictures as there are: the last ones are computed hours later.

    Raises:
        ConfigError: a metric needs more.
    """
    wanted = [("evaluation.search", run.setup.search_metric, "search", run.sample)]
    if run.until not in BEFORE_SCORES:
        test = run.setup.data("test")
        wanted += [("evaluation.final", name, "test", test) for name in run.setup.metrics(run.config.evaluation.final)]
    for setting, name, split, pairs in wanted:
        metric = find_metric(name)
        if not enough(metric, pairs):
            raise ConfigError(
                f"{setting} {name!r} needs at least {metric.least} pictures on each side, of the {split} split there "
                f"are {_compared(metric, pairs)}; give more, or choose another score"
            )


def enough(metric: Metric, pairs: Sized) -> bool:
    """Whether there are as many pictures as a metric needs on each side."""
    return _compared(metric, pairs) >= metric.least


def _compared(metric: Metric, pairs: Sized) -> int:
    """Pictures on the smaller side: a metric of sets compares with real ones that belong to no input."""
    others = getattr(pairs, "others", None)
    return min(len(pairs), len(pairs if others is None or metric.compares != "sets" else others))


def check_statistics(run: Run) -> None:
    """A note where a teacher's batch norms come much nearer to the pictures with the other statistics."""
    setup, record = run.setup, run.setup.teacher_record
    data = setup.data("train")
    if record is None or not data.paired or not has_running_statistics(setup.loaded.module):
        return
    module, started, found = setup.loaded.module, time.perf_counter(), []
    ways = (module, per_picture(module))
    for number, row in enumerate(np.random.default_rng(0).permutation(spread(len(data), COMPARED))):
        if number >= FEWEST and time.perf_counter() - started > LONG:
            break
        inputs, targets = data.batch(np.array([row]))
        try:
            found.append([l1_of(way, inputs, targets) for way in ways])
        except ValueError:  # a map of one pixel has no statistics of its own: not what the teacher was trained with
            return
    errors = dict(zip(("running", "batch"), np.mean(found, axis=0), strict=True))
    used, other = record.statistics, "batch" if record.statistics == "running" else "running"
    if errors[other] <= MUCH_NEARER * errors[used]:
        run.report.note(
            f"the teacher's L1 to {len(found)} training targets is {errors[used]:.4g} with teacher.statistics {used} "
            f"and {errors[other]:.4g} with {other}; is it meant to run so? --teacher.statistics {other}"
        )


def note_sample(run: Run) -> None:
    """A note where search and watcher score a part of the pictures."""
    if len(run.sample) < len(run.setup.data("search")):
        run.report.note(
            f"search and watcher score {run.sample.source}: a sample of the split, evaluation.search_images"
        )


def contents(run: Run) -> dict[str, Any]:
    """What identifies data, by split, and teacher wherever they lie; None for ``teacher: none``."""
    teacher = state_digest(run.setup.loaded.module)[:12] if run.setup.taught else None
    return {"data": {split: run.setup.data(split).digest() for split in SPLITS}, "teacher": teacher}


def note_shared(run: Run) -> None:
    """A note where test pictures are training pictures too, under whatever name: their scores say little."""
    train, test = run.setup.data("train"), run.setup.data("test")
    if not isinstance(train, Pairs) or not isinstance(test, Pairs) or train.inputs.shape[1:] != test.inputs.shape[1:]:
        return
    known = set(digests_of(train.inputs))
    found = [name for name, digest in zip(test.names, digests_of(test.inputs), strict=True) if digest in known]
    if found:
        run.report.note(
            f"{len(found)} of {len(test)} test inputs are training pictures too ({', '.join(found[:3])}"
            f"{', ...' if len(found) > 3 else ''}): scores on what was trained on are too good"
        )


def note_other_data(run: Run, digests: Mapping[str, str]) -> None:
    """A note where the data of a split changed since the run began."""
    earlier = run.folder.stored_trace().get("data", {})
    if changed := [split for split, digest in earlier.items() if digests.get(split, digest) != digest]:
        run.report.note(
            f"the data of {', '.join(changed)} are others than when this run began; what is done stays, what is "
            "left goes on with these. Give another --out to start anew"
        )
