"""Discriminators: PatchGAN and the pixel discriminator of pix2pix, in the original's module order."""

from __future__ import annotations

from torch import Tensor, nn

from gantailor.zoo.generators.norms import norm_layer


class PatchDiscriminator(nn.Module):
    """PatchGAN (Isola et al. 2017): ``[N, input_nc, H, W]`` to a map of logits ``[N, 1, h, w]``.

    Args:
        ndf: channels of the first layer.
        layers: stride-2 convolutions; 3 gives the published 70x70 receptive field.
    """

    def __init__(self, *, input_nc: int = 6, ndf: int = 64, layers: int = 3, norm: str = "instance") -> None:
        super().__init__()
        make_norm, bias = norm_layer(norm), norm != "batch"
        blocks: list[nn.Module] = [nn.Conv2d(input_nc, ndf, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        width = ndf
        for level in range(1, layers + 1):
            previous, width = width, ndf * min(2**level, 8)
            stride = 2 if level < layers else 1
            blocks += [
                nn.Conv2d(previous, width, 4, stride=stride, padding=1, bias=bias),
                make_norm(width),
                nn.LeakyReLU(0.2),
            ]
        blocks.append(nn.Conv2d(width, 1, 4, padding=1))
        self.model = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.model(x)
        return out


class PixelDiscriminator(nn.Module):
    """The 1x1 discriminator of pix2pix: ``[N, input_nc, H, W]`` to logits ``[N, 1, H, W]``."""

    def __init__(self, *, input_nc: int = 6, ndf: int = 64, norm: str = "instance") -> None:
        super().__init__()
        make_norm, bias = norm_layer(norm), norm != "batch"
        self.net = nn.Sequential(
            nn.Conv2d(input_nc, ndf, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(ndf, ndf * 2, 1, bias=bias),
            make_norm(ndf * 2),
            nn.LeakyReLU(0.2),
            nn.Conv2d(ndf * 2, 1, 1, bias=bias),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out
