"""Multi-scale discriminators: that of pix2pixHD and SPADE (NVlabs/SPADE's names), MUNIT's (NVlabs/MUNIT's).

Papers: Wang et al. 2018 (arXiv 1711.11585), Park et al. 2019 (arXiv 1903.07291), Huang et al. 2018
(arXiv 1804.04732).
"""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import spectral_norm

from gantailor.zoo.generators.munit.layers import ConvBlock
from gantailor.zoo.generators.norms import norm_layer


def half(x: Tensor) -> Tensor:
    """The picture at half its size, as both papers make it; the border averages what lies inside."""
    return F.avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=False)


class ScaleDiscriminator(nn.Module):
    """PatchGAN of one scale: ``[N, input_nc, H, W]`` to the outputs of all its layers, logits last."""

    def __init__(self, *, input_nc: int, ndf: int, layers: int) -> None:
        super().__init__()
        make_norm = norm_layer("instance")
        self.model0 = nn.Sequential(nn.Conv2d(input_nc, ndf, 4, stride=2, padding=2), nn.LeakyReLU(0.2))
        width = ndf
        for level in range(1, layers):
            previous, width = width, min(width * 2, 512)
            stride = 2 if level < layers - 1 else 1
            conv = spectral_norm(nn.Conv2d(previous, width, 4, stride=stride, padding=2, bias=False))
            normed = nn.Sequential(conv, make_norm(width))
            self.add_module(f"model{level}", nn.Sequential(normed, nn.LeakyReLU(0.2)))
        self.add_module(f"model{layers}", nn.Sequential(nn.Conv2d(width, 1, 4, padding=2)))

    def forward(self, x: Tensor) -> list[Tensor]:
        outputs = []
        for layer in self.children():
            x = layer(x)
            outputs.append(x)
        return outputs


class MultiscaleDiscriminator(nn.Module):
    """The discriminator of pix2pixHD as SPADE has it, with spectral and instance norm.

    Takes condition and picture joined along channels, ``[N, input_nc, H, W]``. Gives, for each scale (whole
    picture first), the outputs of its ``layers + 1`` layers: features to match, then logits ``[N, 1, h, w]``.

    Args:
        input_nc: channels of condition and picture together; 36 + 3 for SPADE on Cityscapes.
        ndf: channels of the first layer; they double up to 512.
        layers: convolutions before the one that gives the logits; all but the last of them halve the picture.
        scales: number of discriminators, each on half the size of the one before.
    """

    def __init__(self, *, input_nc: int = 39, ndf: int = 64, layers: int = 4, scales: int = 2) -> None:
        super().__init__()
        for scale in range(scales):
            self.add_module(f"discriminator_{scale}", ScaleDiscriminator(input_nc=input_nc, ndf=ndf, layers=layers))

    def forward(self, x: Tensor) -> list[list[Tensor]]:
        outputs = []
        for discriminator in self.children():
            outputs.append(discriminator(x))
            x = half(x)
        return outputs


class MunitDiscriminator(nn.Module):
    """MUNIT's discriminator: ``[N, input_nc, H, W]`` to logits ``[N, 1, h, w]`` of each scale (for lsgan).

    Args:
        ndf: channels of the first layer; each further one doubles them.
        layers: convolutions that halve the picture.
        scales: number of discriminators, each on half the size of the one before.
    """

    def __init__(self, *, input_nc: int = 3, ndf: int = 64, layers: int = 4, scales: int = 3) -> None:
        super().__init__()

        def network() -> nn.Sequential:
            widths = [input_nc, *(ndf * 2**level for level in range(layers))]
            blocks = [
                ConvBlock(inputs, outputs, 4, stride=2, padding=1, activation="lrelu")
                for inputs, outputs in pairwise(widths)
            ]
            return nn.Sequential(*blocks, nn.Conv2d(widths[-1], 1, 1))

        self.cnns = nn.ModuleList(network() for _ in range(scales))

    def forward(self, x: Tensor) -> list[Tensor]:
        outputs = []
        for network in self.cnns:
            outputs.append(network(x))
            x = half(x)
        return outputs
