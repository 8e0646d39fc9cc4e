"""Command ``rank``: scores of every channel by a criterion."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from gantailor.cli.flags import config_of
from gantailor.reports import figures
from gantailor.reports.ranking import draw_ranking
from gantailor.run import ranking
from gantailor.run.setup import Setup
from gantailor.supernet.importance.ranking import criterion


def rank(arguments: argparse.Namespace) -> dict[str, Any]:
    """Score every channel and save the scores for ``--ranking``."""
    setup = Setup(config_of(arguments, {"ranking": "none"}))
    chosen = criterion(arguments.criterion)
    name = arguments.criterion.replace(":", ".")
    file = Path(arguments.out) / f"{name}.json"
    if arguments.dry_run:
        print(setup.traced.graph)
        inputs = f", looking at {arguments.inputs or chosen.inputs} inputs" if chosen.inputs else ""
        print(f"would score every channel by {arguments.criterion}{inputs}, and write {file}")
        return {
            "criterion": arguments.criterion,
            "file": file,
            "widths": [width.name for width in setup.traced.graph.widths],
        }
    scores = ranking.compute(setup, arguments.criterion, inputs=arguments.inputs)
    ranking.save(file, scores, **ranking.provenance(setup, arguments.criterion))
    figures.save(draw_ranking(scores), file.with_suffix(".png"))
    print(f"{'width':<40}{'channels':>9}  share of the score that the best 30% hold")
    widths = {}
    for width, values in scores.items():
        best = np.sort(values)[::-1][: max(1, round(0.3 * len(values)))]
        widths[width] = {"channels": len(values), "best_30_percent": best.sum() / max(values.sum(), 1e-300)}
        print(f"{width:<40}{len(values):>9}  {100 * widths[width]['best_30_percent']:.0f}%")
    print(f"{file}, {file.with_suffix('.png').name}; use it with: --ranking {file}")
    return {"criterion": arguments.criterion, "file": file, "widths": widths}
