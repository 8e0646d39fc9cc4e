"""Dry runs: forwards of many subnets, at the example's own size, that compute shapes and no values.

What a narrow forward does shows in them: whether it runs, which operations it makes of which weights, and how many
multiply-accumulates they take. A forward takes milliseconds, so every width can be tried alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_leaves, tree_map

from gantailor.supernet.cost import CostModel
from gantailor.supernet.errors import FIXED_SIZE, told
from gantailor.supernet.graph import WidthGraph
from gantailor.supernet.proof.double import new_tensors
from gantailor.supernet.proof.recording import Recorder, Recording, Step, difference
from gantailor.supernet.proof.stand_ins import StandIn
from gantailor.supernet.subnets.copying import copied
from gantailor.supernet.subnets.slicing import narrow_attributes, places_of, slice_tensors
from gantailor.supernet.supernet import Supernet


class DryRuns:
    """Forwards of a supernet's subnets, recorded.

    Args:
        kind: of the tensors that go through.
        cost: of the inputs, if these are not the supernet's example.

    Attributes:
        full: what the forward at full width does.
        last: what the last forward did, as far as it came.
    """

    def __init__(
        self,
        supernet: Supernet,
        kind: StandIn,
        *,
        inputs: tuple[Any, ...] | None = None,
        cost: CostModel | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.supernet, self.kind, self.cost = supernet, kind, cost or supernet.cost
        self.graph, self.dtype = supernet.graph, dtype or torch.get_default_dtype()
        inputs = supernet.example_inputs if inputs is None else inputs
        self.batch = next((len(x) for x in tree_leaves(inputs) if isinstance(x, Tensor)), 1)
        with torch.no_grad(), kind.context():
            self.tensors: dict[str, Tensor] = {name: kind.of(x) for name, x in supernet.tensors.items()}
            self.inputs = tree_map(kind.of, inputs)
        inside, own = supernet.generator, {id(x): x for x in supernet.tensors.values()}
        self.places, self.generator = places_of(inside), copied(inside, shared=own).eval()
        self.recorder, self.full, self.last = Recorder(self.generator), Recording(), Recording()
        self.full = self.run({})

    @contextmanager
    def _unchanged(self) -> Iterator[nn.Module]:
        """The copy of the generator; what a forward leaves in it is gone afterwards."""
        before = [(module, {k: _shallow(v) for k, v in vars(module).items()}) for module in self.generator.modules()]
        try:
            yield self.generator
        finally:
            for module, state in before:
                vars(module).clear()
                vars(module).update(state)

    def run(self, config: Mapping[str, int], graph: WidthGraph | None = None) -> Recording:
        """What the forward at these sizes does.

        Args:
            graph: another one of the same widths, to be tried.
        """
        graph = graph or self.graph
        touched = {graph.index[name] for name in config}
        axes = {n: of for n, of in graph.axes.items() if any(touched & set(a.counts) for a in of.values())}
        with ExitStack() as stack:
            for context in (torch.random.fork_rng(devices=[]), new_tensors(self.dtype), torch.no_grad()):
                stack.enter_context(context)
            torch.manual_seed(0)
            stack.enter_context(self.kind.context())
            generator = stack.enter_context(self._unchanged())
            stack.enter_context(narrow_attributes(generator, graph, graph.sizes(config)))
            tensors = {**self.tensors, **slice_tensors(self.tensors, graph, config, only=axes)}
            every = {place: tensors[name] for name, places in self.places.items() for place in places}
            kernel, device = self.kind.kernel, self.kind.device
            with self.recorder.recorded(tensors, kernel=kernel, device=device, like=self.full) as self.last:
                functional_call(generator, every, tuple(self.inputs), tie_weights=False)
        return self.last

    def fault(self, config: Mapping[str, int], graph: WidthGraph | None = None) -> Fault | None:
        """What is wrong with the forward at these sizes."""
        try:
            narrow = self.run(config, graph)
        except Exception as error:  # whatever a stranger's forward raises
            found = difference(self.full, self.last, broke=True)  # it may have left the whole one's way before
            return (
                _parted(found, f", and fails: {told(error)}")
                if found
                else Fault(f"a narrow forward fails: {told(error)}")
            )
        found = difference(self.full, narrow)
        if found is not None:
            return _parted(found)
        fault = self._miscounted(config, narrow)
        # A sum over one channel may be done without a matrix product (einsum): then the count is right from two on.
        single = {
            name: 2 for name, size in config.items() if size == 1 and self.graph.widths[self.graph.index[name]].size > 1
        }
        more = {**config, **single}
        return self._miscounted(more, self.run(more, graph)) if fault is not None and single else fault

    def _miscounted(self, config: Mapping[str, int], narrow: Recording) -> Fault | None:
        sizes = self.graph.sizes(config)
        said, real = int(self.cost.macs(np.array([sizes]))[0]), narrow.macs.total() / self.batch
        if abs(said - real) < 1:  # a part that does not depend on the batch need not be whole for one of it
            return None
        parts = self.cost.macs_of(sizes), {path: count / self.batch for path, count in narrow.macs.items()}
        wrong = max({*parts[0], *parts[1]}, key=lambda path: abs(parts[0].get(path, 0) - parts[1].get(path, 0)))
        return Fault(
            f"macs() says {said:,} and {real:,.0f} happen; the difference is in module "
            f"{wrong or '(the generator itself)'!r}: {parts[0].get(wrong, 0):,.0f} and {parts[1].get(wrong, 0):,.0f}"
        )


def _shallow(value: Any) -> Any:
    return type(value)(value) if type(value) in (list, dict, set) else value


class Fault:
    """What is wrong with a subnet.

    Attributes:
        module: the module whose code does other things than at full width, if that is it.
        reason: why widths that it blames stay whole.
    """

    def __init__(self, text: str, *, module: str | None = None, reason: str = FIXED_SIZE) -> None:
        self.text, self.module, self.reason = text, module, reason


def _parted(found: tuple[Step | None, Step | None], note: str = "") -> Fault:
    full, narrow = found
    step: Any = full or narrow
    return Fault(
        f"a narrow forward does something else: in module {step.module or '(the generator itself)'!r} it runs "
        f"{narrow or 'nothing more'} where the whole generator runs {full or 'nothing more'}{note}; is there a branch "
        "on a number of channels?",
        module=step.module,
        reason=f"a branch of the forward depends on its size{f': {step} is left out' if full else ''}",
    )
