"""The supernet: one generator, every width. A subnet is a pure function of (weights, selection)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.func import functional_call

from gantailor.supernet.calling import check_batch, check_module
from gantailor.supernet.cost import CostModel
from gantailor.supernet.decisions import Decisions, Unknown
from gantailor.supernet.errors import CheckpointError, ConfigError, SelectionError, nearest
from gantailor.supernet.graph import SubnetConfig, WidthGraph
from gantailor.supernet.subnets.branches import branches
from gantailor.supernet.subnets.copying import copied
from gantailor.supernet.subnets.folding import folded
from gantailor.supernet.subnets.slicing import (
    narrow_attributes,
    narrow_copy,
    places_of,
    reorder_,
    slice_tensors,
    tensors_of,
)
from gantailor.supernet.tracing.trace import trace
from gantailor.supernet.tracing.tracer import Rule

Subnet = Mapping[str, Any]


class Supernet(nn.Module):
    """A generator whose channel widths can be chosen at every call.

    The generator is copied, so the caller's is never changed; in the copy weights that are computed from others (weight
    norm, spectral norm, other parametrizations) are plain. ``supernet(*inputs, config=config)`` slices the weights and
    calls the generator's own forward.

    Args:
        generator: any module.
        example_inputs: a tuple of tensors (or one tensor) with the batch in dimension 0; costs are for their size.
        freeze: names of modules or weights whose channels stay at full size. A generator may also name layers whose
            outputs others use (a latent code) in its own ``interface_layers``; these outputs stay whole.
        rules: own tracing rules (see ``gantailor.supernet.tracing.rules``).
        unknown: ``error`` or ``freeze``: what to do with an operation that has no rule.
        decisions: what another supernet of such a generator had decided (its ``decisions``), instead of ``freeze`` and
            ``unknown``: the graph is the same again, without a proof.

    Attributes:
        generator: the copy.
        caller: holds the generator as it was given.
        example_inputs: as given, a tuple.
        graph: the widths and where they sit.
        cost: MACs and parameters as polynomials of the widths.
        small_inputs: the example with smaller pictures that show the same graph, or as it is where there are none; None
            until ``double.py`` looked for them.

    Raises:
        UntraceableError: names the operation, the module and the ways out.
        SelectionError: ``freeze`` or ``decisions`` name what the generator does not have.
        ConfigError: the generator declares something wrong about itself (``traits.py``), or cannot be narrowed whatever
            it computes: TorchScript, ``DataParallel``; or the example has no rows.
    """

    wraps_generator = True

    def __init__(
        self,
        generator: nn.Module,
        example_inputs: Sequence[Any] | Tensor,
        *,
        freeze: Sequence[str] = (),
        rules: Mapping[Any, Rule] | None = None,
        unknown: Unknown = "error",
        decisions: Decisions | None = None,
    ) -> None:
        super().__init__()
        if decisions is not None and (freeze or unknown != "error"):
            raise ConfigError("freeze and unknown are among the decisions; give them or decisions, not both")
        check_module(generator)
        self.caller = Caller(generator)
        self.example_inputs = (example_inputs,) if isinstance(example_inputs, Tensor) else tuple(example_inputs)
        check_batch(self.example_inputs)
        self.generator = folded(generator, self.example_inputs)
        self.small_inputs: tuple[Any, ...] | None = None
        self.rules = rules
        self._decisions = Decisions(tuple(freeze), unknown) if decisions is None else decisions
        self._places = places_of(self.generator)
        self.graph: WidthGraph = trace(self.generator, self.example_inputs, decisions=self._decisions, rules=rules)
        self.cost = CostModel(self.graph)
        if self._decisions.branches is not None:
            self.branches = _numbers(self.graph, self._decisions.branches)

    @property
    def decisions(self) -> Decisions:
        """What tracing, proof and the search for branches decided so far: enough to make this graph again."""
        known = self.__dict__.get("branches")
        names = None if known is None else tuple(self.graph.widths[width].name for width in sorted(known))
        return dataclasses.replace(self._decisions, branches=names)

    def amend(
        self, *, whole: Mapping[str, str], inexact: Mapping[str, str], constants: Mapping[str, str] | None = None
    ) -> None:
        """Keep widths whole from now on, or mark their removal as inexact; the graph lists them with the reasons.

        ``constants`` are integers of modules (``block.in_channels``) that are not set when these are narrowed.
        """
        decisions = self._decisions.amended(whole=whole, inexact=inexact, constants=constants or {})
        self.graph = trace(self.generator, self.example_inputs, decisions=decisions, rules=self.rules)
        self.cost, self._decisions = CostModel(self.graph), decisions
        self.__dict__.pop("branches", None)

    def with_weights(self, state: Mapping[str, Tensor]) -> Supernet:
        """Another supernet of the same graph, decisions and example, whose generator holds these weights.

        Nothing is traced, and this one stays as it is.

        Args:
            state: as ``supernet.generator.state_dict()`` gives it.

        Raises:
            CheckpointError: the weights are another generator's.
        """
        shared = (self.graph, self.cost, self.example_inputs, self.small_inputs, self.rules)
        other = copied(self, shared={id(part): part for part in shared})
        try:
            other.generator.load_state_dict(dict(state))
        except RuntimeError as error:
            reason = str(error).splitlines()[-1].strip()
            raise CheckpointError(
                f"the weights do not fit the generator {type(self.generator).__name__}: {reason}; give those of one "
                "that was built with the same options"
            ) from None
        return other

    @cached_property
    def branches(self) -> frozenset[int]:
        """Widths, by number, that may lose all their channels: those within residual blocks (``branches.py``)."""
        return branches(self)

    def full_config(self) -> SubnetConfig:
        """Every width at its full size."""
        return self.graph.full_config()

    def forward(self, *inputs: Any, config: Subnet | None = None, **options: Any) -> Any:
        """The generator's own forward, at the widths of ``config`` (a config, a ``Selection``, or full)."""
        return self.generator(*inputs, **options) if config is None else call_narrow(self, config, inputs, options)

    def call_with(
        self, tensors: Mapping[str, Tensor], inputs: Sequence[Any], options: Mapping[str, Any] | None = None
    ) -> Any:
        """The generator's forward with some of its tensors replaced."""
        every = {place: tensor for name, tensor in tensors.items() for place in self._places[name]}
        # tie_weights would swap a module that has two names twice, and leave the second swap behind
        return functional_call(self.generator, every, tuple(inputs), dict(options or {}), tie_weights=False)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The generator's weights and buffers by name, not copied."""
        return tensors_of(self.generator)

    def sliced(self, subnet: Subnet, tensors: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """The tensors of a subnet: views where leading channels stay, gathered copies otherwise; differentiable.

        ``tensors`` are sliced in the place of the generator's own, whose names and shapes they have.
        """
        gone = _gone(self, self.graph.sizes(subnet))
        return slice_tensors(self.tensors if tensors is None else tensors, self.graph, subnet, gone)

    def extract(self, subnet: Subnet, tensors: Mapping[str, Tensor] | None = None) -> nn.Module:
        """A plain narrow module of the generator's own class, with its own copy of the kept weights.

        ``tensors``, all of them, stand for the generator's own.
        """
        sizes = self.graph.sizes(subnet)
        kept = {**(tensors or {}), **self.sliced(subnet, tensors)}
        return narrow_copy(self.generator, kept, self.graph, sizes, places=self._places, gone=_gone(self, sizes))

    def macs(self, config: Subnet, *, convention: str = "true") -> int:
        """Multiply-accumulates for one image of the example's size.

        ``true``: those that happen, as PyTorch's counter counts. ``layers``: without the products of two activations
        (attention), those of convolutions and linear layers alone. ``published``: as the GAN Compression tables count,
        these with transposed convolutions at output resolution and one for each element of every instance norm;
        ``published_convs``: without the norms.
        """
        return int(self.cost.macs(np.array([self.graph.sizes(config)]), convention=convention)[0])

    def macs_many(self, matrix: np.ndarray, *, convention: str = "true") -> np.ndarray:
        """MACs of many subnets: integer sizes ``[N, n_widths]`` to int64 ``[N]``."""
        return self.cost.macs(matrix, convention=convention)

    def parameter_count(self, config: Subnet) -> int:
        """Number of weights, biases included."""
        return int(self.cost.parameters(np.array([self.graph.sizes(config)]))[0])

    def permute_(self, orders: Mapping[str, Sequence[int] | np.ndarray]) -> Supernet:
        """Reorder the units of widths in place; the generator's function does not change.

        ``orders`` maps a width's name to its old unit ids in their new order.
        """
        reorder_(self.tensors, self.graph, orders)
        return self


class AroundSupernet(nn.Module):
    """Computes with a supernet's weights in a way of its own; ``generator`` is the plain one inside."""

    wraps_generator = True

    def __init__(self, supernet: Supernet) -> None:
        super().__init__()
        self.supernet = supernet

    @property
    def generator(self) -> nn.Module:
        """The user's generator."""
        return self.supernet.generator

    @property
    def graph(self) -> WidthGraph:
        """The supernet's."""
        return self.supernet.graph


def call_narrow(
    supernet: Supernet,
    subnet: Subnet,
    inputs: Sequence[Any],
    options: Mapping[str, Any] | None = None,
    *,
    tensors: Mapping[str, Tensor] | None = None,
    change: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] | None = None,
) -> Any:
    """The generator's forward with sliced tensors, its own or others of the same names and shapes.

    Args:
        change: of the sliced tensors before they are used.
    """
    with narrow_attributes(supernet.generator, supernet.graph, supernet.graph.sizes(subnet)):
        sliced = supernet.sliced(subnet, tensors)
        return supernet.call_with(sliced if change is None else change(sliced), inputs, options)


def check_supernet(given: object) -> None:
    """That it is a supernet.

    Raises:
        ConfigError: it is a plain module, or something else.
    """
    if not isinstance(given, Supernet):
        raise ConfigError(
            f"a {type(given).__name__} is no Supernet; give gantailor.Supernet(generator, example_inputs)"
        )


class Caller:
    """The generator that a supernet was made from: what the proof compares with. It is not copied with the supernet."""

    def __init__(self, generator: nn.Module) -> None:
        self.generator = generator

    def __deepcopy__(self, memo: dict[int, Any]) -> Caller:
        return self


def _gone(supernet: Supernet, sizes: Sequence[int]) -> list[int]:
    """Widths, by number, of which nothing is kept."""
    gone = [width for width, size in enumerate(sizes) if size == 0]
    for width in set(gone) - (supernet.branches if gone else set()):
        name = supernet.graph.widths[width].name
        raise SelectionError(f"width {name!r} cannot be 0: it lies in no residual branch; keep a channel at least")
    return gone


def _numbers(graph: WidthGraph, names: Sequence[str]) -> frozenset[int]:
    """The numbers of decided branches.

    Raises:
        SelectionError: the graph has no such width, or not one that may be without channels.
    """
    allowed = [graph.widths[width].name for width in graph.removable]
    for name in names:
        if name not in allowed:
            raise SelectionError(f"decided branch {name!r} is none of this generator's; {nearest(name, allowed)}")
    return frozenset(graph.index[name] for name in names)
