"""The normalisations of convolutional generators and discriminators by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from gantailor.supernet.errors import ConfigError, nearest

Norm = Callable[[int], nn.Module]


def norm_layer(name: str) -> Norm:
    """A constructor of a norm: ``instance`` and ``instance_affine`` (no statistics), ``batch`` or ``none``.

    Raises:
        ConfigError: another name.
    """
    norms: dict[str, Norm] = {
        "instance": partial(nn.InstanceNorm2d, affine=False, track_running_stats=False),
        "instance_affine": partial(nn.InstanceNorm2d, affine=True, track_running_stats=False),
        "batch": partial(nn.BatchNorm2d, affine=True, track_running_stats=True),
        "none": lambda _: nn.Identity(),
    }
    if name not in norms:
        raise ConfigError(f"norm {name!r} is unknown; {nearest(name, norms)}")
    return norms[name]


def has_conv_bias(norm: str) -> bool:
    """Whether convolutions before this norm have a bias, as in pytorch-CycleGAN-and-pix2pix: before instance norms."""
    return norm.startswith("instance")
