"""The depthwise-separable convolution of the mobile generators, named as in mit-han-lab/gan-compression."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn


class SeparableConv2d(nn.Module):
    """Depthwise convolution, norm, 1x1 convolution, both biased: ``[N, in, H, W]`` to ``[N, out, H', W']``.

    Args:
        kernel: side of the depthwise kernel; ``H' = H + 2 * padding - kernel + 1``.
        norm: made for the channels between the two convolutions.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 3,
        *,
        padding: int = 0,
        norm: Callable[[int], nn.Module],
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(in_channels, in_channels, kernel, padding=padding, groups=in_channels, bias=bias),
            norm(in_channels),
            nn.Conv2d(in_channels, out_channels, 1, bias=bias),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return out
