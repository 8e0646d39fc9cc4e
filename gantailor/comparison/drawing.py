"""What a comparison shows: a table, plots, and one page with everything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import jinja2
import numpy as np
import pandas as pd

from gantailor.comparison.fairness import WORSE, WORSE_SAID, worse_than_nothing
from gantailor.evaluators.metric import metric_of
from gantailor.reports import figures
from gantailor.search.limits import format_macs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COSTS = ("macs", "kimg", "seconds", "seeds")


def metrics_of(wide: pd.DataFrame) -> list[str]:
    """The scores among its columns."""
    return [name for name in dict.fromkeys(wide.columns.get_level_values(0)) if name not in COSTS]


def markdown(wide: pd.DataFrame, untrained: Mapping[str, Mapping[str, float]], missing: Sequence[str] = ()) -> str:
    """The table: a line for each method and budget, mean and standard deviation over seeds.

    Above them what nothing is trained for, the teacher and the input, with scores and MACs of their own.

    Args:
        missing: runs that are not in it, which is said below.
    """
    metrics = metrics_of(wide)
    lines = [
        "| method | budget | MACs | " + " | ".join(metrics) + " | kimg | training | seeds |",
        "|---" * (len(metrics) + 6) + "|",
    ]
    for name, scores in untrained.items():
        cells = " | ".join(f"{scores[metric]:.4g}" if metric in scores else "" for metric in metrics)
        lines.append(f"| {name} | | {format_macs(scores['macs'])} | {cells} | | | |")
    for (method, budget), row in wide.iterrows():
        marked = [worse_than_nothing(name, row[name, "mean"], untrained) for name in metrics]
        shown = [_with_spread(row[name, "mean"], row[name, "std"]) for name in metrics]
        cells = " | ".join(f"{cell} {WORSE}" if mark else cell for cell, mark in zip(shown, marked, strict=True))
        costs = f"{row['kimg', 'mean']:.4g} | {row['seconds', 'mean'] / 60:.1f} min | {int(row['seeds', ''])}"
        lines.append(f"| {method} | {budget} | {format_macs(row['macs', 'mean'])} | {cells} | {costs} |")
    if any(WORSE in line for line in lines):
        lines += ["", WORSE_SAID]
    if missing:
        lines += ["", said_missing(missing)]
    return "\n".join(lines) + "\n"


def said_missing(missing: Sequence[str]) -> str:
    """That a table is not of all runs."""
    return f"Without {', '.join(missing)}: no scores yet."


def _with_spread(mean: float, std: float) -> str:
    return f"{mean:.4g}" if np.isnan(std) else f"{mean:.4g} ± {std:{'.0f' if std >= 100 else '.2g'}}"


def draw(wide: pd.DataFrame, untrained: Mapping[str, Mapping[str, float]]) -> Figure:
    """Each score against MACs, a line for each method, and against training time: mean, and the spread over seeds."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    metrics = metrics_of(wide)
    figure = Figure(figsize=(4.2 * len(metrics), 7.2), layout="constrained")
    grid = figure.subplots(2, len(metrics), squeeze=False, sharey="col")
    for column, metric in enumerate(metrics):
        for axis, cost, scale in ((grid[0, column], "macs", 1.0), (grid[1, column], "seconds", 60.0)):
            for number, (method, rows) in enumerate(wide.groupby(level="method", sort=False)):
                part = rows.sort_values(("macs", "mean"))
                axis.errorbar(
                    part[cost, "mean"] / scale,
                    part[metric, "mean"],
                    yerr=part[metric, "std"].fillna(0),
                    label=figures.plain(str(method)),
                    color=figures.COLOURS[number % len(figures.COLOURS)],
                    marker=figures.MARKERS[number % len(figures.MARKERS)],
                    linestyle="-" if cost == "macs" else "none",
                    capsize=3,
                )
                for (_, budget), row in part.iterrows() if cost == "seconds" else ():
                    at = (row[cost, "mean"] / scale, row[metric, "mean"])
                    axis.annotate(str(budget), at, xytext=(4, 4), textcoords="offset points", fontsize=7)
            axis.grid(alpha=0.3)
            axis.set_ylabel(f"{metric} ({metric_of(metric).direction} is better)")
        for name, scores in untrained.items():
            if metric in scores:
                style = ":" if name == "teacher" else "--"
                grid[0, column].axhline(scores[metric], color="0.4", linestyle=style, label=name)
        grid[0, column].set_xscale("log")
        grid[0, column].set_xlabel("MACs")
        budgets = wide["macs", "mean"].groupby(level="budget", sort=False).max()
        grid[0, column].set_xticks(budgets, [format_macs(macs) for macs in budgets])
        grid[0, column].xaxis.set_minor_formatter(NullFormatter())
        grid[1, column].set_xlabel("minutes of training")
    _legend(figure, columns=4 * len(metrics))
    return figure


def _legend(figure: Figure, *, columns: int) -> None:
    """One for all axes, above them."""
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=min(columns, len(names)), fontsize=9)


def draw_histories(frame: pd.DataFrame, score: str, order: Sequence[str]) -> Figure:
    """How steadily each method's score moves while it decides: a thin line for each seed, the mean a thick one.

    Args:
        order: every method of the comparison, which has its colour from here as in ``draw``.
    """
    from matplotlib.figure import Figure

    budgets = list(dict.fromkeys(frame["budget"]))
    figure = Figure(figsize=(5.2 * len(budgets), 3.8), layout="constrained")
    for axis, budget in zip(figure.subplots(1, len(budgets), squeeze=False)[0], budgets, strict=True):
        for number, method in enumerate(order):
            part = frame[(frame["budget"] == budget) & (frame["method"] == method)]
            if part.empty:
                continue
            colour = figures.COLOURS[number % len(figures.COLOURS)]
            for _, line in part.groupby("seed"):
                axis.plot(line["kimg"], line["score"], color=colour, alpha=0.35, lw=0.8)
            mean = part.groupby("kimg")["score"].mean()
            axis.plot(mean.index, mean, color=colour, lw=2, marker=".", label=figures.plain(method))
        axis.set(title=f"budget {budget}", xlabel="thousand images", ylabel=f"{score}, before fine-tuning")
        axis.grid(alpha=0.3)
    _legend(figure, columns=4 * len(budgets))
    return figure


def said_best(wide: pd.DataFrame, untrained: Mapping[str, Mapping[str, float]]) -> list[str]:
    """A sentence for each budget: which method is the best by each score, and what the teacher has."""
    lines = []
    for budget, part in wide.groupby(level="budget", sort=False):
        best: dict[str, list[str]] = {}
        for metric in metrics_of(wide):
            means = part[metric, "mean"].dropna()
            if len(means):
                at = means.idxmin() if metric_of(metric).lower_is_better else means.idxmax()
                beside = untrained.get("teacher", {}).get(metric)
                teacher = f", the teacher {beside:.3g}" if beside is not None else ""
                best.setdefault(str(at[0]), []).append(f"{metric} ({means[at]:.3g}{teacher})")
        found = "; ".join(f"{method} has the best {', '.join(scores)}" for method, scores in best.items())
        lines.append(f"At {budget} {found}.")
    return lines


def page(
    tables: Sequence[tuple[str, str]],
    images: Mapping[str, bytes],
    *,
    said: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> str:
    """One self-contained page: sentences, notes of what does not compare, tables, and PNG pictures by their captions.

    Args:
        tables: titles, and tables in Markdown with the lines that stand below each.
    """
    shown = []
    for title, text in tables:
        lines = [line for line in text.splitlines() if line.strip() and not line.startswith("|---")]
        rows = [[cell.strip() for cell in line[1:-1].split("|")] for line in lines if line.startswith("|")]
        shown.append((title, rows, [line for line in lines if not line.startswith("|")]))
    sources = [(title, figures.data_url(data)) for title, data in images.items()]
    environment = jinja2.Environment(loader=jinja2.PackageLoader("gantailor.reports", ""), autoescape=True)
    return environment.get_template("compare.html").render(tables=shown, images=sources, said=said, notes=notes)
