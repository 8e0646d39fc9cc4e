"""Unpaired pictures in two folders: ``trainA`` and ``trainB`` of CycleGAN, or the other layouts of ``sides``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from gantailor.zoo.data.config import DataConfig
from gantailor.zoo.data.domains import Domains
from gantailor.zoo.data.fit import Reading
from gantailor.zoo.data.kinds.folder import read_folder
from gantailor.zoo.data.kinds.sides import need_sides, side_folders
from gantailor.zoo.data.pairs import Pairs, pixel_digest
from gantailor.zoo.data.pictures import Pictures, to_float
from gantailor.zoo.data.record import DataKind, check_path


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


def _sides(config: DataConfig) -> tuple[str, str]:
    """The side whose pictures are translated, and the other."""
    first, second = config.sides
    return (second, first) if config.direction == "BtoA" else (first, second)


def _side(config: DataConfig, folder: Path, number: int) -> Pairs:
    reading = Reading.of(config).side(number)
    source = f"{folder.relative_to(str(config.path)).as_posix()}@{reading.label}"
    return replace(read_folder(folder, reading, "unpaired"), source=source)


def _read(config: DataConfig, split: str) -> Pairs | Unpaired:
    """Pictures of A, whose targets are the teacher's outputs, and B's beside them, where there are any."""
    root, sides = Path(str(config.path)), _sides(config)
    first, second = side_folders(root, split, sides)
    need_sides(root, split, [first], sides)
    pairs = _side(config, first, 0)
    if not second.is_dir():
        return pairs
    real = _side(config, second, 1)
    if split == "train":
        return replace(pairs, others=real.inputs)
    return Unpaired(pairs.inputs, real.inputs, f"{pairs.source} to {real.source}")


def _domains(config: DataConfig) -> Domains:
    root, sides = Path(str(config.path)), _sides(config)
    folders = side_folders(root, "train", sides)
    need_sides(root, "train", folders, sides)
    first, second = (_side(config, folder, number) for number, folder in enumerate(folders))
    return Domains(first.inputs, second.inputs)


DOMAINS = DataKind(name="domains", read=_read, domains=_domains, check=check_path)
