"""The compact generator of Real-ESRGAN, named as ``SRVGGNetCompact`` of xinntao/Real-ESRGAN.

Paper: Wang et al. 2021, "Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic Data" (arXiv
2107.10833); this net came with its code.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from gantailor.supernet.errors import ConfigError, nearest
from gantailor.supernet.traits import PictureRange
from gantailor.zoo.generators.ranges import UNIT, from_unit, to_unit

ACTIVATIONS = ("prelu", "relu", "leakyrelu")


def _activation(kind: str, channels: int) -> nn.Module:
    if kind == "prelu":
        return nn.PReLU(channels)
    return nn.ReLU() if kind == "relu" else nn.LeakyReLU(0.1)


class SrvggGenerator(nn.Module):
    """Pictures ``[N, num_in_ch, H, W]`` in [0, 1], RGB, to ``[N, num_out_ch, upscale H, upscale W]``; any H and W.

    What the body adds to the input enlarged by nearest is not clipped, as published. In a run, whose pictures lie in
    [-1, 1], ``picture_range`` is set to that (see ``supernet/traits.py``).

    Args:
        num_in_ch: channels of the input; as many as of the output, or one.
        num_feat: channels within.
        num_conv: 3x3 convolutions between the first and the last: 16 of ``realesr-animevideov3``, 32 of
            ``realesr-general-x4v3``.
        upscale: sides of the output over the input's, 1 to 4 as published.
        act_type: ``prelu``, ``relu`` or ``leakyrelu`` (slope 0.1).

    Raises:
        ConfigError: another activation, an input that cannot be added to the output, a scale below 1.
    """

    picture_range: PictureRange = UNIT

    def __init__(
        self,
        *,
        num_in_ch: int = 3,
        num_out_ch: int = 3,
        num_feat: int = 64,
        num_conv: int = 16,
        upscale: int = 4,
        act_type: str = "prelu",
    ) -> None:
        super().__init__()
        if act_type not in ACTIVATIONS:
            raise ConfigError(f"act_type {act_type!r} is unknown; {nearest(act_type, ACTIVATIONS)}")
        if num_in_ch not in (1, num_out_ch):
            raise ConfigError(
                f"num_in_ch {num_in_ch} cannot be: the enlarged input is added to the output's {num_out_ch} channels; "
                "give as many, or 1"
            )
        if upscale < 1 or num_conv < 0:
            raise ConfigError(f"upscale {upscale} and num_conv {num_conv} cannot be; give 1 or more, and 0 or more")
        self.input_shape, self.upscale = (num_in_ch, 64, 64), upscale
        widths = [num_in_ch, *[num_feat] * (num_conv + 1)]
        self.body = nn.ModuleList()
        for inputs, outputs in pairwise(widths):
            self.body.append(nn.Conv2d(inputs, outputs, 3, padding=1))
            self.body.append(_activation(act_type, outputs))
        self.body.append(nn.Conv2d(num_feat, num_out_ch * upscale**2, 3, padding=1))
        self.upsampler = nn.PixelShuffle(upscale)
        # The activations after the first convolution and each third of those between.
        self.feature_layers = tuple(
            f"body.{place}" for place in sorted({2 * (num_conv * k // 3) + 1 for k in range(4)})
        )

    def forward(self, x: Tensor) -> Tensor:
        x = to_unit(x, self.picture_range)
        y = x
        for layer in self.body:
            y = layer(y)
        y = self.upsampler(y) + F.interpolate(x, scale_factor=float(self.upscale), mode="nearest")
        return from_unit(y, self.picture_range)
