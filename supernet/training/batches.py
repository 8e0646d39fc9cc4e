"""What a step of training reads: a function of (seed, step), the same wherever and by how many it is read."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from gantailor.supernet.calling import Inputs, as_tuple
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
    those parts (or None), and ``size``, height and width of its inputs. One whose inputs are in part latents has
    ``drawn``, their positions and widths, ``{1: 8}``: its own are those of the items, training draws others. One that
    has pictures of the domain that is translated to, which belong to no input, has their ``others`` (or None), of which
    ``other(rows, moves)`` are ``[n, C, H, W]`` in [-1, 1]. One whose inputs are made at random ``degrades``: its
    ``batch`` takes ``chances`` too, a seed for each picture, other ones at each step.
    """

    def __len__(self) -> int: ...

    def batch(self, indices: np.ndarray, *, moves: Sequence[Move] | None = None) -> tuple[Inputs, Tensor | None]:
        """Inputs ``[N, C, H, W]`` in [-1, 1], and their targets if there are any; each moved by its own of ``moves``.

        Several inputs of a generator are a tuple, in the order of its forward.

        Without ``moves`` pictures are whole. The same arguments give the same pictures, in any process.
        """
        ...

    def digest(self) -> str:
        """Changes when the pictures do."""
        ...


@dataclass(frozen=True)
class Batch:
    """Inputs, targets (where there are any) and what identifies each picture.

    Attributes:
        others: as many real pictures of the other domain, which have nothing to do with the inputs.
        part: which part of the step's batch it is, and of how many.
    """

    inputs: Inputs
    targets: Tensor | None
    keys: tuple[Hashable, ...]
    others: Tensor | None = None
    part: tuple[int, int] = (0, 1)


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


def normal(seed: tuple[int, ...], count: int, width: int) -> Tensor:
    """Latents float32 ``[count, width]``, normally distributed."""
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((count, width), np.float32))


@dataclass(frozen=True, eq=False)
class PairBatches:
    """Pairs in a random order, each mirrored, shifted and cropped at random as recipe and data set say.

    Latents among the inputs are drawn anew at each step, one for each picture, as MUNIT (Huang et al. 2018, arXiv
    1804.04732) and BicycleGAN (Zhu et al. 2017, arXiv 1711.11586) train. Teacher and student are given the same batch.
    """

    data: PairSource
    recipe: Recipe

    def __call__(self, step: int, part: int = 0, of: int = 1) -> Batch:
        """One of ``of`` equal parts of a step's batch."""
        rng, apart = np.random.default_rng((self.recipe.seed, step)), (self.recipe.seed, 4, step)
        rows = rows_of(self.recipe.batch, part, of)
        batch, others = self.moved(self.indices(step), rng, apart, rows), getattr(self.data, "others", None)
        batch = replace(batch, part=(part, of))
        return batch if others is None else replace(batch, others=self._others(len(others), step, rows))

    def _others(self, count: int, step: int, rows: slice) -> Tensor:
        """Pictures of the other domain at random, as CycleGAN draws them; of generators of their own."""
        rng = np.random.default_rng((self.recipe.seed, 6, step))
        chosen = rng.integers(0, count, self.recipe.batch)
        moves = self._moves(rng, (self.recipe.seed, 7, step))
        found: Tensor = self.data.other(chosen[rows], moves[rows])  # type: ignore[attr-defined]
        return found

    def _moves(self, rng: np.random.Generator, crops: tuple[int, ...]) -> list[Move]:
        recipe, moves = self.recipe, []
        for top, left in corners(self.data, recipe.batch, crops):
            mirror = bool(rng.random() < 0.5) and recipe.mirror
            down, right = rng.integers(-recipe.shift, recipe.shift + 1, 2).tolist()
            moves.append(Move(mirror, down, right, top, left))
        return moves

    def _chances(self, apart: tuple[int, ...]) -> np.ndarray:
        """Seeds of a generator of their own."""
        return np.random.default_rng((*apart, 8)).integers(0, 2**62, self.recipe.batch)

    def indices(self, step: int) -> np.ndarray:
        """Of the whole batch."""
        return in_order(self.recipe, step, len(self.data))

    def moved(self, indices: np.ndarray, rng: np.random.Generator, apart: tuple[int, ...], rows: slice) -> Batch:
        """These rows of a whole batch; ``rng`` draws the moves of all of it, ``apart`` seeds crops and latents."""
        recipe = self.recipe
        chosen, moves = indices[rows], self._moves(rng, apart)[rows]
        chances = {} if not getattr(self.data, "degrades", False) else {"chances": self._chances(apart)[rows]}
        inputs, targets = self.data.batch(chosen, moves=moves, **chances)
        drawn: Mapping[int, int] = getattr(self.data, "drawn", {})
        if drawn:
            latents = {number: normal((*apart, number), recipe.batch, width)[rows] for number, width in drawn.items()}
            inputs = tuple(latents.get(number, one) for number, one in enumerate(as_tuple(inputs)))
        return Batch(inputs, targets, tuple((int(i), int(move.mirror)) for i, move in zip(chosen, moves, strict=True)))
