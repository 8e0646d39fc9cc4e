"""Adversarial losses, as in the published recipes.

A discriminator gives logits ``[N, 1, h, w]``, or a list of them (a scale each), or for each scale a list of its layers'
outputs with the logits last. Every loss is a scalar, the mean over scales.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gantailor.supernet.errors import ConfigError
from gantailor.supernet.training.recipe import GanLoss


def real_loss(kind: GanLoss, judged: Any) -> Tensor:
    """The real half of the discriminator's loss.

    ``hinge``: Lim & Ye 2017 (arXiv 1705.02894). ``lsgan``: Mao et al. 2017 (arXiv 1611.04076). ``nonsaturating``:
    Goodfellow et al. 2014 (arXiv 1406.2661).
    """
    return _over_scales(judged, lambda x: {"hinge": F.relu(1 - x), "lsgan": (x - 1).square()}.get(kind, F.softplus(-x)))


def fake_loss(kind: GanLoss, judged: Any) -> Tensor:
    """The fake half of the discriminator's loss."""
    return _over_scales(judged, lambda x: {"hinge": F.relu(1 + x), "lsgan": x.square()}.get(kind, F.softplus(x)))


def generator_loss(kind: GanLoss, judged: Any) -> Tensor:
    """What the generator minimises: ``-mean(D(fake))`` for hinge, ``mean((D(fake) - 1)^2)`` for lsgan."""
    return _over_scales(judged, lambda x: {"hinge": -x, "lsgan": (x - 1).square()}.get(kind, F.softplus(-x)))


def matching_loss(fake: Any, real: Any) -> Tensor:
    """L1 between a discriminator's features of fake and real pictures (pix2pixHD, arXiv 1711.11585); mean of scales."""
    scales = [
        torch.stack([l1_loss(a.float(), b.detach().float()) for a, b in zip(mine[:-1], theirs[:-1], strict=True)])
        for mine, theirs in zip(fake, real, strict=True)
    ]
    return torch.stack([scale.sum() for scale in scales]).mean()


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
    if made.shape != aim.shape:
        raise ConfigError(
            f"a loss compares {list(made.shape)} with {list(aim.shape)}; give data and teacher of the generator's "
            "channels and size"
        )
    return made, aim


def _over_scales(judged: Any, loss: Callable[[Tensor], Tensor]) -> Tensor:
    return torch.stack([loss(logits.float()).mean() for logits in _logits(judged)]).mean()


def _logits(judged: Any) -> Sequence[Tensor]:
    if isinstance(judged, Tensor):
        return [judged]
    return [scale if isinstance(scale, Tensor) else scale[-1] for scale in judged]
