"""What becomes of channel identities in each tensor operation: the table that ``Tracer`` looks up.

A rule is ``rule(tracer, func, args, kwargs, result)``; it sets the identities of ``result`` and joins, freezes or costs
what the operation demands. Keys are operation names without underscores (``add`` serves ``+``, ``+=``, ``torch.add``).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from supernet.graph import FIXED
from supernet.tracing import Rule, Tracer

Args = tuple[Any, ...]
Kwargs = dict[str, Any]


def leaf(kind: type[nn.Module]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorator that registers a rule for a module type: its forward then is one operation to the tracer.

    The rule is called as ``rule(tracer, module, inputs, {}, output)``.
    """

    def register(rule: Callable[..., None]) -> Callable[..., None]:
        RULES[kind] = rule
        return rule

    return register


def _tensors(args: Args, kwargs: Kwargs) -> list[Tensor]:
    return [t for t in (*args, *kwargs.values()) if isinstance(t, Tensor)]


def _argument(args: Args, kwargs: Kwargs, position: int, name: str, default: Any = None) -> Any:
    return args[position] if len(args) > position else kwargs.get(name, default)


def elementwise(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: Tensor) -> None:
    """Channels at the same place become one, under broadcasting."""
    labels: list[np.ndarray | None] = [None] * out.dim()
    parts = [(tensor.shape, t.labels(tensor)) for tensor in _tensors(args, kwargs)]
    for dimension in range(1, out.dim() + 1):
        here = [axes[-dimension] for shape, axes in parts if len(shape) >= dimension and shape[-dimension] > 1]
        for position, found in enumerate(here):
            labels[-dimension] = found if position == 0 else t.join(labels[-dimension], found)
    t.set(out, labels)


def same(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: Any) -> None:
    """The first tensor's identities pass; axes whose size changed lose theirs (and are frozen)."""
    first = _tensors(args, kwargs)[0]
    for result in (r for r in (out if isinstance(out, tuple) else (out,)) if isinstance(r, Tensor)):
        labels = list(t.labels(first))
        for dimension, axis in enumerate(labels):
            if axis is not None and result.shape[dimension] != len(axis):
                t.freeze(axis, "is resized")
                labels[dimension] = None
        t.set(result, labels)


def convolution(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: Tensor) -> None:
    """conv1d..3d and their transposes: inputs end in the weight, outputs begin there."""
    x, weight, bias = args[0], _argument(args, kwargs, 1, "weight"), _argument(args, kwargs, 2, "bias")
    transposed = "transpose" in func.__name__
    groups = _argument(args, kwargs, 6, "groups", 1)
    axes, given = t.labels(weight), t.labels(x)
    for spatial in (*axes[2:], *given[2:]):
        t.freeze(spatial, "is a spatial axis of a convolution")
    rows, columns = (axes[1], axes[0]) if transposed else (axes[0], axes[1])
    if groups > 1 and groups == x.shape[1]:
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
    filtering = groups > 1 and axes[0] is None  # a fixed filter on every channel: no paper counts it
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
    x, weight, bias = args[0], _argument(args, kwargs, 1, "weight"), _argument(args, kwargs, 2, "bias")
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
    a, b = args[0], _argument(args, kwargs, 1, "mat2", _argument(args, kwargs, 1, "other"))
    left, right = t.labels(a), t.labels(b)
    if a.dim() < 2 or b.dim() < 2:
        freeze_all(t, func, args, kwargs, out)
        return
    summed = t.join(left[-1], right[-2])
    t.mark_inexact(summed, "summed in a product of activations")
    batch = [None] * (out.dim() - 2)
    t.set(out, (*batch, left[-2], right[-1]))


def concatenate(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: Tensor) -> None:
    parts = [p for p in args[0] if isinstance(p, Tensor) and p.dim() == out.dim()]
    axis = _argument(args, kwargs, 1, "dim", kwargs.get("axis", 0)) % out.dim()
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
    axis = _argument(args, kwargs, 1, "dim", 0) % out.dim()
    found = list(t.labels(args[0][0]))
    for other in args[0][1:]:
        found = [t.join(a, b) for a, b in zip(found, t.labels(other), strict=True)]
    found.insert(axis, None)
    t.set(out, found)


def reshape(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: Tensor) -> None:
    """view, reshape, flatten, unflatten, squeeze, unsqueeze: axes are followed block by block."""
    x, labels = args[0], t.labels(args[0])
    result: list[np.ndarray | None] = [None] * out.dim()
    for olds, news in _blocks(tuple(x.shape), tuple(out.shape)):
        if all(labels[o] is None for o in olds):
            continue
        merged = _merge([labels[o] for o in olds], [x.shape[o] for o in olds])
        for new, axis in zip(news, _divide(merged, [out.shape[n] for n in news]), strict=True):
            result[new] = axis
        placed = np.concatenate([r for n in news if (r := result[n]) is not None] or [np.array([FIXED])])
        lost = np.setdiff1d(merged, placed)
        t.freeze(lost, "is split by a reshape")
    t.set(out, result)


def _blocks(old: tuple[int, ...], new: tuple[int, ...]) -> list[tuple[list[int], list[int]]]:
    """Smallest groups of consecutive axes with equal products."""
    blocks, i, j = [], 0, 0
    while i < len(old) or j < len(new):
        olds, news = [], []
        a = b = 1
        if i < len(old):
            a, olds, i = old[i], [i], i + 1
        if j < len(new):
            b, news, j = new[j], [j], j + 1
        while a != b:
            if a < b:
                a, olds, i = a * old[i], [*olds, i], i + 1
            else:
                b, news, j = b * new[j], [*news, j], j + 1
        blocks.append((olds, news))
    return _align_ones(blocks, old, new)


def _align_ones(
    blocks: list[tuple[list[int], list[int]]], old: tuple[int, ...], new: tuple[int, ...]
) -> list[tuple[list[int], list[int]]]:
    """Axes of size one carry no identity; drop them so that only real axes are compared."""
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


def _merge(labels: list[np.ndarray | None], sizes: list[int]) -> np.ndarray:
    """Identities of the flattened axes; only one of them may carry any (others repeat it)."""
    carrying = [i for i, axis in enumerate(labels) if axis is not None]
    merged = np.full(sizes, FIXED)
    if len(carrying) == 1:
        shape = [1] * len(sizes)
        shape[carrying[0]] = sizes[carrying[0]]
        axis = labels[carrying[0]]
        assert axis is not None
        merged = np.broadcast_to(axis.reshape(shape), sizes)
    return np.ascontiguousarray(merged).reshape(-1)


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


def expand(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: Tensor) -> None:
    old = t.labels(args[0])
    t.set(out, [*[None] * (out.dim() - len(old)), *old])


def repeat(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: Tensor) -> None:
    old = [*[None] * (out.dim() - args[0].dim()), *t.labels(args[0])]
    t.set(out, [None if a is None else np.tile(a, out.shape[d] // len(a)) for d, a in enumerate(old)])


def reduce(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: Any) -> None:
    """sum, mean, var, norm, amax, ...: reduced axes end; a statistic over channels makes their width inexact."""
    x, labels = args[0], t.labels(args[0])
    dims = _argument(args, kwargs, 1, "dim", kwargs.get("axis"))
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


def batch_norm(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: Tensor) -> None:
    """Batch and instance norm: statistics and affine belong to the same channels."""
    axis = t.labels(args[0])[1]
    for vector in _tensors(args[1:], kwargs):
        axis = t.join(axis, t.labels(vector)[0])
    labels = list(t.labels(args[0]))
    labels[1] = axis
    t.set(out, labels)
    if func.__name__ == "instance_norm":
        places = float(out.numel() // out.shape[1]) * (out.shape[1] if axis is None else 1)
        t.cost({"true": 0.0, "published": places, "published_convs": 0.0}, axis, None)


def layer_norm(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: Tensor) -> None:
    shape = _argument(args, kwargs, 1, "normalized_shape")
    labels = list(t.labels(args[0]))
    for vector in _tensors(args[1:], kwargs):
        for offset in range(1, len(shape) + 1):
            labels[-offset] = t.join(labels[-offset], t.labels(vector)[-offset])
    for offset in range(1, len(shape) + 1):
        t.mark_inexact(labels[-offset], "layer norm: a statistic over channels")
    t.set(out, labels)


def group_norm(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: Tensor) -> None:
    """Every group keeps the same positions, so that groups stay equal."""
    groups = _argument(args, kwargs, 1, "num_groups")
    labels = list(t.labels(args[0]))
    for vector in _tensors(args[2:], kwargs):
        labels[1] = t.join(labels[1], t.labels(vector)[0])
    if labels[1] is not None:
        parts = labels[1].reshape(groups, -1)
        for part in parts[1:]:
            t.join(parts[0], part)
        t.mark_inexact(labels[1], "group norm: a statistic over channels")
    t.set(out, labels)


def prelu(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: Tensor) -> None:
    labels = list(t.labels(args[0]))
    if args[1].numel() > 1:
        labels[1] = t.join(labels[1], t.labels(args[1])[0])
    t.set(out, labels)


def softmax(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: Tensor) -> None:
    dimension = _argument(args, kwargs, 1, "dim")
    if isinstance(dimension, int):
        t.mark_inexact(t.labels(args[0])[dimension], "softmax over channels")
    t.set(out, t.labels(args[0]))


def chunk(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: tuple[Tensor, ...]) -> None:
    """chunk and split: equal parts keep the same positions (a narrow net is cut at the same share)."""
    x, labels = args[0], t.labels(args[0])
    dimension = _argument(args, kwargs, 2, "dim", 0) % x.dim()
    start = 0
    sizes = [part.shape[dimension] for part in out]
    axis = labels[dimension]
    if axis is not None and len(set(sizes)) == 1 and len(sizes) > 1:
        parts = axis.reshape(len(sizes), -1)
        for part in parts[1:]:
            t.join(parts[0], part)
    for part in out:
        stop = start + part.shape[dimension]
        t.set(part, [a if d != dimension or a is None else a[start:stop] for d, a in enumerate(labels)])
        start = stop


def getitem(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: Tensor) -> None:
    """Indexing by slices, integers, None and Ellipsis; anything else freezes."""
    x, index = args[0], args[1] if isinstance(args[1], tuple) else (args[1],)
    if any(not isinstance(i, int | slice | type(None) | type(...)) for i in index):
        freeze_all(t, func, args, kwargs, out)
        return
    used = sum(i is not None and i is not ... for i in index)
    if ... not in index:
        index = (*index, ...)
    at = index.index(...)
    index = (*index[:at], *[slice(None)] * (x.dim() - used), *index[at + 1 :])
    labels, dimension = t.labels(x), 0
    result: list[np.ndarray | None] = []
    for i in index:
        if i is None:
            result.append(None)
            continue
        axis, size = labels[dimension], x.shape[dimension]
        dimension += 1
        if isinstance(i, int):
            t.freeze(axis, "is indexed by a number")
        elif axis is None or i == slice(None) or len(range(*i.indices(size))) == size:
            result.append(axis)
        else:
            result.append(_slice(t, axis, i, size))
    t.set(out, result)


def _slice(t: Tracer, axis: np.ndarray, index: slice, size: int) -> np.ndarray:
    start, stop, step = index.indices(size)
    length = stop - start
    if step == 1 and length > 0 and size % length == 0 and start % length == 0:
        parts = axis.reshape(-1, length)  # one of equal parts, as ``chunk`` would cut
        for part in parts[1:]:
            t.join(parts[0], part)
    else:
        t.freeze(axis, "is cut at a fixed place")
    return axis[index]


def setitem(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: Any) -> None:
    for tensor in _tensors(args, kwargs):
        for axis in t.labels(tensor):
            t.freeze(axis, "is assigned into a tensor")
    t.set(args[0], [None] * args[0].dim())


def pixel_shuffle(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: Tensor) -> None:
    """The r*r channels of one output channel stay together."""
    axis, factor = t.labels(args[0])[1], _argument(args, kwargs, 1, "upscale_factor") ** 2
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
    axis, factor = t.labels(args[0])[1], _argument(args, kwargs, 1, "downscale_factor") ** 2
    t.set(out, (None, None if axis is None else np.repeat(axis, factor), None, None))


def pad(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: Tensor) -> None:
    same(t, func, args, kwargs, out)


def flip(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: Tensor) -> None:
    dims = _argument(args, kwargs, 1, "dims")
    dims = [dims] if isinstance(dims, int) else dims
    labels = list(t.labels(args[0]))
    for d in dims:
        t.freeze(labels[d], "is reversed")
    t.set(out, labels)


def attention(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: Tensor) -> None:
    query, key, value = (t.labels(x) for x in args[:3])
    t.mark_inexact(t.join(query[-1], key[-1]), "attention: summed in a product of activations")
    t.set(out, (*[None] * (out.dim() - 2), query[-2], value[-1]))


def unbind(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: tuple[Tensor, ...]) -> None:
    dimension = _argument(args, kwargs, 1, "dim", 0) % args[0].dim()
    labels = t.labels(args[0])
    t.freeze(labels[dimension], "is unbound")
    for part in out:
        t.set(part, [axis for d, axis in enumerate(labels) if d != dimension])


def freeze_all(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: Any) -> None:
    for tensor in _tensors(args, kwargs):
        for axis in t.labels(tensor):
            t.freeze(axis, f"enters {func.__name__}")


_ELEMENTWISE = [
    "add",
    "sub",
    "mul",
    "div",
    "true_divide",
    "floor_divide",
    "pow",
    "sqrt",
    "rsqrt",
    "exp",
    "expm1",
    "log",
    "log1p",
    "log2",
    "abs",
    "absolute",
    "neg",
    "negative",
    "relu",
    "relu6",
    "leaky_relu",
    "elu",
    "selu",
    "celu",
    "gelu",
    "silu",
    "mish",
    "sigmoid",
    "tanh",
    "hardtanh",
    "hardswish",
    "hardsigmoid",
    "softplus",
    "softsign",
    "clamp",
    "clip",
    "clamp_min",
    "clamp_max",
    "minimum",
    "maximum",
    "where",
    "dropout",
    "dropout1d",
    "dropout2d",
    "dropout3d",
    "feature_dropout",
    "alpha_dropout",
    "to",
    "float",
    "half",
    "double",
    "bfloat16",
    "type",
    "type_as",
    "contiguous",
    "clone",
    "detach",
    "square",
    "sin",
    "cos",
    "sign",
    "round",
    "floor",
    "ceil",
    "erf",
    "lerp",
    "addcmul",
    "addcdiv",
    "eq",
    "ne",
    "gt",
    "ge",
    "lt",
    "le",
    "logical_and",
    "logical_or",
    "logical_not",
    "nan_to_num",
    "zeros_like",
    "ones_like",
    "rand_like",
    "randn_like",
    "empty_like",
    "full_like",
    "data",
    "requires_grad",
    "threshold",
    "logsigmoid",
    "tanhshrink",
    "reciprocal",
    "masked_fill",
    "copy",
    "rrelu",
    "hardshrink",
    "softshrink",
    "glu_placeholder",
    "cpu",
    "cuda",
    "atan2",
    "fmod",
    "remainder",
    "real",
    "alias",
    "positive",
    "bool",
    "int",
    "long",
    "normal",
    "uniform",
    "bernoulli",
    "multiply",
    "divide",
    "subtract",
]
_SAME = [
    "interpolate",
    "upsample",
    "pad",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
    "lp_pool2d",
    "grid_sample",
    "roll",
    "cumsum",
    "boolean_dispatch",
    "fractional_max_pool2d",
    "max_pool2d_with_indices",
]

RULES: dict[Any, Rule] = {
    **dict.fromkeys(_ELEMENTWISE, elementwise),
    **dict.fromkeys(_SAME, same),
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), convolution),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), convolution),
    **dict.fromkeys(("batch_norm", "instance_norm"), batch_norm),
    **dict.fromkeys(("view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "view_as"), reshape),
    **dict.fromkeys(("permute", "transpose", "movedim", "moveaxis", "swapaxes", "t", "T", "mT", "swapdims"), permute),
    **dict.fromkeys(
        ("sum", "mean", "var", "std", "norm", "vector_norm", "amax", "amin", "max", "min", "var_mean"), reduce
    ),
    **dict.fromkeys(("matmul", "bmm", "mm"), matmul),
    **dict.fromkeys(("softmax", "log_softmax", "normalize"), softmax),
    **dict.fromkeys(("cat", "concat", "concatenate"), concatenate),
    **dict.fromkeys(("chunk", "split", "tensor_split"), chunk),
    **dict.fromkeys(("expand", "expand_as", "broadcast_to"), expand),
    "linear": linear,
    "stack": stack,
    "repeat": repeat,
    "layer_norm": layer_norm,
    "group_norm": group_norm,
    "prelu": prelu,
    "getitem": getitem,
    "setitem": setitem,
    "pixel_shuffle": pixel_shuffle,
    "pixel_unshuffle": pixel_unshuffle,
    "flip": flip,
    "unbind": unbind,
    "scaled_dot_product_attention": attention,
}
