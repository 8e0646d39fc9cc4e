"""What subnets compute, in numbers: a copy of a supernet in double precision, and comparisons of its outputs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from gantailor.supernet.gates import GatePlaces
from gantailor.supernet.graph import Selection
from gantailor.supernet.proof.double import Precise, flat, new_tensors
from gantailor.supernet.proof.noise import EvenNoise
from gantailor.supernet.proof.recording import recorded
from gantailor.supernet.supernet import call_narrow

LARGE = 4e9  # multiply-accumulates


class Values:
    """Outputs of a supernet's subnets, each as one vector.

    The proof compares subnets of a base: the whole generator, or a random share of every width, a half to a quarter,
    where the whole takes more than ``LARGE`` multiply-accumulates. What is wrong in the graph is wrong in both.

    Attributes:
        base: the units of the base, for each width.
        output: of the base.
        scale: the largest of the output.
        bits: of the coarsest number on the way.
    """

    def __init__(self, precise: Precise) -> None:
        self.precise, self.supernet, self.graph = precise, precise.supernet, precise.supernet.graph
        macs, rng = self._macs(), np.random.default_rng(0)
        share = 1.0 if macs <= LARGE else min(0.5, max(0.25, (LARGE / macs) ** 0.5))
        self.base = Selection(
            {w.name: _draw(rng, range(w.size), max(min(2, w.size), int(w.size * share))) for w in self.graph.widths}
        )
        self._narrow: dict[Selection, Tensor] = {}
        with recorded(self.supernet.generator, {}) as recording:
            self.output = self.run(self.supernet, self.base)
        self.bits = recording.lowest
        self.scale = float(self.output.abs().max()) + 1e-30

    def _macs(self) -> float:
        """Of a forward at full width, about: the proof's inputs may be smaller than those that the cost is for."""
        own, given = (
            sum(x.numel() for x in tree_leaves(inputs) if isinstance(x, Tensor))
            for inputs in (self.supernet.example_inputs, self.precise.inputs)
        )
        first = next((x for x in tree_leaves(self.supernet.example_inputs) if isinstance(x, Tensor)), None)
        batch = 1 if first is None else len(first)
        return batch * self.supernet.macs({}) * given / max(1, own)

    @torch.no_grad()
    def run(self, model: Callable[..., Any], config: Any = None) -> Tensor:
        """All outputs as one vector; noise in the forward is the same at every call, new tensors are as precise."""
        with new_tensors(self.precise.dtype), torch.random.fork_rng(devices=[]), EvenNoise():
            torch.manual_seed(0)
            return flat(model(*self.precise.inputs) if config is None else model(*self.precise.inputs, config=config))

    def repeats(self, selection: Selection) -> bool:
        """Whether two forwards of an extracted module are the same."""
        model = self.supernet.extract(selection)
        one, other = self.run(model), self.run(model)
        return one.shape == other.shape and bool(((one == other) | (one.isnan() & other.isnan())).all())

    def selection(self, config: Mapping[str, int], rng: np.random.Generator) -> Selection:
        """Random units of the base, the share of each width that the config has; narrower than the base where it is."""
        kept = {}
        for width, size in zip(self.graph.widths, self.graph.sizes(config), strict=True):
            of = self.base[width.name]
            count = len(of) if size == width.size else max(1, min(size * len(of) // width.size, len(of) - 1))
            kept[width.name] = _draw(rng, of, count)
        return Selection(kept)

    def narrowed(self, selection: Selection, widths: Collection[int]) -> Selection:
        """The base with these widths as they are in a selection."""
        names = {self.graph.widths[w].name for w in widths}
        return Selection({name: selection[name] if name in names else units for name, units in self.base.items()})

    def sliced(self, selection: Selection) -> float:
        """How far the sliced supernet is from the extracted plain module."""
        return distance(self.narrow(selection), self.run(self.supernet.extract(selection)))

    def narrow(self, selection: Selection) -> Tensor:
        """What the sliced supernet computes, once for all comparisons."""
        if selection not in self._narrow:
            self._narrow[selection] = self.run(self.supernet, selection)
        return self._narrow[selection]

    def removed(self, selection: Selection, widths: Collection[int]) -> float:
        """How far it is from removing these widths' units to zeroing them where they are read.

        All other widths of the selection are narrow in both.
        """
        graph = self.graph
        around = self.narrowed(selection, {*range(len(graph.widths))} - {*widths})
        gates = torch.from_numpy(np.concatenate(graph.masks(selection))).to(self.precise.dtype)
        zeroed = GatePlaces(graph, widths).apply(self.supernet.tensors, gates)

        def forward(*inputs: Any) -> Any:
            return call_narrow(self.supernet, around, inputs, tensors=zeroed)

        return distance(self.run(forward), self.narrow(selection))

    @torch.no_grad()
    def permuted(self, widths: Collection[int], rng: np.random.Generator) -> float:
        """How far the base's output moves when the units of these widths change places."""
        orders = {width.name: np.arange(width.size) for width in self.graph.widths}
        orders |= {n: rng.permutation(len(orders[n])) for n in (self.graph.widths[w].name for w in widths)}
        moved = {name: np.flatnonzero(np.isin(order, self.base[name])).tolist() for name, order in orders.items()}
        try:
            return distance(self.run(self.supernet.permute_(orders), Selection(moved)), self.output)
        finally:
            self.supernet.permute_({name: np.argsort(order) for name, order in orders.items()})


def _draw(rng: np.random.Generator, units: Sequence[int], count: int) -> list[int]:
    return [int(unit) for unit in rng.choice(units, count, replace=False)]


def distance(one: Tensor, other: Tensor) -> float:
    """Largest absolute difference; infinite between different shapes, and where one is not a number."""
    if one.shape != other.shape:
        return float("inf")
    found = float(torch.where(one.isnan() & other.isnan(), torch.zeros_like(one), (one - other).abs()).max())
    return float("inf") if np.isnan(found) else found
