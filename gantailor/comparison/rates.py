"""Learning rates tried alike: a short run of every arm at every rate, judged on the search split alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from gantailor.comparison.results import result_of
from gantailor.comparison.runs import Comparison, Entry, place
from gantailor.evaluators.metric import metric_of
from gantailor.pipeline.compress import compress
from gantailor.reports.tables import csv_bytes
from gantailor.run.defaults import merged
from gantailor.run.folder import RunFolder
from gantailor.run.run import Run
from gantailor.supernet.errors import ConfigError
from gantailor.supernet.files import write_bytes, write_json
from gantailor.supernet.subnets.copying import copied

SCORED = "rate.json"


@dataclass(frozen=True)
class Trial(Entry):
    """A short run at one rate; done when it has its score on the search split, never looked at on the test split."""

    lr: float = 0.0

    @property
    def done(self) -> bool:
        """Whether it has that score."""
        return (self.folder / SCORED).exists()

    def complete(self, run: Run) -> None:
        """Train and score it."""
        compress(run, until="finetune")
        metric = run.setup.search_metric
        scores = run.setup.scoring.evaluator([metric])(copied(result_of(run)), run.sample)
        write_json(self.folder / SCORED, {"metric": metric, "score": next(iter(scores.values())).value})


def trials(comparison: Comparison, folder: Path) -> list[Trial]:
    """Every arm that names no rate of its own, at every rate, with the first budget and seed."""
    if comparison.rates is None:
        return []
    short = comparison.model_copy(update={"kimg": comparison.rates.kimg})
    budget, seed, found = comparison.budgets[0], comparison.seeds[0], list[Trial]()
    for lr in comparison.rates.lr:
        for name, own in _unnamed(comparison).items():
            config = short.config_of(name, _at(own, lr), budget, seed)
            here = folder / "rates" / f"{place(name, budget, seed)}-{lr:g}"
            found.append(Trial(name, budget, seed, config, here, lr))
    return found


def _unnamed(comparison: Comparison) -> dict[str, dict[str, Any]]:
    """The arms that have no rate of their own."""
    return {
        name: own
        for name, own in comparison.methods.items()
        if not any("lr" in (own.get(part) or {}) for part in ("train", "finetune"))
    }


def _at(own: Mapping[str, Any], lr: float) -> dict[str, Any]:
    return merged({"train": {"lr": lr}, "finetune": {"lr": lr}}, own)


def chosen(comparison: Comparison, tried: Sequence[Trial], folder: Path) -> tuple[Comparison, list[str]]:
    """The comparison with each arm at its best rate, and what to say of it; writes ``rates.csv``.

    Raises:
        ConfigError: a trial has no score.
    """
    if comparison.rates is None or not tried:
        return comparison, []
    missing = [trial.folder.name for trial in tried if not trial.done]
    if missing:
        raise ConfigError(f"no rate can be chosen: {', '.join(missing)} has no score; the same command tries again")
    rows = []
    for trial in tried:
        found = RunFolder(trial.folder).stored(trial.folder / SCORED)
        rows.append({"method": trial.method, "lr": trial.lr, "kimg": comparison.rates.kimg, **found})
    frame = pd.DataFrame(rows)
    sign = 1 if metric_of(str(frame["metric"].iloc[0])).lower_is_better else -1
    best = {
        name: float(part.loc[(sign * part["score"]).idxmin(), "lr"])
        for name, part in frame.groupby("method", sort=False)
    }
    frame["chosen"] = [best[row.method] == row.lr for row in frame.itertuples()]
    write_bytes(folder / "rates.csv", csv_bytes(frame))
    edges = [name for name, lr in best.items() if lr in (min(frame["lr"]), max(frame["lr"]))]
    said = [
        f"rates, by {frame['metric'].iloc[0]} on the search split: {', '.join(f'{n} {lr:g}' for n, lr in best.items())}"
    ]
    if edges:
        said.append(f"{', '.join(edges)} took an outermost rate: a wider list may find a better one")
    methods = {name: _at(own, best[name]) if name in best else own for name, own in comparison.methods.items()}
    return comparison.model_copy(update={"methods": methods}), said
