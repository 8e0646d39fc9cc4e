"""Budgets, and candidates that meet them by construction: there is no rejection loop anywhere.

Every cost here grows with every width. So along any order of widening from the smallest subnet to the largest, the ones
that fit come first, and one vectorised costing of the whole path finds the last of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from gantailor.search.latency import LatencyProfile
from gantailor.search.spaces.space import Space
from gantailor.supernet.errors import BudgetError

_UNITS = {"": 1, "K": 1e3, "M": 1e6, "G": 1e9, "B": 1e9, "T": 1e12}
METRICS = ("macs", "params", "latency_ms")
ENUMERATED = 200_000  # spaces up to this size are costed whole
_ALLOWED = (
    "write it as 2.6G, 800M or 0.1x (a share of the generator), or as limits with commas between them: "
    "macs<=2.6G, params<=1M, macs>=1G, latency_ms<=12@PROFILE"
)


def format_macs(macs: float) -> str:
    """``2639000000`` as ``2.64G``."""
    for unit in ("G", "M", "K"):
        if macs >= _UNITS[unit]:
            return f"{macs / _UNITS[unit]:.4g}{unit}"
    return f"{macs:.4g}"


@dataclass(frozen=True)
class Limit:
    """Bounds on one cost, both allowed values themselves; ``profile`` names the file of a latency."""

    metric: str
    upper: float = np.inf
    lower: float = 0.0
    profile: str = ""


def parse_budget(text: str | int, *, full: Mapping[str, int]) -> tuple[Limit, ...]:
    """``2.6G``, ``0.1x``, or limits such as ``macs<=2.6G, params<=1M, latency_ms<=12@laptop.json``.

    Args:
        full: the whole generator's ``macs`` and ``params``, for shares.

    Raises:
        BudgetError: it cannot be read.
    """
    limits: dict[tuple[str, str], Limit] = {}
    for part in str(text).split(","):
        match = re.fullmatch(r"\s*(?:(\w+)\s*(<=|>=)\s*)?([0-9.]+(?:e[0-9]+)?)\s*([KMGBTx]?)\s*(?:@\s*(\S+))?\s*", part)
        metric, sign, number, unit, profile = match.groups() if match else ("", "", "0", "", None)
        metric = metric or "macs"
        try:
            value = float(number)
        except ValueError:
            value = 0.0
        if match is None or value <= 0 or metric not in METRICS:
            raise BudgetError(f"budget {str(text)!r} cannot be read; {_ALLOWED}")
        if (metric == "latency_ms") != bool(profile) or (metric == "latency_ms" and unit):
            raise BudgetError(
                f"budget {str(text)!r}: a latency limit is in milliseconds and names its profile, latency_ms<=12@FILE "
                "(made by: gantailor profile)"
            )
        value *= full[metric] if unit == "x" else _UNITS[unit]
        value = value if metric == "latency_ms" else float(int(value))
        known = limits.get((metric, profile or ""), Limit(metric, profile=profile or ""))
        bounds = (known.upper, value) if sign == ">=" else (value, known.lower)
        limits[metric, profile or ""] = Limit(metric, *bounds, profile or "")
    return tuple(limits.values())


@dataclass(frozen=True, eq=False)
class Budget:
    """Limits over a space, MACs in one counting convention.

    Args:
        limits: a number of MACs, or what ``parse_budget`` gives.
        fill: candidates are widened until nothing more fits, which suits one budget; a search of the whole front
            leaves them as cheap as they are.

    Raises:
        BudgetError: no subnet meets the limits; the message shows what can be reached.
    """

    space: Space
    limits: tuple[Limit, ...] | int
    convention: str = "true"
    fill: bool = True
    profiles: dict[str, LatencyProfile] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.limits, tuple):
            object.__setattr__(self, "limits", (Limit("macs", float(self.limits)),))
        for limit in self._limits:
            if limit.profile and limit.profile not in self.profiles:
                self.profiles[limit.profile] = LatencyProfile.load(Path(limit.profile))
        self._check_reachable()

    @property
    def _limits(self) -> tuple[Limit, ...]:
        assert isinstance(self.limits, tuple)
        return self.limits

    @property
    def limits_macs(self) -> bool:
        """Whether MACs have an upper limit."""
        return any(limit.metric == "macs" and limit.upper < np.inf for limit in self._limits)

    @property
    def macs(self) -> int:
        """The upper limit on MACs; the largest subnet's where there is none."""
        upper = next((limit.upper for limit in self._limits if limit.metric == "macs"), np.inf)
        return int(min(upper, self.cost(self.space.largest)[0]) if upper == np.inf else upper)

    def __str__(self) -> str:
        parts = []
        for limit in self._limits:
            shown = str if limit.metric == "latency_ms" else format_macs
            at = f"@{limit.profile}" if limit.profile else ""
            parts += [f"{limit.metric}>={shown(limit.lower)}{at}"] if limit.lower else []
            parts += [f"{limit.metric}<={shown(limit.upper)}{at}"] if limit.upper < np.inf else []
        return ", ".join(parts)

    def cost(self, indices: np.ndarray) -> np.ndarray:
        """MACs of each row of choice indices."""
        return self.space.macs(indices, convention=self.convention)

    def costs(self, indices: np.ndarray) -> np.ndarray:
        """Every limited cost of each row, ``[N, n_limits]``."""
        return self.costs_of(self.space.sizes(np.atleast_2d(indices)))

    def costs_of(self, sizes: np.ndarray) -> np.ndarray:
        """Every limited cost of rows of widths ``[N, n_widths]``, in the space or not: ``[N, n_limits]``."""
        supernet, columns = self.space.supernet, []
        for limit in self._limits:
            if limit.metric == "macs":
                columns.append(supernet.macs_many(sizes, convention=self.convention))
            elif limit.metric == "params":
                columns.append(supernet.cost.parameters(sizes))
            else:
                columns.append(self.profiles[limit.profile].bound(supernet, sizes))
        return np.stack(columns, 1).astype(np.float64)

    def usage(self, sizes: np.ndarray) -> np.ndarray:
        """Cost of rows of widths as a share of the upper limit, the largest of several: 1 just meets the budget."""
        uppers = np.array([limit.upper for limit in self._limits])
        return (self.costs_of(sizes) / uppers).max(1)

    def _under(self, indices: np.ndarray) -> np.ndarray:
        uppers = np.array([limit.upper for limit in self._limits])
        return np.all(self.costs(indices) <= uppers, axis=1)

    def fits(self, indices: np.ndarray) -> np.ndarray:
        """Whether each row of choice indices meets every limit."""
        lowers = np.array([limit.lower for limit in self._limits])
        return np.all(self.costs(indices) >= lowers, axis=1) & self._under(indices)

    def excess(self, indices: np.ndarray) -> float:
        """By what share one candidate exceeds the limit it exceeds most; 0 or less when it fits."""
        costs = self.costs(indices)[0]
        over = [c / m.upper - 1 for c, m in zip(costs, self._limits, strict=True)]
        short = [1 - c / m.lower for c, m in zip(costs, self._limits, strict=True) if m.lower]
        return float(max(over + short))

    @cached_property
    def feasible(self) -> np.ndarray | None:
        """Every candidate that fits, ``[N, n_variables]``, where the space is small enough to be costed whole."""
        if self.space.count > ENUMERATED:
            return None
        rows = np.indices([len(v.choices) for v in self.space.variables]).reshape(len(self.space.variables), -1).T
        return rows[self.fits(rows)]

    def _check_reachable(self) -> None:
        ends = np.stack([self.space.smallest, self.space.largest])
        costs = self.costs(ends)
        for limit, (low, high) in zip(self._limits, costs.T.tolist(), strict=True):
            if limit.upper < low or limit.lower > high or limit.upper < limit.lower:
                what = f"{self.convention} MACs" if limit.metric == "macs" else limit.metric
                nearest = f"at least {format_macs(low)}" if limit.upper < low else f"at most {format_macs(high)}"
                raise BudgetError(
                    f"budget {self} cannot be reached: space {self.space.name!r} goes from {format_macs(low)} to "
                    f"{format_macs(high)} ({what}); ask for {nearest}"
                    + (", or for a wider range between the limits" if limit.lower else ", or allow other widths")
                )
        narrow = any(limit.lower for limit in self._limits)
        if not self._under(self.space.smallest)[0] or (narrow and self._some() is None):
            raise BudgetError(f"no subnet of space {self.space.name!r} meets {self}; the nearest is {self._nearest()}")

    def _some(self) -> np.ndarray | None:
        """A candidate that fits, if one is found."""
        if self.feasible is not None:
            return self.feasible[0] if len(self.feasible) else None
        rng = np.random.default_rng(0)
        for _ in range(200):
            drawn = self.grow(self.repair(rng.integers(0, self.space.largest + 1), rng), rng)
            if self.fits(drawn)[0]:
                return drawn
        return None

    def _nearest(self) -> str:
        rng = np.random.default_rng(0)
        rows = np.stack([rng.integers(0, self.space.largest + 1) for _ in range(2000)] + [self.space.smallest])
        best = rows[int(np.argmin([self.excess(row) for row in rows]))]
        values = zip(self._limits, self.costs(best)[0], strict=True)
        return ", ".join(f"{limit.metric} {format_macs(cost)}" for limit, cost in values)

    def _path(self, start: np.ndarray, end: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Candidates from ``start`` to ``end``, one choice wider in one variable each time, in a random order."""
        steps = np.repeat(np.arange(len(start)), end - start)
        moves = np.zeros((len(steps) + 1, len(start)), np.int64)
        moves[np.arange(1, len(steps) + 1), rng.permutation(steps)] = 1
        return start + moves.cumsum(0)

    def grow(self, indices: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Widen random variables one choice at a time until none fits any more."""
        current, largest = indices.copy(), self.space.largest
        while (current < largest).any():
            path = self._path(current, largest, rng)
            last = int(self._under(path).sum()) - 1
            current = path[last]
            if last == len(path) - 1:
                break
            wider = current + np.eye(len(current), dtype=np.int64)  # what did not fit next may block others no more
            largest = np.where(
                self._under(np.minimum(wider, self.space.largest)) & (current < largest), largest, current
            )
        return current

    def repair(self, indices: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Narrow random variables one choice at a time until the upper limits hold."""
        if self._under(indices)[0]:
            return indices.copy()
        path = self._path(self.space.smallest, indices, rng)
        return path[int(self._under(path).sum()) - 1]

    def sample(self, rng: np.random.Generator) -> np.ndarray:
        """A random candidate that meets the budget, close under it; for a front, close under a random MAC limit."""
        drawn = rng.integers(0, self.space.largest + 1)
        if self.fill or any(limit.lower for limit in self._limits):
            return self.settle(drawn, rng)
        low = max(1.0, float(self.cost(self.space.smallest)[0]))
        cap = Limit("macs", upper=low * (max(self.macs, low) / low) ** rng.random())
        return replace(self, limits=(*self._limits, cap), fill=True).settle(drawn, rng)

    def settle(self, indices: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A candidate near ``indices`` that fits: narrowed until the upper limits hold, then widened while they do."""
        drawn = self.repair(indices, rng)
        if self.fill or not self.fits(drawn)[0]:
            drawn = self.grow(drawn, rng)
        if self.fits(drawn)[0]:
            return drawn
        if self.feasible is not None:  # a lower limit on one cost may rule out what is widest in another
            return self.feasible[rng.integers(len(self.feasible))]
        found = self._some()
        assert found is not None
        return found

    def mutate(self, indices: np.ndarray, rng: np.random.Generator, *, rate: float = 0.25) -> np.ndarray:
        """Redraw some variables, then settle within the budget."""
        changed = rng.random(len(indices)) < rate
        return self.settle(np.where(changed, rng.integers(0, self.space.largest + 1), indices), rng)

    def cross(self, parents: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
        """Each variable from one of two parents, settled within the budget."""
        first, second = parents
        return self.settle(np.where(rng.random(len(first)) < 0.5, first, second), rng)
