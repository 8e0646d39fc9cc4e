"""Rules of operations that leave channels where they are, and what all rules share."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from gantailor.supernet.tracing.tracer import Tracer

Args = tuple[Any, ...]
Kwargs = dict[str, Any]


def tensors(args: Args, kwargs: Kwargs) -> list[Tensor]:
    """The tensors among the arguments."""
    return [t for t in (*args, *kwargs.values()) if isinstance(t, Tensor)]


def argument(args: Args, kwargs: Kwargs, position: int, name: str, default: Any = None) -> Any:
    """An argument by position or by name."""
    return args[position] if len(args) > position else kwargs.get(name, default)


def elementwise(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: Tensor) -> None:
    """Channels at the same place become one, under broadcasting."""
    labels: list[np.ndarray | None] = [None] * out.dim()
    parts = [(tensor.shape, t.labels(tensor)) for tensor in tensors(args, kwargs)]
    for dimension in range(1, out.dim() + 1):
        here = [axes[-dimension] for shape, axes in parts if len(shape) >= dimension and shape[-dimension] > 1]
        for position, found in enumerate(here):
            labels[-dimension] = found if position == 0 else t.join(labels[-dimension], found)
    t.set(out, labels)


def same(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: Any) -> None:
    """The first tensor's identities pass; axes whose size changed lose theirs (and are frozen)."""
    first = tensors(args, kwargs)[0]
    for result in (r for r in (out if isinstance(out, tuple) else (out,)) if isinstance(r, Tensor)):
        labels = list(t.labels(first))
        for dimension, axis in enumerate(labels):
            if axis is not None and result.shape[dimension] != len(axis):
                t.freeze(axis, "is resized")
                labels[dimension] = None
        t.set(result, labels)


def first_only(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: Tensor) -> None:
    """to, type_as: another tensor only lends its type and device."""
    t.set(out, t.labels(args[0]))


def freeze_all(t: Tracer, func: Any, args: Args, kwargs: Kwargs, out: Any) -> None:
    """For what has no rule: every axis that enters stays whole."""
    for tensor in tensors(args, kwargs):
        for axis in t.labels(tensor):
            t.freeze(axis, f"enters {func.__name__}")
