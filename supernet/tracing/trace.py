"""Tracing a generator: its forward runs once under the tracer, and what was joined becomes the width graph."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from gantailor.supernet.calling import evaluating
from gantailor.supernet.decisions import Decisions
from gantailor.supernet.errors import SelectionError, nearest
from gantailor.supernet.graph import WidthGraph
from gantailor.supernet.subnets.removal import removable
from gantailor.supernet.subnets.slicing import places_of, tensors_of
from gantailor.supernet.tracing.assembly import assemble, collapsed, components
from gantailor.supernet.tracing.forward import TracedForward
from gantailor.supernet.tracing.rules import RULES
from gantailor.supernet.tracing.sizes import settle
from gantailor.supernet.tracing.tracer import LOST, SLOT, WEIGHT, Rule, Tracer, within
from gantailor.supernet.traits import traits_of


def trace(
    model: nn.Module,
    inputs: Sequence[Any],
    *,
    decisions: Decisions | None = None,
    rules: Mapping[Any, Rule] | None = None,
) -> WidthGraph:
    """The width graph of a generator.

    Args:
        model: any module; its forward runs once, in eval mode. Outputs of its ``interface_layers`` stay at full size.
        inputs: example inputs, a tuple of tensors with the batch in dimension 0.
        decisions: what else stays at full size, and why; inside modules that ``freeze`` names, operations without a
            rule are allowed. Its branches have no part in the graph.
        rules: own rules, by torch function, operation name or module type (a module type becomes a leaf).

    Raises:
        UntraceableError: names the operation, the module and the ways out.
        SelectionError: the decisions name modules, weights or widths that the generator does not have.
    """
    decisions = decisions or Decisions()
    _exist("freeze", decisions.freeze, [path for path, _ in model.named_modules()] + list(tensors_of(model)))
    every = {**RULES, **(rules or {})}
    tracer = _traced(model, inputs, decisions, every)
    by_position = collapsed(tracer)
    if by_position:
        tracer = _traced(model, inputs, decisions, every, by_position)
    for name, axes in tracer.touched.items():
        if within(name, decisions.freeze):
            for axis in axes:
                tracer.freeze(axis, "frozen by the user")
    interface = traits_of(model).interface_layers
    for name, labels in tracer.producers:
        if within(name, interface):
            tracer.freeze(labels, "is handed out by the generator")
    graph = assemble(tracer, decisions.whole)
    _exist("decided whole", decisions.whole, [*graph.index, *graph.frozen])
    _exist("decided inexact", decisions.inexact, [*graph.index, *graph.frozen])
    named = {graph.index[name]: reason for name, reason in decisions.inexact.items() if name in graph.index}
    kept = [a for a in graph.attributes if a.path not in decisions.constants]
    graph = dataclasses.replace(graph, inexact={**named, **graph.inexact}, attributes=tuple(kept))
    return dataclasses.replace(graph, removable=removable(model, graph, places_of(model)))


def _traced(
    model: nn.Module,
    inputs: Sequence[Any],
    decisions: Decisions,
    rules: Mapping[Any, Rule],
    by_position: Collection[str] = (),
) -> Tracer:
    first = next((t for t in tree_leaves(inputs) if isinstance(t, Tensor)), None)
    tracer = Tracer(model, batch=len(first) if first is not None else 1, by_position=by_position)
    forward = TracedForward(tracer, rules, unknown=decisions.unknown, freeze=decisions.freeze)
    try:
        with evaluating(model):
            forward.run(inputs)
    finally:
        for tensor in [*model.parameters(), *model.buffers()]:
            for note in (SLOT, WEIGHT, LOST):
                tensor.__dict__.pop(note, None)
    settle(tracer, components)
    return tracer


def _exist(what: str, names: Sequence[str] | Mapping[str, str], known: Sequence[str]) -> None:
    missing = [name for name in names if name not in known]
    if missing:
        raise SelectionError(
            f"{what}: the generator has no {', '.join(map(repr, missing))}; it is another one, or has other options, "
            f"than when this was written: {nearest(missing[0], known)}"
        )
