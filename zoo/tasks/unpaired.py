"""What the trainings on two unpaired sets of pictures share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gantailor.supernet.device import Device
from gantailor.supernet.errors import ConfigError
from gantailor.supernet.training.recipe import Recipe
from gantailor.zoo.discriminators.build import make_discriminator


def judges_of(recipe: Recipe, channels: Sequence[int], device: Device) -> list[nn.Module]:
    """A discriminator for each of the two domains.

    Raises:
        ConfigError: the recipe has no adversarial loss, without which two domains cannot be told apart.
    """
    made = [
        make_discriminator(recipe.model_copy(update={"seed": recipe.seed + number}), input_nc=0, output_nc=count)
        for number, count in enumerate(channels)
    ]
    if recipe.gan == "none":
        raise ConfigError("two unpaired sets of pictures need an adversarial loss: set train.gan, to lsgan say")
    return [judge.to(device) for judge in made if judge is not None]


def backward_both(
    losses: dict[str, Tensor],
    judged: list[Tensor],
    share: float,
    *,
    trained: list[nn.Parameter],
    judges: nn.Module,
) -> dict[str, Tensor]:
    """Add ``share`` of the generators' and of the discriminators' gradients; all loss terms, detached."""
    torch.autograd.backward(share * torch.stack(list(losses.values())).sum(), inputs=trained)
    discriminator = torch.stack(judged).sum()
    torch.autograd.backward(share * discriminator, inputs=list(judges.parameters()))
    return {name: value.detach() for name, value in {**losses, "discriminator": discriminator}.items()}
