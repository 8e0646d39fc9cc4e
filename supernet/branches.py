"""Branches: widths that may lose all their channels, so that a residual block becomes an identity.

With no channel left, the layers that read a width add their biases and nothing else, whatever the layers before them
compute. So all these layers are replaced; what lies between them passes on one channel that nobody reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from gantailor.supernet.double import in_double
from gantailor.supernet.gates import GatePlaces
from gantailor.supernet.graph import Axis, WidthGraph
from gantailor.supernet.quantization.quantisers import LAYERS

if TYPE_CHECKING:
    from gantailor.supernet.supernet import Supernet

NOTHING = 1e-9  # an effect, as a share of what it is in the whole generator, in float64


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
            found -= {w for axis in (term.rows, term.columns) if axis is not None for w in axis.counts}
    return frozenset(found)


def _is_plain(model: nn.Module, name: str) -> bool:
    """Whether a tensor belongs to a convolution or linear layer, or scales and shifts single channels."""
    path, _, leaf = name.rpartition(".")
    module = model.get_submodule(path)
    return type(module) in LAYERS or (getattr(module, leaf).dim() == 1 and not list(module.children()))


def _alone(axis: Axis) -> bool:
    return len(axis.counts) == 1 and not axis.fixed


def branches(supernet: Supernet) -> frozenset[int]:
    """Removable widths, by number, whose loss takes nothing else away: those within residual blocks.

    Without them, all together, every other width and every input still has an effect on the output: its gradient is not
    zero. Found in float64 by a forward and a backward for each.
    """
    if not supernet.graph.removable:
        return frozenset()
    double, inputs = in_double(supernet)
    places, found, count = GatePlaces(double.graph), frozenset[int](), len(double.graph.widths)
    whole = _effects(double, inputs, places, found)
    if not whole[count:].any():  # an input of integers, which has no gradient
        return found
    for width in sorted(double.graph.removable):
        gone = found | {width}
        left = _effects(double, inputs, places, gone) > NOTHING * whole
        left[[*gone, *np.flatnonzero(whole == 0)]] = True
        found = gone if left.all() else found
    return found


def _effects(double: Supernet, inputs: Any, places: GatePlaces, gone: Iterable[int]) -> np.ndarray:
    """The largest gradient of (a random mixture of) the outputs at each width's gates, then at each input, with the
    gates of some widths closed.
    """
    leaves, spec = tree_flatten(inputs)
    leaves = [x.clone().requires_grad_() if _is_float(x) else x for x in leaves]
    gates = torch.ones(int(places.starts[-1]), dtype=torch.float64, requires_grad=True)
    closed = torch.ones_like(gates)
    for width in gone:
        closed[places.starts[width] : places.starts[width + 1]] = 0
    with torch.enable_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        output = double.call_with(places.apply(double.tensors, gates * closed), tree_unflatten(leaves, spec))
        mixture = sum((x * torch.randn_like(x)).sum() for x in tree_leaves(output) if _is_float(x))
    asked = [gates, *(x for x in leaves if _is_float(x))]
    found = torch.autograd.grad(mixture, asked, allow_unused=True)
    of_gates = np.maximum.reduceat(found[0].abs().numpy(), places.starts[:-1])
    return np.array([*of_gates, *(0.0 if x is None else float(x.abs().max()) for x in found[1:])])


def _is_float(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


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
