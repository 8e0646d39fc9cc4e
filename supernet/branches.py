"""Branches: widths that may lose all their channels, so that a residual block becomes an identity.

With no channel left, the layers that read a width add their biases and nothing else, whatever the layers before them
compute. So all these layers are replaced; what lies between them passes on one channel that nobody reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from supernet.graph import Axis, WidthGraph
from supernet.quantisers import LAYERS


def removable(model: nn.Module, graph: WidthGraph, places: Mapping[str, Sequence[str]]) -> frozenset[int]:
    """Widths, by number, that plain layers of PyTorch write and read which do nothing else.

    Args:
        places: for each tensor all its names in the model; a tied one has several.
    """
    found = {w for w, readers in graph.consumers.items() if readers} - set(graph.inexact)
    for name, axes in graph.axes.items():
        plain = _is_plain(model, name, axes) and len(places[name]) == 1
        for axis in axes.values():
            found -= set() if plain and _alone(axis) else set(axis.counts)
    for term in graph.terms:
        if term.coefficients["true"] and not isinstance(model.get_submodule(term.layer), LAYERS):
            found -= {w for axis in (term.rows, term.columns) if axis is not None for w in axis.counts}
    return frozenset(found)


def _is_plain(model: nn.Module, name: str, axes: Mapping[int, Axis]) -> bool:
    """Whether a tensor belongs to a convolution or linear layer, or scales and shifts single channels."""
    module = model.get_submodule(name.rpartition(".")[0])
    return isinstance(module, LAYERS) or (len(axes) == 1 and not list(module.children()))


def _alone(axis: Axis) -> bool:
    return len(axis.counts) == 1 and not axis.fixed


def remove(narrow: nn.Module, graph: WidthGraph, gone: Iterable[int]) -> None:
    """Replace, in an extracted module that keeps one channel of these widths, every layer that writes or reads them."""
    for width in gone:
        readers = {name.rpartition(".")[0] for name, _ in graph.consumers[width]}
        touched = {
            name.rpartition(".")[0]
            for name, axes in graph.axes.items()
            if any(width in axis.counts for axis in axes.values())
        }
        for path in touched:
            layer = narrow.get_submodule(path)
            parent, _, leaf = path.rpartition(".")
            if isinstance(layer, LAYERS):
                bias: Any = layer.bias if path in readers else None
                setattr(narrow.get_submodule(parent), leaf, Constant(layer, bias))
            elif not isinstance(layer, Constant):  # a norm on the channel that nobody reads
                for name, parameter in list(layer.named_parameters(recurse=False)):
                    delattr(layer, name)
                    layer.register_buffer(name, parameter.detach())


class Constant(nn.Module):
    """What is left of a layer whose input channels are all gone: its bias, in the shape of its output.

    Args:
        layer: a convolution, transposed convolution or linear layer.
        bias: ``[channels]``, or None for zeros.
    """

    def __init__(self, layer: nn.Module, bias: nn.Parameter | None) -> None:
        super().__init__()
        self.bias, self.transposed = bias, isinstance(layer, nn.ConvTranspose2d)
        weight: Any = layer.weight
        self.channels = weight.shape[1 if self.transposed else 0]
        names = ("kernel_size", "stride", "dilation", "padding", "output_padding")
        self.geometry = {name: getattr(layer, name) for name in names if hasattr(layer, name)}

    def forward(self, x: Tensor) -> Tensor:
        image = bool(self.geometry)
        sides = [self._side(int(n), d) for d, n in enumerate(x.shape[2:])] if image else []
        shape = (len(x), self.channels, *sides) if image else (*x.shape[:-1], self.channels)
        filled = x.new_zeros(shape)  # a tensor of its own: what follows may write into it
        return filled if self.bias is None else filled + self.bias.reshape(-1, *[1] * len(sides))

    def _side(self, n: int, dimension: int) -> int:
        """Output size along a spatial dimension, by PyTorch's formulas."""
        if self.geometry["padding"] == "same":
            return n
        names = ("kernel_size", "stride", "dilation", "output_padding")
        kernel, stride, dilation, more = (self.geometry[name][dimension] for name in names)
        reach = dilation * (kernel - 1)
        padded = 0 if self.geometry["padding"] == "valid" else 2 * self.geometry["padding"][dimension]
        if self.transposed:
            return int((n - 1) * stride - padded + reach + more + 1)
        return int((n + padded - reach - 1) // stride + 1)
