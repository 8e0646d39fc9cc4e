"""Differentiable augmentation: real and generated pictures are changed alike before a discriminator sees them.

Zhao et al. 2020, "Differentiable Augmentation for Data-Efficient GAN Training" (arXiv 2006.10738): without it a
discriminator knows a few thousand pictures by heart.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def augment(images: Tensor, random: torch.Generator) -> Tensor:
    """Brightness, saturation, contrast, a shift by up to an eighth (edges repeated) and a grey square.

    Args:
        images: ``[N, 3, H, W]`` in [-1, 1]; gradients flow through.
        random: a generator on the CPU; each picture has its own draw.
    """
    return _cut_out(_shifted(_coloured(images, random), random), random)


def _draw(count: int, random: torch.Generator, like: Tensor) -> Tensor:
    """Uniform in [0, 1), ``[count, 1, 1, 1]``."""
    return torch.rand(count, 1, 1, 1, generator=random).to(like)


def _coloured(x: Tensor, random: torch.Generator) -> Tensor:
    x = x + _draw(len(x), random, x) - 0.5
    grey = x.mean(1, keepdim=True)
    x = (x - grey) * (2 * _draw(len(x), random, x)) + grey
    mean = x.mean((1, 2, 3), keepdim=True)
    return (x - mean) * (0.5 + _draw(len(x), random, x)) + mean


def _shifted(x: Tensor, random: torch.Generator) -> Tensor:
    side = x.shape[2] // 8
    padded = F.pad(x, (side,) * 4, mode="replicate")
    moves = torch.randint(0, 2 * side + 1, (len(x), 2), generator=random).tolist()
    height, width = x.shape[2:]
    return torch.stack([p[:, d : d + height, r : r + width] for p, (d, r) in zip(padded, moves, strict=True)])


def _cut_out(x: Tensor, random: torch.Generator) -> Tensor:
    count, _, height, width = x.shape
    centres = (torch.rand(count, 2, generator=random) * torch.tensor([height, width])).floor().to(x)
    rows = (torch.arange(height, device=x.device) - centres[:, :1]).abs() <= height / 4
    columns = (torch.arange(width, device=x.device) - centres[:, 1:]).abs() <= width / 4
    inside = rows[:, None, :, None] & columns[:, None, None, :]
    return x.masked_fill(inside, 0.0)
