"""The U-Net discriminator of Real-ESRGAN, named as ``UNetDiscriminatorSN`` of its public code.

Papers: Wang et al. 2021 (arXiv 2107.10833), after Schönfeld et al. 2020 (arXiv 2002.12655); spectral norm: Miyato et
al. 2018 (arXiv 1802.05957).
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import spectral_norm

from gantailor.supernet.errors import ConfigError


class UnetDiscriminator(nn.Module):
    """Pictures ``[N, input_nc, H, W]`` to a logit for each pixel, ``[N, 1, H, W]``; sides are multiples of 2^layers.

    What goes down is added to what comes up. All convolutions but the first and the last are spectrally normed.

    Args:
        ndf: channels of the first layer; each further one doubles them.
        layers: convolutions that halve the picture; 3 as published, whose layers are ``conv0`` to ``conv9``.
    """

    def __init__(self, *, input_nc: int = 3, ndf: int = 64, layers: int = 3) -> None:
        super().__init__()
        self.layers = layers
        self.conv0 = nn.Conv2d(input_nc, ndf, 3, padding=1)
        self.activation = nn.LeakyReLU(0.2)
        widths = [ndf * 2**level for level in range(layers + 1)]
        down = [nn.Conv2d(a, b, 4, stride=2, padding=1, bias=False) for a, b in pairwise(widths)]
        up = [nn.Conv2d(a, b, 3, padding=1, bias=False) for a, b in pairwise(widths[::-1])]
        after = [nn.Conv2d(ndf, ndf, 3, padding=1, bias=False) for _ in range(2)]
        normed = [*down, *up, *after]
        for number, conv in enumerate(normed, 1):
            self.add_module(f"conv{number}", spectral_norm(conv))
        self.add_module(f"conv{len(normed) + 1}", nn.Conv2d(ndf, 1, 3, padding=1))

    def _layer(self, number: int, x: Tensor) -> Tensor:
        made: Tensor = self.activation(self.get_submodule(f"conv{number}")(x))
        return made

    def forward(self, x: Tensor) -> Tensor:
        if any(side % 2**self.layers for side in x.shape[2:]):
            raise ConfigError(
                f"discriminator 'unet' takes sides that are multiples of {2**self.layers}, not "
                f"{' x '.join(map(str, x.shape[2:]))}"
            )
        down = [self._layer(0, x)]
        for number in range(1, self.layers + 1):
            down.append(self._layer(number, down[-1]))
        x = down.pop()
        for number in range(self.layers + 1, 2 * self.layers + 1):
            x = self._layer(number, F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False))
            x = x + down.pop()
        last = 2 * self.layers + 3
        for number in range(last - 2, last):
            x = self._layer(number, x)
        out: Tensor = self.get_submodule(f"conv{last}")(x)
        return out
