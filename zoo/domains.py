"""Two sets of pictures without pairs: what CycleGAN and MUNIT train on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from supernet.errors import ConfigError, nearest
from supernet.recipe import Recipe
from zoo.data import to_float

Options = TypeVar("Options")


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


def adam(parameters: Iterable[nn.Parameter], recipe: Recipe, lr: float | None = None) -> torch.optim.Optimizer:
    """The recipe's optimiser."""
    r = recipe
    return torch.optim.Adam(
        parameters, lr=lr or r.lr, betas=(r.beta1, r.beta2), weight_decay=r.weight_decay, fused=True
    )


def task_options(kind: type[Options], recipe: Recipe) -> Options:
    """The task's own settings.

    Raises:
        ConfigError: a name that this task does not have.
    """
    allowed = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    for name in recipe.task_options:
        if name not in allowed:
            raise ConfigError(f"task {recipe.task!r} has no option {name!r}; {nearest(name, allowed)}")
    values: dict[str, Any] = dict(recipe.task_options)
    return kind(**values)
