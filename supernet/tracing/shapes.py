"""Rules of operations that move channels: concatenation, reshapes, indexing, splits, reductions."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from gantailor.supernet.graph import FIXED
from gantailor.supernet.tracing.elementwise import Args, Kwargs, argument, elementwise
from gantailor.supernet.tracing.sizes import Size, demand, is_computed, new_axis, reads, sizes_of
from gantailor.supernet.tracing.tracer import Tracer


def concatenate(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: Tensor) -> None:
    """Axes that are joined end to end keep their units; the others must agree."""
    parts = [p for p in args[0] if isinstance(p, Tensor) and p.dim() == out.dim()]
    axis = argument(args, kwargs, 1, "dim", kwargs.get("axis", 0)) % out.dim()
    labels: list[np.ndarray | None] = []
    for dimension in range(out.dim()):
        here = [t.labels(p)[dimension] for p in parts]
        if dimension == axis:
            joined = [np.full(p.shape[axis], FIXED) if h is None else h for p, h in zip(parts, here, strict=True)]
            labels.append(np.concatenate(joined) if any(h is not None for h in here) else None)
        else:
            found = here[0]
            for other in here[1:]:
                found = t.join(found, other)
            labels.append(found)
    t.set(out, labels)


def stack(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: Tensor) -> None:
    """A new axis of one unit each; the others must agree."""
    axis = argument(args, kwargs, 1, "dim", 0) % out.dim()
    found = list(t.labels(args[0][0]))
    for other in args[0][1:]:
        found = [t.join(a, b) for a, b in zip(found, t.labels(other), strict=True)]
    found.insert(axis, None)
    t.set(out, found)


def reshape(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: Tensor) -> None:
    """view, reshape, flatten, unflatten, squeeze, unsqueeze: axes are followed block by block."""
    x, labels = args[0], t.labels(args[0])
    given = _given(t, func, args, kwargs, out)
    result: list[np.ndarray | None] = [None] * out.dim()
    for olds, news in _blocks(tuple(x.shape), tuple(out.shape)):
        if all(labels[o] is None for o in olds):
            continue
        pieces = _pieces(olds, news, x.shape, out.shape)
        if pieces is None:
            for o in olds:
                t.freeze(labels[o], "is split by a reshape")
            continue
        found = [axis for o in olds for axis in _cut(t, labels[o], [p for p in pieces if p[1] == o], given, x)]
        for n in news:
            mine = [number for number, piece in enumerate(pieces) if piece[2] == n]
            result[n] = _merge(t, [found[k] for k in mine], [pieces[k][0] for k in mine])
    for size, axis in zip(given, result, strict=True):
        demand(t, size, axis)
        if axis is not None and type(size) is int and size > 1:
            t.literals.append((axis, f"{func.__name__} to {size}{t.where}"))
    t.set(out, result)


def _given(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: Tensor) -> list[int]:
    """The size that the forward gives to each axis of the result; 0 where it gives none."""
    name: str = func.__name__
    sizes: Any = args[1] if len(args) == 2 else args[1:]
    if name in ("view_as", "reshape_as"):
        return sizes_of(t, args[1])
    if name == "unflatten":
        parts, dimension = list(argument(args, kwargs, 2, "sizes")), argument(args, kwargs, 1, "dim") % args[0].dim()
        return [*[0] * dimension, *parts, *[0] * (out.dim() - dimension - len(parts))]
    sizes = kwargs.get("shape", kwargs.get("size", sizes))
    asked = name in ("view", "reshape") and isinstance(sizes, tuple | list) and len(sizes) == out.dim()
    return list(sizes) if asked else [0] * out.dim()


def _cut(
    t: Tracer, axis: np.ndarray | None, pieces: list[tuple[int, int, int]], given: list[int], x: Tensor
) -> list[np.ndarray | None]:
    """The channels of each piece that an axis is cut into; what then is told apart no more is frozen."""
    sizes = [size for size, _, _ in pieces]
    if axis is None or len(pieces) == 1:
        return [axis] * len(pieces)
    parts = _divide(axis, sizes)
    if all(part is None for part in parts):
        return _carried(t, axis, sizes, _carrier(given, x, [new for _, _, new in pieces]))
    t.freeze(np.setdiff1d(axis, np.concatenate([p for p in parts if p is not None])), "is split by a reshape")
    return parts


def _carrier(given: list[int], x: Tensor, news: list[int]) -> int:
    """Which of the axes that one axis is split into carries the channels.

    The one whose size the forward computes from a number of channels; else that given as -1; else, of those that it
    computes or that are not written as a number, the first if features become a picture, and the second otherwise:
    positions within the heads of an attention, or within the parts of a concatenation. A guess: ``verify`` proves it.
    """
    for position, axis in enumerate(news):
        if reads(given[axis]):
            return position
    for position, axis in enumerate(news):
        if given[axis] == -1:
            return position
    usual = 0 if x.dim() == 2 else 1
    computed = [position for position, axis in enumerate(news) if is_computed(given[axis])]
    known = computed or [position for position, axis in enumerate(news) if isinstance(given[axis], Size)]
    return usual if usual in known or not known else known[0]


def _carried(t: Tracer, merged: np.ndarray, sizes: list[int], carrier: int) -> list[np.ndarray | None]:
    """Tie the elements of each position on the carrying axis."""
    grid = np.moveaxis(merged.reshape(sizes), carrier, 0).reshape(sizes[carrier], -1)
    for column in grid.T[1:]:
        t.join(grid[:, 0], column)
    result: list[np.ndarray | None] = [None] * len(sizes)
    result[carrier] = grid[:, 0].copy()
    return result


def _blocks(old: tuple[int, ...], new: tuple[int, ...]) -> list[tuple[list[int], list[int]]]:
    """Smallest groups of consecutive axes with equal products; axes of size one carry no identity and are left out."""
    real_old = [i for i in range(len(old)) if old[i] != 1]
    real_new = [j for j in range(len(new)) if new[j] != 1]
    result, i, j = [], 0, 0
    while i < len(real_old) and j < len(real_new):
        olds, news = [real_old[i]], [real_new[j]]
        a, b = old[real_old[i]], new[real_new[j]]
        i, j = i + 1, j + 1
        while a != b:
            if a < b:
                a *= old[real_old[i]]
                olds.append(real_old[i])
                i += 1
            else:
                b *= new[real_new[j]]
                news.append(real_new[j])
                j += 1
        result.append((olds, news))
    return result


def _pieces(
    olds: list[int], news: list[int], old: tuple[int, ...], new: tuple[int, ...]
) -> list[tuple[int, int, int]] | None:
    """A block in pieces that are parts of one old and of one new axis: their sizes and these axes.

    None where there are no such (six by four to four by six).
    """
    result, waiting = [], list(news)
    room = new[waiting[0]]
    for o in olds:
        left = old[o]
        while left > 1:
            size = min(left, room)
            if left % size or room % size:
                return None
            result.append((size, o, waiting[0]))
            left, room = left // size, room // size
            if room == 1 and len(waiting) > 1:
                waiting.pop(0)
                room = new[waiting[0]]
    return result


def _merge(t: Tracer, labels: list[np.ndarray | None], sizes: list[int]) -> np.ndarray | None:
    """Identities of the flattened axes; only one of them may carry any (others repeat it)."""
    carrying = [(i, axis) for i, axis in enumerate(labels) if axis is not None]
    if len(carrying) > 1:
        carrying = [(i, axis) for i, axis in carrying if not _is_frozen(t, axis)]
    if len(carrying) != 1:
        for _, axis in carrying:
            t.freeze(axis, "is flattened together with other channels")
        return None
    (place, axis), shape = carrying[0], [1] * len(sizes)
    shape[place] = sizes[place]
    return np.ascontiguousarray(np.broadcast_to(axis.reshape(shape), sizes)).reshape(-1)


def _is_frozen(t: Tracer, labels: np.ndarray) -> bool:
    """Whether these channels are known to stay by now."""
    return any(np.isin(labels, frozen).all() for frozen, _ in t.frozen)


def _divide(merged: np.ndarray, sizes: list[int]) -> list[np.ndarray | None]:
    """Identities of the axes after a split: an axis carries them if they do not vary along the others."""
    grid = merged.reshape(sizes)
    result: list[np.ndarray | None] = []
    for axis in range(len(sizes)):
        first = np.moveaxis(grid, axis, 0).reshape(sizes[axis], -1)
        constant = (first == first[:, :1]).all()
        result.append(first[:, 0].copy() if constant and (first != FIXED).any() else None)
    return result


def permute(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: Tensor) -> None:
    """transpose, permute, movedim, T, ...: found by moving the axes of a small index tensor."""
    x = args[0]
    probe = torch.empty([2] * x.dim() or [1], device="meta").as_strided([2] * x.dim(), [10**d for d in range(x.dim())])
    moved = func(probe, *args[1:], **kwargs)
    labels = t.labels(x)
    t.set(out, [labels[len(str(s)) - 1] for s in moved.stride()])


def made(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: Tensor) -> None:
    """zeros, randn, new_full, ...: a tensor made for as many channels as come, or of fixed size."""
    sizes = args[1:] if args and isinstance(args[0], Tensor) else args
    sizes = kwargs.get("size", sizes[0] if sizes and isinstance(sizes[0], tuple | list) else sizes)
    t.set(out, [new_axis(t, size) for size in sizes][: out.dim()] if len(sizes) >= out.dim() else [None] * out.dim())


def eye(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: Tensor) -> None:
    """An identity matrix of as many rows as come."""
    rows = new_axis(t, argument(args, kwargs, 0, "n"))
    t.set(out, (rows, rows if out.shape[0] == out.shape[1] else None))


def expand(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: Tensor) -> None:
    """Old axes keep their units; what is repeated for as many channels as come has theirs."""
    x = args[0]
    sizes: Any = kwargs.get("size", args[1] if len(args) == 2 and not isinstance(args[1], int) else args[1:])
    sizes = sizes_of(t, sizes) if isinstance(sizes, Tensor) else list(sizes)
    old = [*[None] * (out.dim() - x.dim()), *t.labels(x)]
    grown = [1] * (out.dim() - x.dim()) + list(x.shape)
    t.set(out, [new_axis(t, size) if n == 1 else axis for n, axis, size in zip(grown, old, sizes, strict=True)])


def repeat(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: Tensor) -> None:
    """Units repeat with their channels; what is repeated for as many channels as come has theirs."""
    times = argument(args, kwargs, 1, "repeats", kwargs.get("dims"))
    times = args[1:] if isinstance(times, int) else times
    grown = [1] * (out.dim() - args[0].dim()) + list(args[0].shape)
    times = [1] * (out.dim() - len(times)) + list(times)
    old = [*[None] * (out.dim() - args[0].dim()), *t.labels(args[0])]
    labels = [None if a is None else np.tile(a, out.shape[d] // len(a)) for d, a in enumerate(old)]
    t.set(out, [new_axis(t, k) if n == 1 else a for n, a, k in zip(grown, labels, times, strict=True)])


def reduce(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: Any) -> None:
    """sum, mean, var, norm, amax, ...: reduced axes end; a statistic over channels makes their width inexact."""
    x, labels = args[0], t.labels(args[0])
    dims = argument(args, kwargs, 1, "dim", kwargs.get("axis"))
    if isinstance(argument(args, kwargs, 1, "other"), Tensor):  # the larger of two, place by place
        elementwise(t, func, args, kwargs, out)
        return
    if not isinstance(dims, int | tuple | list):
        dims = None
    gone = range(x.dim()) if dims is None else [d % x.dim() for d in ([dims] if isinstance(dims, int) else dims)]
    for d in gone:
        t.mark_inexact(labels[d], "a statistic over channels")
    for result in (r for r in (out if isinstance(out, tuple) else (out,)) if isinstance(r, Tensor)):
        if result.dim() == x.dim():
            t.set(result, [None if d in gone else axis for d, axis in enumerate(labels)])
        else:
            t.set(result, [axis for d, axis in enumerate(labels) if d not in gone][: result.dim()])


def chunk(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: tuple[Tensor, ...]) -> None:
    """chunk and split: equal parts keep the same positions (a narrow net is cut at the same share)."""
    x, labels = args[0], t.labels(args[0])
    dimension = argument(args, kwargs, 2, "dim", 0) % x.dim()
    start = 0
    sizes = [part.shape[dimension] for part in out]
    axis = labels[dimension]
    given = argument(args, kwargs, 1, "split_size", kwargs.get("split_size_or_sections"))
    given = given if func.__name__ == "split" else ()
    given = list(given) if isinstance(given, tuple | list) else [given] * isinstance(given, Size)
    equal = len(set(sizes)) == 1 and len(given) < 2
    if axis is not None and equal and len(sizes) > 1:
        parts = axis.reshape(len(sizes), -1)
        for part in parts[1:]:
            t.join(parts[0], part)
    elif len(sizes) > 1 and not all(isinstance(size, Size) for size in given):
        t.freeze(axis, "is split at fixed places")
    for size, at in zip(given, np.cumsum([0, *sizes]).tolist(), strict=False) if axis is not None else ():
        demand(t, size, axis[at : at + size])
    for part in out:
        stop = start + part.shape[dimension]
        t.set(part, [a if d != dimension or a is None else a[start:stop] for d, a in enumerate(labels)])
        start = stop


def glu(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: Tensor) -> None:
    """The first half of the channels gated by the second: both keep the same positions."""
    labels = list(t.labels(args[0]))
    dimension = argument(args, kwargs, 1, "dim", -1)
    axis = labels[dimension]
    if axis is not None:
        first, second = axis.reshape(2, -1)
        labels[dimension] = t.join(first, second)
    t.set(out, labels)


def trailing(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: Tensor) -> None:
    """Complex numbers to pairs in a last axis, and back."""
    t.set(out, (*t.labels(args[0]), None)[: out.dim()])


def pixel_shuffle(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: Tensor) -> None:
    """The r*r channels of one output channel stay together."""
    axis, factor = t.labels(args[0])[1], argument(args, kwargs, 1, "upscale_factor") ** 2
    made = None
    if axis is not None:
        parts = axis.reshape(-1, factor)
        for offset in range(1, factor):
            t.join(parts[:, 0], parts[:, offset])
        made = parts[:, 0] if len(parts) > 1 else None
        if made is None:
            t.freeze(axis, "becomes one channel")
    t.set(out, (None, made, None, None))


def pixel_unshuffle(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: Tensor) -> None:
    """Every channel becomes r*r that stay together."""
    axis, factor = t.labels(args[0])[1], argument(args, kwargs, 1, "downscale_factor") ** 2
    t.set(out, (None, None if axis is None else np.repeat(axis, factor), None, None))


def flip(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: Tensor) -> None:
    """Places may be reversed; channels that are stay whole."""
    dims = argument(args, kwargs, 1, "dims")
    dims = [dims] if isinstance(dims, int) else dims
    labels = list(t.labels(args[0]))
    for d in dims:
        t.freeze(labels[d], "is reversed")
    t.set(out, labels)


def roll(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: Tensor) -> None:
    """Places may roll; channels that roll stay whole."""
    dims = argument(args, kwargs, 2, "dims")
    dims = range(args[0].dim()) if dims is None else [dims] if isinstance(dims, int) else dims
    labels = list(t.labels(args[0]))
    for d in dims:
        t.freeze(labels[d], "is rolled")
    t.set(out, labels)


def unbind(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: tuple[Tensor, ...]) -> None:
    """The axis that falls apart stays whole; the others pass."""
    dimension = argument(args, kwargs, 1, "dim", 0) % args[0].dim()
    labels = t.labels(args[0])
    t.freeze(labels[dimension], "is unbound")
    for part in out:
        t.set(part, [axis for d, axis in enumerate(labels) if d != dimension])
