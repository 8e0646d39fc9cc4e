"""Layers without channels: which widths may be left without any, and what then stands in place of their layers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from gantailor.supernet.graph import Axis, WidthGraph
from gantailor.supernet.quantization.quantisers import LAYERS


def removable(model: nn.Module, graph: WidthGraph, places: Mapping[str, Sequence[str]]) -> frozenset[int]:
    """Widths, by number, that plain layers of PyTorch write and read which do nothing else.

    Args:
        places: for each tensor all its names in the model; a tied one has several.
    """
    found = {w for w, readers in graph.consumers.items() if readers} - set(graph.inexact)
    for name, axes in graph.axes.items():
        plain = _is_plain(model, name) and len(places[name]) == 1
        for axis in axes.values():
            found -= set() if plain and _alone(axis) else set(axis.counts)
    for term in graph.terms:
        if term.coefficients["true"] and type(model.get_submodule(term.layer)) not in LAYERS:
            found -= {w for axis in term.axes for w in axis.counts}
    return frozenset(found)


def _is_plain(model: nn.Module, name: str) -> bool:
    """Whether a tensor belongs to a convolution or linear layer, or scales and shifts single channels."""
    path, _, leaf = name.rpartition(".")
    module = model.get_submodule(path)
    return type(module) in LAYERS or (getattr(module, leaf).dim() == 1 and not list(module.children()))


def _alone(axis: Axis) -> bool:
    return len(axis.counts) == 1 and not axis.fixed


def remove(narrow: nn.Module, graph: WidthGraph, gone: Iterable[int]) -> None:
    """Replace, in an extracted module that keeps one channel of these widths, every layer that writes or reads them."""
    lost = set(gone)
    reads = {place for width in lost for place in graph.consumers[width]}
    for path in {name.rpartition(".")[0] for name, axes in graph.axes.items() if _touches(axes, lost)}:
        layer = narrow.get_submodule(path)
        if type(layer) in LAYERS:
            axes = graph.axes[f"{path}.weight"]
            written = {d: axis for d, axis in axes.items() if (f"{path}.weight", d) not in reads}
            bias: Any = None if _touches(written, lost) else layer.bias
            parent, _, leaf = path.rpartition(".")
            setattr(narrow.get_submodule(parent), leaf, Constant(layer, bias))
            continue
        for name, parameter in list(layer.named_parameters(recurse=False)):  # a norm of the channel nobody reads
            delattr(layer, name)
            layer.register_buffer(name, parameter.detach())


def _touches(axes: Mapping[int, Axis], widths: set[int]) -> bool:
    return any(widths & set(axis.counts) for axis in axes.values())


class Constant(nn.Module):
    """What is left of a layer whose input channels are all gone: its bias, in the shape of its output.

    The bias is not trained any more: before a batch norm it would be a constant whose gradient is rounding noise.

    Args:
        layer: a convolution, transposed convolution or linear layer.
        bias: ``[channels]``, or None for zeros.
    """

    def __init__(self, layer: nn.Module, bias: nn.Parameter | None) -> None:
        super().__init__()
        self.bias, self.transposed = bias, isinstance(layer, nn.ConvTranspose2d)
        weight: Any = layer.weight
        groups: Any = getattr(layer, "groups", 1)
        self.channels = weight.shape[1] * groups if self.transposed else weight.shape[0]
        names = ("kernel_size", "stride", "dilation", "padding", "output_padding")
        self.geometry = {name: getattr(layer, name) for name in names if hasattr(layer, name)}

    def forward(self, x: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        if not self.geometry:
            filled = x.new_zeros((*x.shape[:-1], self.channels))
            return filled if self.bias is None else filled + self.bias.detach()
        sides = [self._side(n, d) for d, n in enumerate(x.shape[2:])] if output_size is None else output_size[-2:]
        filled = x.new_zeros((x.shape[0], self.channels, *sides))  # a tensor of its own: what follows may write into it
        return filled if self.bias is None else filled + self.bias.detach()[:, None, None]

    def _side(self, n: Any, dimension: int) -> Any:
        """Output size along a spatial dimension, by PyTorch's formulas; a symbol where an exporter traces."""
        if self.geometry["padding"] == "same":
            return n
        names = ("kernel_size", "stride", "dilation", "output_padding")
        kernel, stride, dilation, more = (self.geometry[name][dimension] for name in names)
        reach = dilation * (kernel - 1)
        padded = 0 if self.geometry["padding"] == "valid" else 2 * self.geometry["padding"][dimension]
        if self.transposed:
            return (n - 1) * stride - padded + reach + more + 1
        return (n + padded - reach - 1) // stride + 1
