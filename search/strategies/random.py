"""Random candidates, and how every search begins."""

from __future__ import annotations

import numpy as np

from gantailor.search.budget import Budget
from gantailor.search.spaces.space import uniform_indices
from gantailor.search.strategies.common import History, key, untaken


def random(history: History, budget: Budget, rng: np.random.Generator) -> np.ndarray | None:
    """Random candidates close under the budget: the baseline."""
    return untaken(history, lambda: budget.sample(rng), budget, rng)


def first(history: History, budget: Budget, rng: np.random.Generator) -> np.ndarray | None:
    """How every search begins: where its space says, with the uniform shrink, then with random candidates."""
    for start in budget.space.starts:
        if key(start) not in history.taken and budget.fits(start)[0]:
            return start
    uniform = uniform_indices(budget.space, budget.macs, convention=budget.convention)
    if key(uniform) not in history.taken and budget.fits(uniform)[0]:
        return uniform
    return random(history, budget, rng)
