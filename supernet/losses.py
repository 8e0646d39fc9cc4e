"""Adversarial losses, as in the published recipes. Logit maps are ``[N, 1, h, w]``; every loss is a scalar."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

GanLoss = Literal["hinge", "lsgan", "none"]


def discriminator_loss(kind: GanLoss, real: Tensor, fake: Tensor) -> Tensor:
    """Mean of the real and the fake half (the published factor 0.5).

    ``hinge``: Lim & Ye 2017 (arXiv 1705.02894). ``lsgan``: Mao et al. 2017 (arXiv 1611.04076).
    """
    if kind == "hinge":
        return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())
    return 0.5 * ((real - 1).square().mean() + fake.square().mean())


def generator_loss(kind: GanLoss, fake: Tensor) -> Tensor:
    """What the generator minimises: ``-mean(D(fake))`` for hinge, ``mean((D(fake) - 1)^2)`` for lsgan."""
    if kind == "hinge":
        return -fake.mean()
    return (fake - 1).square().mean()
