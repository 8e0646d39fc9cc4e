"""Adversarial losses, as in the published recipes.

A discriminator gives logits ``[N, 1, h, w]``, or a list of them (a scale each), or for each scale a list of its layers'
outputs with the logits last. Every loss is a scalar; ``reduction`` says how it comes from maps and scales.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gantailor.supernet.errors import ConfigError
from gantailor.supernet.training.recipe import GanLoss, GanReduction


def real_loss(kind: GanLoss, judged: Any, reduction: GanReduction = "mean") -> Tensor:
    """The real half of the discriminator's loss.

    ``hinge``: Lim & Ye 2017 (arXiv 1705.02894). ``lsgan``: Mao et al. 2017 (arXiv 1611.04076). ``vanilla`` and
    ``nonsaturating``: cross entropy with label 1, Goodfellow et al. 2014 (arXiv 1406.2661); one formula, which pix2pix
    and StyleGAN2 call by these names.

    Args:
        reduction: ``mean`` over places and scales; ``sum`` of the scales' means (MUNIT, arXiv 1804.04732); ``score``:
            of each picture's mean logit, mean over pictures and scales (GAN Slimming, arXiv 2008.11062).
    """
    return _reduced(
        judged, reduction, lambda x: {"hinge": F.relu(1 - x), "lsgan": (x - 1).square()}.get(kind, F.softplus(-x))
    )


def fake_loss(kind: GanLoss, judged: Any, reduction: GanReduction = "mean") -> Tensor:
    """The fake half of the discriminator's loss."""
    return _reduced(judged, reduction, lambda x: {"hinge": F.relu(1 + x), "lsgan": x.square()}.get(kind, F.softplus(x)))


def generator_loss(kind: GanLoss, judged: Any, reduction: GanReduction = "mean") -> Tensor:
    """What the generator minimises: ``-D(fake)`` for hinge, ``(D(fake) - 1)^2`` for lsgan, ``-log D(fake)`` else."""
    return _reduced(judged, reduction, lambda x: {"hinge": -x, "lsgan": (x - 1).square()}.get(kind, F.softplus(-x)))


def matching_loss(fake: Any, real: Any) -> Tensor:
    """L1 between a discriminator's features of two batches, summed over layers, mean of scales.

    Of fake and real pictures it is pix2pixHD's (Wang et al. 2018, arXiv 1711.11585); of a student's and its teacher's,
    after DCD (Hu et al. 2023, arXiv 2212.14169), which compares intermediate features through a discriminator as well.
    """
    scales = [
        torch.stack([l1_loss(a.float(), b.detach().float()) for a, b in zip(mine[:-1], theirs[:-1], strict=True)])
        for mine, theirs in zip(fake, real, strict=True)
    ]
    return torch.stack([scale.sum() for scale in scales]).mean()


def by_scale(judged: Any, features: Sequence[Tensor]) -> Any:
    """Logits of each scale with the features before them, its share of ``features``; what is nested stays as it is."""
    scales = [judged] if isinstance(judged, Tensor) else judged
    if not isinstance(scales[0], Tensor):
        return judged
    share = len(features) // len(scales)
    return [[*features[place * share : (place + 1) * share], logits] for place, logits in enumerate(scales)]


def l1_loss(made: Tensor, aim: Tensor) -> Tensor:
    """Mean absolute difference of two tensors of one shape; one picture is never compared with many, nor grey with RGB.

    Raises:
        ConfigError: the shapes differ.
    """
    return F.l1_loss(*_alike(made, aim))


def mse_loss(made: Tensor, aim: Tensor) -> Tensor:
    """Mean squared difference of two tensors of one shape; raises as ``l1_loss``."""
    return F.mse_loss(*_alike(made, aim))


def _alike(made: Tensor, aim: Tensor) -> tuple[Tensor, Tensor]:
    """Both, in the order in which they lie in memory: PyTorch's losses go through it an order of magnitude sooner."""
    if made.shape != aim.shape:
        raise ConfigError(
            f"a loss compares {list(made.shape)} with {list(aim.shape)}; give data and teacher of the generator's "
            "channels and size"
        )
    if made.ndim == 4 and made.is_contiguous(memory_format=torch.channels_last):
        return made.movedim(1, -1), aim.movedim(1, -1)
    return made, aim


def shrunk(images: Tensor, size: int) -> Tensor:
    """Pictures ``[N, C, H, W]`` whose longer side is ``size`` at most, bilinear without antialiasing; 0: as they are.

    So StyleKD shows LPIPS its 1024 px pictures (arXiv 2208.14840).
    """
    longest = max(images.shape[2:])
    if not size or longest <= size:
        return images
    sides = [max(1, round(side * size / longest)) for side in images.shape[2:]]
    return F.interpolate(images, size=sides, mode="bilinear", align_corners=False)


def _reduced(judged: Any, reduction: GanReduction, loss: Callable[[Tensor], Tensor]) -> Tensor:
    scales = [logits.float() for logits in _logits(judged)]
    if reduction == "score":
        scales = [logits.flatten(1).mean(1) for logits in scales]
    means = torch.stack([loss(logits).mean() for logits in scales])
    return means.sum() if reduction == "sum" else means.mean()


def _logits(judged: Any) -> Sequence[Tensor]:
    if isinstance(judged, Tensor):
        return [judged]
    return [scale if isinstance(scale, Tensor) else scale[-1] for scale in judged]
