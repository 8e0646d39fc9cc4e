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

import torch
from torch import nn

from gantailor.supernet.errors import ConfigError, nearest
from gantailor.supernet.training.recipe import Recipe
from gantailor.zoo.discriminators.multiscale import MultiscaleDiscriminator, MunitDiscriminator
from gantailor.zoo.discriminators.patch import PatchDiscriminator
from gantailor.zoo.generators.cartoongan.generator import CartoonGenerator
from gantailor.zoo.generators.munit.generator import MunitGenerator
from gantailor.zoo.generators.resnet.generator import ResnetGenerator
from gantailor.zoo.generators.spade.generator import SpadeGenerator
from gantailor.zoo.generators.stylegan2.generator import StyleGan2Generator
from gantailor.zoo.generators.unet.generator import UnetGenerator

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
STYLEGAN2_TEACHER = WEIGHTS / "openmoji_stylegan2.safetensors"
STYLEGAN2_DISCRIMINATOR = WEIGHTS / "openmoji_stylegan2_discriminator.safetensors"


def build(name: str, **options: Any) -> nn.Module:
    """A generator of the zoo, or one's own as ``module:function``, with fresh weights.

    Raises:
        ConfigError: unknown name (the nearest are shown) or unknown option.
    """
    if ":" in name:
        factory: Callable[..., nn.Module] = build_function(name, "generator")
    elif name in GENERATORS:
        factory = GENERATORS[name]
    else:
        raise ConfigError(f"generator {name!r} is unknown; {nearest(name, GENERATORS)}, or 'module:function'")
    allowed = inspect.signature(factory).parameters
    for option in options:
        if option not in allowed and not any(p.kind is p.VAR_KEYWORD for p in allowed.values()):
            raise ConfigError(f"generator {name!r} has no option {option!r}; {nearest(option, allowed)}")
    return factory(**options)


def build_function(name: str, what: str) -> Callable[..., Any]:
    """A user's function, ``module:function``.

    Raises:
        ConfigError: it cannot be imported; ``what`` names the setting.
    """
    module, _, attribute = name.partition(":")
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # a console script does not look where it is called
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"{what} {name!r} cannot be imported: {error}; allowed is 'module:function', the module being "
            "installed or lying in the current folder"
        ) from None


def init_weights(model: nn.Module) -> nn.Module:
    """Normal(0, 0.02) convolutions and zero biases, as pix2pix starts; in place."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0, 0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model


def make_discriminator(recipe: Recipe, *, input_nc: int, output_nc: int) -> nn.Module | None:
    """The discriminator of a recipe with fresh weights, drawn by its seed; ``None`` where it trains without."""
    if recipe.gan == "none":
        return None
    torch.manual_seed(recipe.seed)
    channels = output_nc + (input_nc if recipe.conditional else 0)
    if recipe.discriminator == "multiscale":
        net: nn.Module = MultiscaleDiscriminator(input_nc=channels, ndf=recipe.ndf, layers=recipe.discriminator_layers)
    elif recipe.discriminator == "munit":
        net = MunitDiscriminator(input_nc=channels, ndf=recipe.ndf, layers=recipe.discriminator_layers)
    elif recipe.discriminator == "patch":
        net = PatchDiscriminator(input_nc=channels, ndf=recipe.ndf, layers=recipe.discriminator_layers)
    else:
        raise ConfigError(
            f"discriminator {recipe.discriminator!r} judges images alone; use it with a stylegan2 teacher"
        )
    return init_weights(net)
