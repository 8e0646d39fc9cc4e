"""The residual discriminator of StyleGAN2, named as in rosinality/stylegan2-pytorch, so that its ``d`` loads.

Paper: Karras et al. 2019, "Analyzing and Improving the Image Quality of StyleGAN" (arXiv 1912.04958).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gantailor.zoo.generators.stylegan2.layers import BiasedLeakyReLU, Blur, EqualLinear, check_channels


class EqualConv2d(nn.Module):
    """Convolution with an equalised learning rate and no bias."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, padding: int = 0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.scale = 1 / math.sqrt(inputs * kernel**2)
        self.stride, self.padding = stride, padding

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.scale, stride=self.stride, padding=self.padding)


def conv_layer(inputs: int, outputs: int, kernel: int, *, down: bool = False, activate: bool = True) -> nn.Sequential:
    """Blur where it halves the size, convolution, biased activation."""
    layers: list[nn.Module] = []
    if down:
        layers = [Blur(padding=(kernel + 1) // 2), EqualConv2d(inputs, outputs, kernel, stride=2)]
    else:
        layers = [EqualConv2d(inputs, outputs, kernel, padding=kernel // 2)]
    if activate:
        layers.append(BiasedLeakyReLU(outputs))
    return nn.Sequential(*layers)


class ResidualBlock(nn.Module):
    """``[N, in, H, W]`` to ``[N, out, H/2, W/2]``."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = conv_layer(inputs, inputs, 3)
        self.conv2 = conv_layer(inputs, outputs, 3, down=True)
        self.skip = conv_layer(inputs, outputs, 1, down=True, activate=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = (self.conv2(self.conv1(x)) + self.skip(x)) / math.sqrt(2)
        return out


def deviation_group(samples: int, most: int = 4) -> int:
    """How many of a batch's pictures are compared with each other."""
    return max(size for size in range(1, most + 1) if samples % size == 0)


def append_deviation(x: Tensor, group: int = 4) -> Tensor:
    """Append to ``[N, C, H, W]`` one channel: the mean deviation of features within groups of the batch.

    Groups hold ``group`` samples, or the most below that which divide N (the original fails there).
    """
    samples, _, height, width = x.shape
    group = deviation_group(samples, group)
    precise = x.float() if x.dtype == torch.bfloat16 else x  # half precision takes pictures that are alike for equal
    y = precise.reshape(group, samples // group, -1, height, width)
    deviation = torch.sqrt(y.var(0, unbiased=False) + 1e-8).mean((1, 2, 3)).to(x.dtype)
    return torch.cat([x, deviation.repeat(group).reshape(samples, 1, 1, 1).expand(-1, -1, height, width)], 1)


class StyleGan2Discriminator(nn.Module):
    """Logits ``[N, 1]`` of images ``[N, input_nc, size, size]`` in [-1, 1]; each depends on its whole batch.

    Args:
        size: side of the image, a power of two from 8.
        channel_multiplier: as the generator's.
        channels: width at each resolution from 4 to ``size`` instead of the published ones.
        input_nc: channels of the image.
    """

    def __init__(
        self,
        *,
        size: int = 256,
        channel_multiplier: int = 2,
        channels: Mapping[int, int] | None = None,
        input_nc: int = 3,
    ) -> None:
        super().__init__()
        widths = check_channels(size, channel_multiplier, channels)
        sides = sorted(widths, reverse=True)
        blocks = [ResidualBlock(widths[side], widths[side // 2]) for side in sides[:-1]]
        self.convs = nn.Sequential(conv_layer(input_nc, widths[size], 1), *blocks)
        self.final_conv = conv_layer(widths[4] + 1, widths[4], 3)
        self.final_linear = nn.Sequential(
            EqualLinear(widths[4] * 16, widths[4], activate=True), EqualLinear(widths[4], 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.final_conv(append_deviation(self.convs(x)))
        out: Tensor = self.final_linear(x.flatten(1))
        return out
