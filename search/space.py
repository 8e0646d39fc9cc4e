"""Search spaces: which sizes each width may take, and which widths move together.

A space has a few *variables*; each has choices and drives one or more widths, ``size = choice * factor``. The published
tables are literal data; any other generator gets a default space, a variable for each width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from supernet.errors import ConfigError, nearest
from supernet.graph import SubnetConfig
from supernet.supernet import Supernet

DEFAULT_FRACTIONS = (1 / 4, 1 / 3, 1 / 2, 2 / 3, 5 / 6, 1.0)


@dataclass(frozen=True)
class Variable:
    """One decision: ``choices`` ascending, and for each driven width the factor on the choice."""

    name: str
    choices: tuple[int, ...]
    factors: tuple[tuple[str, int], ...]


class Space:
    """All configs of a supernet that a search may look at. ``len(space)`` is their number."""

    def __init__(self, name: str, variables: Sequence[Variable], supernet: Supernet) -> None:
        self.name, self.variables, self.supernet = name, tuple(variables), supernet
        columns = supernet.graph.index
        full = [width.size for width in supernet.graph.widths]
        self._fixed = np.array(full, dtype=np.int64)
        self._columns = [np.array([columns[w] for w, _ in v.factors]) for v in self.variables]
        self._factors = [np.array([f for _, f in v.factors]) for v in self.variables]
        for variable in self.variables:
            for width, factor in variable.factors:
                if variable.choices[-1] * factor > full[columns[width]]:
                    raise ConfigError(
                        f"space {name!r} asks width {width!r} for up to {variable.choices[-1] * factor} channels, the "
                        f"generator has {full[columns[width]]}; build it wider or choose another space"
                    )

    def __len__(self) -> int:
        return math.prod(len(variable.choices) for variable in self.variables)

    def sizes(self, indices: np.ndarray) -> np.ndarray:
        """Choice indices ``[N, n_variables]`` to widths ``[N, n_widths]``."""
        indices = np.atleast_2d(indices)
        sizes = np.tile(self._fixed, (len(indices), 1))
        for v, variable in enumerate(self.variables):
            chosen = np.array(variable.choices)[indices[:, v]]
            sizes[:, self._columns[v]] = chosen[:, None] * self._factors[v]
        return sizes

    def macs(self, indices: np.ndarray, *, convention: str = "true") -> np.ndarray:
        """MACs of each row of choice indices."""
        return self.supernet.macs_many(self.sizes(indices), convention=convention)

    def to_config(self, indices: Sequence[int] | np.ndarray) -> SubnetConfig:
        """The config of one row of choice indices."""
        names = [width.name for width in self.supernet.graph.widths]
        return SubnetConfig(dict(zip(names, self.sizes(np.asarray(indices))[0].tolist(), strict=True)))

    def config(self, text: str) -> SubnetConfig:
        """A config written as in the published tables, ``16_16_24_16_32_64_16_24``: a choice for each variable.

        Raises:
            ConfigError: wrong number of values, or a value that the space does not offer.
        """
        parts = text.split("_")
        if len(parts) != len(self.variables):
            raise ConfigError(
                f"config {text!r} has {len(parts)} values; space {self.name!r} takes {len(self.variables)}"
            )
        indices = []
        for part, variable in zip(parts, self.variables, strict=True):
            if not part.isdigit() or int(part) not in variable.choices:
                raise ConfigError(f"{part!r} is not offered for {variable.name}; allowed are {variable.choices}")
            indices.append(variable.choices.index(int(part)))
        return self.to_config(indices)

    @property
    def smallest(self) -> np.ndarray:
        """Choice indices of the narrowest subnet."""
        return np.zeros(len(self.variables), np.int64)

    @property
    def largest(self) -> np.ndarray:
        """Choice indices of the widest subnet."""
        return np.array([len(variable.choices) - 1 for variable in self.variables])


def default_space(supernet: Supernet, *, fractions: Sequence[float] = DEFAULT_FRACTIONS, multiple: int = 4) -> Space:
    """A variable for each width: fractions of its full size, rounded to a multiple of channels."""
    variables = []
    for width in supernet.graph.widths:
        rounded = {min(width.size, max(multiple, round(width.size * f / multiple) * multiple)) for f in fractions}
        variables.append(Variable(width.name, tuple(sorted(rounded)), ((width.name, 1),)))
    return Space("default", variables, supernet)


def space(name: str, supernet: Supernet) -> Space:
    """A search space by name: ``default``, or one of the published tables.

    Raises:
        ConfigError: unknown name, or a table that does not fit the generator.
    """
    from search.published import TABLES, published_variables

    if name == "default":
        return default_space(supernet)
    if name not in TABLES:
        raise ConfigError(f"space {name!r} is unknown: {nearest(name, [*TABLES, 'default'])}")
    return Space(name, published_variables(name, supernet), supernet)


def uniform_indices(space: Space, budget: float, *, convention: str = "true") -> np.ndarray:
    """The widest uniform shrink within a budget: the same fraction of every variable's choices, rounded down.

    The baseline that a search must beat.
    """
    best = space.smallest
    for fraction in np.linspace(0, 1, 401):
        indices = np.array([np.searchsorted(v.choices, fraction * v.choices[-1], "right") - 1 for v in space.variables])
        indices = np.maximum(indices, 0)
        if space.macs(indices, convention=convention)[0] <= budget:
            best = indices
    return best


def uniform_config(supernet: Supernet, budget: float, *, convention: str = "true") -> SubnetConfig:
    """The same share of every width, any integer allowed: the largest share that meets the budget.

    The baseline of the comparisons; unlike ``uniform_indices`` it is not bound to a space's choices.
    """
    full = np.array([width.size for width in supernet.graph.widths])
    sizes = np.maximum(1, np.floor(np.linspace(0, 1, 2001)[:, None] * full)).astype(np.int64)
    fitting = sizes[supernet.macs_many(sizes, convention=convention) <= budget]
    chosen = fitting[-1] if len(fitting) else sizes[0]
    return SubnetConfig({w.name: int(n) for w, n in zip(supernet.graph.widths, chosen, strict=True)})


def as_mapping(space: Space, indices: Sequence[int]) -> Mapping[str, int]:
    """Choice by variable name, for tables and trials."""
    return {v.name: v.choices[int(i)] for v, i in zip(space.variables, indices, strict=True)}
