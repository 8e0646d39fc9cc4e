"""What trainings log, over the pictures that they saw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gantailor.reports import figures

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

NO_CURVE = ("step", "kimg", "images_per_second")
WINDOW = 50  # of the rows one so many'th part is averaged over


def draw_curves(
    logs: Mapping[str, Sequence[Mapping[str, Any]]],
    *,
    salt: str,
    over: tuple[str, str] = ("kimg", "thousand images"),
    smooth: bool = True,
) -> str:
    """Numbers of every log, an SVG for each, so that they stand below each other on a phone; empty without any.

    Args:
        logs: rows by the name of a training; what is no number in them is left out.
        salt: keeps the ids of several drawings on a page apart.
        over: the column of the horizontal axis, and what it is.
        smooth: average over a fiftieth of the rows.
    """
    import pandas as pd

    frames = {name: pd.DataFrame(rows).apply(pd.to_numeric, errors="coerce") for name, rows in logs.items() if rows}
    frames = {name: frame.dropna(axis="columns", how="all") for name, frame in frames.items()}
    frames = {name: frame for name, frame in frames.items() if over[0] in frame}
    return "".join(figures.svgs([_drawn(name, frame, over, smooth) for name, frame in frames.items()], salt=salt))


def _drawn(name: str, frame: pd.DataFrame, over: tuple[str, str], smooth: bool) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2, 3), layout="constrained")
    axes = figure.add_subplot()
    window = max(1, len(frame) // WINDOW) if smooth else 1
    shown = frame.rolling(window, min_periods=1).mean(numeric_only=True)
    style = ".-" if len(frame) < 9 else "-"  # one point alone is no line
    columns = [column for column in frame if column not in NO_CURVE]
    for column, colour in zip(columns, figures.COLOURS, strict=False):
        axes.plot(frame[over[0]], shown[column], style, label=figures.plain(str(column)), color=colour, lw=1.2)
    axes.set_title(figures.plain(name), fontsize=9)
    axes.set_xlabel(over[1], fontsize=8)
    axes.tick_params(labelsize=7)
    if columns:
        axes.legend(frameon=False, fontsize=7)
    return figure
