"""Latents in the place of input pictures: what an unconditional generator is trained and scored on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from gantailor.supernet.calling import first
from gantailor.zoo.data.pairs import Pairs
from gantailor.zoo.data.pictures import to_float, to_uint8
from gantailor.zoo.data.record import DataSet


@dataclass(frozen=True, eq=False)
class Latents:
    """As many latents as there are real pictures; latent and picture of one index have nothing to do with each other.

    Args:
        pictures: uint8 ``[N, H, W, 3]``; as is usual for such generators, those it was trained on.
        width: numbers in a latent.
        seed: of the latents, which are normally distributed.
    """

    pictures: np.ndarray
    width: int
    seed: int
    source: str
    paired: ClassVar[bool] = False

    @classmethod
    def of(cls, data: DataSet, width: int, *, seed: int, name: str) -> Latents:
        """Latents for a data set's real pictures: its targets, or its inputs where it has no targets."""
        return cls(real_pictures(data), width, seed, f"{data.source}, {name} latents")

    def __len__(self) -> int:
        return len(self.pictures)

    @cached_property
    def latents(self) -> Tensor:
        """``[N, width]``."""
        return torch.randn(len(self), self.width, generator=torch.Generator().manual_seed(self.seed))

    def batch(self, indices: np.ndarray, *, moves: Sequence[Any] | None = None) -> tuple[Tensor, Tensor | None]:
        """Latents ``[n, width]`` and real pictures ``[n, C, H, W]`` in [-1, 1]; ``moves`` do not matter."""
        rows = np.asarray(indices)
        return self.latents[torch.from_numpy(rows)], to_float(self.pictures[rows])

    def digest(self) -> str:
        """A short hash of pictures and seed."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        return f"{Pairs(self.pictures, None, (), '').digest()}-{self.width}-{self.seed}"


def real_pictures(data: DataSet) -> np.ndarray:
    """uint8 ``[N, H, W, 3]``: the targets of a data set, or its inputs where it has no targets."""
    if isinstance(data, Latents):
        return data.pictures
    if isinstance(data, Pairs):
        return data.inputs if data.targets is None else data.targets
    batches = (data.batch(rows) for rows in np.array_split(np.arange(len(data)), -(-len(data) // 64)))
    return np.concatenate([to_uint8(first(inputs) if targets is None else targets) for inputs, targets in batches])
