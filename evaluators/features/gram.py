"""The perceptual loss by which GAN Slimming distils: content and style in VGG16's features.

Johnson et al. 2016 (arXiv 1603.08155), with the layers and weights of GAN Slimming's public code (arXiv 2008.11062).
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from gantailor.evaluators.features.classifiers import Classifier
from gantailor.evaluators.pictures.rgb import as_rgb
from gantailor.supernet.device import Device, placed

STYLE = 1e5  # of the style beside the content


def gram(features: Tensor) -> Tensor:
    """Products of all channels ``[N, C, C]`` of ``[N, C, h, w]``, over the number of values."""
    flat = features.flatten(2)
    return flat @ flat.transpose(1, 2) / features[0].numel()


class GramLoss:
    """Distance ``[N]`` of pictures ``[N, 1, 3 or 4, H, W]`` in [-1, 1], taken as RGB; gradients go to both.

    L1 between the features of relu1_2, plus ``STYLE`` times the mean squared differences of the Gram matrices of
    relu1_2, relu2_2, relu3_3 and relu4_3. Pictures are brought to [0, 1] and not normalised, as in that code.

    Args:
        features: VGG16's weights in torchvision's key layout.

    Raises:
        EvaluationError: a missing file, or weights of another network.
    """

    name = "vgg-gram"

    def __init__(self, features: str | Path) -> None:
        self.network = Classifier("vgg", features, purpose="the Gram loss")

    def to(self, device: Device) -> GramLoss:
        """Move to a device, in place."""
        self.network.to(device)
        return self

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        network = placed(self.network, a.device)
        mine, theirs = (network((as_rgb(images) + 1) / 2)[:4] for images in (a, b))
        content = F.l1_loss(mine[0], theirs[0], reduction="none").mean((1, 2, 3))
        style = [(gram(x) - gram(y)).square().mean((1, 2)) for x, y in zip(mine, theirs, strict=True)]
        return content + STYLE * torch.stack(style).sum(0)
