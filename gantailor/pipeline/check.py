"""Stage "check": every mistake before any training, the proof of the trace, and the folder taken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gantailor.export.devices import device
from gantailor.export.target import check_device
from gantailor.pipeline.context import RunContext
from gantailor.run import ranking
from gantailor.run.config import is_file
from gantailor.run.run import Run
from gantailor.supernet.calibration import has_running_statistics, per_picture
from gantailor.supernet.errors import ConfigError
from gantailor.supernet.files import write_json

COMPARED = 16  # training pairs that the teacher's two kinds of statistics are compared on
MUCH_NEARER = 0.8  # share of the L1 below which the other kind is told


def find_mistakes(run: Run) -> None:
    """Find mistakes without writing anything: settings, data, teacher, trace, budget, metrics, devices.

    Raises:
        GantailorError: the first that is found.
    """
    setup, config = run.setup, run.config
    run.check_folder()  # whose decisions are replayed from here on
    run.method.check(RunContext(run))
    _ = setup.budget
    _check_untrained(run)
    for split in ("train", "search", "test"):
        setup.data(split)
    _check_statistics(run)
    final = setup.metrics(config.evaluation.final)
    setup.scoring.evaluator([setup.search_metric, *final])
    kept = {name.removesuffix("[teacher]") for name in final}
    if left := [name for name in config.evaluation.final if name.removesuffix("[teacher]") not in kept]:
        run.report.note(f"scores without {', '.join(left)}: the data has no real pictures to compare with")
    for name in config.devices:
        check_device(device(name))
    for file in (config.ranking if is_file(config.ranking) else None, config.supernet):
        if file is not None and not Path(file).is_file():
            raise ConfigError(f"{file!r} does not exist; give the path of a file")


def _check_untrained(run: Run) -> None:
    config = run.config
    untrained = run.method.searches and config.train.kimg == 0 and config.supernet is None
    if untrained and config.space.name == "uniform" and config.search.trials > 1 and not config.search.front:
        raise ConfigError(
            f"search.trials is {config.search.trials}, but no supernet is trained (train.kimg 0): scores of untrained "
            "subnets say nothing, often the smallest wins. Set search.trials 1, which takes the share that meets "
            "the budget, or a train.kimg"
        )


def _check_statistics(run: Run) -> None:
    """A note where a teacher's batch norms come much nearer to the pictures with the other statistics."""
    setup, record = run.setup, run.setup.teacher_record
    data = setup.data("train")
    if record is None or not data.paired or not has_running_statistics(setup.loaded.module):
        return
    inputs, targets = data.batch(np.arange(min(COMPARED, len(data))))
    module = setup.loaded.module
    errors = {"running": _l1(module, inputs, targets), "batch": _l1(per_picture(module), inputs, targets)}
    used, other = record.statistics, "batch" if record.statistics == "running" else "running"
    if errors[other] <= MUCH_NEARER * errors[used]:
        run.report.note(
            f"the teacher's L1 to {len(inputs)} training targets is {errors[used]:.4g} with teacher.statistics {used} "
            f"and {errors[other]:.4g} with {other}; is it meant to run so? --teacher.statistics {other}"
        )


@torch.no_grad()
def _l1(module: nn.Module, inputs: Tensor, targets: Tensor) -> float:
    """Mean absolute difference, picture by picture for the sake of memory."""
    return float(np.mean([float((module(x[None]) - y).abs().mean()) for x, y in zip(inputs, targets)]))


def check(run: Run) -> dict[str, Any]:
    """Find every mistake before any training, and take the folder.

    Writes ``trace.json``, with what tracing and its repair decided, and ``ranking.json``.
    """
    find_mistakes(run)
    run.claim()
    setup, folder = run.setup, run.folder
    if not folder.trace.exists() or setup.proof:  # an earlier process's decisions are replayed
        write_json(folder.trace, _described(run))
    if not folder.ranking.exists():  # which may take minutes
        ranking.save(folder.ranking, setup.scores, **ranking.provenance(setup, run.config.ranking))
    return _described(run)


def _described(run: Run) -> dict[str, Any]:
    """What ``trace.json`` holds."""
    supernet, budget = run.setup.traced, run.setup.budget
    full = supernet.full_config()
    return {
        "graph": str(supernet.graph),
        "decisions": supernet.decisions.to_json(),
        "verified": run.setup.proof,
        "macs_full": {c: supernet.macs(full, convention=c) for c in ("true", "published")},
        "budget_macs": budget.macs,
        "convention": budget.convention,
        "space": budget.space.count,
    }
