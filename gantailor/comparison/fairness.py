"""What keeps a comparison honest: arms against no generator at all, paired intervals, equal costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

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


def interval(differences: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """Mean and half of the 95% interval of paired differences over seeds, by Student's t; of one seed half is NaN.

    The pictures are the same for all arms and seeds, so their choice is not in it.
    """
    values = np.asarray(differences, dtype=float)
    if len(values) < 2:
        return float(values.mean()), float("nan")
    from scipy import stats

    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean()), float(half)


def shown_interval(differences: Sequence[float] | np.ndarray) -> str:
    """It as a cell: bold where it leaves out 0."""
    mean, half = interval(differences)
    if np.isnan(half):
        return f"{mean:+.1f}"
    return f"**{mean:+.1f} ± {half:.1f}**" if abs(mean) > half else f"{mean:+.1f} ± {half:.1f}"


def paired(
    part: pd.DataFrame, base: str, metrics: Sequence[str], *, by: str = "method"
) -> Iterator[tuple[str, pd.DataFrame]]:
    """Every other arm with its change in percent of the base, a row for each seed that both have; none without any.

    Args:
        part: rows of one budget: ``by``, ``seed`` and the metrics.
    """
    columns = list(metrics)
    known = part[part[by] == base].set_index("seed")[columns]
    for arm, rows in part.groupby(by, sort=False):
        other = rows.set_index("seed")[columns]
        seeds = known.index.intersection(other.index)
        if arm != base and len(seeds):
            yield str(arm), 100 * (other.loc[seeds] / known.loc[seeds] - 1)


def changes(frame: pd.DataFrame, metrics: Sequence[str]) -> list[str]:
    """A table in Markdown: each arm beside the first one, in percent of it, paired by seed.

    Args:
        frame: a row for each run: ``method``, ``budget``, ``seed`` and the scores.

    Returns:
        Its lines; none where there is one arm, or no two have a seed in common.
    """
    base, lines = str(frame["method"].iloc[0]), []
    for budget, part in frame.groupby("budget", sort=False):
        for arm, percent in paired(part, base, metrics):
            cells = " | ".join(shown_interval(percent[name].to_numpy()) for name in metrics)
            lines.append(f"| {arm} | {budget} | {cells} | {len(percent)} |")
    if not lines:
        return []
    heads = " | ".join(f"{name}, %" for name in metrics)
    return [f"| beside {base} | budget | {heads} | seeds |", "|---" * (len(metrics) + 3) + "|", *lines]


CHANGES_SAID = (
    "Changes in percent, paired by seed, with their 95% interval (Student's t over seeds); bold where 0 is outside."
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
