"""Rewrites before an export: the same function in operations that a backend takes, checked numerically."""

from __future__ import annotations

import functools
import inspect
import itertools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.overrides import TorchFunctionMode

from gantailor.export.devices import Device
from gantailor.export.errors import ExportError
from gantailor.export.target import Rewrite, Target
from gantailor.supernet.calling import Inputs, each, forward
from gantailor.supernet.subnets.copying import copied

TOLERANCE = 1e-9  # in float64, relative to the largest output


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
        return _by_means(x, self.weight, self.bias, self.eps)


def _by_means(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    centred = x - x.mean((2, 3), keepdim=True)
    result = centred / torch.sqrt((centred * centred).mean((2, 3), keepdim=True) + eps)
    result = result if weight is None else result * weight[:, None, None]
    return result if bias is None else result + bias[:, None, None]


class _FunctionalNorms(TorchFunctionMode):
    """``F.instance_norm`` in somebody's forward, by means."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.instance_norm:
            values = inspect.signature(F.instance_norm).bind(*args, **(kwargs or {}))
            values.apply_defaults()
            given = values.arguments
            if given["running_mean"] is None and given["input"].dim() == 4:
                return _by_means(given["input"], given["weight"], given["bias"], given["eps"])
        return func(*args, **(kwargs or {}))


class _WithoutFunctionalNorms(nn.Module):
    wraps_generator = True

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    @property
    def generator(self) -> nn.Module:
        """Whose inputs it takes."""
        return self.model

    def forward(self, *inputs: Tensor) -> Tensor:
        with _FunctionalNorms():
            made: Tensor = self.model(*inputs)
            return made


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


def instance_norms_of_forwards(model: nn.Module) -> nn.Module:
    """``F.instance_norm`` in somebody's forward as means; the model is wrapped."""
    return _WithoutFunctionalNorms(model).eval()


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
    made = copied(model).eval().double()
    if getattr(made, "modulation", "") == "grouped":  # weights that depend on the style: no exporter's batch likes them
        setattr(made, "modulation", "shared")  # noqa: B010  (a property of some generators, not of every module)
    for rewrite in target.rewrites:
        made = rewrite(made)
    with torch.no_grad():
        precise = each(example, Tensor.double)
        expected = forward(copied(model).eval().double(), precise)
        difference = float((forward(made, precise) - expected).abs().max() / expected.abs().max().clamp(min=1e-12))
    if not difference <= TOLERANCE:
        raise ExportError(f"the generator rewritten for {target.name} differs by {difference:.1e}; please report it")
    return made.float()


class HalfPrecision(nn.Module):
    """A model with weights and arithmetic in float16; what goes in and comes out is float32.

    Args:
        model: a copy of it is taken.
    """

    wraps_generator = True

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = copied(model).half()

    @property
    def generator(self) -> nn.Module:
        """Whose inputs it takes."""
        return self.model

    def forward(self, *inputs: Tensor) -> Tensor:
        made: Tensor = self.model(*(one.half() for one in inputs))
        return made.float()


def in_precision(model: nn.Module, device: Device) -> nn.Module:
    """The model as a float precision of the device wants it: for runtimes that keep the types that PyTorch has."""
    return HalfPrecision(model).eval() if device.precision == "float16" else model
