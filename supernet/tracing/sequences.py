"""Rules of recurrent layers and of PyTorch's multi-head attention, each one operation to the tracer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils._pytree import tree_leaves

from gantailor.supernet.tracing.elementwise import Args, Kwargs, argument, freeze_all
from gantailor.supernet.tracing.products import OF_ACTIVATIONS, add_cost
from gantailor.supernet.tracing.sizes import demand
from gantailor.supernet.tracing.tracer import Tracer


def recurrent(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: tuple[Tensor, ...]) -> None:
    """gru, lstm, rnn: all gates of a layer, its state and its output have the same channels."""
    x, state, weights = args[:3]
    if len(args) < 9 or isinstance(weights, Tensor):  # packed sequences
        freeze_all(t, func, tuple(tree_leaves(args)), kwargs, out)
        return
    biased, layers, bidirectional = args[3], args[4], args[7]
    each = 4 if biased else 2
    if len(weights) != each * layers * (1 + bidirectional):  # an LSTM with a projection
        freeze_all(t, func, tuple(tree_leaves(args)), kwargs, out)
        return
    given, hidden, parts = t.labels(x)[-1], None, [weights[i : i + each] for i in range(0, len(weights), each)]
    repeats = x.numel() // x.shape[-1]
    for layer in range(layers):
        made = []
        for part in parts[layer * (1 + bidirectional) : (layer + 1) * (1 + bidirectional)]:
            made.append(_cell(t, given, tree_leaves(state), part, repeats))
            hidden = made[0]
        given = np.concatenate(made) if all(m is not None for m in made) else None  # type: ignore[arg-type]
    for result in out:
        t.set(result, (*[None] * (result.dim() - 1), given if result is out[0] else hidden))


def cell(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: Any) -> None:
    """One step of a gru, lstm or rnn."""
    hidden = _cell(t, t.labels(args[0])[-1], tree_leaves(args[1]), args[2:], args[0].numel() // args[0].shape[-1])
    for result in tree_leaves(out):
        t.set(result, (*[None] * (result.dim() - 1), hidden))


def _cell(
    t: Tracer, given: np.ndarray | None, states: Sequence[Tensor], weights: Sequence[Any], repeats: int
) -> np.ndarray | None:
    """The channels of a cell: weights ``[gates * hidden, input]`` and ``[gates * hidden, hidden]``, then biases."""
    (rows, columns), (again, inner) = t.labels(weights[0]), t.labels(weights[1])
    hidden, size = inner, weights[1].shape[1]
    for axis in (rows, again, *(t.labels(bias)[0] for bias in weights[2:] if isinstance(bias, Tensor))):
        for gate in () if axis is None else axis.reshape(-1, size):
            hidden = t.join(hidden, gate) if hidden is not None else None
    for state in states:
        t.join(t.labels(state)[-1], hidden)
    t.join(given, columns)
    t.sum_over(columns)
    t.sum_over(inner)
    t.produce(rows)
    _multiply(t, repeats, weights[0], rows, columns)
    _multiply(t, repeats, weights[1], again, inner)
    return hidden


def _multiply(t: Tracer, repeats: int, weight: Tensor, rows: np.ndarray | None, columns: np.ndarray | None) -> None:
    add_cost(t, ((weight.shape[0], rows), (weight.shape[1], columns)), times=float(repeats))


def multi_head(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: tuple[Tensor, Tensor | None]) -> None:
    """``F.multi_head_attention_forward``: heads keep their number, and with the channels lose places within each."""
    query, key, value, embedding, heads, joint, joint_bias, *extra = args[:9]
    weight, bias = argument(args, kwargs, 11, "out_proj_weight"), argument(args, kwargs, 12, "out_proj_bias")
    separate = [kwargs.get(f"{name}_proj_weight") for name in "qkv"]
    given = [t.labels(x)[-1] for x in (query, key, value)]
    if any(x is not None for x in extra) or kwargs.get("static_k") is not None or weight is None:
        freeze_all(t, func, tuple(tree_leaves((args, kwargs))), {}, out)
        return
    demand(t, embedding, given[0])
    weights = [w for w in separate if w is not None] or [joint]
    inside = np.concatenate([axis for w in weights if (axis := t.labels(w)[0]) is not None])
    if isinstance(joint_bias, Tensor):
        t.join(t.labels(joint_bias)[0], inside)
    within = inside.reshape(-1, embedding // heads)
    for head in within[1:]:
        t.join(within[0], head)
    every = np.tile(within[0], heads)
    t.mark_inexact(within[0], "attention: summed in a product of activations")
    t.join(given[0], every)
    for number, (axis, x) in enumerate(zip(given, (query, key, value), strict=True)):
        one = weights[number % len(weights)]
        rows, columns = t.labels(one)
        rows = rows if rows is None or len(weights) > 1 else rows.reshape(3, -1)[number]
        t.join(axis, columns)
        t.sum_over(columns)
        part = one if len(weights) > 1 else one[: len(one) // 3]
        _multiply(t, x.numel() // x.shape[-1], part, rows, columns)
    images = query.shape[1] if query.dim() == 3 else 1
    places = float(query.shape[0] * key.shape[0] * images)
    for _ in range(2):  # queries with keys, and the weights that these give with values
        t.cost({"true": places, **OF_ACTIVATIONS}, every)
    t.produce(inside)
    rows, columns = t.labels(weight)
    t.join(every, columns)
    t.sum_over(columns)
    t.produce(rows)
    if isinstance(bias, Tensor):
        t.join(t.labels(bias)[0], rows)
    _multiply(t, query.numel() // query.shape[-1], weight, rows, columns)
    t.set(out[0], (*[None] * (out[0].dim() - 1), rows))
