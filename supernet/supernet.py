"""The supernet: one generator, every width. A subnet is a pure function of (weights, selection)."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from gantailor.supernet.branches import branches, removable, remove
from gantailor.supernet.cost import CostModel
from gantailor.supernet.errors import SelectionError
from gantailor.supernet.graph import SubnetConfig, WidthGraph
from gantailor.supernet.tracing.trace import trace
from gantailor.supernet.tracing.tracer import Rule
from gantailor.supernet.traits import traits_of

Subnet = Mapping[str, Any]


class Supernet(nn.Module):
    """A generator whose channel widths can be chosen at every call.

    The generator is copied, so the caller's is never changed; weight and spectral norms are folded into the weights.
    ``supernet(*inputs, config=config)`` slices the weights and calls the generator's own forward.

    Args:
        generator: any module.
        example_inputs: a tuple of tensors (or one tensor) with the batch in dimension 0; costs are for their size.
        freeze: names of modules or weights whose channels stay at full size. A generator may also name layers whose
            outputs others use (a latent code) in its own ``interface_layers``; these outputs stay whole.
        rules: own tracing rules (see ``gantailor.supernet.tracing.rules``).
        unknown: ``error`` or ``freeze``: what to do with an operation that has no rule.

    Raises:
        ConfigError: the generator declares something wrong about itself (``traits.py``).
        UntraceableError: names the operation, the module and the ways out.
    """

    wraps_generator = True

    def __init__(
        self,
        generator: nn.Module,
        example_inputs: Sequence[Any] | Tensor,
        *,
        freeze: Sequence[str] = (),
        rules: Mapping[Any, Rule] | None = None,
        unknown: str = "error",
    ) -> None:
        super().__init__()
        self.generator = fold_norms(copy.deepcopy(generator))
        self.example_inputs = (example_inputs,) if isinstance(example_inputs, Tensor) else tuple(example_inputs)
        self._trace = partial(
            trace, freeze=freeze, interface=traits_of(generator).interface_layers, rules=rules, unknown=unknown
        )
        self._whole: dict[str, str] = {}
        self._inexact: dict[str, str] = {}
        self.graph: WidthGraph = self.traced(self.example_inputs)

    def traced(self, inputs: Sequence[Any]) -> WidthGraph:
        """The graph as another input shows it."""
        graph = self._trace(self.generator, inputs, whole=self._whole)
        named = {graph.index[name]: reason for name, reason in self._inexact.items() if name in graph.index}
        graph = dataclasses.replace(graph, inexact={**named, **graph.inexact})
        return dataclasses.replace(graph, removable=removable(self.generator, graph, self._places))

    def amend(self, *, whole: Mapping[str, str], inexact: Mapping[str, str]) -> None:
        """Keep widths whole from now on, or mark their removal as inexact; the graph lists them with the reasons."""
        self._whole |= whole
        self._inexact |= inexact
        self.graph = self.traced(self.example_inputs)
        for cached in ("cost", "branches"):
            self.__dict__.pop(cached, None)

    @cached_property
    def cost(self) -> CostModel:
        """MACs and parameters as polynomials of the widths."""
        return CostModel(self.graph)

    @cached_property
    def branches(self) -> frozenset[int]:
        """Widths, by number, that may lose all their channels: those within residual blocks (``branches.py``)."""
        return branches(self)

    def full_config(self) -> SubnetConfig:
        """Every width at its full size."""
        return self.graph.full_config()

    def forward(self, *inputs: Any, config: Subnet | None = None, **options: Any) -> Any:
        """The generator's own forward, at the widths of ``config`` (a config, a ``Selection``, or full)."""
        if config is None:
            return self.generator(*inputs, **options)
        with self._narrow_attributes(config):
            return self.call_with(self.sliced(config), inputs, options)

    def call_with(
        self, tensors: Mapping[str, Tensor], inputs: Sequence[Any], options: Mapping[str, Any] | None = None
    ) -> Any:
        """The generator's forward with some of its tensors replaced."""
        every = {place: tensor for name, tensor in tensors.items() for place in self._places[name]}
        # tie_weights would swap a module that has two names twice, and leave the second swap behind
        return functional_call(self.generator, every, tuple(inputs), dict(options or {}), tie_weights=False)

    def sliced(self, subnet: Subnet, tensors: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """The tensors of a subnet: views where leading channels stay, gathered copies otherwise; differentiable.

        ``tensors`` are sliced in the place of the generator's own, whose names and shapes they have.
        """
        wanted, masks = self.graph.sizes(subnet), self.graph.present(subnet)
        sizes = [max(1, size) for size in wanted]
        leading = [bool(mask[:size].all()) for mask, size in zip(masks, sizes, strict=True)]
        tensors = self.tensors if tensors is None else tensors
        result = {}
        for name, axes in self.graph.axes.items():
            tensor = tensors[name]
            for dimension, axis in axes.items():
                if axis.leading is not None and leading[axis.leading]:
                    tensor = tensor.narrow(dimension, 0, sizes[axis.leading])
                else:
                    kept = axis.kept(masks)
                    if len(kept) < len(axis):
                        tensor = tensor.index_select(dimension, torch.from_numpy(kept).to(tensor.device))
            result[name] = tensor
        for width in self._gone(wanted):
            for name, _ in self.graph.consumers[width]:
                result[name] = torch.zeros_like(result[name])
        return result

    def _gone(self, sizes: Sequence[int]) -> list[int]:
        """Widths, by number, of which nothing is kept."""
        gone = [width for width, size in enumerate(sizes) if size == 0]
        for width in set(gone) - (self.branches if gone else set()):
            name = self.graph.widths[width].name
            raise SelectionError(f"width {name!r} cannot be 0: it lies in no residual branch; keep a channel at least")
        return gone

    @cached_property
    def _places(self) -> dict[str, list[str]]:
        """For each tensor every place that holds it: a weight tied between modules has several."""
        held: dict[int, list[str]] = {}
        for path, module in self.generator.named_modules():
            for leaf, tensor in (*module._parameters.items(), *module._buffers.items()):
                if tensor is not None:
                    held.setdefault(id(tensor), []).append(f"{path}.{leaf}" if path else leaf)
        return {places[0]: places for places in held.values()}

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The generator's weights and buffers by name, not copied."""
        return {**dict(self.generator.named_parameters()), **dict(self.generator.named_buffers())}

    @contextmanager
    def _narrow_attributes(self, subnet: Subnet) -> Iterator[None]:
        """Within the block the generator's modules hold the subnet's integers (``groups`` and the like)."""
        changed = _set_sizes(self.generator, self.graph, self.graph.sizes(subnet))
        try:
            yield
        finally:
            for module, name, value in reversed(changed):
                object.__setattr__(module, name, value)

    def extract(self, subnet: Subnet, tensors: Mapping[str, Tensor] | None = None) -> nn.Module:
        """A plain narrow module of the generator's own class, with its own copy of the kept weights.

        ``tensors``, all of them, stand for the generator's own.
        """
        sliced = {**(tensors or {}), **self.sliced(subnet, tensors)}
        narrow = copy.deepcopy(self.generator)
        for name, tensor in sliced.items():
            value = tensor.detach().clone().contiguous()
            for place in self._places[name]:
                path, _, leaf = place.rpartition(".")
                module = narrow.get_submodule(path)
                old = module._parameters.get(leaf)
                if old is None:
                    module._buffers[leaf] = value
                    continue
                if not isinstance(value, nn.Parameter):  # made once, so that tied weights stay tied
                    value = nn.Parameter(value, requires_grad=old.requires_grad)
                module._parameters[leaf] = value
        sizes = self.graph.sizes(subnet)
        _set_sizes(narrow, self.graph, sizes)
        remove(narrow, self.graph, self._gone(sizes))
        return narrow

    def macs(self, config: Subnet, *, convention: str = "true") -> int:
        """Multiply-accumulates for one image of the example's size.

        ``true``: those that happen. ``published``: as the GAN Compression tables count, transposed convolutions at
        output resolution and one for each element of every instance norm; ``published_convs``: without the norms.
        """
        return int(self.cost.macs(np.array([self.graph.sizes(config)]), convention=convention)[0])

    def macs_many(self, matrix: np.ndarray, *, convention: str = "true") -> np.ndarray:
        """MACs of many subnets: integer sizes ``[N, n_widths]`` to int64 ``[N]``."""
        return self.cost.macs(matrix, convention=convention)

    def parameter_count(self, config: Subnet) -> int:
        """Number of weights, biases included."""
        return int(self.cost.parameters(np.array([self.graph.sizes(config)]))[0])

    def kept_channels(self, layers: Sequence[str], subnet: Subnet) -> dict[str, Tensor]:
        """For named modules, which channels of their full output the subnet keeps."""
        masks, kept = self.graph.present(subnet), {}
        for name in layers:
            axis = self.graph.activations.get(name)
            kept[name] = slice(None) if axis is None else torch.from_numpy(axis.kept(masks))
        return kept  # type: ignore[return-value]

    @torch.no_grad()
    def permute_(self, orders: Mapping[str, Sequence[int] | np.ndarray]) -> Supernet:
        """Reorder the units of widths in place; the generator's function does not change.

        ``orders`` maps a width's name to its old unit ids in their new order.
        """
        numbered = {self.graph.index[name]: np.asarray(order) for name, order in orders.items()}
        tensors = self.tensors
        for name, axes in self.graph.axes.items():
            for dimension, axis in axes.items():
                source = axis.permuted({w: order for w, order in numbered.items() if w in axis.counts})
                tensor = tensors[name]
                tensor.copy_(tensor.index_select(dimension, torch.from_numpy(source).to(tensor.device)))
        return self


def _set_sizes(model: nn.Module, graph: WidthGraph, sizes: Sequence[int]) -> list[tuple[nn.Module, str, Any]]:
    changed, sizes = [], [max(1, size) for size in sizes]  # a width that is gone has a channel that is not read
    for attribute in graph.attributes:
        module = model.get_submodule(attribute.module)
        old = getattr(module, attribute.name)
        size = attribute.axis.size(sizes)
        changed.append((module, attribute.name, old))
        object.__setattr__(module, attribute.name, (*old[:-1], size) if attribute.as_tuple else size)
    return changed


def fold_norms(model: nn.Module) -> nn.Module:
    """Weight norm and spectral norm become plain weights, in place: slicing them apart would change their scale."""
    from torch.nn.utils import parametrize

    for module in model.modules():
        if parametrize.is_parametrized(module):
            for name in list(module.parametrizations):  # type: ignore[arg-type, union-attr]
                parametrize.remove_parametrizations(module, name, leave_parametrized=True)
        for hook in list(module._forward_pre_hooks.values()):
            kind = type(hook).__name__
            if kind == "SpectralNorm":
                torch.nn.utils.remove_spectral_norm(module, hook.name)  # type: ignore
            elif kind == "WeightNorm":
                torch.nn.utils.remove_weight_norm(module, hook.name)  # type: ignore
    return model
