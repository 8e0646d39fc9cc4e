"""The layers of SPADE's generator, named as in NVlabs/SPADE.

Paper: Park et al. 2019 (arXiv 1903.07291).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from gantailor.supernet.errors import ConfigError, nearest
from gantailor.zoo.generators.norms import Norm, norm_layer
from gantailor.zoo.generators.separable import SeparableConv2d


def parameter_free_norm(name: str) -> Norm:
    """A constructor of the named norm, without scale and shift: ``batch`` or ``instance``."""
    norms: dict[str, Norm] = {
        "batch": partial(nn.BatchNorm2d, affine=False),
        "instance": norm_layer("instance"),
    }
    if name not in norms:
        raise ConfigError(f"norm {name!r} is unknown: {nearest(name, norms)}")
    return norms[name]


class SpadeNorm(nn.Module):
    """Spatially-adaptive normalisation: ``norm(x) * (1 + gamma(labels)) + beta(labels)``.

    ``x`` is ``[N, channels, h, w]``, ``labels`` ``[N, label_channels, h, w]`` (already resized).
    """

    def __init__(self, channels: int, *, label_channels: int, hidden: int, norm: Norm, separable: bool) -> None:
        super().__init__()

        def mlp() -> nn.Module:
            if separable:
                return SeparableConv2d(hidden, channels, padding=1, norm=norm_layer("instance"))
            return nn.Conv2d(hidden, channels, 3, padding=1)

        self.param_free_norm = norm(channels)
        self.mlp_shared = nn.Sequential(nn.Conv2d(label_channels, hidden, 3, padding=1), nn.ReLU())
        self.mlp_gamma = mlp()
        self.mlp_beta = mlp()

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        shared = self.mlp_shared(labels)
        out: Tensor = self.param_free_norm(x) * (1 + self.mlp_gamma(shared)) + self.mlp_beta(shared)
        return out


class SpadeBlock(nn.Module):
    """Residual block of two SPADE-normalised 3x3 convolutions, and a 1x1 one where the width changes.

    ``x`` is ``[N, inputs, h, w]``, the output ``[N, outputs, h, w]``; ``labels`` are resized to it (nearest).
    """

    def __init__(self, inputs: int, outputs: int, *, make_norm: Callable[[int], SpadeNorm]) -> None:
        super().__init__()
        self.learned_shortcut = inputs != outputs
        middle = min(inputs, outputs)
        self.conv_0 = nn.Conv2d(inputs, middle, 3, padding=1)
        self.conv_1 = nn.Conv2d(middle, outputs, 3, padding=1)
        if self.learned_shortcut:
            self.conv_s = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.norm_0 = make_norm(inputs)
        self.norm_1 = make_norm(middle)
        if self.learned_shortcut:
            self.norm_s = make_norm(inputs)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        labels = F.interpolate(labels, size=x.shape[2:])
        y = self.conv_0(F.leaky_relu(self.norm_0(x, labels), 0.2))
        y = self.conv_1(F.leaky_relu(self.norm_1(y, labels), 0.2))
        shortcut = self.conv_s(self.norm_s(x, labels)) if self.learned_shortcut else x
        out: Tensor = shortcut + y
        return out
