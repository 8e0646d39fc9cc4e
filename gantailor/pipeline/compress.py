"""The main job, stage by stage: a file here for each. A stage is a function of the run and writes its files there.

A stage whose file exists is done; delete the file to do it again. Training and search continue from where they were.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gantailor
from gantailor.pipeline.check import check
from gantailor.pipeline.estimates import about
from gantailor.pipeline.evaluate import evaluate
from gantailor.pipeline.export import export
from gantailor.pipeline.report import report
from gantailor.pipeline.search.stage import search
from gantailor.pipeline.training.finetune import finetune
from gantailor.pipeline.training.train import train
from gantailor.run.run import Run
from gantailor.supernet.errors import told
from gantailor.supernet.training import distributed


@dataclass(frozen=True)
class Stage:
    """One step of the job.

    Attributes:
        run: what it does.
        shared: whether all processes under ``torchrun`` work on it; else the first one alone.
    """

    run: Callable[[Run], Any]
    shared: bool = False


STAGES: dict[str, Stage] = {
    "check": Stage(check),
    "train": Stage(train, shared=True),
    "search": Stage(search),
    "finetune": Stage(finetune, shared=True),
    "evaluate": Stage(evaluate),
    "export": Stage(export),
    "report": Stage(report),
}


def compress(run: Run, *, until: str = "report") -> None:
    """All stages in order, up to and including one; what is already done is not done again."""
    run.until = until
    run.report.record(f"gantailor {gantailor.__version__}, process {os.getpid()}, to stage {until}")
    try:
        for name, stage in STAGES.items():
            if distributed.rank() == 0:
                run.report.stage(name, _place(run, name))
            if distributed.rank() == 0 or stage.shared:
                stage.run(run)
            distributed.wait()
            if name == until:
                break
        run.report.record("done")
    except BaseException as error:
        run.report.record(f"ended: {told(error) if isinstance(error, Exception) else type(error).__name__}")
        raise
    finally:
        run.release()


def _place(run: Run, name: str) -> str:
    """Which stage of how many it is, and what is left of them all; nothing of the first, which finds that out."""
    names = list(STAGES)[: list(STAGES).index(run.until) + 1]
    number = names.index(name)
    if not number:
        return ""
    left = sum(seconds for stage, seconds in run.expected.items() if stage in names[number:])
    said = f", {about(left)} left in all" if left else ""
    return f"({number + 1} of {len(names)}){said}"
