"""Residual in residual dense blocks (Wang et al. 2018, arXiv 1809.00219)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SLOPE, SHARE = 0.2, 0.2  # of leaky ReLUs; of what a block adds to its input
CONVS = 5  # of a dense block


class DenseBlock(nn.Module):
    """``[N, num_feat, H, W]`` to the same: each convolution sees the input and all outputs before it."""

    def __init__(self, num_feat: int, num_grow_ch: int) -> None:
        super().__init__()
        for number in range(CONVS):
            outputs = num_grow_ch if number < CONVS - 1 else num_feat
            conv = nn.Conv2d(num_feat + number * num_grow_ch, outputs, 3, padding=1)
            self.add_module(f"conv{number + 1}", conv)

    def forward(self, x: Tensor) -> Tensor:
        seen = [x]
        for number in range(1, CONVS):
            seen.append(F.leaky_relu(self.get_submodule(f"conv{number}")(torch.cat(seen, 1)), SLOPE))
        out: Tensor = self.get_submodule(f"conv{CONVS}")(torch.cat(seen, 1)) * SHARE + x
        return out


class Rrdb(nn.Module):
    """Three dense blocks, whose output is a share of what is added to the input."""

    def __init__(self, num_feat: int, num_grow_ch: int) -> None:
        super().__init__()
        self.rdb1, self.rdb2, self.rdb3 = (DenseBlock(num_feat, num_grow_ch) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.rdb3(self.rdb2(self.rdb1(x))) * SHARE + x
        return out
