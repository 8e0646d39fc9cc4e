"""How quickly the importance of channels falls, as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gantailor.supernet.importance.diversity import Scores

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_ranking(scores: Scores) -> Figure:
    """Every width's scores, largest first, as shares of the width's largest."""
    from matplotlib.figure import Figure

    names = [name for name, values in scores.items() if len(values) > 1 and values.max() > 0]
    columns = min(5, max(1, len(names)))
    rows = max(1, -(-len(names) // columns))
    figure = Figure(figsize=(2.3 * columns, 1.9 * rows), layout="constrained")
    grid = np.atleast_1d(figure.subplots(rows, columns, squeeze=False)).ravel()
    for axes, name in zip(grid, names, strict=False):
        values = np.sort(scores[name])[::-1]
        axes.fill_between(np.arange(len(values)), values / values[0], color="#0072B2", alpha=0.35, lw=0)
        axes.plot(values / values[0], color="#0072B2", lw=1.2)
        axes.set_title(f"{name} ({len(values)})", fontsize=7)
        axes.set_ylim(0, 1.02)
        axes.tick_params(labelsize=6)
    for axes in grid[len(names) :]:
        axes.axis("off")
    return figure
