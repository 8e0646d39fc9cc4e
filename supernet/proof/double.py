"""A supernet in float64, where what is the same shows as the same; in its own precision where it insists on that."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from gantailor.supernet.calling import evaluating
from gantailor.supernet.errors import VerificationError, told
from gantailor.supernet.graph import WidthGraph
from gantailor.supernet.subnets.copying import copied
from gantailor.supernet.tracing.trace import trace
from gantailor.supernet.traits import traits_of

if TYPE_CHECKING:
    from gantailor.supernet.supernet import Supernet

M = TypeVar("M", bound=nn.Module)
T = TypeVar("T")

# Dimensions of an input to a short side that is long enough for a proof: pictures, signals, volumes.
SIDES = {4: 64, 3: 256, 5: 16}


@dataclass(frozen=True)
class Precise:
    """A copy of a supernet in eval mode on the CPU, inputs for it, and its precision."""

    supernet: Supernet
    inputs: tuple[Any, ...]
    dtype: torch.dtype

    def like(self, module: nn.Module) -> nn.Module:
        """A copy of another module in the same state."""
        return _in_precision(module, self.dtype)


def in_double(
    supernet: Supernet, inputs: tuple[Any, ...] | None = None, *, dtype: torch.dtype = torch.float64
) -> Precise:
    """A copy in float64, or as it is in another ``dtype``, and inputs for it: these, or the example made smaller."""

    def converted(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return value.cpu().double() if value.is_floating_point() and dtype == torch.float64 else value.cpu()

    return Precise(_in_precision(supernet, dtype), tree_map(converted, inputs or _smaller(supernet)), dtype)


def in_best(supernet: Supernet, inputs: tuple[Any, ...] | None, use: Callable[[Precise], T]) -> T:
    """What ``use`` makes of a copy in float64; where that does not run, of one in the generator's own precision.

    Raises:
        VerificationError: neither runs.
    """
    failed = []
    for dtype in (torch.float64, torch.float32):
        try:
            return use(in_double(supernet, inputs, dtype=dtype))
        except VerificationError:
            raise
        except Exception as error:  # whatever a stranger's forward raises
            failed.append(f"in {str(dtype).removeprefix('torch.')}: {told(error)}")
    raise VerificationError(f"the generator does not run {'; '.join(failed)}; give inputs that it runs on")


@contextmanager
def new_tensors(dtype: torch.dtype) -> Iterator[None]:
    """Within the block, tensors that code makes without saying of which type are of this one."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _in_precision(module: M, dtype: torch.dtype) -> M:
    made = copied(module).cpu().eval()
    return made.double() if dtype == torch.float64 else made


def _smaller(supernet: Supernet) -> tuple[Any, ...]:
    """The example with sides of about ``SIDES``, or as it is if the generator cannot take that."""
    if supernet.small_inputs is None:
        multiple = max(traits_of(supernet.generator).size_multiple, 16)
        tried = (_shrunk(supernet.example_inputs, multiple, dims) for dims in SIDES)
        found = (smaller for smaller in tried if smaller is not None and _same_network(supernet, smaller))
        supernet.small_inputs = next(found, supernet.example_inputs)
    return supernet.small_inputs


def _shrunk(inputs: tuple[Any, ...], multiple: int, dims: int) -> tuple[Any, ...] | None:
    """Corners of the tensors of so many dimensions, their sides still multiples of ``multiple``.

    None where nothing can be made smaller.
    """
    signals = [t for t in tree_leaves(inputs) if isinstance(t, Tensor) and t.dim() == dims]
    short = min((min(t.shape[2:]) for t in signals), default=0)
    largest = short // max(SIDES[dims], multiple)
    step = next((k for k in range(largest, 1, -1) if short % (k * multiple) == 0), 1)

    def fits(value: Any) -> bool:
        if not isinstance(value, Tensor) or value.dim() != dims:
            return False
        return not any(n % (step * multiple) for n in value.shape[2:])

    def shrink(value: Any) -> Any:
        corner = (..., *(slice(n // step) for n in value.shape[2:])) if fits(value) else ()
        return value[corner].contiguous() if fits(value) else value

    if step == 1 or not any(map(fits, signals)):
        return None
    return tree_map(shrink, inputs)  # type: ignore[no-any-return]


def _same_network(supernet: Supernet, inputs: tuple[Any, ...]) -> bool:
    """Whether the generator runs on other inputs as on its example; size may steer the forward."""
    try:
        with evaluating(supernet):
            output = flat(supernet(*inputs))
        if not bool(output.isfinite().all()) or not bool((output != output[:1]).any()):
            return False
        traced = trace(supernet.generator, inputs, decisions=supernet.decisions, rules=supernet.rules)
        return _said(traced) == _said(supernet.graph)
    except Exception:  # does not run, cannot be traced, or has not the decided widths
        return False


def _said(graph: WidthGraph) -> tuple[Any, ...]:
    """What a graph says but for shares of the cost, which depend on the inputs' size."""
    return graph.widths, dict(graph.frozen), dict(graph.inexact)


def flat(output: Any) -> Tensor:
    """All tensors of an output as one vector, float64."""
    return torch.cat([t.reshape(-1).double() for t in tree_leaves(output) if isinstance(t, Tensor)])
