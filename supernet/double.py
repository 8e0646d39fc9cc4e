"""A supernet in float64, where what is the same shows as the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from gantailor.supernet.calling import evaluating
from gantailor.supernet.subnets.copying import copied
from gantailor.supernet.tracing.trace import trace
from gantailor.supernet.traits import traits_of

if TYPE_CHECKING:
    from gantailor.supernet.supernet import Supernet


def in_double(supernet: Supernet, inputs: tuple[Any, ...] | None = None) -> tuple[Supernet, Any]:
    """A copy in float64 and eval mode on the CPU, and inputs for it: these, or the example with smaller pictures."""
    return copied(supernet).cpu().double().eval(), tree_map(_to_double, inputs or _smaller(supernet))


def _smaller(supernet: Supernet, *, side: int = 64) -> tuple[Any, ...]:
    """The example with pictures of a short side of about ``side``, or as it is if the generator cannot take that."""
    if supernet.small_inputs is None:
        smaller = _shrunk(supernet.example_inputs, max(traits_of(supernet.generator).size_multiple, 16), side)
        if smaller is None or not _same_network(supernet, smaller):
            smaller = supernet.example_inputs
        supernet.small_inputs = smaller
    return supernet.small_inputs


def _shrunk(inputs: tuple[Any, ...], multiple: int, side: int) -> tuple[Any, ...] | None:
    """Corners of the pictures, their sides still multiples of ``multiple``; None where nothing can be made smaller."""
    pictures = [t for t in tree_leaves(inputs) if isinstance(t, Tensor) and t.dim() == 4]
    short = min((min(t.shape[2:]) for t in pictures), default=0)
    step = next((k for k in range(short // max(side, multiple), 1, -1) if short % (k * multiple) == 0), 1)

    def fits(value: Any) -> bool:
        if not isinstance(value, Tensor) or value.dim() != 4:
            return False
        return not any(n % (step * multiple) for n in value.shape[2:])

    def shrink(value: Any) -> Any:
        height, width = (n // step for n in value.shape[2:]) if fits(value) else (0, 0)
        return value[..., :height, :width].contiguous() if fits(value) else value

    if step == 1 or not any(map(fits, pictures)):
        return None
    return tree_map(shrink, inputs)  # type: ignore[no-any-return]


def _same_network(supernet: Supernet, inputs: tuple[Any, ...]) -> bool:
    """Whether the generator runs on other inputs as on its example; size may steer the forward."""
    try:
        with evaluating(supernet):
            output = flat(supernet(*inputs))
        if not bool(output.isfinite().all()) or not bool((output != output[:1]).any()):
            return False
        return str(trace(supernet.generator, inputs, decisions=supernet.decisions, rules=supernet.rules)) == str(
            supernet.graph
        )
    except (RuntimeError, ValueError, IndexError):  # does not run, cannot be traced, or has not the decided widths
        return False


def _to_double(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    return value.cpu().double() if value.is_floating_point() else value.cpu()


def flat(output: Any) -> Tensor:
    """All tensors of an output as one vector, float64."""
    return torch.cat([t.reshape(-1).double() for t in tree_leaves(output) if isinstance(t, Tensor)])
