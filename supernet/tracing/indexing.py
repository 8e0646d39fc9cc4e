"""Rules of operations that choose along an axis: indices, masks, order, blocks; and of those that mix a whole axis."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from gantailor.supernet.tracing.elementwise import Args, Kwargs, argument, elementwise, freeze_all, tensors
from gantailor.supernet.tracing.sizes import Size, demand, new_axis, plain
from gantailor.supernet.tracing.tracer import LATER, WEIGHT, Tracer


def getitem(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: Tensor) -> None:
    """Indexing by slices, integers, None, Ellipsis, tensors, lists; what a mask and others choose together freezes."""
    index = _whole_index(args[0], args[1])
    if index is None:
        freeze_all(t, func, args, kwargs, out)
        return
    if sum(isinstance(i, Tensor | list) for i in index) > 1:
        _chosen_together(t, args[0], index, out)
        return
    labels, dimension = t.labels(args[0]), 0
    result: list[np.ndarray | None] = []
    for i in index:
        if i is None:
            result.append(None)
            continue
        axis = labels[dimension]
        if isinstance(i, int):
            if axis is not None:
                t.later(out, _place(axis, i), "is indexed by a number")
        elif isinstance(i, slice):
            result.append(_slice(t, axis, i))
        else:
            for chosen_from in labels[dimension : dimension + _consumed(i)]:
                t.freeze(chosen_from, "is indexed by a tensor")
            result += t.labels(i) if isinstance(i, Tensor) and _consumed(i) == 1 and not _is_mask(i) else [None]
        dimension += 1 if isinstance(i, int | slice) else _consumed(i)
    t.set(out, result)


def _whole_index(x: Tensor, given: Any) -> list[Any] | None:
    """An index that says something of every axis; None where a tensor chooses together with numbers or masks."""
    index = list(given) if isinstance(given, tuple) else [given]
    several = [i for i in index if isinstance(i, Tensor | list)]
    if any(isinstance(i, bool) for i in index) or (len(several) > 1 and any(map(_is_mask, several))):
        return None
    if several and any(isinstance(i, int) for i in index):
        return None
    at = next((n for n, i in enumerate(index) if i is ...), len(index))
    rest = index[at + 1 :]
    used = sum(1 if isinstance(i, int | slice) else _consumed(i) for i in (*index[:at], *rest) if i is not None)
    return [*index[:at], *[slice(None)] * (x.dim() - used), *rest]


def _chosen_together(t: Tracer, x: Tensor, index: list[Any], out: Tensor) -> None:
    """The axes that several tensors choose from stay whole, those of slices pass; theirs stand where the first stood.

    They come first if something stands between them.
    """
    labels, passed, at = iter(t.labels(x)), list[np.ndarray | None](), list[int]()
    for n, i in enumerate(index):
        axis = None if i is None else next(labels)
        if isinstance(i, Tensor | list):
            t.freeze(axis, "is indexed by a tensor")
            at.append(n)
        else:
            passed.append(_slice(t, axis, i))
    place = at[0] if at[-1] - at[0] == len(at) - 1 else 0
    t.set(out, [*passed[:place], *[None] * (out.dim() - len(passed)), *passed[place:]])


def _is_mask(index: Any) -> bool:
    return isinstance(index, Tensor) and index.dtype == torch.bool


def _consumed(index: Any) -> int:
    """How many axes a tensor or list chooses from."""
    return index.dim() if _is_mask(index) else 1


def setitem(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: Any) -> None:
    """Writing into a part of a tensor: its channels there are those of what is written."""
    x, index, value = args[0], args[1], args[2]
    axes = _whole_index(x, index)
    if axes is None or any(isinstance(i, Tensor | list) for i in axes):
        for tensor in (x, *tensors(args[1:], kwargs)):
            for axis in t.labels(tensor):
                t.freeze(axis, "is assigned into a tensor")
        t.set(x, [None] * x.dim())
        return
    part = x[plain(index)]
    getitem(t, func, (x, index), {}, part)
    for labels, reason in getattr(part, LATER, ()):
        t.freeze(labels, reason)
    if isinstance(value, Tensor):
        elementwise(t, func, (part, value), {}, part)
        setattr(x, WEIGHT, t.is_weight(x) and t.is_weight(value))


def set_data(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: Any) -> None:
    """``weight.data = value``: a weight that is computed from others at every call has their channels."""
    for own, other in zip(t.labels(args[0]), t.labels(args[1]), strict=True):
        t.join(own, other)


def narrow(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: Tensor) -> None:
    """A slice from a start, of a length."""
    dimension = argument(args, kwargs, 1, "dim") % args[0].dim()
    start, length = argument(args, kwargs, 2, "start"), argument(args, kwargs, 3, "length")
    labels = list(t.labels(args[0]))
    axis, size = labels[dimension], args[0].shape[dimension]
    if axis is not None and out.shape[dimension] < size and isinstance(start, int):
        labels[dimension] = _slice(t, axis, slice(start, start + length))
    elif out.shape[dimension] < size:
        t.freeze(axis, "is cut at a fixed place")
        labels[dimension] = None
    t.set(out, labels)


def _slice(t: Tracer, axis: np.ndarray | None, index: slice) -> np.ndarray | None:
    """A part of an axis; the parts on both sides of a place that a number of channels gives are as long as it says.

    Of an axis that is cut at a number that is written down, what lies between this place and the end that it is
    counted from stays.
    """
    if axis is None:
        return None
    size = len(axis)
    start, stop, step = index.indices(size)
    if len(range(*plain((start, stop, step)))) == size:
        return axis
    if start == stop == 0:
        return None  # nothing, in a narrow net too
    for end, at in ((index.start, start), (index.stop, stop)):
        if end is None or end == 0 or not 0 < at < size:
            continue
        if step != 1:
            t.freeze(axis, "is cut at a fixed place")
        elif isinstance(end, Size):
            demand(t, end if at == end else -end, axis[:at] if at == end else axis[at:])
        else:
            t.freeze(axis[at:] if end < 0 else axis[:at], "is cut at a fixed place")
    return axis[index]


def _place(axis: np.ndarray, place: int) -> np.ndarray:
    """What has to stay so that a place is where it was: all between it and the end that it is counted from."""
    return axis[place:] if place < 0 else axis[: place + 1]


def chosen(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: Any) -> None:
    """index_select, gather, topk, sort, argmax, cumsum, ...: the axis that is chosen from stays whole, others pass.

    Positions of the other axes may be given by a tensor (``gather``), whose channels then are the same.
    """
    x, dimension = args[0], _dimension(func, args, kwargs)
    if dimension is None:
        freeze_all(t, func, args, kwargs, out)
        return
    labels = list(t.labels(x))
    t.freeze(labels[dimension], f"is chosen from by {func.__name__}")
    labels[dimension] = None
    index = argument(args, kwargs, 2, "index")
    if isinstance(index, Tensor) and index.dim() == x.dim() > 1:
        for d, (own, other) in enumerate(zip(labels, t.labels(index), strict=True)):
            if d != dimension and index.shape[d] == x.shape[d] > 1:
                labels[d] = t.join(own, other)
    for result in (r for r in (out if isinstance(out, tuple) else (out,)) if isinstance(r, Tensor)):
        kept = [axis for d, axis in enumerate(labels) if result.dim() == x.dim() or d != dimension]
        t.set(result, [a if a is None or len(a) == n else None for a, n in zip(kept, result.shape, strict=True)])


def _dimension(func: Any, args: Args, kwargs: Kwargs) -> int | None:
    """The axis that an operation chooses from; None where it takes all of them as one."""
    place = {"topk": 2, "kthvalue": 2}.get(func.__name__, 1)
    usual = -1 if func.__name__ in ("topk", "sort", "argsort", "msort", "kthvalue") else None
    found = argument(args, kwargs, place, "dim", usual)
    return found % args[0].dim() if isinstance(found, int) and not isinstance(found, bool) else None


def select(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: Tensor) -> None:
    """One place of an axis, which stays whole if it is used."""
    dimension = argument(args, kwargs, 1, "dim") % args[0].dim()
    labels = list(t.labels(args[0]))
    axis = labels.pop(dimension)
    if axis is not None:
        t.later(out, _place(axis, argument(args, kwargs, 2, "index")), "is indexed by a number")
    t.set(out, labels)


def scattered(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: Tensor) -> None:
    """scatter, index_add, ...: the axis that is written into stays whole; others agree with what is written."""
    x, dimension = args[0], _dimension(func, args, kwargs)
    labels = list(t.labels(x))
    if dimension is None:
        freeze_all(t, func, args, kwargs, out)
        return
    t.freeze(labels[dimension], f"is written into by {func.__name__}")
    labels[dimension] = None
    for other in (v for v in (*args[2:], *kwargs.values()) if isinstance(v, Tensor) and v.dim() == x.dim()):
        for d, axis in enumerate(t.labels(other)):
            if d == dimension:
                t.freeze(axis, f"is written by {func.__name__}")
            elif other.shape[d] == x.shape[d] > 1:
                labels[d] = t.join(labels[d], axis)
    t.set(out, labels)


def masked_scatter(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: Tensor) -> None:
    """Tensor and mask agree; what is filled in loses its axes."""
    elementwise(t, func, args[:2], {}, out)
    source = argument(args, kwargs, 2, "source")
    for axis in (*t.labels(source), *t.labels(out)):
        t.freeze(axis, "is filled in by masked_scatter")


def one_hot(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: Tensor) -> None:
    """A new last axis, one place for each class."""
    t.set(out, (*t.labels(args[0]), None))


def interleave(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: Tensor) -> None:
    """Every channel several times in a row."""
    times, dimension = argument(args, kwargs, 1, "repeats"), argument(args, kwargs, 2, "dim")
    labels = list(t.labels(args[0]))
    dimension = 0 if args[0].dim() == 1 else dimension
    if not isinstance(times, int) or dimension is None:
        freeze_all(t, func, args, kwargs, out)
        return
    axis = labels[dimension]
    labels[dimension] = new_axis(t, times) if args[0].shape[dimension] == 1 else _repeated(axis, times)
    t.set(out, labels)


def _repeated(axis: np.ndarray | None, times: int) -> np.ndarray | None:
    return None if axis is None else np.repeat(axis, times)


def positions(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: Tensor) -> None:
    """tril, triu: what rows and columns are matters, so both stay whole."""
    for axis in t.labels(args[0])[-2:]:
        t.freeze(axis, f"enters {func.__name__}")
    t.set(out, t.labels(args[0]))


def diag_embed(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: Tensor) -> None:
    """A vector becomes a diagonal matrix: rows and columns are its channels."""
    if len(args) + len(kwargs) > 1:
        freeze_all(t, func, args, kwargs, out)
        return
    t.set(out, (*t.labels(args[0]), t.labels(args[0])[-1]))


def diagonal(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: Tensor) -> None:
    """The diagonal of two axes, which have to be the same channels."""
    first, second = (argument(args, kwargs, n, f"dim{n - 1}", n - 2) % args[0].dim() for n in (2, 3))
    labels = t.labels(args[0])
    if argument(args, kwargs, 1, "offset", 0) or args[0].shape[first] != args[0].shape[second]:
        freeze_all(t, func, args, kwargs, out)
        return
    t.set(out, [a for d, a in enumerate(labels) if d not in (first, second)] + [t.join(labels[first], labels[second])])


def blocks(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: Tensor) -> None:
    """``F.unfold``: every channel becomes one for each place of the block."""
    axis = t.labels(args[0])[-3]
    count = out.shape[-2] // args[0].shape[-3]
    t.set(out, (*[None] * (out.dim() - 2), _repeated(axis, count), None))


def unblocks(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: Tensor) -> None:
    """``F.fold``: all places of a block go to one channel."""
    axis = t.labels(args[0])[-2]
    if axis is not None:
        grid = axis.reshape(out.shape[-3], -1)
        for column in grid.T[1:]:
            t.join(grid[:, 0], column)
        axis = grid[:, 0] if len(grid) > 1 else None
    t.set(out, (*[None] * (out.dim() - 3), axis, None, None))


def windows(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: Tensor) -> None:
    """``Tensor.unfold``: windows along one axis, which stays whole; their places are a new last axis."""
    dimension, labels = argument(args, kwargs, 1, "dimension") % args[0].dim(), list(t.labels(args[0]))
    t.freeze(labels[dimension], "is cut into windows")
    labels[dimension] = None
    t.set(out, (*labels, None))


def distances(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: Tensor) -> None:
    """Distances between rows: a statistic over the channels of both."""
    one, other = t.labels(args[0]), t.labels(args[1])
    t.mark_inexact(t.join(one[-1], other[-1]), "a distance over channels")
    t.set(out, (*[None] * (out.dim() - 2), one[-2], other[-2]))


def similarity(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: Tensor) -> None:
    """Cosines and distances of two tensors along an axis."""
    dimension = argument(args, kwargs, 2, "dim", 1) if func.__name__ == "cosine_similarity" else -1
    pairs = zip(t.labels(args[0]), t.labels(args[1]), strict=True) if args[0].shape == args[1].shape else ()
    labels = [t.join(one, other) for one, other in pairs]
    if not labels:
        freeze_all(t, func, args, kwargs, out)
        return
    t.mark_inexact(labels.pop(dimension), "a similarity over channels")
    t.set(out, labels if len(labels) == out.dim() else [None] * out.dim())


def spectrogram(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: Tensor) -> None:
    """stft and istft: time and frequency stay whole."""
    rest = 1 if func.__name__ == "stft" else 2
    labels = t.labels(args[0])
    for axis in labels[-rest:] if args[0].is_complex() or rest == 1 else labels[-rest - 1 :]:
        t.freeze(axis, f"enters {func.__name__}")
    t.set(out, (labels[0] if args[0].dim() > rest else None, *[None] * (out.dim() - 1)))


def outer(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: Tensor) -> None:
    """Every channel of one with every channel of the other."""
    t.set(out, (t.labels(args[0])[0], t.labels(args[1])[0]))


def shuffled(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: Tensor) -> None:
    """``F.channel_shuffle``: all groups keep the same positions."""
    axis, groups = t.labels(args[0])[1], argument(args, kwargs, 1, "groups")
    if axis is not None:
        for part in axis.reshape(groups, -1)[1:]:
            t.join(axis.reshape(groups, -1)[0], part)
        axis = axis.reshape(groups, -1).T.reshape(-1)
    t.set(out, [axis if d == 1 else other for d, other in enumerate(t.labels(args[0]))])
