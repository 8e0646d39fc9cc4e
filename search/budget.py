"""Budgets, and candidates that meet them by construction: there is no rejection loop anywhere."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from search.space import Space
from supernet.errors import BudgetError

_UNITS = {"": 1, "K": 1e3, "M": 1e6, "G": 1e9, "B": 1e9, "T": 1e12}


def format_macs(macs: float) -> str:
    """``2639000000`` as ``2.64G``."""
    for unit in ("G", "M", "K"):
        if macs >= _UNITS[unit]:
            return f"{macs / _UNITS[unit]:.4g}{unit}"
    return f"{macs:.0f}"


def parse_budget(text: str, *, full: int) -> int:
    """``2.6G``, ``800M``, ``1K``, a plain number, or a share of the whole generator such as ``0.1x``; in MACs."""
    match = re.fullmatch(r"\s*([0-9.]+(?:e[0-9]+)?)\s*([KMGBTx]?)\s*", str(text))
    try:
        number = float(match.group(1)) if match else 0.0
    except ValueError:
        number = 0.0
    if match is None or number <= 0:
        raise BudgetError(f"budget {text!r} cannot be read; write it as 2.6G, 800M or 0.1x (a share of the generator)")
    return int(number * (full if match.group(2) == "x" else _UNITS[match.group(2)]))


@dataclass(frozen=True)
class Budget:
    """An upper limit on MACs over a space, in one counting convention.

    Raises:
        BudgetError: even the smallest subnet is larger; the message shows the reachable range.
    """

    space: Space
    macs: int
    convention: str = "true"

    def __post_init__(self) -> None:
        ends = np.stack([self.space.smallest, self.space.largest])
        low, high = self.space.macs(ends, convention=self.convention).tolist()
        if self.macs < low:
            raise BudgetError(
                f"budget {format_macs(self.macs)} MACs cannot be reached: space {self.space.name!r} goes from "
                f"{format_macs(low)} to {format_macs(high)} ({self.convention} MACs); "
                f"ask for at least {format_macs(low)}"
            )

    def cost(self, indices: np.ndarray) -> np.ndarray:
        """MACs of each row of choice indices."""
        return self.space.macs(indices, convention=self.convention)

    def grow(self, indices: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Widen random variables one choice at a time until none fits any more."""
        current, largest = indices.copy(), self.space.largest
        open_variables = list(np.flatnonzero(current < largest))
        while open_variables:
            v = open_variables[rng.integers(len(open_variables))]
            current[v] += 1
            if self.cost(current)[0] > self.macs:
                current[v] -= 1
                open_variables.remove(v)
            elif current[v] == largest[v]:
                open_variables.remove(v)
        return current

    def sample(self, rng: np.random.Generator) -> np.ndarray:
        """A random candidate that meets the budget closely."""
        return self.grow(self.repair(rng.integers(0, self.space.largest + 1), rng), rng)

    def repair(self, indices: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Narrow random variables one choice at a time until the budget holds."""
        current = indices.copy()
        while self.cost(current)[0] > self.macs:
            v = rng.choice(np.flatnonzero(current > 0))
            current[v] -= 1
        return current

    def mutate(self, indices: np.ndarray, rng: np.random.Generator, *, rate: float = 0.25) -> np.ndarray:
        """Redraw some variables, then repair and grow back to the budget."""
        changed = rng.random(len(indices)) < rate
        drawn = np.where(changed, rng.integers(0, self.space.largest + 1), indices)
        return self.grow(self.repair(drawn, rng), rng)
