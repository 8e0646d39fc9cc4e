"""What the trainings on two unpaired sets of pictures share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from gantailor.supernet.errors import ConfigError
from gantailor.supernet.training.recipe import Recipe
from gantailor.zoo.discriminators.build import make_discriminator


class ImagePool(nn.Module):
    """The last ``size`` generated pictures; a discriminator is shown old ones half of the time (arXiv 1612.07828).

    A module, so that its pictures are part of a checkpoint.
    """

    pictures: Tensor
    filled: Tensor

    def __init__(self, size: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("pictures", torch.zeros(size, *shape))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))

    def swap(self, fakes: Tensor, rng: np.random.Generator) -> Tensor:
        """As many pictures: each new one, or with probability 1/2 an old one whose place it takes."""
        shown = []
        for fake in fakes.detach():
            count = int(self.filled)
            if count < len(self.pictures):
                self.pictures[count] = fake
                self.filled += 1
                shown.append(fake)
            elif rng.random() < 0.5:
                place = int(rng.integers(count))
                shown.append(self.pictures[place].clone())
                self.pictures[place] = fake
            else:
                shown.append(fake)
        return torch.stack(shown)


def judges_of(recipe: Recipe, channels: Sequence[int], device: str) -> list[nn.Module]:
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
