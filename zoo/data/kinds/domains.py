"""Unpaired pictures in the folder layout of CycleGAN: ``trainA`` and ``trainB``, ``testA`` and ``testB``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from gantailor.zoo.data.config import DataConfig
from gantailor.zoo.data.domains import Domains
from gantailor.zoo.data.fit import Reading
from gantailor.zoo.data.kinds.folder import read_folder
from gantailor.zoo.data.pairs import Pairs, pixel_digest
from gantailor.zoo.data.pictures import Pictures, to_float
from gantailor.zoo.data.record import DataKind, check_path, split_folder


@dataclass(frozen=True, eq=False)
class Unpaired:
    """Pictures to translate, and real ones of the other domain that they have nothing to do with: for scores of sets.

    As long as the larger of the two, whose pictures come once; the smaller's come again.
    """

    inputs: Pictures
    real: Pictures
    source: str
    paired: ClassVar[bool] = False

    def __len__(self) -> int:
        return max(len(self.inputs), len(self.real))

    def batch(self, indices: np.ndarray, *, moves: Any = None) -> tuple[Tensor, Tensor | None]:
        """Both as float ``[n, C, H, W]`` in [-1, 1]; ``moves`` do not matter."""
        rows = np.asarray(indices)
        return to_float(self.inputs[rows % len(self.inputs)]), to_float(self.real[rows % len(self.real)])

    def digest(self) -> str:
        """A short hash of every pixel."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        return pixel_digest(self.inputs, self.real)


def _side(config: DataConfig, split: str, side: str) -> Pairs:
    folder = split_folder(Path(str(config.path)), split, suffix=side)
    return read_folder(folder, Reading.of(config).side("AB".index(side)), "unpaired")


def _read(config: DataConfig, split: str) -> Pairs | Unpaired:
    """Pictures of A, whose targets are the teacher's outputs; outside training with B's, where there are any."""
    pairs = _side(config, split, "A")
    if split == "train" or not split_folder(Path(str(config.path)), split, suffix="B").is_dir():
        return pairs
    real = _side(config, split, "B")
    return Unpaired(pairs.inputs, real.inputs, f"{pairs.source} to {real.source}")


def _domains(config: DataConfig) -> Domains:
    first, second = (_side(config, "train", side) for side in "AB")
    return Domains(first.inputs, second.inputs)


DOMAINS = DataKind(name="domains", read=_read, domains=_domains, check=check_path)
