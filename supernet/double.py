"""A supernet in float64, where what is the same shows as the same."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from gantailor.supernet.mode import evaluating
from gantailor.supernet.traits import traits_of

if TYPE_CHECKING:
    from gantailor.supernet.supernet import Supernet


def in_double(supernet: Supernet, inputs: tuple[Any, ...] | None = None) -> tuple[Supernet, Any]:
    """A copy in float64 and eval mode on the CPU, and inputs for it: these, or the example with smaller pictures."""
    return copy.deepcopy(supernet).cpu().double().eval(), tree_map(_to_double, inputs or _smaller(supernet))


def _smaller(supernet: Supernet, *, side: int = 64) -> tuple[Any, ...]:
    """The example with pictures of a short side of about ``side``, or as it is if the generator cannot take that."""
    multiple = max(traits_of(supernet.generator).size_multiple, 16)
    pictures = [t for t in tree_leaves(supernet.example_inputs) if isinstance(t, Tensor) and t.dim() == 4]
    short = min((min(t.shape[2:]) for t in pictures), default=0)
    step = next((k for k in range(short // max(side, multiple), 1, -1) if short % (k * multiple) == 0), 1)

    def shrink(value: Any) -> Any:
        if not isinstance(value, Tensor) or value.dim() != 4 or any(n % (step * multiple) for n in value.shape[2:]):
            return value
        return value[..., : value.shape[2] // step, : value.shape[3] // step].contiguous()

    smaller = tree_map(shrink, supernet.example_inputs)
    try:
        with evaluating(supernet):
            output = flat(supernet(*smaller))
    except (RuntimeError, ValueError, IndexError):
        return supernet.example_inputs
    sound = bool(output.isfinite().all()) and bool((output != output[:1]).any())
    same_network = sound and str(supernet.traced(smaller)) == str(supernet.graph)  # size may steer the forward
    return smaller if same_network else supernet.example_inputs


def _to_double(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    return value.cpu().double() if value.is_floating_point() else value.cpu()


def flat(output: Any) -> Tensor:
    return torch.cat([t.reshape(-1).double() for t in tree_leaves(output) if isinstance(t, Tensor)])
