"""Every candidate, one after the other."""

from __future__ import annotations

import numpy as np

from gantailor.search.budget import Budget
from gantailor.search.strategies.common import History, key
from gantailor.supernet.errors import ConfigError


def exhaustive(history: History, budget: Budget, rng: np.random.Generator) -> np.ndarray | None:
    """Every candidate that fits, the costliest first.

    Raises:
        ConfigError: the space is too large to be listed.
    """
    if budget.feasible is None:
        raise ConfigError(f"exhaustive search of {budget.space.count:,} subnets is hopeless; use predictor")
    order = np.argsort(-budget.cost(budget.feasible), kind="stable")
    return next((row for row in budget.feasible[order] if key(row) not in history.taken), None)
