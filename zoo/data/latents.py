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
from gantailor.supernet.errors import ConfigError
from gantailor.zoo.data.pairs import Pairs, pixel_digest
from gantailor.zoo.data.pictures import Pictures, to_float, to_uint8
from gantailor.zoo.data.record import DataSet


@dataclass(frozen=True, eq=False)
class Latents:
    """As many latents as there are real pictures; latent and picture of one index have nothing to do with each other.

    Args:
        pictures: uint8 ``[N, H, W, C]``; as is usual for such generators, those it was trained on.
        width: numbers in a latent.
        seed: of the latents, which are normally distributed.
    """

    pictures: Pictures
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
        return f"{pixel_digest(self.pictures)}-{self.width}-{self.seed}"


def real_pictures(data: DataSet) -> Pictures:
    """uint8 ``[N, H, W, C]``: the targets of a data set, or its inputs where it has no targets.

    Raises:
        ConfigError: it is for crops.
    """
    if isinstance(data, Latents):
        return data.pictures
    if not isinstance(data, Pairs):
        return RealPictures(data)
    if data.crop is not None:
        raise ConfigError("data.crop is for generators of pictures; leave it out, and data.load")
    return data.inputs if data.targets is None else data.targets


class RealPictures:
    """Real pictures of a data set that only gives batches, uint8 ``[N, H, W, C]`` by their rows."""

    def __init__(self, data: DataSet) -> None:
        self.data, self.dtype = data, np.dtype(np.uint8)
        self.shape = (len(data), *self[:1].shape[1:])

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, rows: Any) -> Any:
        chosen = np.arange(len(self.data))[rows]
        inputs, targets = self.data.batch(np.atleast_1d(chosen))
        pictures = to_uint8(first(inputs) if targets is None else targets)
        return pictures if chosen.ndim else pictures[0]
