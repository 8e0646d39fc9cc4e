"""Which subnets a proof tries: every width narrowed alone and together, to half, to one unit, to equal sizes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from gantailor.supernet.graph import Axis, SubnetConfig, WidthGraph

MOST_LEVELS = 12  # subnets of equal sizes


def together(graph: WidthGraph, *, selections: int, seed: int) -> dict[str, SubnetConfig]:
    """Subnets of many narrow widths, each with what it is called: none has every width at its full size."""
    full = [width.size for width in graph.widths]
    sizes = {
        "half": [max(1, size // 2) for size in full],
        "one unit": [1] * len(full),
        "one unit of every second": [1 if n % 2 else size for n, size in enumerate(full)],
        "one unit of every other second": [size if n % 2 else 1 for n, size in enumerate(full)],
    }
    sizes |= {f"equal sizes, {number}": chosen for number, chosen in enumerate(equal_sizes(graph))}
    rng = np.random.default_rng(seed)
    sizes |= {
        f"random, {number}": [int(rng.integers(1, max(2, size))) for size in full] for number in range(selections)
    }
    found: dict[tuple[int, ...], str] = {}
    for name, chosen in sizes.items():
        if chosen != full:
            found.setdefault(tuple(chosen), name)
    return {name: graph.config(chosen) for chosen, name in found.items()}


def alone(graph: WidthGraph, *, fewer: bool = False) -> Iterator[tuple[str, SubnetConfig]]:
    """Subnets of one narrow width, each with what it is called; with ``fewer`` at half of it only."""
    for width in graph.widths:
        half = max(1, width.size // 2)
        for size in dict.fromkeys((half,) if fewer else (half, 1)):
            if size < width.size:
                yield f"{width.name} alone at {size} of {width.size}", SubnetConfig({width.name: size})


def equal_sizes(graph: WidthGraph) -> Iterator[list[int]]:
    """Sizes at which channel counts coincide that differ in the whole generator.

    All widths at the count of the narrowest, then the counts that meet in one layer or are kept by one module, two by
    two: code likes to compare these.
    """
    full = [width.size for width in graph.widths]
    channels = [_channels(graph, number) for number in range(len(full))]
    for least in sorted({count * size for count, size in zip(channels, full, strict=True)})[:1]:
        yield [max(1, min(size, least // count)) for count, size in zip(channels, full, strict=True)]
    waiting = _pairs(graph)
    for _ in range(MOST_LEVELS):
        sizes, taken, later = list(full), set[int](), []
        for narrow, wide in waiting:
            mine = {*narrow.counts, *wide.counts}
            leveled = None if mine & taken else _leveled(wide, narrow.size(full), sizes)
            if mine & taken:
                later.append((narrow, wide))
            elif leveled is not None:
                sizes, taken = leveled, taken | mine
        if taken:
            yield sizes
        if not later:
            return
        waiting = later


def _channels(graph: WidthGraph, width: int) -> int:
    """Channels of one unit, on the axes that have no other width."""
    counts = (axis.counts for axes in graph.axes.values() for axis in axes.values())
    return min((found[width] for found in counts if [*found] == [width]), default=1)


def _pairs(graph: WidthGraph) -> list[tuple[Axis, Axis]]:
    """Axes of different sizes that meet in one layer or module, the narrower first, each pair of sizes once."""
    met: dict[str, list[Axis]] = {}
    for term in graph.terms:
        met.setdefault(term.layer, []).extend(term.axes)
    for attribute in graph.attributes:
        met.setdefault(attribute.module, []).append(attribute.axis)
    full, found = [width.size for width in graph.widths], {}
    for axes in met.values():
        for one, other in itertools.combinations(axes, 2):
            narrow, wide = sorted((one, other), key=lambda axis: axis.size(full))
            if wide.counts and narrow.size(full) < wide.size(full):
                found[_form(narrow), _form(wide)] = narrow, wide
    return [*found.values()]


def _form(axis: Axis) -> tuple[int, tuple[tuple[int, int], ...]]:
    return axis.fixed, tuple(sorted(axis.counts.items()))


def _leveled(axis: Axis, target: int, full: Sequence[int]) -> list[int] | None:
    """Sizes at which the axis has exactly so many elements; None where that cannot be."""
    sizes, share = list(full), (target - axis.fixed) / max(1, len(axis) - axis.fixed)
    for width in axis.counts:
        sizes[width] = max(1, int(full[width] * share))
    for width, count in sorted(axis.counts.items(), key=lambda item: -item[1]):
        sizes[width] += min(full[width] - sizes[width], max(0, target - axis.size(sizes)) // count)
    return sizes if axis.size(sizes) == target else None
