"""Two sets of pictures without pairs: what CycleGAN and MUNIT train on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from gantailor.supernet.errors import DataError
from gantailor.supernet.training.recipe import Recipe
from gantailor.zoo.data.pairs import Pairs
from gantailor.zoo.data.pictures import Pictures, to_float

NEEDS_TWO = "this teacher needs two sets of pictures: data.kind domains, with trainA and trainB inside"


@dataclass(frozen=True)
class DomainBatch:
    """A picture batch of each domain, ``[n, 3, H, W]`` in [-1, 1]."""

    a: Tensor
    b: Tensor

    def part(self, number: int, of: int) -> DomainBatch:
        """One of ``of`` equal parts."""
        size = len(self.a) // of
        rows = slice(number * size, (number + 1) * size)
        return DomainBatch(self.a[rows], self.b[rows])


@dataclass(frozen=True, eq=False)
class Domains:
    """uint8 pictures ``[N, H, W, C]`` and ``[M, H, W, C]``; with a ``crop`` random parts of them are trained on."""

    a: Pictures
    b: Pictures
    crop: tuple[int, int] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the pictures, before crops."""
        return self.a.shape[1], self.a.shape[2]

    @classmethod
    def of(cls, pairs: Pairs) -> Domains:
        """Inputs and targets of aligned pairs, as if they were not aligned.

        Raises:
            DataError: there are no targets.
        """
        if pairs.targets is None:
            raise DataError(NEEDS_TWO)
        return cls(pairs.inputs, pairs.targets, pairs.crop)

    def draw(self, recipe: Recipe, step: int) -> DomainBatch:
        """Every picture of A once an epoch in a random order, B at random; mirrored at random if the recipe says so."""
        rng = np.random.default_rng((recipe.seed, step))
        positions = np.arange(step * recipe.batch, (step + 1) * recipe.batch)
        orders = {
            e: np.random.default_rng((recipe.seed, 1, e)).permutation(len(self.a))
            for e in set((positions // len(self.a)).tolist())
        }
        first = [int(orders[p // len(self.a)][p % len(self.a)]) for p in positions.tolist()]
        second = rng.integers(0, len(self.b), recipe.batch).tolist()
        return DomainBatch(self._some(recipe, self.a, first, rng), self._some(recipe, self.b, second, rng))

    @staticmethod
    def _some(recipe: Recipe, images: Pictures, rows: Iterable[int], rng: np.random.Generator) -> Tensor:
        chosen = [images[i][:, ::-1] if recipe.mirror and rng.random() < 0.5 else images[i] for i in rows]
        return to_float(np.stack(chosen))
