"""Stage "search": which widths the subnet has, searched, or as the method's own training chose them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from gantailor.pipeline.search.study import evaluate_all, make_search, storage_of
from gantailor.reports.tables import csv_bytes
from gantailor.run.folder import write_config
from gantailor.run.run import Run
from gantailor.search.results import best_config, table
from gantailor.search.storage import reaching
from gantailor.search.study import Search
from gantailor.supernet.errors import RunError
from gantailor.supernet.files import write_bytes
from gantailor.supernet.graph import SubnetConfig


def search(run: Run) -> SubnetConfig:
    """Choose the subnet within the budget; writes ``subnet.json`` and ``front.csv``.

    A study that has enough trials for the budget is not searched again; more ``trials`` add to it. A study of a whole
    front answers every later budget. What a method chose itself is the study's only subnet.
    """
    folder = run.folder
    with reaching(storage_of(run)):
        searcher = make_search(run)
        if folder.selected.exists():
            _take_selected(run, searcher)
        else:
            with run.report.counting("search", run.config.search.trials) as listener:
                evaluate_all(run, searcher, listener)
        found = table(searcher.study, searcher.budget.space, provenance=searcher.provenance)
        best = best_config(searcher.study, searcher.budget, provenance=searcher.provenance)
    write_bytes(folder.front, csv_bytes(found))
    _set_aside(run, best)
    write_config(folder.subnet_config, best)
    return best


def _take_selected(run: Run, searcher: Search) -> None:
    """Score what the method kept, and note it in the study.

    Raises:
        RunError: its widths are not of the run's space.
    """
    config = SubnetConfig.from_json(run.folder.selected.read_text())
    try:
        indices = [v.choices.index(v.choice_of(config)) for v in searcher.budget.space.variables]
    except (KeyError, ValueError):
        raise RunError(
            f"method {run.config.method!r} chose widths that space {run.config.space.name!r} does not have; set "
            "space: every"
        ) from None
    searcher.take(np.array(indices), run.config.method)


def _set_aside(run: Run, best: SubnetConfig) -> None:
    """Where a longer search found another subnet, what was made of the earlier one moves into ``earlier/``."""
    folder = run.folder
    file = folder.subnet_config
    if not file.exists() or SubnetConfig.from_json(file.read_text()) == best:
        return
    earlier = folder.file("earlier") / hashlib.sha256(file.read_bytes()).hexdigest()[:8]
    earlier.mkdir(parents=True, exist_ok=True)
    made = [*folder.path.glob("subnet[._]*"), *folder.path.glob("finetune.*"), folder.export]
    for found in filter(Path.exists, made):
        found.rename(earlier / found.name)
    run.report.note(f"another subnet was found; what was made of the earlier one lies in {earlier} now")
