"""What a step of training reads: a function of (seed, step), the same wherever and by how many it is read."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import numpy as np
from torch import Tensor

from gantailor.supernet.training.recipe import Recipe


class Batches(Protocol):
    """Reads the batch of a step, or one of the equal parts that processes share it out in.

    What is random in it is drawn from generators of its own, seeded with recipe seed and step, for the whole batch:
    parts joined are the whole, and nothing depends on what was read before. It holds data and numbers, no networks, as
    worker processes are given it.
    """

    def __call__(self, step: int, part: int = 0, of: int = 1) -> Any:
        """The ``part``-th of ``of`` parts, on the CPU; only the pictures of this part are read."""
        ...


class Move(NamedTuple):
    """What training does to a picture, in this order; in pixels of the inputs.

    Attributes:
        mirror: left and right change places.
        down, right: how far it goes; edges are repeated.
        top, left: corner of the part that is kept, of the data set's ``crop``; (0, 0) without one.
    """

    mirror: bool
    down: int
    right: int
    top: int = 0
    left: int = 0


class PairSource(Protocol):
    """What training asks of a data set.

    One that is trained on random parts of its pictures has two further attributes: ``crop``, the height and width of
    those parts (or None), and ``size``, height and width of its inputs.
    """

    def __len__(self) -> int: ...

    def batch(self, indices: np.ndarray, *, moves: Sequence[Move] | None = None) -> tuple[Tensor, Tensor | None]:
        """Inputs ``[N, C, H, W]`` in [-1, 1], and their targets if there are any; each moved by its own of ``moves``.

        Without ``moves`` pictures are whole. The same arguments give the same pictures, in any process.
        """
        ...

    def digest(self) -> str:
        """Changes when the pictures do."""
        ...


@dataclass(frozen=True)
class Batch:
    """Inputs, targets (where there are any) and what identifies each picture."""

    inputs: Tensor
    targets: Tensor | None
    keys: tuple[Hashable, ...]


def rows_of(batch: int, part: int, of: int) -> slice:
    """Which rows of a batch are one of its equal parts."""
    size = batch // of
    return slice(part * size, (part + 1) * size)


def in_order(recipe: Recipe, step: int, count: int) -> np.ndarray:
    """The items of a step's batch out of ``count``, each once an epoch, in an order of the epoch's own."""
    positions = np.arange(step * recipe.batch, (step + 1) * recipe.batch)
    return np.array([_epoch(recipe.seed, p // count, count)[p % count] for p in positions.tolist()])


@lru_cache(maxsize=4)
def _epoch(seed: int, epoch: int, count: int) -> np.ndarray:
    return np.random.default_rng((seed, 1, epoch)).permutation(count)


def corners(data: Any, count: int, seed: tuple[int, ...]) -> list[list[int]]:
    """Where random crops of a data set begin, ``[top, left]`` of each; zeros without crops.

    They are drawn apart from everything else, which is therefore the same with and without crops.
    """
    crop = getattr(data, "crop", None)
    room = (0, 0) if crop is None else (data.size[0] - crop[0], data.size[1] - crop[1])
    found: list[list[int]] = np.random.default_rng(seed).integers(0, np.array(room) + 1, (count, 2)).tolist()
    return found


@dataclass(frozen=True, eq=False)
class PairBatches:
    """Pairs in a random order, each mirrored, shifted and cropped at random as recipe and data set say."""

    data: PairSource
    recipe: Recipe

    def __call__(self, step: int, part: int = 0, of: int = 1) -> Batch:
        """One of ``of`` equal parts of a step's batch."""
        rng, crops = np.random.default_rng((self.recipe.seed, step)), (self.recipe.seed, 4, step)
        return self.moved(self.indices(step), rng, crops, rows_of(self.recipe.batch, part, of))

    def indices(self, step: int) -> np.ndarray:
        """Of the whole batch."""
        return in_order(self.recipe, step, len(self.data))

    def moved(self, indices: np.ndarray, rng: np.random.Generator, crops: tuple[int, ...], rows: slice) -> Batch:
        """These rows of a whole batch; ``rng`` draws the moves of all of them, ``crops`` is the seed of crops."""
        recipe, moves = self.recipe, []
        for top, left in corners(self.data, recipe.batch, crops):
            mirror = bool(rng.random() < 0.5) and recipe.mirror
            down, right = rng.integers(-recipe.shift, recipe.shift + 1, 2).tolist()
            moves.append(Move(mirror, down, right, top, left))
        chosen, moves = indices[rows], moves[rows]
        inputs, targets = self.data.batch(chosen, moves=moves)
        return Batch(inputs, targets, tuple((int(i), int(move.mirror)) for i, move in zip(chosen, moves, strict=True)))
