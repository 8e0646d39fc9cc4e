"""Pictures as a person sees them, in 8 bits; grey ones, and such with alpha, as RGB."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gantailor.supernet.calling import Inputs
from gantailor.supernet.device import computed
from gantailor.supernet.errors import EvaluationError

WHITE = (255, 255, 255)


def shades(images: Tensor) -> Tensor:
    """The whole numbers from 0 to 255 that a file would hold of pictures in [-1, 1]: rounded, and what lies beyond cut.

    Of any shape, float32. The one rule for files, reports and scores.
    """
    return images.detach().float().add(1).mul(127.5).round().clamp(0, 255)


def as_seen(images: Tensor) -> Tensor:
    """Pictures in [-1, 1] of the 256 values that are shown and saved; those of files are the same to the bit.

    Scores are of these: FID on raw outputs is another figure than on the same pictures saved.
    """
    return shades(images).div(127.5).sub(1)


@torch.no_grad()
def l1_of(module: nn.Module, inputs: Inputs, targets: Tensor) -> float:
    """Mean absolute difference, on the scale of [-1, 1], between a generator's pictures, as seen, and targets."""
    return float((as_seen(computed(module, inputs)) - targets).abs().mean())


def as_rgb(images: Tensor, background: tuple[int, int, int] = WHITE) -> Tensor:
    """Pictures ``[N, 1, 3 or 4, H, W]`` in [-1, 1] as ``[N, 3, H, W]``; RGB is the same tensor. Differentiable.

    Grey is repeated. Alpha, -1 transparent to 1 opaque (what lies beyond is clipped), lays the picture on a colour, of
    red, green and blue from 0 to 255. Scores always take white, so that figures of different runs compare.

    Raises:
        EvaluationError: another number of channels.
    """
    channels = images.shape[1] if images.ndim == 4 else 0
    if channels == 3:
        return images
    if channels == 1:
        return images.expand(-1, 3, -1, -1)
    if channels != 4:
        raise EvaluationError(
            f"{list(images.shape)} cannot be taken for pictures; wanted are [N, C, H, W] of 1, 3 or 4 channels"
        )
    alpha = (images[:, 3:].clamp(-1, 1) + 1) / 2
    colour = images.new_tensor(background).reshape(1, 3, 1, 1) / 127.5 - 1
    return images[:, :3] * alpha + colour * (1 - alpha)
