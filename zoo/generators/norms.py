"""The normalisations of convolutional generators and discriminators by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from gantailor.supernet.errors import ConfigError, nearest

Norm = Callable[[int], nn.Module]


def norm_layer(name: str) -> Norm:
    """A constructor of the named norm: ``instance`` (no affine, no statistics), ``batch`` or ``none``.

    Raises:
        ConfigError: another name.
    """
    norms: dict[str, Norm] = {
        "instance": partial(nn.InstanceNorm2d, affine=False, track_running_stats=False),
        "batch": partial(nn.BatchNorm2d, affine=True, track_running_stats=True),
        "none": lambda _: nn.Identity(),
    }
    if name not in norms:
        raise ConfigError(f"norm {name!r} is unknown; {nearest(name, norms)}")
    return norms[name]
