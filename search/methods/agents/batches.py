"""Neighbourhoods of a generator's pictures, and the batches that are drawn from them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gantailor.search.methods.agents.neighbourhoods import other_pictures
from gantailor.supernet.calling import Inputs
from gantailor.supernet.training.batches import Batch, PairBatches, corners, rows_of
from gantailor.zoo.data.pictures import cropped, mirror, to_float


@dataclass(frozen=True, eq=False)
class Manifold:
    """The generator's pictures as neighbourhoods around centres; a picture is known by its row in the data.

    Attributes:
        near: for each centre the pictures of its neighbourhood ``[N, k + 1]``.
        centres: what a discriminator without a condition is told of each centre ``[N, d]``; None: it sees the input.
        real, real_near: uint8 pictures ``[M, H, W, C]`` of the domain that is translated to, and for each centre those
            of its neighbourhood (None: any); without them the data's own targets are real, if it has any.
    """

    near: np.ndarray
    centres: np.ndarray | None = None
    real: Any = None
    real_near: np.ndarray | None = None

    def shuffled(self, seed: int) -> Manifold:
        """Each centre with the neighbourhood of another."""
        order = other_pictures(len(self.near), seed)
        real_near = None if self.real_near is None else self.real_near[order]
        return dataclasses.replace(self, near=self.near[order], real_near=real_near)


@dataclass(frozen=True)
class Neighbours:
    """The batch of a step.

    Attributes:
        centres: what neighbours are judged beside.
        others, pruned: of each neighbourhood a picture for the whole and one for the pruned generator, drawn apart.
        told: features of the centres ``[n, d]``, for a discriminator without a condition.
        real: real pictures of the neighbourhoods, where they are not the targets of ``others``.
    """

    centres: Batch
    others: Batch
    pruned: Batch
    told: Tensor | None = None
    real: Tensor | None = None

    @property
    def inputs(self) -> Inputs:
        """What the pruned generator is shown."""
        return self.pruned.inputs


@dataclass(frozen=True, eq=False)
class NeighbourBatches:
    """Centres in a random order, and pictures of each one's neighbourhood, mirrored, shifted and cropped as it is.

    Without neighbourhoods each picture is alone in its own.
    """

    pairs: PairBatches
    manifold: Manifold | None

    def __call__(self, step: int, part: int = 0, of: int = 1) -> Neighbours:
        """One of ``of`` equal parts of a step's batch."""
        recipe, indices, manifold = self.pairs.recipe, self.pairs.indices(step), self.manifold
        centres, rows = self.pairs(step, part, of), rows_of(self.pairs.recipe.batch, part, of)
        if manifold is None:
            return Neighbours(centres, centres, centres)
        near, rng = manifold.near, np.random.default_rng((recipe.seed, 3, step))
        members = near[indices, rng.integers(0, near.shape[1], (2, len(indices)))]
        others, pruned = (self._as_their_centres(chosen, step, rows) for chosen in members)
        told = None if manifold.centres is None else torch.from_numpy(manifold.centres[indices[rows]])
        return Neighbours(centres, others, pruned, told, self._real(manifold, step, rng, rows))

    def _as_their_centres(self, chosen: np.ndarray, step: int, rows: slice) -> Batch:
        seed = self.pairs.recipe.seed
        return self.pairs.moved(chosen, np.random.default_rng((seed, step)), (seed, 4, step), rows)

    def _real(self, manifold: Manifold, step: int, rng: np.random.Generator, rows: slice) -> Tensor | None:
        """A real picture for each centre that has no targets, mirrored and cropped at random."""
        real, near, recipe, data = manifold.real, manifold.real_near, self.pairs.recipe, self.pairs.data
        if real is None:
            return None
        indices = self.pairs.indices(step)
        chosen = rng.integers(0, len(real) if near is None else near.shape[1], len(indices))
        chosen = chosen if near is None else near[indices, chosen]
        pictures = mirror(real[chosen[rows]], ((rng.random(len(indices)) < 0.5) & recipe.mirror)[rows].tolist())
        begins = corners(data, len(indices), (recipe.seed, 7, step))[rows]
        return to_float(cropped(pictures, begins, getattr(data, "crop", None) or pictures.shape[1:3]))
