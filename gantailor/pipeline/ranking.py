"""The ranking of a run: computed once, kept in a file, shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import gantailor
from gantailor.supernet.errors import ConfigError
from gantailor.supernet.files import state_digest, write_json
from gantailor.supernet.importance.ranking import RANKINGS, Scores, criterion_scores
from gantailor.supernet.subnets.folding import folded
from gantailor.supernet.supernet import Supernet
from gantailor.zoo.data.latents import Latents
from gantailor.zoo.data.pairs import cache_folder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gantailor.run.run import Run


def is_file(ranking: str) -> bool:
    """Whether a config's ``ranking`` names a file instead of a criterion."""
    return ranking.endswith(".json")


def compute(run: Run, supernet: Supernet, criterion: str, *, inputs: int | None = None) -> Scores:
    """Scores by a criterion, with the run's training inputs; progress goes to the run's reporter.

    Args:
        inputs: how many latents or pictures to look at instead of the criterion's own number.
    """
    wanted = RANKINGS[criterion].inputs if criterion in RANKINGS else 0
    if not wanted:
        return criterion_scores(supernet, criterion, seed=run.config.seed)
    data, count = run.data("train"), inputs or wanted
    if isinstance(data, Latents):  # as many as are wanted, however few the real pictures
        chosen = torch.randn(count, data.width, generator=torch.Generator().manual_seed(0))
    else:
        chosen = data.batch(np.random.default_rng(0).permutation(len(data))[:count])[0]
    listener, device = run.report.pictures(f"ranking by {criterion}", "inputs"), run.config.device
    try:
        return criterion_scores(supernet.to(device), criterion, chosen.to(device), on_batch=listener)
    finally:
        supernet.to("cpu")


def save(path: Path, scores: Scores, **provenance: Any) -> None:
    """Write a ranking file."""
    write_json(path, {**provenance, "scores": {name: values.tolist() for name, values in scores.items()}})


def load(path: str | Path, supernet: Supernet) -> Scores:
    """The scores of a ranking file.

    Raises:
        ConfigError: it cannot be read, or belongs to another generator.
    """
    try:
        stored = json.loads(Path(path).read_text(encoding="utf8"))
        found, weights = stored["scores"], str(stored.get("weights", ""))
        scores = {str(name): np.array(values, np.float64) for name, values in found.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"ranking {str(path)!r} cannot be read ({error}); give a criterion ({', '.join(RANKINGS)}) or a file that "
            "gantailor rank wrote"
        ) from None
    full, own = supernet.full_config(), state_digest(supernet.generator)[:12]
    for name, values in scores.items():
        if full.get(name) != len(values):
            raise ConfigError(
                f"ranking {str(path)!r} is of another generator: it scores {len(values)} channels of {name!r}, the "
                f"generator has {full.get(name, 'no such width')}; rank this one with: gantailor rank"
            )
    if weights not in ("", own):
        raise ConfigError(
            f"ranking {str(path)!r} is of other weights ({weights}, these are {own}); rank these with: gantailor rank"
        )
    return scores


def scores_of(run: Run, supernet: Supernet) -> Scores:
    """What the run ranks by: its own file where there is one already, the file its config names, or computed now."""
    stored, name = run.path("ranking.json"), run.config.ranking
    if name != "none" and (stored.exists() or is_file(name)):
        return load(stored if stored.exists() else name, supernet)
    if name not in RANKINGS or not RANKINGS[name].inputs:
        return compute(run, supernet, name)
    what = f"{name}|{run.data('train').digest()}|{gantailor.__version__}"
    file = cache_folder() / f"ranking-{state_digest(supernet.generator, what)[:16]}.json"  # it may take minutes
    if not file.exists():
        save(file, compute(run, supernet, name), **provenance(run, name))
    return load(file, supernet)


def provenance(run: Run, criterion: str) -> dict[str, Any]:
    """What a ranking file says of where it comes from."""
    weights = state_digest(folded(run.teacher()))[:12]
    return {"criterion": criterion, "generator": run.config.generator, "weights": weights}


def draw(scores: Scores) -> Figure:
    """Every width's scores, largest first, as shares of the width's largest: how quickly importance falls."""
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
