"""Inherited scores along a path: what the net of each budget is worth before any fine-tuning."""

from __future__ import annotations

import numpy as np

from gantailor.reports.tables import csv_bytes, words_of
from gantailor.run.run import Run
from gantailor.run.setup import wanted_space
from gantailor.search.spaces.path import points
from gantailor.search.study import Search
from gantailor.supernet.files import write_bytes

SCORED = 8  # nets from the path's end to the whole one


def score_path(run: Run, searcher: Search) -> None:
    """Write ``path.csv``: MACs, parameters and the search's score of nets along the run's path, if it has one.

    What is there already under the same provenance (weights, data, score) is left.
    """
    import pandas as pd  # slow to import, and mistakes are told before

    file, path = run.folder.path_scores, run.setup.path
    if path is None or run.config.search.front:
        return
    if file.exists() and set(words_of(pd.read_csv(file), "provenance")) == {searcher.provenance}:
        return
    supernet = run.setup.traced
    along = points(path, supernet, wanted_space(run.config))
    chosen = np.unique(np.linspace(0, along.count - 1, SCORED).round().astype(int))
    name, rows = searcher.objectives[0].name, []
    listener = run.report.pictures("scores along the path", "nets")
    for number, index in enumerate(chosen.tolist(), 1):
        config = along.to_config([index])
        macs = {f"macs_{c}": supernet.macs(config, convention=c) for c in ("true", "published", "published_convs")}
        scores = searcher.score(config)
        rows.append({**macs, "params": supernet.parameter_count(config), name: scores[name]})
        listener(number, len(chosen))
    frame = pd.DataFrame(rows).assign(provenance=searcher.provenance)
    write_bytes(file, csv_bytes(frame))
