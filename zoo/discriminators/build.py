"""The discriminator that a recipe names."""

from __future__ import annotations

import torch
from torch import nn

from gantailor.supernet.errors import ConfigError
from gantailor.supernet.training.recipe import Recipe
from gantailor.zoo.discriminators.multiscale import MultiscaleDiscriminator, MunitDiscriminator
from gantailor.zoo.discriminators.patch import PatchDiscriminator
from gantailor.zoo.discriminators.unet import UnetDiscriminator
from gantailor.zoo.initialisation import init_weights


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
    elif recipe.discriminator == "unet":
        net = UnetDiscriminator(input_nc=channels, ndf=recipe.ndf, layers=recipe.discriminator_layers)
    elif recipe.discriminator == "patch":
        net = PatchDiscriminator(
            input_nc=channels, ndf=recipe.ndf, layers=recipe.discriminator_layers, norm=recipe.discriminator_norm
        )
    else:
        raise ConfigError(
            f"discriminator {recipe.discriminator!r} judges images alone; use it with a stylegan2 teacher"
        )
    return init_weights(net, recipe.init)
