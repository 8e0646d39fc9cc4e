"""The space along a path: one nested order of all channels, so that the net of every budget is a look-up.

A supernet that was trained along a path (``search/methods/supernet/path.py``) has the channels of every width in the
order in which they stay. What is left to say is which width loses its last channel next.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from gantailor.search.spaces.config import SpaceConfig
from gantailor.search.spaces.space import Space, every_space
from gantailor.search.spaces.variable import Variable
from gantailor.supernet.errors import CheckpointError
from gantailor.supernet.graph import WidthGraph
from gantailor.supernet.supernet import Supernet

Usage = Callable[[np.ndarray], np.ndarray]  # sizes [N, widths] to cost as a share of the budget, [N]

NEAR = (0.5, 0.7, 0.85, 1.0, 1.2, 1.45, 2.0)  # sizes around the path's net, as shares of its own
POINTS = 64  # nets along the path that a search of the whole front may choose from
NEVER = -1


@dataclass(frozen=True, eq=False)
class WidthPath:
    """From the whole net down to the least of every width, one channel at a time.

    Attributes:
        full: channels of each width of the whole net, by the widths' names in the graph's order.
        closed: for each step down the number of the width that loses its last channel, ``[steps]``.
        times: the training step at which that channel was closed for good, ``NEVER`` where it was not.
    """

    full: Mapping[str, int]
    closed: np.ndarray
    times: np.ndarray

    @cached_property
    def sizes(self) -> np.ndarray:
        """Widths of every net of the path, ``[steps + 1, widths]``, the whole one first."""
        full = np.array(list(self.full.values()), np.int64)
        lost = np.zeros((len(self.closed) + 1, len(full)), np.int64)
        lost[np.arange(1, len(lost)), self.closed] = 1
        found: np.ndarray = full - lost.cumsum(0)
        return found

    @property
    def trained(self) -> int:
        """Steps down that the training went; all of them of a path that does not know."""
        return int((self.times != NEVER).sum()) or len(self.closed)

    def net(self, usage: Usage, *, multiple: int = 1) -> np.ndarray:
        """The widest net ``[widths]`` within a budget: the first on the way down, and what still fits of the next.

        Args:
            usage: cost as a share of the budget; it grows with every width.
            multiple: of channels, which every width but a whole one is rounded down to.
        """

        def fits(steps: int) -> bool:
            return bool(usage(self.rounded(self.sizes[steps], multiple)[None])[0] <= 1)

        down = bisect_left(range(len(self.closed)), True, key=fits)
        return self._filled(self.rounded(self.sizes[down], multiple), self.closed[:down][::-1], usage, multiple)

    def rounded(self, sizes: np.ndarray, multiple: int) -> np.ndarray:
        """Sizes ``[..., widths]`` down to a multiple, one multiple at least; whole and empty ones stay."""
        full = self.sizes[0]
        least = np.minimum(np.minimum(multiple, full), sizes * multiple)
        found: np.ndarray = np.where(sizes == full, full, np.maximum(sizes // multiple * multiple, least))
        return found

    def _filled(self, sizes: np.ndarray, left: np.ndarray, usage: Usage, multiple: int) -> np.ndarray:
        """In the order in which they went last, the channels that still fit: one of a trunk may be a tenth of all."""
        sizes, full, room = sizes.copy(), self.sizes[0], np.ones(len(sizes), bool)
        for width in left:
            wider = sizes.copy()
            wider[width] = min(full[width], wider[width] + multiple)
            if room[width] and wider[width] > sizes[width]:
                room[width] = usage(wider[None])[0] <= 1
                sizes = wider if room[width] else sizes
            if not room.any():
                break
        return sizes

    def to_json(self) -> dict[str, Any]:
        """As it lies in the file of the weights."""
        return {"full": dict(self.full), "closed": self.closed.tolist(), "times": self.times.tolist()}

    @classmethod
    def from_json(cls, stored: Any, graph: WidthGraph) -> WidthPath:
        """A path of this graph.

        Raises:
            CheckpointError: it is of another, or no path.
        """
        try:
            full = {str(name): int(size) for name, size in stored["full"].items()}
            closed, times = (np.array(stored[name], np.int64).reshape(-1) for name in ("closed", "times"))
            if full != dict(graph.full_config()) or len(closed) != len(times):
                raise ValueError("it is of other widths")
            found = cls(full, closed, times)
            if len(closed) and (closed.min() < 0 or closed.max() >= len(full) or found.sizes.min() < 0):
                raise ValueError("it closes channels that are not there")
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise CheckpointError(
                f"the path in the supernet's file is not this generator's: {error}; train it anew"
            ) from None
        return found


def neighbourhood(path: WidthPath, supernet: Supernet, config: SpaceConfig, usage: Usage) -> Space:
    """The path's net at a budget, and around it for each width by itself some narrower and wider sizes.

    A search begins at the path's net.
    """
    multiple, every = config.rounding, every_space(supernet, config)
    centre = dict(zip(path.full, path.net(usage, multiple=multiple).tolist(), strict=True))
    variables = []
    for variable in every.variables:
        size = centre[variable.name]
        near = {size, *(round(size * share / multiple) * multiple for share in NEAR)}
        least = min(choice for choice in variable.choices if choice or not size)
        choices = sorted({min(max(choice, least), variable.choices[-1]) for choice in near})
        variables.append(Variable.scaled(variable.name, choices, [(variable.name, 1)]))
    start = np.array([variable.choices.index(centre[variable.name]) for variable in variables])
    return Space("path", variables, supernet, starts=(start,))


def points(path: WidthPath, supernet: Supernet, config: SpaceConfig) -> Space:
    """Nets along the path, as far as it was trained, as choices of one variable, evenly in the logarithm of MACs."""
    rounded = np.unique(path.rounded(path.sizes[: path.trained + 1], config.rounding), axis=0)
    costs = supernet.macs_many(rounded)
    order = np.argsort(costs, kind="stable")
    rounded, costs = rounded[order], costs[order]
    wanted = np.geomspace(max(1, costs[0]), costs[-1], POINTS)
    rows = rounded[np.unique(np.searchsorted(costs, wanted).clip(max=len(costs) - 1))]
    sizes = tuple((name, tuple(rows[:, number].tolist())) for number, name in enumerate(path.full))
    return Space("path", [Variable("path", tuple(range(1, len(rows) + 1)), sizes)], supernet)
