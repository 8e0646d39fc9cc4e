"""Budgets, and candidates that meet them by construction, without a rejection loop.

Every cost here grows with every width. So along any order of widening from the smallest subnet to the largest, the ones
that fit come first, and one vectorised costing of the whole path finds the last of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from gantailor.search.costs import CostLimits, full_costs
from gantailor.search.latency import LatencyProfile
from gantailor.search.limits import Limit, format_macs, parse_budget
from gantailor.search.spaces.space import Space, uniform_indices
from gantailor.supernet.errors import BudgetError


@dataclass(frozen=True, eq=False)
class Budget(CostLimits):
    """Limits over a space that can be met, and candidates within them.

    A candidate is a row of choice indices ``[n_variables]``.

    Args:
        fill: candidates are widened until nothing more fits, which suits one budget; a search of the whole front
            leaves them as cheap as they are.

    Raises:
        BudgetError: no subnet meets the limits; the message shows what can be reached.
    """

    fill: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_reachable(self)

    @classmethod
    def of(
        cls,
        space: Space,
        text: str | int,
        *,
        convention: str = "true",
        profiles: Mapping[str, LatencyProfile] | None = None,
        fill: bool = True,
    ) -> Budget:
        """A budget as a user writes it: ``0.1x`` of the whole generator, ``2.6G``, ``macs<=2.6G, params<=1M``.

        Raises:
            BudgetError: it cannot be read or reached, or the whole generator takes less.
        """
        full = full_costs(space.supernet, convention)
        found = cls(space, parse_budget(text, full=full), convention, profiles=dict(profiles or {}), fill=fill)
        most = found.costs(space.largest)[0]  # for what is measured, such as latency, the whole one has no other figure
        whole = [(limit, full.get(limit.metric, cost)) for limit, cost in zip(found.bounds, most, strict=True)]
        if all(limit.upper > cost and not limit.lower for limit, cost in whole):
            said = ", ".join(f"{format_macs(cost)} {limit.metric}" for limit, cost in whole)
            raise BudgetError(
                f"budget {str(text)!r} is more than the whole generator takes, {said}; give less, 0.1x say"
            )
        return found

    @property
    def baseline(self) -> np.ndarray:
        """What a search has to beat: where its space says that it begins, else the uniform shrink."""
        if self.space.starts:
            return self.space.starts[0]
        return uniform_indices(self.space, self.macs, convention=self.convention)

    def example(self) -> np.ndarray | None:
        """A candidate that fits, if one is found."""
        if self.feasible is not None:
            return self.feasible[0] if len(self.feasible) else None
        rng = np.random.default_rng(0)
        for _ in range(200):
            drawn = self.grow(self.repair(rng.integers(0, self.space.largest + 1), rng), rng)
            if self.fits(drawn)[0]:
                return drawn
        return None

    def _path(self, start: np.ndarray, end: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Candidates from ``start`` to ``end``, one choice wider in one variable each time, in a random order."""
        steps = np.repeat(np.arange(len(start)), end - start)
        moves = np.zeros((len(steps) + 1, len(start)), np.int64)
        moves[np.arange(1, len(steps) + 1), rng.permutation(steps)] = 1
        path: np.ndarray = start + moves.cumsum(0)
        return path

    def grow(self, indices: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Widen random variables one choice at a time until none fits any more."""
        current, largest = indices.copy(), self.space.largest
        while (current < largest).any():
            path = self._path(current, largest, rng)
            last = int(self.under(path).sum()) - 1
            current = path[last]
            if last == len(path) - 1:
                break
            wider = current + np.eye(len(current), dtype=np.int64)  # what did not fit next may block others no more
            largest = np.where(
                self.under(np.minimum(wider, self.space.largest)) & (current < largest), largest, current
            )
        return current

    def repair(self, indices: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Narrow random variables one choice at a time until the upper limits hold."""
        if self.under(indices)[0]:
            return indices.copy()
        path = self._path(self.space.smallest, indices, rng)
        narrowed: np.ndarray = path[int(self.under(path).sum()) - 1]
        return narrowed

    def sample(self, rng: np.random.Generator) -> np.ndarray:
        """A random candidate that meets the budget, close under it; for a front, close under a random MAC limit."""
        drawn = rng.integers(0, self.space.largest + 1)
        if self.fill or any(limit.lower for limit in self.bounds):
            return self.settle(drawn, rng)
        return self.capped(rng).settle(drawn, rng)

    def capped(self, rng: np.random.Generator) -> Budget:
        """This budget below a random MAC limit too, evenly in its logarithm: a part of the front."""
        low = max(1.0, float(self.cost(self.space.smallest)[0]))
        cap = Limit("macs", upper=low * (max(self.macs, low) / low) ** rng.random())
        return replace(self, limits=(*self.bounds, cap), fill=True)

    def settle(self, indices: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A candidate near ``indices`` that fits: narrowed until the upper limits hold, then widened while they do."""
        drawn = self.repair(indices, rng)
        if self.fill or not self.fits(drawn)[0]:
            drawn = self.grow(drawn, rng)
        if self.fits(drawn)[0]:
            return drawn
        # a lower limit on one cost may rule out what is widest in another
        found = self.example() if self.feasible is None else self.feasible[rng.integers(len(self.feasible))]
        assert found is not None
        return found

    def mutate(self, indices: np.ndarray, rng: np.random.Generator, *, rate: float = 0.25) -> np.ndarray:
        """Redraw some variables, then settle within the budget."""
        changed = rng.random(len(indices)) < rate
        return self.settle(np.where(changed, rng.integers(0, self.space.largest + 1), indices), rng)


def _check_reachable(budget: Budget) -> None:
    ends = np.stack([budget.space.smallest, budget.space.largest])
    costs = budget.costs(ends)
    for limit, (low, high) in zip(budget.bounds, costs.T.tolist(), strict=True):
        if limit.upper < low or limit.lower > high or limit.upper < limit.lower:
            what = f"{budget.convention} MACs" if limit.metric == "macs" else limit.metric
            nearest = f"at least {format_macs(low)}" if limit.upper < low else f"at most {format_macs(high)}"
            raise BudgetError(
                f"budget {budget} cannot be reached: space {budget.space.name!r} goes from {format_macs(low)} to "
                f"{format_macs(high)} ({what}); ask for {nearest}"
                + (", or for a wider range between the limits" if limit.lower else ", or allow other widths")
            )
    narrow = any(limit.lower for limit in budget.bounds)
    if not budget.under(budget.space.smallest)[0] or (narrow and budget.example() is None):
        raise BudgetError(f"no subnet of space {budget.space.name!r} meets {budget}; the nearest is {_nearest(budget)}")


def _nearest(budget: Budget) -> str:
    rng = np.random.default_rng(0)
    rows = np.stack([rng.integers(0, budget.space.largest + 1) for _ in range(2000)] + [budget.space.smallest])
    best = rows[int(np.argmin([budget.excess(row) for row in rows]))]
    values = zip(budget.bounds, budget.costs(best)[0], strict=True)
    return ", ".join(f"{limit.metric} {format_macs(cost)}" for limit, cost in values)
