"""Search spaces: which sizes each width may take, and which widths move together.

A space has a few *variables*; each has choices and drives one or more widths. The published tables are literal data
(``published.py``); any other generator gets a default space, a variable for each width or for each tie of widths.
"""

from __future__ import annotations

import fnmatch
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import ValidationError

from gantailor.search.spaces.config import FRACTIONS, SpaceConfig
from gantailor.search.spaces.published import TABLES, published_variables
from gantailor.search.spaces.variable import Variable
from gantailor.supernet.errors import ConfigError, nearest, shortened
from gantailor.supernet.graph import SubnetConfig
from gantailor.supernet.supernet import Supernet, check_supernet
from gantailor.supernet.training.recipe import Recipe
from gantailor.supernet.training.sampling import draw_choices


class Space:
    """All configs of a supernet that a search may look at. ``len(space)`` is their number.

    Args:
        starts: choice indices ``[n_variables]`` of subnets that a search looks at first.
    """

    def __init__(
        self, name: str, variables: Sequence[Variable], supernet: Supernet, *, starts: Sequence[np.ndarray] = ()
    ) -> None:
        self.name, self.variables, self.supernet, self.starts = name, tuple(variables), supernet, tuple(starts)
        columns = supernet.graph.index
        full = [width.size for width in supernet.graph.widths]
        self._fixed = np.array(full, dtype=np.int64)
        self._columns = [np.array([columns[w] for w, _ in v.sizes]) for v in self.variables]
        self._sizes = [np.array([sizes for _, sizes in v.sizes]).T for v in self.variables]
        for variable in self.variables:
            for width, sizes in variable.sizes:
                if sizes[-1] > full[columns[width]]:
                    raise ConfigError(
                        f"space {name!r} asks width {width!r} for up to {sizes[-1]} channels, the "
                        f"generator has {full[columns[width]]}; build it wider or choose another space"
                    )

    @property
    def count(self) -> int:
        """Number of subnets; ``len`` is the same as far as Python lets a length go."""
        return math.prod(len(variable.choices) for variable in self.variables)

    def __len__(self) -> int:
        return min(self.count, sys.maxsize)

    def sizes(self, indices: np.ndarray) -> np.ndarray:
        """Choice indices ``[N, n_variables]`` to widths ``[N, n_widths]``.

        Raises:
            ConfigError: they are not as many as the variables, or one is none of its variable's.
        """
        indices = np.atleast_2d(indices)
        ends = self.largest
        whole = indices.dtype.kind in "iu" or not indices.size
        if not whole or indices.shape[1:] != ends.shape or ((indices < 0) | (indices > ends)).any():
            raise ConfigError(
                f"space {self.name!r} has no choices {shortened(str(indices.tolist()))}; give a number for each of its "
                f"{len(ends)} variables, from 0 to {shortened(str(ends.tolist()))}"
            )
        sizes = np.tile(self._fixed, (len(indices), 1))
        for v in range(len(self.variables)):
            sizes[:, self._columns[v]] = self._sizes[v][indices[:, v]]
        return sizes

    def macs(self, indices: np.ndarray, *, convention: str = "true") -> np.ndarray:
        """MACs of each row of choice indices."""
        return self.supernet.macs_many(self.sizes(indices), convention=convention)

    def to_config(self, indices: Sequence[int] | np.ndarray) -> SubnetConfig:
        """The config of one row of choice indices."""
        return self.supernet.graph.config(self.sizes(np.asarray(indices))[0])

    def sample(
        self, rng: np.random.Generator, *, step: int = 0, position: int = 0, recipe: Recipe | None = None
    ) -> SubnetConfig:
        """Widths drawn for a step of a training of all widths: ``loss(supernet(x, config=space.sample(rng)))``.

        As the pipeline draws them, by the recipe's ``sampling`` (each variable alone, or ``sandwich``, ``spread``,
        ``progressive``, see ``supernet/training/sampling.py``).

        Args:
            step: which step it is, for those that depend on it.
            position: which of the step's subnets.
            recipe: whose ``sampling`` is taken; the usual one if missing.
        """
        counts = [len(variable.choices) for variable in self.variables]
        return self.to_config(draw_choices(recipe or Recipe(), counts, rng, step, position))

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


def default_space(supernet: Supernet, config: SpaceConfig | None = None) -> Space:
    """A variable for each width, or for widths tied together: fractions of the full size, rounded to a multiple.

    Raises:
        ConfigError: a tie or a freeze names no width, or a width is in two ties.
    """
    config = config or SpaceConfig()
    full = supernet.full_config()
    frozen = _frozen(full, config)
    owner: dict[str, int] = {}
    for number, tie in enumerate(config.ties):
        for name in (name for pattern in tie for name in _matching(pattern, full)):
            if owner.setdefault(name, number) != number:
                raise ConfigError(f"width {name!r} is in two ties ({config.ties[owner[name]]} and {tie}); join them")
    groups: dict[str, list[str]] = {}
    for name in full:
        if name not in frozen:
            groups.setdefault(f"tie {owner[name]}" if name in owner else name, []).append(name)
    branches = droppable(supernet, config)
    variables = [_fractions(group, full, config, gone=set(group) <= branches) for group in groups.values()]
    return Space("default", variables, supernet)


def _frozen(full: Iterable[str], config: SpaceConfig) -> set[str]:
    return {name for pattern in config.freeze for name in _matching(pattern, full)}


def _matching(pattern: str, names: Iterable[str]) -> list[str]:
    found = [name for name in names if fnmatch.fnmatchcase(name, pattern)]
    if not found:
        raise ConfigError(f"space names width {pattern!r}, which does not exist; {nearest(pattern, names)}")
    return found


def droppable(supernet: Supernet, config: SpaceConfig) -> set[str]:
    """Widths that may be left without channels."""
    return {supernet.graph.widths[number].name for number in supernet.branches} if config.drop_branches else set()


def _fractions(group: Sequence[str], full: Mapping[str, int], config: SpaceConfig, *, gone: bool) -> Variable:
    """The widths of a group at each fraction, and without channels if they may be ``gone``.

    The widest of them labels the choices.
    """
    rows: dict[int, tuple[int, ...]] = {0: (0,) * len(group)} if gone else {}
    widest = max(group, key=full.__getitem__)
    multiple = config.rounding
    for fraction in config.fractions or FRACTIONS:
        sizes = {
            name: full[name]
            if fraction == 1
            else min(full[name], max(multiple, round(full[name] * fraction / multiple) * multiple))
            for name in group
        }
        rows[sizes[widest]] = tuple(sizes[name] for name in group)
    choices = tuple(sorted(rows))
    return Variable(
        widest if len(group) > 1 else group[0],
        choices,
        tuple((name, tuple(rows[c][i] for c in choices)) for i, name in enumerate(group)),
    )


def uniform_space(supernet: Supernet, config: SpaceConfig) -> Space:
    """One variable: the share of its channels that every width keeps, of C channels ``C - floor((1 - share) * C)``.

    So a share of 0.3 drops the lowest ``floor(0.7 * C)``, as DCP-GAN and CAGAN prune. A budget chooses the largest
    share that meets it.
    """
    if config.drop_branches:
        raise ConfigError(
            "space 'uniform' keeps the same share of every width; drop_branches needs 'default' or 'every'"
        )
    full = supernet.full_config()
    frozen = _frozen(full, config)
    group = [name for name in full if name not in frozen]
    if not group:
        return Space("uniform", [], supernet)
    widest, multiple = max(group, key=full.__getitem__), config.rounding
    rows: dict[int, tuple[int, ...]] = {}
    for share in config.fractions or [kept / full[widest] for kept in range(1, full[widest] + 1)]:
        kept = [full[name] - math.floor((1 - share) * full[name] + 1e-9) for name in group]
        sizes = [
            min(full[name], max(1, -(-size // multiple) * multiple)) for name, size in zip(group, kept, strict=True)
        ]
        rows[sizes[group.index(widest)]] = tuple(sizes)
    choices = tuple(sorted(rows))
    sizes_of = tuple((name, tuple(rows[c][i] for c in choices)) for i, name in enumerate(group))
    return Space("uniform", [Variable(widest, choices, sizes_of)], supernet)


def every_space(supernet: Supernet, config: SpaceConfig) -> Space:
    """A variable for each width, and every size of it: what methods that choose channels themselves end in."""
    full = supernet.full_config()
    frozen = _frozen(full, config)
    step = config.rounding
    choices = {name: sorted({*range(step, size, step), size}) for name, size in full.items() if name not in frozen}
    for name in droppable(supernet, config) & set(choices):
        choices[name].insert(0, 0)
    return Space(config.name, [Variable.scaled(name, sizes, [(name, 1)]) for name, sizes in choices.items()], supernet)


def _settings(given: str | Mapping[str, Any] | SpaceConfig) -> SpaceConfig:
    """A space's settings from its name or from a mapping.

    Raises:
        ConfigError: a setting that there is not, or of another type.
    """
    if isinstance(given, SpaceConfig):
        return given
    try:
        return SpaceConfig.model_validate(given if isinstance(given, Mapping) else {"name": given})
    except ValidationError as error:
        found = error.errors()[0]
        raise ConfigError(
            f"space: {'.'.join(map(str, found['loc']))} cannot be {found['input']!r}: "
            f"{found['msg'].removeprefix('Value error, ')}; give a name, or settings of "
            f"{', '.join(SpaceConfig.model_fields)}"
        ) from None


def space(name: str | Mapping[str, Any] | SpaceConfig, supernet: Supernet) -> Space:
    """A search space by name (``default``, ``uniform``, ``every``, or a published table), or from its settings.

    As ``{"name": "uniform", "multiple": 8}``.

    ``path`` is every size as long as there is no path (``spaces/path.py``), which a training makes.

    Raises:
        ConfigError: unknown name, a table that does not fit the generator, settings that name no width, or no supernet.
    """
    check_supernet(supernet)
    config = _settings(name)
    if config.name == "default":
        return default_space(supernet, config)
    if config.name in ("uniform", "every", "path"):
        if config.ties:
            raise ConfigError(f"space {config.name!r} takes no ties; leave them out, or choose 'default'")
        return (uniform_space if config.name == "uniform" else every_space)(supernet, config)
    if config.name not in TABLES:
        known = [*TABLES, "default", "uniform", "every", "path"]
        raise ConfigError(f"space {config.name!r} is unknown: {nearest(config.name, known)}")
    if config != SpaceConfig(name=config.name):
        raise ConfigError(
            f"space {config.name!r} is a fixed table; fractions, multiple, ties, freeze and drop_branches need "
            "'default'"
        )
    return Space(config.name, published_variables(config.name, supernet), supernet)


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
    return supernet.graph.config(chosen)


def as_mapping(space: Space, indices: Sequence[int]) -> Mapping[str, int]:
    """Choice by variable name, for tables and trials."""
    return {v.name: v.choices[int(i)] for v, i in zip(space.variables, indices, strict=True)}
