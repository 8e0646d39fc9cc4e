"""What subnets compute, in numbers: a copy of a supernet in double precision, and comparisons of its outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gantailor.supernet.double import Precise, flat, new_tensors
from gantailor.supernet.gates import GatePlaces
from gantailor.supernet.graph import Selection
from gantailor.supernet.proof.recording import recorded
from gantailor.supernet.subnets.slicing import narrow_attributes


class Values:
    """Outputs of a supernet's subnets, each as one vector.

    Attributes:
        full: of the whole generator.
        scale: the largest of them.
        bits: of the coarsest number on the way.
    """

    def __init__(self, precise: Precise) -> None:
        self.precise, self.supernet, self.graph = precise, precise.supernet, precise.supernet.graph
        with recorded(self.supernet.generator, {}) as recording:
            self.full = self.run(self.supernet)
        self.bits = recording.lowest
        self.scale = float(self.full.abs().max()) + 1e-30

    @torch.no_grad()
    def run(self, model: Callable[..., Any], config: Any = None) -> Tensor:
        """All outputs as one vector; noise in the forward is the same at every call, new tensors are as precise."""
        with new_tensors(self.precise.dtype), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return flat(model(*self.precise.inputs) if config is None else model(*self.precise.inputs, config=config))

    def repeats(self, selection: Selection) -> bool:
        """Whether two forwards of an extracted module are the same."""
        model = self.supernet.extract(selection)
        one, other = self.run(model), self.run(model)
        return one.shape == other.shape and bool(((one == other) | (one.isnan() & other.isnan())).all())

    def selection(self, config: Mapping[str, int], rng: np.random.Generator) -> Selection:
        """Random channels, so many of each width."""
        kept = {}
        for width, size in zip(self.graph.widths, self.graph.sizes(config), strict=True):
            kept[width.name] = sorted(rng.choice(width.size, size, replace=False).tolist())
        return Selection(kept)

    def sliced(self, selection: Selection) -> float:
        """How far the sliced supernet is from the extracted plain module."""
        return distance(self.run(self.supernet, selection), self.run(self.supernet.extract(selection)))

    def removed(self, selection: Selection, widths: Iterable[int]) -> float:
        """How far it is from removing these widths' channels to zeroing them where they are read.

        All other widths of the selection are narrow in both.
        """
        graph, tried = self.graph, set(widths)
        others = Selection({n: c for n, c in selection.items() if graph.index[n] not in tried})
        mine = Selection({n: c for n, c in selection.items() if graph.index[n] in tried})
        gates = torch.from_numpy(np.concatenate(graph.masks(mine))).to(self.precise.dtype)
        zeroed = GatePlaces(graph, tried).apply(self.supernet.tensors, gates)
        tensors = {**zeroed, **self.supernet.sliced(others, zeroed)}

        def forward(*inputs: Any) -> Any:
            with narrow_attributes(self.supernet.generator, graph, graph.sizes(others)):
                return self.supernet.call_with(tensors, inputs)

        return distance(self.run(forward), self.run(self.supernet, selection))

    @torch.no_grad()
    def permuted(self, widths: Iterable[int], rng: np.random.Generator) -> float:
        """How far the output moves when the units of these widths change places."""
        found = [self.graph.widths[w] for w in widths]
        orders = {width.name: rng.permutation(width.size) for width in found}
        try:
            return distance(self.run(self.supernet.permute_(orders)), self.full)
        finally:
            self.supernet.permute_({name: np.argsort(order) for name, order in orders.items()})


def distance(one: Tensor, other: Tensor) -> float:
    """Largest absolute difference; infinite between different shapes, and where one is not a number."""
    if one.shape != other.shape:
        return float("inf")
    found = float(torch.where(one.isnan() & other.isnan(), torch.zeros_like(one), (one - other).abs()).max())
    return float("inf") if np.isnan(found) else found
