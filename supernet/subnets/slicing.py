"""A generator's tensors at the widths of a subnet: sliced for a forward, copied into a plain narrow module, reordered.

Everything is read off the width graph; a model's tensors are named as in ``named_parameters`` and ``named_buffers``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gantailor.supernet.graph import Axis, WidthGraph
from gantailor.supernet.subnets.attributes import set_integer
from gantailor.supernet.subnets.copying import copied
from gantailor.supernet.subnets.removal import remove

Places = Mapping[str, Sequence[str]]


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """A model's weights and buffers by name, not copied."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def places_of(model: nn.Module) -> dict[str, list[str]]:
    """For each tensor every place that holds it: a weight tied between modules has several."""
    held: dict[int, list[str]] = {}
    for path, module in model.named_modules():
        for leaf, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is not None:
                held.setdefault(id(tensor), []).append(f"{path}.{leaf}" if path else leaf)
    return {places[0]: places for places in held.values()}


def slice_tensors(
    tensors: Mapping[str, Tensor],
    graph: WidthGraph,
    subnet: Mapping[str, Any],
    gone: Iterable[int] = (),
    *,
    only: Iterable[str] | None = None,
) -> dict[str, Tensor]:
    """The tensors that depend on widths, at a subnet's: views where leading channels stay, gathered copies otherwise.

    Differentiable. Weights that read widths of which nothing is kept (``gone``, by number) are zeros. ``only`` these
    tensors, if given.
    """
    masks = graph.present(subnet)
    sizes = [int(mask.sum()) for mask in masks]
    leading = [bool(mask[:size].all()) for mask, size in zip(masks, sizes, strict=True)]
    result = {}
    for name in graph.axes if only is None else only:
        tensor = tensors[name]
        for dimension, axis in graph.axes[name].items():
            if axis.leading is not None and leading[axis.leading]:
                tensor = tensor.narrow(dimension, 0, sizes[axis.leading])
            else:
                kept = axis.kept(masks)
                if len(kept) < len(axis):
                    tensor = tensor.index_select(dimension, torch.from_numpy(kept).to(tensor.device))
        result[name] = tensor
    for width in gone:
        for name, _ in graph.consumers[width]:
            result[name] = torch.zeros_like(result[name])
    return result


def kept_channels(graph: WidthGraph, layers: Iterable[str], subnet: Mapping[str, Any]) -> dict[str, Tensor | slice]:
    """For named modules, which channels of their full output a subnet keeps: their numbers, or all as a slice."""
    masks = graph.present(subnet)
    axes = {name: graph.activations.get(name) for name in layers}
    return {n: slice(None) if axis is None else torch.from_numpy(axis.kept(masks)) for n, axis in axes.items()}


def reordered_channels(
    graph: WidthGraph, layers: Iterable[str], orders: Mapping[str, Sequence[int] | np.ndarray]
) -> dict[str, Tensor | slice]:
    """For named modules, the old numbers of their full output's channels in the order that ``reorder_`` gives them."""
    numbered, found = _numbered(graph, orders), {}
    for name in layers:
        axis = graph.activations.get(name)
        found[name] = slice(None) if axis is None else torch.from_numpy(_source(axis, numbered))
    return found


@contextmanager
def narrow_attributes(model: nn.Module, graph: WidthGraph, sizes: Sequence[int]) -> Iterator[None]:
    """Within the block the model's modules hold the subnet's integers (``groups`` and the like)."""
    changed = _set_sizes(model, graph, sizes)
    try:
        yield
    finally:
        for owner, name, value in reversed(changed):
            object.__setattr__(owner, name, value)


def narrow_copy(
    model: nn.Module,
    tensors: Mapping[str, Tensor],
    graph: WidthGraph,
    sizes: Sequence[int],
    *,
    places: Places,
    gone: Iterable[int] = (),
) -> nn.Module:
    """A plain copy of a model that holds copies of these (sliced) tensors in the places of its own.

    Args:
        sizes: of every width, 0 for one without channels.
        places: for each tensor all its names in the model, so that tied weights stay tied.
        gone: widths without channels, by number, whose layers are replaced.
    """
    narrow = copied(model)
    for name, tensor in tensors.items():
        value = tensor.detach().clone().contiguous()
        for place in places[name]:
            path, _, leaf = place.rpartition(".")
            module = narrow.get_submodule(path)
            old = module._parameters.get(leaf)
            if old is None:
                module._buffers[leaf] = value
                continue
            if not isinstance(value, nn.Parameter):  # made once, so that tied weights stay tied
                value = nn.Parameter(value, requires_grad=old.requires_grad)
            module._parameters[leaf] = value
    _set_sizes(narrow, graph, sizes)
    remove(narrow, graph, gone)
    return narrow


def _set_sizes(model: nn.Module, graph: WidthGraph, sizes: Sequence[int]) -> list[tuple[Any, str, Any]]:
    """Set the integers that modules keep of their channels; what they were before, in the order of the changes."""
    changed, sizes = [], [max(1, size) for size in sizes]  # a width that is gone has a channel that is not read
    for attribute in graph.attributes:
        module = model.get_submodule(attribute.module)
        size = attribute.axis.size(sizes)
        name = f"{attribute.name}[-1]" if attribute.as_tuple else attribute.name
        changed.append(set_integer(module, name, size))
    return changed


@torch.no_grad()
def reorder_(
    tensors: Mapping[str, Tensor], graph: WidthGraph, orders: Mapping[str, Sequence[int] | np.ndarray]
) -> None:
    """Reorder the units of widths in place; ``orders`` maps a width's name to its old unit ids in their new order."""
    numbered = _numbered(graph, orders)
    for name, axes in graph.axes.items():
        for dimension, axis in axes.items():
            source, tensor = torch.from_numpy(_source(axis, numbered)), tensors[name]
            tensor.copy_(tensor.index_select(dimension, source.to(tensor.device)))


def _numbered(graph: WidthGraph, orders: Mapping[str, Sequence[int] | np.ndarray]) -> dict[int, np.ndarray]:
    return {graph.index[name]: np.asarray(order) for name, order in orders.items()}


def _source(axis: Axis, numbered: Mapping[int, np.ndarray]) -> np.ndarray:
    """Old position for each new one, of the widths that are on this axis."""
    return axis.permuted({width: order for width, order in numbered.items() if width in axis.counts})
