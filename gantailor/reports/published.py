"""Figures of the papers, beside a search's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gantailor.supernet.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

PAPERS_FID = "fid[inception-2015-12-05]"
POINTS = Path(__file__).with_name("published_points.csv")


def published_points(task: str, score: str, convention: str) -> pd.DataFrame:
    """Figures of the papers, MACs as published.

    Each has what its own teacher scored there (empty where the paper's table does not say), how the cost is stated, and
    its source.

    Raises:
        ConfigError: no such task, or the plot shows something that the papers do not.
    """
    import pandas as pd

    every = pd.read_csv(POINTS)
    if task not in set(every["task"]):
        raise ConfigError(f"no published points for {task!r}; there are {', '.join(sorted(set(every['task'])))}")
    found = every[(every["task"] == task) & (every["metric"] == score.partition("[")[0])]
    if found.empty:
        measured = ", ".join(sorted(set(every[every["task"] == task]["metric"])))
        raise ConfigError(f"papers report {measured} for {task}, this search followed {score!r}: they share no axis")
    if found["metric"].iloc[0] == "fid" and score != PAPERS_FID:
        raise ConfigError(f"the papers' FID is {PAPERS_FID}, this search followed {score!r}: they share no axis")
    if convention != "published":
        raise ConfigError("the papers count MACs in the published convention; add --convention published")
    return found


def draw_published(axes: Axes, points: pd.DataFrame) -> None:
    """A star for each, with its method's name."""
    label = "published (their protocol)"
    axes.scatter(points["macs"], points["value"], marker="*", s=90, color="#444444", label=label, zorder=4)
    for _, row in points.iterrows():
        place = (row["macs"], row["value"])
        axes.annotate(_name(row), place, fontsize=7, xytext=(4, 4), textcoords="offset points")


def _name(row: pd.Series) -> str:
    """A point's method; with its teacher's score, for papers do not have the same one."""
    own = row["teacher"] == row["teacher"] and row["method"] != "original"
    return f"{row['method']} (teacher {row['teacher']:g})" if own else str(row["method"])
