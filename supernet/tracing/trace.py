"""Tracing a generator: its forward runs once under the tracer, and what was joined becomes the width graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from gantailor.supernet.graph import WidthGraph
from gantailor.supernet.mode import evaluating
from gantailor.supernet.tracing.assembly import assemble
from gantailor.supernet.tracing.rules import RULES
from gantailor.supernet.tracing.tracer import SLOT, Rule, Tracer, within


def trace(
    model: nn.Module,
    inputs: Sequence[Any],
    *,
    freeze: Sequence[str] = (),
    interface: Sequence[str] = (),
    whole: Mapping[str, str] | None = None,
    rules: Mapping[Any, Rule] | None = None,
    unknown: str = "error",
) -> WidthGraph:
    """The width graph of a generator.

    Args:
        model: any module; its forward runs once, in eval mode.
        inputs: example inputs, a tuple of tensors with the batch in dimension 0.
        freeze: module or weight name prefixes whose channels stay at full size; inside such modules operations without
            a rule are allowed.
        interface: layers whose outputs stay at full size, because they are handed out (a latent code, say).
        whole: names of widths that stay at full size, with the reason.
        rules: own rules, by torch function, operation name or module type (a module type becomes a leaf).
        unknown: ``error`` or ``freeze``, for operations without a rule.

    Raises:
        UntraceableError: names the operation, the module and the ways out.
    """
    first = next((t for t in tree_leaves(inputs) if isinstance(t, Tensor)), None)
    batch = len(first) if first is not None else 1
    tracer = Tracer(model, {**RULES, **(rules or {})}, unknown=unknown, freeze=freeze, batch=batch)
    try:
        with evaluating(model):
            tracer.run(inputs)
    finally:
        for tensor in [*model.parameters(), *model.buffers()]:
            tensor.__dict__.pop(SLOT, None)
    for name, axes in tracer.touched.items():
        if within(name, freeze):
            for axis in axes:
                tracer.freeze(axis, "frozen by the user")
    for name, labels in tracer.producers:
        if within(name, interface):
            tracer.freeze(labels, "is handed out by the generator")
    return assemble(tracer, whole or {})
