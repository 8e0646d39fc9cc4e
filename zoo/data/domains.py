"""Two sets of pictures without pairs: what CycleGAN and MUNIT train on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from gantailor.supernet.training.recipe import Recipe
from gantailor.zoo.builders import make_discriminator
from gantailor.zoo.data.pairs import to_float


@dataclass(frozen=True)
class Both:
    """A picture batch of each domain, ``[n, 3, H, W]`` in [-1, 1]."""

    a: Tensor
    b: Tensor

    def part(self, number: int, of: int) -> Both:
        """One of ``of`` equal parts."""
        size = len(self.a) // of
        rows = slice(number * size, (number + 1) * size)
        return Both(self.a[rows], self.b[rows])


@dataclass(frozen=True, eq=False)
class Domains:
    """uint8 pictures ``[N, H, W, 3]`` and ``[M, H, W, 3]``."""

    a: np.ndarray
    b: np.ndarray

    def draw(self, recipe: Recipe, step: int) -> Both:
        """Every picture of A once an epoch in a random order, B at random; mirrored at random if the recipe says so."""
        rng = np.random.default_rng((recipe.seed, step))
        positions = np.arange(step * recipe.batch, (step + 1) * recipe.batch)
        orders = {
            e: np.random.default_rng((recipe.seed, 1, e)).permutation(len(self.a))
            for e in set((positions // len(self.a)).tolist())
        }
        first = [int(orders[p // len(self.a)][p % len(self.a)]) for p in positions.tolist()]
        second = rng.integers(0, len(self.b), recipe.batch)
        return Both(*(self._some(recipe, images, rows, rng) for images, rows in ((self.a, first), (self.b, second))))

    @staticmethod
    def _some(recipe: Recipe, images: np.ndarray, rows: Iterable[int], rng: np.random.Generator) -> Tensor:
        chosen = [images[i][:, ::-1] if recipe.mirror and rng.random() < 0.5 else images[i] for i in rows]
        return to_float(np.stack(chosen))


@dataclass(frozen=True, eq=False)
class Unpaired:
    """Pictures to translate, and real ones of the other domain that they have nothing to do with: for scores of sets.

    As long as the larger of the two, whose pictures come once; the smaller's come again.
    """

    inputs: np.ndarray
    real: np.ndarray
    source: str
    paired: ClassVar[bool] = False

    def __len__(self) -> int:
        return max(len(self.inputs), len(self.real))

    def batch(self, indices: np.ndarray, *, moves: Any = None) -> tuple[Tensor, Tensor | None]:
        """Both as float ``[n, 3, H, W]`` in [-1, 1]; ``moves`` do not matter."""
        rows = np.asarray(indices)
        return to_float(self.inputs[rows % len(self.inputs)]), to_float(self.real[rows % len(self.real)])

    def digest(self) -> str:
        """A short hash of every pixel."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        return hashlib.sha256(self.inputs.tobytes() + self.real.tobytes()).hexdigest()[:12]


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


def judges_of(recipe: Recipe, device: str) -> list[nn.Module]:
    """A discriminator for each of the two domains.

    Raises:
        AssertionError: the recipe has no adversarial loss, without which two domains cannot be told apart.
    """
    made = [
        make_discriminator(recipe.model_copy(update={"seed": recipe.seed + number}), input_nc=0, output_nc=3)
        for number in range(2)
    ]
    assert all(judge is not None for judge in made), "two unpaired domains need an adversarial loss"
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
    (share * torch.stack(list(losses.values())).sum()).backward(inputs=trained)
    discriminator = torch.stack(judged).sum()
    (share * discriminator).backward(inputs=list(judges.parameters()))
    return {name: value.detach() for name, value in {**losses, "discriminator": discriminator}.items()}
