"""Rules of layers: convolutions, products, norms, attention.

A weight ends its input channels and starts its output channels.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from torch import Tensor

from gantailor.supernet.tracing.elementwise import Args, Kwargs, argument, freeze_all, tensors
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
        t.demand(groups, given[1])
        made = _depthwise(t, given[1], axes[0], x.shape[1], out.shape[1])
        rows, columns = made, axes[1]
    else:
        _inputs(t, given[1], columns, groups, transposed)
        made = rows if groups == 1 or rows is None else _grouped_outputs(t, rows, groups, transposed)
        t.sum_over(columns)
    t.set(out, (given[0], made, *([None] * (out.dim() - 2))))
    t.produce(made)
    if isinstance(bias, Tensor):
        t.join(t.labels(bias)[0], made)
    kernel = math.prod(weight.shape[2:])
    inner = weight.shape[0 if transposed else 1] if columns is None else 1
    if groups > 1 and groups == x.shape[1]:
        inner = 1
    elif transposed and groups > 1 and columns is None:
        inner //= groups
    fixed = inner * (out.shape[1] if rows is None else 1)
    base = float(len(x) * kernel * fixed)
    outer = base * math.prod(out.shape[2:])
    true = base * math.prod(x.shape[2:]) if transposed else outer
    filtering = groups > 1 and not t.learned(axes[0])  # a fixed filter on every channel: no paper counts it
    published = 0.0 if filtering else outer
    t.cost({"true": true, "published": published, "published_convs": published}, rows, columns)


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
    t.sum_over(columns)
    t.produce(rows)
    t.set(out, (*t.labels(x)[:-1], rows))
    if isinstance(bias, Tensor):
        t.join(t.labels(bias)[0], rows)
    count = math.prod(out.shape[:-1]) * (weight.shape[0] if rows is None else 1)
    count *= weight.shape[1] if columns is None else 1
    t.cost(dict.fromkeys(("true", "published", "published_convs"), float(count)), rows, columns)


def matmul(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: Tensor) -> None:
    """``[.., i, k] @ [.., k, j]``: the summed axes are tied; removal has no gate, so the width is inexact."""
    a, b = args[0], argument(args, kwargs, 1, "mat2", argument(args, kwargs, 1, "other"))
    left, right = t.labels(a), t.labels(b)
    row, column = left[-2:-1] if a.dim() > 1 else (), right[-1:] if b.dim() > 1 else ()  # vectors have none
    summed = t.join(left[-1], right[-2] if b.dim() > 1 else right[-1])
    t.mark_inexact(summed, "summed in a product of activations")
    t.set(out, (*_batch(t, a, b), *row, *column))


def _batch(t: Tracer, *operands: Tensor) -> list[np.ndarray | None]:
    """All axes but the last two, under broadcasting: heads that carry the channels stay told apart."""
    ahead = [list(zip(x.shape, t.labels(x), strict=True))[:-2] for x in operands]
    labels: list[np.ndarray | None] = [None] * max(map(len, ahead))
    for d in range(1, len(labels) + 1):
        here = [axes[-d][1] for axes in ahead if len(axes) >= d and axes[-d][0] > 1]
        for position, axis in enumerate(here):
            labels[-d] = axis if position == 0 else t.join(labels[-d], axis)
    return labels


def addmm(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: Tensor) -> None:
    """addmm, addbmm, baddbmm, addmv: a product, with a weight as in a linear layer, and what is added to it."""
    added, a, b = args[0], argument(args, kwargs, 1, "mat1", kwargs.get("batch1")), None
    b = argument(args, kwargs, 2, "mat2", kwargs.get("batch2", kwargs.get("vec")))
    a = kwargs.get("mat", a)
    if t.is_weight(a) or t.is_weight(b):
        _weighted(t, a, b, out)
    else:
        matmul(t, func, (a, b), {}, out)
    labels = list(t.labels(out))
    for d, axis in enumerate(reversed(t.labels(added)), 1):
        if added.shape[-d] > 1:
            labels[-d] = t.join(labels[-d], axis)
    t.set(out, labels[-out.dim() :])


def _weighted(t: Tracer, a: Tensor, b: Tensor, out: Tensor) -> None:
    """``[.., i, k] @ [.., k, j]`` where one of both is a weight: its channels are made, the others summed over."""
    left, right = t.labels(a), t.labels(b)
    rows, columns = (right[-1], right[-2]) if t.is_weight(b) and b.dim() > 1 else (left[-2], left[-1])
    t.join(left[-1], right[-2] if b.dim() > 1 else right[-1])
    t.sum_over(columns)
    t.produce(rows)
    t.set(out, (*_batch(t, a, b), left[-2], right[-1])[-out.dim() :] if b.dim() > 1 else (left[-2],))
    count = a.numel() * (b.shape[-1] if b.dim() > 1 else 1)
    count //= (1 if rows is None else len(rows)) * (1 if columns is None else len(columns))
    t.cost(dict.fromkeys(("true", "published", "published_convs"), float(count)), rows, columns)


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
        t.demand(shape[-offset], labels[-offset])
        t.mark_inexact(labels[-offset], "layer norm: a statistic over channels")
    t.set(out, labels)


def group_norm(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: Tensor) -> None:
    """Every group keeps the same positions, so that groups stay equal."""
    groups = argument(args, kwargs, 1, "num_groups")
    labels = list(t.labels(args[0]))
    for vector in tensors(args[2:], kwargs):
        labels[1] = t.join(labels[1], t.labels(vector)[0])
    if labels[1] is not None:
        parts = labels[1].reshape(groups, -1)
        for part in parts[1:]:
            t.join(parts[0], part)
        t.mark_inexact(labels[1], "group norm: a statistic over channels")
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


def attention(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: Tensor) -> None:
    """Scaled dot-product attention: what queries and keys share is summed over, values pass."""
    query, key, value = (t.labels(x) for x in args[:3])
    t.mark_inexact(t.join(query[-1], key[-1]), "attention: summed in a product of activations")
    t.set(out, (*_batch(t, *args[:3]), query[-2], value[-1]))


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


def einsum(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: Tensor) -> None:
    """Axes of one letter are one; a summed letter ends in a weight, or in a product of activations (inexact)."""
    equation, *given = args
    operands = list(given[0]) if len(given) == 1 and not isinstance(given[0], Tensor) else given
    if not isinstance(equation, str):  # operands and lists of axes by turns
        freeze_all(t, func, tuple(x for x in args if isinstance(x, Tensor)), kwargs, out)
        return
    terms, right = _letters(equation, operands)
    found: dict[str, np.ndarray | None] = {}
    for term, operand in zip(terms, operands, strict=True):
        for letter, axis, size in zip(term, t.labels(operand), operand.shape, strict=True):
            if size > 1:
                found[letter] = t.join(found[letter], axis) if letter in found else axis
    for letter in dict.fromkeys("".join(terms)):
        if letter in right:
            continue
        t.mark_inexact(found.get(letter), "summed in a product of activations")
    t.set(out, [found.get(letter) for letter in right])


def _letters(equation: str, operands: list[Tensor]) -> tuple[list[str], str]:
    """The terms of an einsum and its result, a letter for each axis, those of ``...`` too."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    if not arrow:
        right = "..." + "".join(sorted(x for x in set(left) - set(".,") if left.count(x) == 1))
    free = [chr(code) for code in range(0x3B1, 0x3CA)]  # Greek: none that an equation may have
    more = [x.dim() - len(term.replace("...", "")) for term, x in zip(left.split(","), operands, strict=True)]
    shared = free[: max([0, *(n for n, term in zip(more, left.split(","), strict=True) if "..." in term)])]
    terms = [
        term.replace("...", "".join(shared[len(shared) - n :])) if "..." in term else term
        for term, n in zip(left.split(","), more, strict=True)
    ]
    return terms, right.replace("...", "".join(shared))
