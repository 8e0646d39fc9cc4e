"""Accuracy against compute: what one or several searches found, as a picture and as a page."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np

from gantailor.reports.evaluated import Evaluated
from gantailor.reports.figures import COLOURS, MARKERS, label_costs, plain, svg, svgs
from gantailor.reports.pages import with_policy
from gantailor.reports.published import draw_published
from gantailor.reports.scores import differences_of
from gantailor.reports.search_result import SearchResult
from gantailor.search.limits import format_macs
from gantailor.search.pareto import hypervolume
from gantailor.supernet.errors import ConfigError
from gantailor.supernet.files import write_bytes

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw(
    runs: Sequence[SearchResult],
    *,
    convention: str | None = None,
    log: bool = True,
    published: pd.DataFrame | None = None,
) -> Figure:
    """Score against MACs of every run; below, the widths of the chosen subnets and the hypervolume's history.

    Raises:
        ConfigError: the runs follow different scores.
    """
    from matplotlib.figure import Figure

    front, *below = _parts(runs, convention=convention, log=log, published=published)
    figure = Figure(figsize=(8, 7), layout="constrained")
    _say_unlike(figure, runs)
    grid = figure.add_gridspec(2, len(below), height_ratios=(2.6, 1))
    front(figure.add_subplot(grid[0, :]))
    for place, part in enumerate(below):
        part(figure.add_subplot(grid[1, place]))
    return figure


def draw_parts(
    runs: Sequence[SearchResult],
    *,
    convention: str | None = None,
    log: bool = True,
    published: pd.DataFrame | None = None,
    mark: str = "",
) -> list[Figure]:
    """The plots of ``draw`` one by one, small enough for a phone: front, widths and, of a search, its history.

    Args:
        mark: begins the SVG ids of what a page makes interactive.

    Raises:
        ConfigError: the runs follow different scores.
    """
    from matplotlib.figure import Figure

    figures = []
    for number, part in enumerate(_parts(runs, convention=convention, log=log, published=published, mark=mark)):
        figures.append(Figure(figsize=(4.2, 2.4) if number else (5.6, 4.2), layout="constrained"))
        part(figures[-1].add_subplot())
    _say_unlike(figures[0], runs, columns=80)
    return figures


def _parts(
    runs: Sequence[SearchResult],
    *,
    convention: str | None,
    log: bool,
    published: pd.DataFrame | None,
    mark: str = "",
) -> list[Callable[[Axes], None]]:
    """What draws each plot: score against MACs of every run, widths of the chosen subnets, the history."""
    convention = convention or runs[0].run.config.convention
    if len({found.score for found in runs}) > 1:
        raise ConfigError(
            "these runs follow different scores and share no axis: "
            + ", ".join(f"{found.name} {found.score}" for found in runs)
        )
    parts: list[Callable[[Axes], None]] = [
        partial(_draw_front, runs=runs, convention=convention, log=log, published=published, mark=mark),
        partial(_draw_widths, runs=runs),
    ]
    searched = max(len(found.frame) for found in runs) > 1  # else there is no history
    return [*parts, partial(_draw_history, runs=runs, convention=convention)] if searched else parts


def _draw_front(
    axes: Axes,
    *,
    runs: Sequence[SearchResult],
    convention: str,
    log: bool,
    published: pd.DataFrame | None,
    mark: str,
) -> None:
    for number, found in enumerate(runs):
        _draw_points(axes, found, number, convention, mark)
    if published is not None:
        draw_published(axes, published)
    label_axes(axes, runs[0], convention, log=log)


def unlike_runs(runs: Sequence[SearchResult]) -> list[str]:
    """A line for each run whose figures do not compare with the first one's: other data, scores or widths."""
    return differences_of({found.name if found is runs[0] else str(found.run.folder): found.told() for found in runs})


def _say_unlike(figure: Figure, runs: Sequence[SearchResult], *, columns: int = 120) -> None:
    if unlike := unlike_runs(runs):
        figure.suptitle("\n".join(textwrap.fill(plain(line), columns) for line in unlike), fontsize=7, color="#b00020")


def _draw_points(axes: Axes, found: SearchResult, number: int, convention: str, mark: str) -> None:
    name, colour, points = f"{mark}run{number}", COLOURS[number % len(COLOURS)], found.points(convention)
    _draw_path(axes, found, colour, convention, f"{name}-path")
    draw_evaluated(axes, found, convention, number=number, name=name)
    chosen = points[found.chosen]
    axes.plot(
        chosen[:1],
        chosen[1:],
        "*",
        ms=15,
        mfc=colour,
        mec="black",
        zorder=5,
        label=f"{plain(found.name)}: chosen for {found.budget}",
        gid=f"{name}-chosen",
    )
    if found.budget.limits_macs and convention == found.budget.convention:
        axes.axvline(found.budget.macs, color=colour, ls="--", lw=1, gid=f"{name}-budget")


def draw_evaluated(axes: Axes, found: Evaluated, convention: str, *, number: int, name: str) -> None:
    """The subnets of a search, its front, and what its uniform and random start found alone.

    Args:
        number: of the run on the plot, for colour and marker.
        name: begins the SVG ids.
    """
    colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
    points, best = found.points(convention), found.front(convention)
    start = (found.frame["origin"] == "start").to_numpy()
    fill = ["white" if first else colour for first in start]
    axes.scatter(
        points[:, 0], points[:, 1], s=22, facecolors=fill, edgecolors=colour, marker=marker, alpha=0.65, gid=name
    )
    label = f"{plain(found.name)} ({len(points)} subnet{'' if len(points) == 1 else 's'})"
    axes.scatter([], [], s=22, c=colour, marker=marker, label=label)
    axes.plot(*points[best].T, color=colour, lw=1.6, gid=f"{name}-front", zorder=3)
    if start.sum() > 1:  # the baseline: the uniform shrink and random candidates
        sign = 1 if found.lower_is_better else -1
        order = np.flatnonzero(start)[np.argsort(points[start][:, 0])]
        steps = sign * np.minimum.accumulate(sign * points[order][:, 1])
        label = f"{plain(found.name)}: random only ({start.sum()} subnets)"
        axes.step(
            points[order][:, 0], steps, where="post", color=colour, ls=":", lw=1.2, label=label, gid=f"{name}-random"
        )


def draw_growing(found: Evaluated, convention: str, budget: float | None) -> Figure:
    """Score against MACs of a search that goes on, small enough for a phone.

    Args:
        budget: MACs that it keeps to, if that is known.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 3.8), layout="constrained")
    axes = figure.add_subplot()
    draw_evaluated(axes, found, convention, number=0, name="growing")
    if budget is not None:
        axes.axvline(budget, color=COLOURS[0], ls="--", lw=1, label=f"budget {format_macs(budget)}")
    label_axes(axes, found, convention)
    axes.tick_params(labelsize=7)
    if any(len(label.get_text()) > 7 for label in axes.get_xticklabels()):  # numbers in full, of a narrow range
        axes.tick_params(axis="x", rotation=25)
    return figure


def label_axes(axes: Axes, found: Evaluated, convention: str, *, log: bool = True) -> None:
    """What is on the axes of accuracy against compute."""
    label_costs(axes, log=log)
    axes.set_xlabel(f"MACs ({convention})")
    axes.set_ylabel(f"{plain(found.score)} ({'lower' if found.lower_is_better else 'higher'} is better)")
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, framealpha=0.8, edgecolor="none")  # the lines go on behind it


def _draw_path(axes: Axes, found: SearchResult, colour: str, convention: str, mark: str) -> None:
    """Inherited scores of nets along the run's path, where it has one."""
    curve = found.along_path()
    if curve is not None:
        macs, scores = curve[f"macs_{convention}"], curve[found.score]
        label = f"{plain(found.name)}: along its path, inherited"
        axes.plot(macs, scores, "-", marker=".", color=colour, alpha=0.45, lw=1.2, ms=4, label=label, gid=mark)


def _draw_widths(axes: Axes, runs: Sequence[SearchResult]) -> None:
    height = 0.8 / len(runs)
    shown = [found for found in runs if found.told()["widths"] == runs[0].told()["widths"]]  # one axis of names
    for number, found in enumerate(shown):
        widths = found.run.setup.traced.graph.widths
        shares = [found.config[width.name] / width.size for width in widths]
        places = np.arange(len(widths)) + height * (number - (len(runs) - 1) / 2)
        axes.bar(places, shares, width=height, color=COLOURS[number % len(COLOURS)])
    names = [width.name for width in runs[0].run.setup.traced.graph.widths]
    axes.set_xticks(range(len(names)), names if len(names) <= 30 else [""] * len(names), rotation=90, fontsize=6)
    axes.set_ylim(0, 1.02)
    axes.set_ylabel("share of full width", fontsize=8)
    axes.set_title("widths of the chosen subnet", fontsize=9)
    axes.tick_params(axis="y", labelsize=7)


def _draw_history(axes: Axes, runs: Sequence[SearchResult], convention: str) -> None:
    for number, history in enumerate(hypervolumes(runs, convention)):
        axes.plot(range(1, len(history) + 1), history, color=COLOURS[number % len(COLOURS)], lw=1.5)
    axes.set_title("hypervolume, share of the box of all points", fontsize=9)
    axes.set_xlabel("evaluated subnets", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.25)


def hypervolumes(runs: Sequence[SearchResult], convention: str) -> list[np.ndarray]:
    """For each run, after each evaluation: the dominated share of the box that holds the points of all runs, 0 to 1."""
    signed = [found.points(convention) * [1, 1 if found.lower_is_better else -1] for found in runs]
    every = np.concatenate(signed)
    low, spread = every.min(0), np.maximum(np.ptp(every, axis=0), 1e-12)
    boxes = [(values - low) / spread for values in signed]
    return [np.array([hypervolume(box[: i + 1], (1, 1)) for i in range(len(box))]) for box in boxes]


def write_page(
    path: Path,
    runs: Sequence[SearchResult],
    *,
    convention: str | None = None,
    published: pd.DataFrame | None = None,
    pictures: int = 60,
) -> None:
    """One self-contained HTML file; pointing at a subnet shows its widths, costs and sample pictures.

    Args:
        pictures: subnets of each run that get sample pictures, those of the front first.
    """
    convention = convention or runs[0].run.config.convention
    plots = {}
    for name in ("log", "linear"):
        front, *below = draw_parts(runs, convention=convention, log=name == "log", published=published, mark=f"{name}-")
        plots[name] = svg(front, salt=name)
    data: list[dict[str, Any]] = []
    for found in runs:
        first = dict.fromkeys([found.chosen, *found.front(convention).tolist(), *found.frame.index.tolist()])
        strips = found.pictures(list(first)[:pictures])
        names = [v.name for v in found.budget.space.variables]
        sizes = {width.name: width.size for width in found.run.setup.traced.graph.widths}
        full = {v.name: sizes.get(v.name, v.choices[-1]) for v in found.budget.space.variables}
        columns = ["trial", "origin", "macs_true", "macs_published", "params", found.score, *names]
        data.append(
            {
                "name": found.name,
                "score": found.score,
                "chosen": found.chosen,
                "front": found.front(convention).tolist(),
                "full": full,
                "points": json.loads(found.frame[columns].to_json(orient="records")),
                "pictures": strips,
            }
        )
    environment = jinja2.Environment(loader=jinja2.PackageLoader("gantailor.reports", ""), autoescape=True)
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False}  # widths stay in forward order
    page = environment.get_template("front.html").render(
        plots=plots,
        below=svgs(below, salt="below"),
        data=data,
        colours=COLOURS,
        convention=convention,
        short=format_macs,
    )
    write_bytes(path, with_policy(page))
