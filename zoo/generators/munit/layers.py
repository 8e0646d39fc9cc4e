"""The building blocks of MUNIT's generator and discriminator, named as in NVlabs/MUNIT.

Paper: Huang et al. 2018 (arXiv 1804.04732).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gantailor.zoo.generators.norms import Norm, norm_layer
from gantailor.zoo.generators.separable import SeparableConv2d


class LayerNorm(nn.Module):
    """MUNIT's layer norm of ``[N, C, H, W]``: each sample by its own mean and deviation, then an affine map.

    Differs from ``nn.GroupNorm(1, C)``: the variance is unbiased and ``eps`` is added to the deviation.
    """

    def __init__(self, channels: int, *, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.gamma = nn.Parameter(torch.rand(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((1, 2, 3), keepdim=True)
        deviation = x.std((1, 2, 3), keepdim=True)
        return (x - mean) / (deviation + self.eps) * self.gamma[:, None, None] + self.beta[:, None, None]


class AdaIN(nn.Module):
    """Adaptive instance norm: ``instance_norm(x) * scale + shift``, ``shift`` and ``scale`` being ``[N, C]``.

    Paper: Huang & Belongie 2017 (arXiv 1703.06868).
    """

    def forward(self, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        return F.instance_norm(x, eps=1e-5) * scale[:, :, None, None] + shift[:, :, None, None]


class ConvBlock(nn.Module):
    """Reflection padding, convolution, norm, activation.

    Args:
        norm: ``none``, ``instance``, ``layer``, or ``adain``, whose shift and scale the forward takes.
        activation: ``relu``, ``lrelu`` (slope 0.2), ``tanh`` or ``none``.
        separable: a depthwise-separable convolution with an instance norm inside (stride 1 only).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        stride: int = 1,
        padding: int = 0,
        norm: str = "none",
        activation: str = "relu",
        separable: bool = False,
    ) -> None:
        super().__init__()
        norms: dict[str, Norm] = {
            "none": norm_layer("none"),
            "instance": norm_layer("instance"),
            "layer": LayerNorm,
            "adain": lambda _: AdaIN(),
        }
        activations = {
            "relu": nn.ReLU(),
            "lrelu": nn.LeakyReLU(0.2),
            "tanh": nn.Tanh(),
            "none": nn.Identity(),
        }
        self.pad = nn.ReflectionPad2d(padding)
        self.norm = norms[norm](out_channels)
        self.activation = activations[activation]
        self.conv: nn.Module
        if separable:
            assert stride == 1
            self.conv = SeparableConv2d(in_channels, out_channels, kernel, norm=norm_layer("instance"))
        else:
            self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride=stride)

    @property
    def width(self) -> int:
        """Output channels of the convolution, as its weights are now."""
        convolutions = [module for module in self.conv.modules() if isinstance(module, nn.Conv2d)]
        return convolutions[-1].weight.shape[0]

    def forward(self, x: Tensor, *shift_and_scale: Tensor) -> Tensor:
        out: Tensor = self.activation(self.norm(self.conv(self.pad(x)), *shift_and_scale))
        return out


class ResBlock(nn.Module):
    """``x + model(x)``, two 3x3 convolutions; with AdaIN the forward takes shift, scale, shift, scale."""

    def __init__(self, channels: int, *, norm: str, separable: bool) -> None:
        super().__init__()
        self.model = nn.Sequential(
            ConvBlock(channels, channels, 3, padding=1, norm=norm, separable=separable),
            ConvBlock(channels, channels, 3, padding=1, norm=norm, activation="none", separable=separable),
        )

    def forward(self, x: Tensor, *adain: Tensor) -> Tensor:
        out: Tensor = x + self.model[1](self.model[0](x, *adain[:2]), *adain[2:])
        return out


class ResBlocks(nn.Module):
    """A chain of residual blocks; ``adain`` holds four tensors for each block, or nothing."""

    def __init__(self, blocks: int, channels: int, *, norm: str, separable: bool) -> None:
        super().__init__()
        self.model = nn.Sequential(*(ResBlock(channels, norm=norm, separable=separable) for _ in range(blocks)))

    def forward(self, x: Tensor, adain: Sequence[Tensor] = ()) -> Tensor:
        for number, block in enumerate(self.model):
            x = block(x, *adain[4 * number : 4 * number + 4])
        return x
