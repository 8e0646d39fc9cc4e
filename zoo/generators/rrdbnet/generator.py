"""The generator of ESRGAN and Real-ESRGAN, named as ``RRDBNet`` of XPixelGroup/BasicSR.

Papers: Wang et al. 2018, "ESRGAN" (arXiv 1809.00219), Wang et al. 2021, "Real-ESRGAN" (arXiv 2107.10833).
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from gantailor.supernet.errors import ConfigError
from gantailor.supernet.traits import PictureRange
from gantailor.zoo.generators.ranges import UNIT, from_unit, to_unit
from gantailor.zoo.generators.rrdbnet.layers import SLOPE, Rrdb

UNSHUFFLED = {4: 1, 2: 2, 1: 4}  # by scale: how many times smaller the trunk's pictures are than the input


class RrdbNetGenerator(nn.Module):
    """Pictures ``[N, num_in_ch, H, W]`` in [0, 1], RGB, to ``[N, num_out_ch, scale H, scale W]``.

    The trunk's features are enlarged four times; for scales of 2 and 1 the input's pixels are first put into channels,
    so that H and W are multiples of 2 and 4. For a scale of 4 they are any. Outputs are not clipped, as published. In a
    run, whose pictures lie in [-1, 1], ``picture_range`` is set to that (see ``supernet/traits.py``).

    Args:
        scale: sides of the output over the input's: 4, 2 or 1.
        num_feat: channels of the trunk.
        num_block: residual in residual dense blocks: 23 of ``RealESRGAN_x4plus``, 6 of ``x4plus_anime_6B``.
        num_grow_ch: channels that each convolution of a dense block adds.

    Raises:
        ConfigError: another scale.
    """

    picture_range: PictureRange = UNIT

    def __init__(
        self,
        *,
        num_in_ch: int = 3,
        num_out_ch: int = 3,
        scale: int = 4,
        num_feat: int = 64,
        num_block: int = 23,
        num_grow_ch: int = 32,
    ) -> None:
        super().__init__()
        if scale not in UNSHUFFLED:
            raise ConfigError(f"scale cannot be {scale!r}; rrdbnet enlarges 4, 2 or 1 times")
        self.size_multiple = UNSHUFFLED[scale]
        self.input_shape = (num_in_ch, 64, 64)
        self.conv_first = nn.Conv2d(num_in_ch * self.size_multiple**2, num_feat, 3, padding=1)
        self.body = nn.Sequential(*(Rrdb(num_feat, num_grow_ch) for _ in range(num_block)))
        self.conv_body, self.conv_up1, self.conv_up2, self.conv_hr = (
            nn.Conv2d(num_feat, num_feat, 3, padding=1) for _ in range(4)
        )
        self.conv_last = nn.Conv2d(num_feat, num_out_ch, 3, padding=1)
        thirds = sorted({num_block * third // 3 - 1 for third in range(1, 4)} - {-1})
        self.feature_layers = ("conv_first", *(f"body.{place}" for place in thirds))

    def forward(self, x: Tensor) -> Tensor:
        x = to_unit(x, self.picture_range)
        if self.size_multiple > 1:
            x = F.pixel_unshuffle(x, self.size_multiple)
        x = self.conv_first(x)
        x = x + self.conv_body(self.body(x))
        for conv in (self.conv_up1, self.conv_up2):
            x = F.leaky_relu(conv(F.interpolate(x, scale_factor=2.0, mode="nearest")), SLOPE)
        return from_unit(self.conv_last(F.leaky_relu(self.conv_hr(x), SLOPE)), self.picture_range)
