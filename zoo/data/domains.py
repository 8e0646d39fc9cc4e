"""Two sets of pictures without pairs: what CycleGAN and MUNIT train on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from gantailor.supernet.errors import DataError
from gantailor.supernet.training.batches import corners, in_order, rows_of
from gantailor.supernet.training.recipe import Recipe
from gantailor.zoo.data.pairs import Pairs
from gantailor.zoo.data.pictures import Pictures, cropped, mirror, to_float

NEEDS_TWO = "this teacher needs two sets of pictures: data.kind domains, with trainA and trainB inside, or pairs"


@dataclass(frozen=True)
class DomainBatch:
    """A picture batch of each domain, ``[n, 3, H, W]`` in [-1, 1]."""

    a: Tensor
    b: Tensor

    @property
    def inputs(self) -> Tensor:
        """What the generator translates."""
        return self.a

    @property
    def counterpart_inputs(self) -> Tensor:
        """What the other one does."""
        return self.b


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


@dataclass(frozen=True, eq=False)
class DomainBatches:
    """Every picture of A once an epoch in a random order, B at random; mirrored at random if the recipe says so."""

    data: Domains
    recipe: Recipe

    def __call__(self, step: int, part: int = 0, of: int = 1) -> DomainBatch:
        """One of ``of`` equal parts of a step's batch."""
        recipe, rows = self.recipe, rows_of(self.recipe.batch, part, of)
        rng = np.random.default_rng((recipe.seed, step))
        first = in_order(recipe, step, len(self.data.a))
        second = rng.integers(0, len(self.data.b), recipe.batch)
        sides = []
        for images, chosen, stream in ((self.data.a, first, 4), (self.data.b, second, 5)):
            mirrored = [recipe.mirror and rng.random() < 0.5 for _ in chosen]
            begins = corners(self.data, recipe.batch, (recipe.seed, stream, step))
            turned = mirror(images[chosen[rows]], mirrored[rows])
            sides.append(to_float(cropped(turned, begins[rows], self.data.crop or self.data.size)))
        return DomainBatch(*sides)
