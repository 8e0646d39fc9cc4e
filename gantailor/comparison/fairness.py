"""What keeps a comparison honest: arms against no generator at all, paired intervals, equal costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from gantailor.evaluators.halves import shown_interval
from gantailor.evaluators.metric import metric_of
from gantailor.search.limits import format_macs

ALIKE = 0.005  # share of the MACs by which arms of one budget may differ
WORSE = "†"  # beside a score that is worse than the untouched input's
WORSE_SAID = f"{WORSE} worse than the untouched input, that is, than no generator at all."


def worse_than_nothing(metric: str, value: float, untrained: Mapping[str, Mapping[str, float]]) -> bool:
    """Whether a score is worse than that of the input as it is (of several, enlarged in several ways, the best)."""
    plain = [scores[metric] for name, scores in untrained.items() if name.startswith("input") and metric in scores]
    if not plain or np.isnan(value):
        return False
    return value > min(plain) if metric_of(metric).lower_is_better else value < max(plain)


# Scores on halves of the pictures, by method, budget, seed and metric; the teacher's are those of ``TEACHER``.
Halves = Mapping[tuple[str, str, int, str], np.ndarray]
TEACHER = ("teacher", "every", -1)


@dataclass(frozen=True, eq=False)
class Change:
    """An arm beside another one.

    Attributes:
        percent: of the other's score, a row for each seed that both have, a column for each metric.
        halves: the same on halves of the pictures, ``[seeds, halves]``, of metrics that have them.
    """

    arm: str
    percent: pd.DataFrame
    halves: Mapping[str, np.ndarray] = field(default_factory=dict)

    def cell(self, metric: str) -> str:
        """Its mean with the interval."""
        return shown_interval(self.percent[metric].to_numpy(), self.halves.get(metric))


def paired(
    part: pd.DataFrame, base: str, metrics: Sequence[str], *, by: str = "method", halves: Halves | None = None
) -> Iterator[Change]:
    """Every other arm with its change in percent of the base, a row for each seed that both have; none without any.

    Args:
        part: rows of one budget: ``by``, ``seed`` and the metrics.
    """
    columns, budget = list(metrics), str(part["budget"].iloc[0]) if "budget" in part else ""
    known = part[part[by] == base].set_index("seed")[columns]
    for arm, rows in part.groupby(by, sort=False):
        other = rows.set_index("seed")[columns]
        seeds = known.index.intersection(other.index)
        if arm == base or not len(seeds):
            continue
        found = dict[str, np.ndarray]()
        for name in columns:
            ours, theirs = (_halves(halves or {}, one, budget, seeds, name) for one in (str(arm), base))
            if ours is not None and theirs is not None and ours.shape == theirs.shape:
                found[name] = 100 * (ours - theirs) / known.loc[seeds, name].to_numpy()[:, None]
        yield Change(str(arm), 100 * (other.loc[seeds] / known.loc[seeds] - 1), found)


def _halves(halves: Halves, arm: str, budget: str, seeds: pd.Index, metric: str) -> np.ndarray | None:
    """``[seeds, halves]``, or None where one is missing."""
    keys = [TEACHER if arm == TEACHER[0] else (arm, budget, int(seed)) for seed in seeds]
    rows = [halves[(*key, metric)] for key in keys if (*key, metric) in halves]
    return np.array(rows) if len(rows) == len(keys) and len(set(map(len, rows))) == 1 else None


def with_teacher(frame: pd.DataFrame, scores: Mapping[str, float]) -> pd.DataFrame:
    """Rows of runs behind the teacher's, which are the same at every budget and for every seed."""
    places = frame[["budget", "seed"]].drop_duplicates()
    named = {name: scores.get(name, float("nan")) for name in frame.columns if name not in ("method", "budget", "seed")}
    return pd.concat([places.assign(method=TEACHER[0], **named), frame], ignore_index=True)


def changes(frame: pd.DataFrame, metrics: Sequence[str], halves: Halves | None = None) -> list[str]:
    """A table in Markdown: each arm beside the first one, in percent of it, paired by seed.

    Args:
        frame: a row for each run: ``method``, ``budget``, ``seed`` and the scores.

    Returns:
        Its lines; none where there is one arm, or no two have a seed in common.
    """
    base, lines = str(frame["method"].iloc[0]), []
    for budget, part in frame.groupby("budget", sort=False):
        for change in paired(part, base, metrics, halves=halves):
            cells = " | ".join(change.cell(name) for name in metrics)
            lines.append(f"| {change.arm} | {budget} | {cells} | {len(change.percent)} |")
    if not lines:
        return []
    heads = " | ".join(f"{name}, %" for name in metrics)
    return [f"| beside {base} | budget | {heads} | seeds |", "|---" * (len(metrics) + 3) + "|", *lines]


CHANGES_SAID = (
    "Changes in percent, paired by seed and picture, with their 95% interval over seeds and pictures (Student's t over "
    "seeds, random halves of the pictures; of one seed over pictures alone); bold where 0 is outside."
)


def unequal_costs(wide: pd.DataFrame) -> list[str]:
    """A line for each budget whose arms differ in MACs by more than half a percent."""
    said = []
    for budget, macs in wide["macs", "mean"].groupby(level="budget", sort=False):
        least, most = macs.min(), macs.max()
        if least and most / least - 1 > ALIKE:
            names = (str(macs.idxmin()[0]), str(macs.idxmax()[0]))
            said.append(
                f"at {budget} the arms' MACs differ by {most / least - 1:.1%}: {names[0]} has {format_macs(least)}, "
                f"{names[1]} {format_macs(most)}; the narrower one is at a disadvantage"
            )
    return said
