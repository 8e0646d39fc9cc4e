"""Which subnets a step of supernet training runs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gantailor.supernet.training.recipe import Recipe


def draw_choices(
    recipe: Recipe, counts: Sequence[int], rng: np.random.Generator, step: int, position: int
) -> np.ndarray:
    """Choice index of each variable for one subnet, ``[n_variables]``; 0 is the narrowest.

    ``uniform`` draws each variable alone (Li et al. 2020, arXiv 2003.08936), so that nearly all subnets are of middling
    cost. ``sandwich`` takes the largest, the smallest and random ones in turn (Yu & Huang 2019, arXiv 1903.05134; with
    ``subnets: 3`` all in one step). ``spread`` draws a common level first, so that costs are spread evenly.
    ``progressive`` begins with the widest and lets narrower ones in until half the length is done (Cai et al. 2020,
    arXiv 1908.09791). With ``in_place_weight`` the first subnet of a step is always the largest.

    Args:
        counts: number of choices of each variable.
        position: which of the step's subnets this is.
    """
    top = np.asarray(counts) - 1
    if recipe.in_place_weight and position == 0:
        return top
    if recipe.sampling == "sandwich":
        turn = (step * recipe.subnets + position) % 3
        if turn < 2:
            return top if turn == 0 else np.zeros_like(top)
    if recipe.sampling == "spread":
        levels = rng.random() + rng.normal(0, 0.25, len(top))
        spread: np.ndarray = np.rint(np.clip(levels, 0, 1) * top)
        return spread.astype(np.int64)
    low = np.zeros_like(top)
    if recipe.sampling == "progressive":
        low = np.rint(top * max(0.0, 1 - 2 * step / recipe.steps)).astype(np.int64)
    return rng.integers(low, top + 1)
