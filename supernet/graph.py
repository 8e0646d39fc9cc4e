"""The width graph: which channel counts of a generator belong together, and where they sit in its tensors.

A *width* is a channel count decided once. It has *units*: the channels that stay or go together. Every axis of every
weight that depends on widths is an ``Axis``: for each element, its width and its unit. Slicing, permuting, costing,
ranking and gating are all read off these axes; nothing else in the toolkit knows a generator's structure.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from gantailor.supernet.errors import SelectionError, nearest, shortened

FIXED = -1


@dataclass(frozen=True)
class Width:
    """A channel count decided once; ``layers`` are the modules that produce it, in forward order."""

    name: str
    size: int
    layers: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Axis:
    """One axis of a tensor, element by element: the width (an index, or ``FIXED``) and the unit within it."""

    width: np.ndarray
    unit: np.ndarray

    def __len__(self) -> int:
        return len(self.width)

    @cached_property
    def counts(self) -> dict[int, int]:
        """Width index to the number of elements that one unit of it has on this axis."""
        found, totals = np.unique(self.width, return_counts=True)
        units = {int(w): len(np.unique(self.unit[self.width == w])) for w in found if w != FIXED}
        return {
            w: int(total) // units[w] for w, total in zip(found.tolist(), totals.tolist(), strict=True) if w != FIXED
        }

    @cached_property
    def fixed(self) -> int:
        """Number of elements that always stay."""
        return int((self.width == FIXED).sum())

    @cached_property
    def leading(self) -> int | None:
        """The width's index if this axis simply is that width in order, so that leading units are a plain slice."""
        first = int(self.width[0])
        plain = first != FIXED and (self.width == first).all() and (self.unit == np.arange(len(self))).all()
        return first if plain else None

    def size(self, sizes: Sequence[int]) -> int:
        """Elements left when width ``w`` has ``sizes[w]`` units."""
        return self.fixed + sum(count * int(sizes[w]) for w, count in self.counts.items())

    def kept(self, masks: Sequence[np.ndarray]) -> np.ndarray:
        """Positions that stay, ascending, where ``masks[w]`` says which units of width ``w`` stay."""
        keep = self.width == FIXED
        for w in self.counts:
            mine = self.width == w
            keep[mine] = masks[w][self.unit[mine]]
        return np.flatnonzero(keep)

    def permuted(self, orders: Mapping[int, np.ndarray]) -> np.ndarray:
        """Old position for each new position when unit ``u`` of width ``w`` becomes old unit ``orders[w][u]``."""
        source = np.arange(len(self))
        for w, order in orders.items():
            mine = np.flatnonzero(self.width == w)
            units = self.unit[mine]
            repeats: dict[int, int] = {}
            where: dict[tuple[int, int], int] = {}
            occurrence = []
            for position, unit in zip(mine.tolist(), units.tolist(), strict=True):
                occurrence.append(repeats.get(unit, 0))
                where[unit, occurrence[-1]] = position
                repeats[unit] = occurrence[-1] + 1
            for position, unit, k in zip(mine.tolist(), units.tolist(), occurrence, strict=True):
                source[position] = where[int(order[unit]), k]
        return source


def _channels(name: str, value: Any) -> int:
    """A size as a number of channels: a share of them, ``0.5``, is none, and is not cut off to one."""
    try:
        if float(value) == int(value):
            return int(value)
    except (TypeError, ValueError, OverflowError):  # None, a word, not a number, infinity
        pass
    raise SelectionError(f"width {name!r} cannot be {value}; give a whole number of channels")


def _check_mapping(config: object) -> None:
    """That a config is one.

    Raises:
        SelectionError: it is what holds one, as a search's ``best``, or something else.
    """
    if not isinstance(config, Mapping):
        way = (
            "give its .config" if hasattr(config, "config") else "give a number of channels for each width by its name"
        )
        raise SelectionError(f"config cannot be {shortened(repr(config))}; {way}")


class SubnetConfig(Mapping[str, int]):
    """A size for each width: an immutable mapping from width name to a number of channels.

    >>> SubnetConfig({"model.1": 16, "model.4": 32})["model.4"]
    32

    Raises:
        SelectionError: no mapping, or a size that is no whole number.
    """

    def __init__(self, sizes: Mapping[str, int]) -> None:
        _check_mapping(sizes)
        self._sizes = {str(name): _channels(str(name), size) for name, size in sizes.items()}

    def __getitem__(self, name: str) -> int:
        return self._sizes[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._sizes)

    def __len__(self) -> int:
        return len(self._sizes)

    def __hash__(self) -> int:
        return hash(tuple(sorted(self._sizes.items())))

    def __repr__(self) -> str:
        return f"SubnetConfig({self._sizes})"

    def to_json(self) -> str:
        """Plain JSON, readable back by ``from_json``."""
        return json.dumps(self._sizes)

    @classmethod
    def from_json(cls, text: str) -> SubnetConfig:
        """A config from what ``to_json`` wrote."""
        return cls(json.loads(text))


class Selection(Mapping[str, tuple[int, ...]]):
    """The kept units of each width, ascending: what every compression method ends in."""

    def __init__(self, kept: Mapping[str, Sequence[int]]) -> None:
        self._kept = {str(name): tuple(sorted(int(unit) for unit in units)) for name, units in kept.items()}

    def __getitem__(self, name: str) -> tuple[int, ...]:
        return self._kept[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._kept)

    def __len__(self) -> int:
        return len(self._kept)

    def __hash__(self) -> int:
        return hash(tuple(sorted(self._kept.items())))

    def __repr__(self) -> str:
        return f"Selection({ {name: len(units) for name, units in self.items()} })"

    @property
    def config(self) -> SubnetConfig:
        """Its sizes."""
        return SubnetConfig({name: len(units) for name, units in self._kept.items()})


@dataclass(frozen=True)
class Term:
    """One cost: a coefficient, for each convention, times the sizes of the axes."""

    layer: str
    coefficients: Mapping[str, float]
    axes: tuple[Axis, ...]


@dataclass(frozen=True)
class SizeAttribute:
    """An integer that a module keeps of an axis (``in_channels``, ``groups``, ...), set when it is narrowed."""

    module: str
    name: str
    axis: Axis
    as_tuple: bool = False

    @property
    def path(self) -> str:
        """Where it is: ``block.in_channels``."""
        return f"{self.module}.{self.name}" if self.module else self.name


@dataclass(frozen=True, eq=False)
class WidthGraph:
    """What tracing found. Print it to see which layers share which width.

    Attributes:
        widths: the free widths, in forward order.
        axes: for each weight or buffer name, its axes that depend on widths, by dimension.
        consumers: for each width index, the (weight, dimension) pairs that sum over it: where a gate belongs.
        frozen: what stays at full size, with the reason.
        inexact: width index to why its removal is not the same as zeroing it (statistics over channels, say).
        activations: module path to the axis of its output's channels.
        removable: widths, by number, that may be left without units (``supernet/subnets/branches.py``).
        shares: of each that is frozen, the share of all MACs that would go if half of its channels (and of all that
            share its reason) could.
    """

    widths: tuple[Width, ...]
    axes: Mapping[str, Mapping[int, Axis]]
    consumers: Mapping[int, tuple[tuple[str, int], ...]]
    frozen: Mapping[str, str]
    inexact: Mapping[int, str]
    activations: Mapping[str, Axis]
    attributes: tuple[SizeAttribute, ...]
    terms: tuple[Term, ...]
    parameters: tuple[tuple[str, tuple[int, ...]], ...]
    removable: frozenset[int] = frozenset()
    shares: Mapping[str, float] = field(default_factory=dict)
    index: Mapping[str, int] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "index", {width.name: i for i, width in enumerate(self.widths)})

    def full_config(self) -> SubnetConfig:
        """Every width at its full size."""
        return self.config(width.size for width in self.widths)

    def config(self, sizes: Iterable[int]) -> SubnetConfig:
        """The config of sizes in the order of ``widths``, one for each."""
        return SubnetConfig({width.name: int(size) for width, size in zip(self.widths, sizes, strict=True)})

    def sizes(self, config: Mapping[str, Any]) -> list[int]:
        """The config's sizes in the order of ``widths``; widths that it leaves out stay full.

        Raises:
            SelectionError: no mapping, an unknown width, or a size outside 1..full, 0 included where it is removable.
        """
        _check_mapping(config)
        unknown = [name for name in config if name not in self.index]
        if unknown:
            raise SelectionError(f"width {unknown[0]!r} is not in the graph: {nearest(unknown[0], self.index)}")
        sizes = []
        for number, width in enumerate(self.widths):
            value = config.get(width.name, width.size)
            size = len(value) if isinstance(value, tuple) else _channels(width.name, value)
            if not 1 <= size <= width.size and not (size == 0 and number in self.removable):
                raise SelectionError(f"width {width.name!r} cannot be {size}; allowed are 1 to {width.size}")
            sizes.append(size)
        return sizes

    def present(self, subnet: Mapping[str, Any]) -> list[np.ndarray]:
        """The masks as tensors have them: a width that is gone still has its first unit, which is not read."""
        masks = self.masks(subnet)
        for mask in masks:
            mask[0] |= not mask.any()
        return masks

    def masks(self, subnet: Mapping[str, Any]) -> list[np.ndarray]:
        """For each width, which units stay: the named ones of a ``Selection``, the leading ones of a config."""
        masks = []
        for width, size in zip(self.widths, self.sizes(subnet), strict=True):
            units = subnet[width.name] if isinstance(subnet, Selection) and width.name in subnet else range(size)
            chosen = np.fromiter(units, np.int64)
            if len(chosen) and (chosen[-1] >= width.size or chosen[0] < 0):
                raise SelectionError(
                    f"width {width.name!r} has no channel {chosen[-1]}; allowed are 0 to {width.size - 1}"
                )
            mask = np.zeros(width.size, bool)
            mask[chosen] = True
            masks.append(mask)
        return masks

    def __deepcopy__(self, memo: dict[int, Any]) -> WidthGraph:
        """Itself: nothing changes a graph, so copies of a supernet share it."""
        return self

    def selection(self, config: Mapping[str, int]) -> Selection:
        """The leading units of each width."""
        sizes = self.sizes(config)
        return Selection({w.name: range(size) for w, size in zip(self.widths, sizes, strict=True)})

    def __str__(self) -> str:
        rows = [f"{len(self.widths)} free widths"]
        for width in self.widths:
            note = (
                f"  (inexact: {self.inexact[self.index[width.name]]})" if self.index[width.name] in self.inexact else ""
            )
            rows.append(f"  {width.name:<40} {width.size:>5}  {', '.join(width.layers)}{note}")
        if self.frozen:
            rows.append("frozen (and how many of the MACs would go if half of it could)")
            rows += [f"  {name:<40} {self.shares.get(name, 0):>5.0%}  {reason}" for name, reason in self.frozen.items()]
        return "\n".join(rows)
