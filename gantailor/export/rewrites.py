"""Rewrites before an export: the same function in operations that a backend takes, checked numerically."""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from gantailor.export.checking import in_precision_of
from gantailor.export.devices import Device
from gantailor.export.errors import ExportError
from gantailor.export.helpers import Around
from gantailor.export.rewriting.functions import by_means
from gantailor.export.rewriting.still import still
from gantailor.export.target import Rewrite, Target
from gantailor.supernet.calling import Inputs, each
from gantailor.supernet.subnets.copying import copied

TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-4}  # relative to the largest output


def everywhere(one: Rewrite) -> Rewrite:
    """From a function of one module to a rewrite of a whole model: every submodule, the inner ones first."""

    @functools.wraps(one)
    def rewrite(model: nn.Module) -> nn.Module:
        for name, child in model.named_children():
            new = rewrite(child)
            if new is not child:
                setattr(model, name, new)
        return one(model)

    return rewrite


class PlainInstanceNorm(nn.Module):
    """Instance norm as means, for backends without one.

    Args:
        norm: the module that it stands for; without running statistics.
    """

    weight: Tensor | None
    bias: Tensor | None

    def __init__(self, norm: nn.InstanceNorm2d) -> None:
        super().__init__()
        self.eps = norm.eps
        for name in ("weight", "bias"):  # buffers in a branch that is gone
            value = getattr(norm, name)
            if isinstance(value, nn.Parameter) or value is None:
                self.register_parameter(name, value)
            else:
                self.register_buffer(name, value)

    def forward(self, x: Tensor) -> Tensor:
        return by_means(x, self.weight, self.bias, self.eps)


class SlicedReflectionPad(nn.Module):
    """Reflection padding as slices and concatenations; ``padding`` is (left, right, top, bottom)."""

    def __init__(self, padding: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.padding = padding

    def forward(self, x: Tensor) -> Tensor:
        left, right, top, bottom = self.padding
        for dim, before, after in ((2, top, bottom), (3, left, right)):
            size = x.shape[dim]
            first = [x.narrow(dim, i, 1) for i in range(before, 0, -1)]
            last = [x.narrow(dim, size - 1 - i, 1) for i in range(1, after + 1)]
            x = torch.cat([*first, x, *last], dim) if first or last else x
        return x


class SubpixelConvolution(nn.Module):
    """A transposed convolution as a convolution that makes a cell of outputs for each input, and a pixel shuffle.

    For backends that have more for convolutions. Along a side ``stride`` outputs are a cell: output ``r`` of cell ``q``
    takes ``weight[r + padding - stride * t]`` times input ``q + t``. Where there is no such weight stands a 0: a kernel
    of 3 with a stride of 2 multiplies 16 / 9 as often, one of 4 no more than it did.

    Args:
        conv: what it stands for; with one stride for both sides, without groups and dilation.
    """

    def __init__(self, conv: nn.ConvTranspose2d) -> None:
        super().__init__()
        self.stride = conv.stride[0]
        rows, columns = _Cells.along(conv, 0), _Cells.along(conv, 1)
        self.pads, self.cut = (*columns.pads, *rows.pads), (*columns.cut, *rows.cut)
        none = F.pad(conv.weight.detach(), (0, 1, 0, 1))
        taps = none[:, :, rows.weights][..., columns.weights]  # [in, out, t, stride, t, stride]
        weight = taps.permute(1, 3, 5, 0, 2, 4).flatten(0, 2).contiguous()
        down, across = weight.shape[2:]
        self.conv = nn.Conv2d(conv.in_channels, len(weight), (down, across), bias=conv.bias is not None)
        self.conv.weight = nn.Parameter(weight)
        if conv.bias is not None:
            self.conv.bias = nn.Parameter(conv.bias.detach().repeat_interleave(self.stride**2))

    def forward(self, x: Tensor) -> Tensor:
        made = F.pixel_shuffle(self.conv(F.pad(x, self.pads)), self.stride)
        return F.pad(made, self.cut) if any(self.cut) else made


@dataclass(frozen=True)
class _Cells:
    """Of one side of a transposed convolution, how its outputs lie in cells.

    Attributes:
        pads: zeros before and behind the input.
        cut: outputs that the first and the last cell have too many, as negative padding.
        weights: ``[t, stride]``, which weight each tap and output has; the number of weights where there is none.
    """

    pads: tuple[int, int]
    cut: tuple[int, int]
    weights: Tensor

    @classmethod
    def along(cls, conv: nn.ConvTranspose2d, side: int) -> _Cells:
        """With as few taps as can be."""
        kernel, stride, padding = conv.kernel_size[side], conv.stride[side], int(conv.padding[side])

        def ends(first: int) -> tuple[int, int]:  # of t
            return -((kernel - 1 - padding + first) // stride), (stride - 1 + padding - first) // stride

        first = min(range(stride), key=lambda first: (ends(first)[1] - ends(first)[0], first))
        low, high = ends(first)
        more = kernel + conv.output_padding[side] - stride - 2 * padding + first  # outputs beyond a cell for each input
        cells = -(-more // stride)
        weights = torch.arange(stride) + padding - first - stride * torch.arange(low, high + 1)[:, None]
        weights[(weights < 0) | (weights >= kernel)] = kernel
        return cls((-low, cells + high), (-first, more - cells * stride), weights)


class CutTransposed(nn.Module):
    """A transposed convolution with an output padding as one without any padding, of which a part is taken.

    Args:
        conv: what it stands for; its output padding is at most its padding.
    """

    def __init__(self, conv: nn.ConvTranspose2d) -> None:
        super().__init__()
        sides = zip(map(int, conv.padding), conv.output_padding, strict=True)
        self.rows, self.columns = (slice(padding, more - padding or None) for padding, more in sides)
        self.conv = conv
        conv.padding, conv.output_padding = (0, 0), (0, 0)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.conv(x)
        return made[:, :, self.rows, self.columns]


@everywhere
def subpixel_convolutions(module: nn.Module) -> nn.Module:
    """Transposed convolutions as convolutions and pixel shuffles, but for those in groups or with dilation."""
    if not isinstance(module, nn.ConvTranspose2d) or module.groups != 1 or set(module.dilation) != {1}:
        return module
    return SubpixelConvolution(module) if len(set(module.stride)) == 1 else module


@everywhere
def output_paddings(module: nn.Module) -> nn.Module:
    """Transposed convolutions without output padding."""
    if not isinstance(module, nn.ConvTranspose2d) or not any(module.output_padding):
        return module
    sides = zip(module.output_padding, map(int, module.padding), strict=True)
    return CutTransposed(module) if all(more <= padding for more, padding in sides) else module


@everywhere
def instance_norms(module: nn.Module) -> nn.Module:
    """Instance norms as means."""
    if isinstance(module, nn.InstanceNorm2d) and not module.track_running_stats:
        return PlainInstanceNorm(module)
    return module


@everywhere
def reflection_pads(module: nn.Module) -> nn.Module:
    """Reflection pads as slices."""
    return SlicedReflectionPad(module.padding) if isinstance(module, nn.ReflectionPad2d) else module


@everywhere
def affine_norms(module: nn.Module) -> nn.Module:
    """A batch norm without scale and shift gets the identity ones: some lowerings crash without."""
    if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d) and not module.affine:
        module.affine = True
        like = module.running_mean if module.running_mean is not None else torch.zeros(module.num_features)
        module.weight, module.bias = nn.Parameter(torch.ones_like(like)), nn.Parameter(torch.zeros_like(like))
    return module


@everywhere
def folded_norms(module: nn.Module) -> nn.Module:
    """Batch norms behind a convolution in the same ``nn.Sequential`` become part of it."""
    if isinstance(module, nn.Sequential):
        names = list(module._modules)
        for first, second in itertools.pairwise(names):
            conv, norm = module._modules[first], module._modules[second]
            if not (isinstance(conv, nn.Conv2d | nn.ConvTranspose2d) and isinstance(norm, nn.BatchNorm2d)):
                continue
            if norm.running_mean is not None and norm.affine and not norm.training:
                transposed = isinstance(conv, nn.ConvTranspose2d)
                module._modules[first] = fuse_conv_bn_eval(conv, norm, transpose=transposed)
                module._modules[second] = nn.Identity()
    return module


COMMON: tuple[Rewrite, ...] = (affine_norms, folded_norms)


def rewritten(model: nn.Module, target: Target, example: Inputs) -> nn.Module:
    """A copy in eval mode that a target takes; the model itself is left as it is.

    Raises:
        ExportError: the rewritten model computes something else.
    """
    own, made, expected, dtype = _still(model, example, torch.float64)
    if getattr(own, "modulation", "") == "grouped":  # weights that depend on the style: no exporter's batch likes them
        setattr(own, "modulation", "shared")  # noqa: B010  (a property of some generators, not of every module)
    for rewrite in target.rewrites:
        made = rewrite(made)
    with torch.no_grad():
        found = in_precision_of(dtype, made, example)
        difference = float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-12))
    if not difference <= TOLERANCES.get(expected.dtype, 0.0):
        raise ExportError(f"the generator rewritten for {target.name} differs by {difference:.1e}; please report it")
    return made.float()


def _still(model: nn.Module, example: Inputs, dtype: torch.dtype) -> tuple[nn.Module, nn.Module, Tensor, torch.dtype]:
    """A copy, what does not write into it when it is called, its output; in float64 where it runs in that."""
    own, outputs = copied(model).eval(), []

    def run(model: nn.Module, factor: float) -> None:
        scaled = each(example, lambda one: one * factor if one.is_floating_point() else one)
        outputs.append(in_precision_of(dtype, model, scaled))

    try:
        made = still(own.double() if dtype == torch.float64 else own, run)
    except ExportError:
        raise
    except Exception:  # whatever a stranger's forward raises that insists on float32
        if dtype == torch.float32:
            raise
        return _still(model, example, torch.float32)
    return own, made, outputs[0], dtype


class HalfPrecision(Around):
    """A model with weights and arithmetic in float16; what goes in and comes out is float32.

    Args:
        model: a copy of it is taken.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(copied(model).half())

    def forward(self, *inputs: Tensor) -> Tensor:
        made: Tensor = self.model(*(one.half() for one in inputs))
        return made.float()


def in_precision(model: nn.Module, device: Device) -> nn.Module:
    """The model as a float precision of the device wants it: for runtimes that keep the types that PyTorch has."""
    return HalfPrecision(model).eval() if device.precision == "float16" else model
