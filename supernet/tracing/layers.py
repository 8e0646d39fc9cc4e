"""Rules of layers: convolutions, linear layers, norms.

A weight ends its input channels and starts its output channels.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from torch import Tensor

from gantailor.supernet.tracing.elementwise import Args, Kwargs, argument, tensors
from gantailor.supernet.tracing.products import OF_ACTIVATIONS, add_cost
from gantailor.supernet.tracing.sizes import Size, demand
from gantailor.supernet.tracing.tracer import Tracer


def convolution(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: Tensor) -> None:
    """conv1d..3d and their transposes: inputs end in the weight, outputs begin there."""
    x, weight, bias = args[0], argument(args, kwargs, 1, "weight"), argument(args, kwargs, 2, "bias")
    transposed = "transpose" in func.__name__
    groups = argument(args, kwargs, 6, "groups", 1)
    axes, given = t.labels(weight), t.labels(x)
    for spatial in (*axes[2:], *given[2:]):
        t.freeze(spatial, "is a spatial axis of a convolution")
    rows, columns = (axes[1], axes[0]) if transposed else (axes[0], axes[1])
    if groups > 1 and groups == x.shape[1]:
        demand(t, groups, given[1])
        made = _depthwise(t, given[1], axes[0], x.shape[1], out.shape[1])
        rows, columns = made, axes[1]
    else:
        _inputs(t, given[1], columns, groups, transposed)
        made = rows if groups == 1 or rows is None else _grouped_outputs(t, rows, groups, transposed)
    t.set(out, (given[0], made, *([None] * (out.dim() - 2))))
    if t.is_weight(weight):
        t.produce(made)
        t.sum_over(None if groups > 1 and groups == x.shape[1] else columns)
    else:
        t.mark_inexact(columns, "summed in a convolution whose kernel is an activation")
    if isinstance(bias, Tensor):
        t.join(t.labels(bias)[0], made)
    count = float(math.prod(weight.shape[2:]))
    if groups > 1 and groups == x.shape[1]:
        inner: tuple[tuple[int, np.ndarray | None], ...] = ((out.shape[1], made),)
    else:
        inner = ((weight.shape[1 if transposed else 0], rows), (weight.shape[0 if transposed else 1], columns))
    count *= math.prod(size for size, labels in ((len(x), given[0]), *inner) if labels is None)
    outer = count * math.prod(out.shape[2:])
    true = count * math.prod(x.shape[2:]) if transposed else outer
    # A fixed filter on every channel, one by one or each as a picture of its own: no paper counts it.
    filtering = not t.makers(axes[0]) and (groups > 1 or given[0] is not None)
    published = 0.0 if filtering else outer
    costs = {"true": true, "layers": true, "published": published, "published_convs": published}
    t.cost(costs | ({} if t.is_weight(weight) else OF_ACTIVATIONS), given[0], *(labels for _, labels in inner))


def _depthwise(
    t: Tracer, given: np.ndarray | None, weight: np.ndarray | None, channels: int, made: int
) -> np.ndarray | None:
    """One input channel for each group: whole groups stay or go."""
    multiplier = made // channels
    if weight is None and multiplier == 1:
        return given  # a filter made anew for as many channels as come (a blur); ``verify`` proves it
    if weight is None or multiplier != 1:
        t.freeze(given, "enters a depthwise convolution with a fixed kernel or a multiplier")
        t.freeze(weight, "is a depthwise convolution with a multiplier")
        return None
    return t.join(weight, given)


def _inputs(t: Tracer, given: np.ndarray | None, columns: np.ndarray | None, groups: int, transposed: bool) -> None:
    """Every group sums over the same weight positions, so these positions are tied across groups."""
    if given is None or columns is None:
        t.join(given, columns)
    elif transposed or groups == 1:  # a transposed weight holds all groups' inputs in one axis
        t.join(given, columns)
        if groups > 1:
            for part in given.reshape(groups, -1)[1:]:
                t.join(given.reshape(groups, -1)[0], part)
    else:
        for part in given.reshape(groups, -1):
            t.join(part, columns)


def _grouped_outputs(t: Tracer, rows: np.ndarray, groups: int, transposed: bool) -> np.ndarray:
    if transposed:
        return np.tile(rows, groups)
    parts = rows.reshape(groups, -1)
    for part in parts[1:]:
        t.join(parts[0], part)
    return rows


def linear(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: Tensor) -> None:
    """A linear layer: rows are written, columns are summed over."""
    x, weight, bias = args[0], argument(args, kwargs, 1, "weight"), argument(args, kwargs, 2, "bias")
    rows, columns = t.labels(weight)
    if x.shape[-1] > 1:
        t.join(t.labels(x)[-1], columns)
    if t.is_weight(weight):
        t.sum_over(columns)
        t.produce(rows)
    else:
        t.mark_inexact(columns, "summed in a product of activations")
    t.set(out, (*t.labels(x)[:-1], rows))
    if isinstance(bias, Tensor):
        t.join(t.labels(bias)[0], rows)
    places = zip(out.shape[:-1], t.labels(x)[:-1], strict=True)
    add_cost(t, (*places, (weight.shape[0], rows), (weight.shape[1], columns)), of_activations=not t.is_weight(weight))


def batch_norm(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: Tensor) -> None:
    """Batch and instance norm: statistics and affine belong to the same channels."""
    axis = t.labels(args[0])[1]
    for vector in tensors(args[1:], kwargs):
        axis = t.join(axis, t.labels(vector)[0])
    labels = list(t.labels(args[0]))
    labels[1] = axis
    t.set(out, labels)
    if func.__name__ == "instance_norm":
        places = float(out.numel() // out.shape[1]) * (out.shape[1] if axis is None else 1)
        t.cost({"true": 0.0, "published": places, "published_convs": 0.0}, axis, None)


def layer_norm(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: Tensor) -> None:
    """A layer (or rms) norm over channels is compressed only inexactly: its statistic changes with them."""
    shape = argument(args, kwargs, 1, "normalized_shape")
    labels = list(t.labels(args[0]))
    for vector in tensors(args[1:], kwargs):
        for offset in range(1, len(shape) + 1):
            labels[-offset] = t.join(labels[-offset], t.labels(vector)[-offset])
    for offset in range(1, len(shape) + 1):
        demand(t, shape[-offset], labels[-offset])
        t.mark_inexact(labels[-offset], "layer norm: a statistic over channels")
    t.set(out, labels)


def group_norm(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: Tensor) -> None:
    """Whole groups stay or go, so that the statistics of the others are what they were.

    That needs a number of groups that some module keeps. Without one, or where different norms' groups would
    tie all channels, every group keeps the same positions: the groups stay, and the width is inexact.
    """
    groups = argument(args, kwargs, 1, "num_groups")
    labels = list(t.labels(args[0]))
    for vector in tensors(args[2:], kwargs):
        labels[1] = t.join(labels[1], t.labels(vector)[0])
    axis = labels[1]
    if axis is not None:
        parts = axis.reshape(groups, -1)
        if groups > 1 and isinstance(groups, Size) and t.path not in t.by_position:
            t.grouped.append((t.path, axis))
            demand(t, groups, parts[:, 0])
            parts = parts.T
        else:
            t.mark_inexact(axis, "group norm: a statistic over channels")
        for part in parts[1:]:
            t.join(parts[0], part)
    t.set(out, labels)


def prelu(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: Tensor) -> None:
    """One slope for each channel goes with it; a single one stays."""
    labels = list(t.labels(args[0]))
    if args[1].numel() > 1:
        labels[1] = t.join(labels[1], t.labels(args[1])[0])
    t.set(out, labels)


def softmax(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: Tensor) -> None:
    """Over places it passes; over channels it is inexact."""
    dimension = argument(args, kwargs, 1, "dim")
    if isinstance(dimension, int):
        t.mark_inexact(t.labels(args[0])[dimension], "softmax over channels")
    t.set(out, t.labels(args[0]))


def embedding(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: Tensor) -> None:
    """A table of vectors: its columns pass, its rows stay."""
    rows, columns = t.labels(argument(args, kwargs, 1, "weight"))
    t.freeze(rows, "is the vocabulary of an embedding")
    t.produce(columns)
    t.set(out, (*[None] * (out.dim() - 1), columns))


def fourier(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: Tensor) -> None:
    """Fourier transforms over places; an axis of channels that is transformed stays whole."""
    x = args[0]
    last = {"2": 2, "n": x.dim(), "t": 1}[func.__name__[-1]]
    chosen = argument(args, kwargs, 2, "dim", kwargs.get("dim"))
    dims = range(-last, 0) if chosen is None else [chosen] if isinstance(chosen, int) else chosen
    labels = list(t.labels(x))
    for d in dims:
        t.freeze(labels[d], "is Fourier transformed")
        labels[d] = None
    t.set(out, labels)
