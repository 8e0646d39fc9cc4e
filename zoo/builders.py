"""Generators by name."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import nn

from supernet.errors import ConfigError, nearest
from zoo.cartoongan import CartoonGenerator
from zoo.munit import MunitGenerator
from zoo.resnet import ResnetGenerator
from zoo.spade import SpadeGenerator
from zoo.stylegan2 import StyleGan2Generator
from zoo.unet import UnetGenerator

GENERATORS: dict[str, Callable[..., nn.Module]] = {
    "resnet_6blocks": partial(ResnetGenerator, blocks=6),
    "resnet_9blocks": partial(ResnetGenerator, blocks=9),
    "mobile_resnet_6blocks": partial(ResnetGenerator, blocks=6, separable=True),
    "mobile_resnet_9blocks": partial(ResnetGenerator, blocks=9, separable=True),
    "unet_128": partial(UnetGenerator, levels=7),
    "unet_256": partial(UnetGenerator, levels=8),
    "spade": SpadeGenerator,
    "mobile_spade": partial(SpadeGenerator, separable=True),
    "munit": MunitGenerator,
    "mobile_munit": partial(MunitGenerator, separable=True),
    "cartoongan": CartoonGenerator,
    "stylegan2": StyleGan2Generator,
}

WEIGHTS = Path(__file__).parent / "weights"


def build(name: str, **options: Any) -> nn.Module:
    """A generator of the zoo, or one's own as ``module:function``, with fresh weights.

    Raises:
        ConfigError: unknown name (the nearest are shown) or unknown option.
    """
    if ":" in name:
        module, _, attribute = name.partition(":")
        if "" not in sys.path and os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())  # a console script does not look where it is called
        try:
            factory: Callable[..., nn.Module] = getattr(import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise ConfigError(
                f"generator {name!r} cannot be imported: {error}; allowed is 'module:function', the module being "
                "installed or lying in the current folder"
            ) from None
    elif name in GENERATORS:
        factory = GENERATORS[name]
    else:
        raise ConfigError(f"generator {name!r} is unknown; {nearest(name, GENERATORS)}, or 'module:function'")
    allowed = inspect.signature(factory).parameters
    for option in options:
        if option not in allowed and not any(p.kind is p.VAR_KEYWORD for p in allowed.values()):
            raise ConfigError(f"generator {name!r} has no option {option!r}; {nearest(option, allowed)}")
    return factory(**options)


def init_weights(model: nn.Module) -> nn.Module:
    """Normal(0, 0.02) convolutions and zero biases, as pix2pix starts; in place."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0, 0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model
