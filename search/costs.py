"""What subnets cost, and whether they keep within limits."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from gantailor.search.latency import LatencyProfile
from gantailor.search.limits import Limit, format_macs
from gantailor.search.spaces.space import Space
from gantailor.supernet.supernet import Supernet

ENUMERATED = 200_000  # spaces up to this size are costed whole


def full_costs(supernet: Supernet, convention: str = "true") -> dict[str, int]:
    """What the whole generator costs: what shares in a budget are of."""
    config = supernet.full_config()
    return {"macs": supernet.macs(config, convention=convention), "params": supernet.parameter_count(config)}


@dataclass(frozen=True, eq=False)
class CostLimits:
    """Limits on the costs of a space's subnets, MACs in one counting convention.

    Args:
        limits: a number of MACs, or what ``parse_budget`` gives.
        profiles: latency models by the name of their file; those that are missing are read.
    """

    space: Space
    limits: tuple[Limit, ...] | int
    convention: str = "true"
    profiles: dict[str, LatencyProfile] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.limits, tuple):
            object.__setattr__(self, "limits", (Limit("macs", float(self.limits)),))
        for limit in self.bounds:
            if limit.profile and limit.profile not in self.profiles:
                self.profiles[limit.profile] = LatencyProfile.load(Path(limit.profile))

    @property
    def bounds(self) -> tuple[Limit, ...]:
        """The limits, a bare number of MACs as one of them."""
        assert isinstance(self.limits, tuple)
        return self.limits

    @property
    def limits_macs(self) -> bool:
        """Whether MACs have an upper limit."""
        return any(limit.metric == "macs" and limit.upper < np.inf for limit in self.bounds)

    @property
    def macs(self) -> int:
        """The upper limit on MACs; the largest subnet's where there is none."""
        upper = next((limit.upper for limit in self.bounds if limit.metric == "macs"), np.inf)
        return int(min(upper, self.cost(self.space.largest)[0]) if upper == np.inf else upper)

    def __str__(self) -> str:
        parts = []
        for limit in self.bounds:
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
        for limit in self.bounds:
            if limit.metric == "macs":
                columns.append(supernet.macs_many(sizes, convention=self.convention))
            elif limit.metric == "params":
                columns.append(supernet.cost.parameters(sizes))
            else:
                columns.append(self.profiles[limit.profile].bound(supernet, sizes))
        return np.stack(columns, 1).astype(np.float64)

    def usage(self, sizes: np.ndarray) -> np.ndarray:
        """Cost of rows of widths as a share of the upper limit, the largest of several: 1 just meets the budget."""
        uppers = np.array([limit.upper for limit in self.bounds])
        shares: np.ndarray = (self.costs_of(sizes) / uppers).max(1)
        return shares

    def under(self, indices: np.ndarray) -> np.ndarray:
        """Whether each row of choice indices meets every upper limit."""
        uppers = np.array([limit.upper for limit in self.bounds])
        met: np.ndarray = np.all(self.costs(indices) <= uppers, axis=1)
        return met

    def fits(self, indices: np.ndarray) -> np.ndarray:
        """Whether each row of choice indices meets every limit."""
        lowers = np.array([limit.lower for limit in self.bounds])
        met: np.ndarray = np.all(self.costs(indices) >= lowers, axis=1) & self.under(indices)
        return met

    def excess(self, indices: np.ndarray) -> float:
        """By what share one candidate exceeds the limit it exceeds most; 0 or less when it fits."""
        costs = self.costs(indices)[0]
        over = [c / m.upper - 1 for c, m in zip(costs, self.bounds, strict=True)]
        short = [1 - c / m.lower for c, m in zip(costs, self.bounds, strict=True) if m.lower]
        return float(max(over + short))

    @cached_property
    def feasible(self) -> np.ndarray | None:
        """Every candidate that fits, ``[N, n_variables]``, where the space is small enough to be costed whole."""
        if self.space.count > ENUMERATED:
            return None
        counts = [len(variable.choices) for variable in self.space.variables]
        rows: np.ndarray = np.indices(counts).reshape(len(counts), -1).T
        within: np.ndarray = rows[self.fits(rows)]
        return within
