"""Image pairs in memory: what the trainer and the evaluators read.

Images are uint8 at this border and float in [-1, 1] behind it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
from torch import Tensor

from gantailor.supernet.training.batches import Move
from gantailor.zoo.data.pictures import to_float


@dataclass(frozen=True)
class Pairs:
    """Aligned pictures: ``inputs`` and ``targets`` are uint8 ``[N, H, W, C]`` arrays of equal length.

    ``targets`` is ``None`` for unpaired data, whose targets are the teacher's outputs.
    """

    inputs: np.ndarray
    targets: np.ndarray | None
    names: tuple[str, ...]
    source: str

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def paired(self) -> bool:
        """Whether a real picture belongs to each input."""
        return self.targets is not None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.inputs.shape[1], self.inputs.shape[2]

    def take(self, indices: np.ndarray | slice) -> Self:
        """The pairs at ``indices``, as a new object on the same memory where numpy allows."""
        names = tuple(np.asarray(self.names, dtype=object)[indices])
        targets = None if self.targets is None else self.targets[indices]
        return replace(self, inputs=self.inputs[indices], targets=targets, names=names)

    def batch(self, indices: np.ndarray, *, moves: Sequence[Move] | None = None) -> tuple[Tensor, Tensor | None]:
        """Inputs and targets as float ``[n, C, H, W]`` in [-1, 1].

        ``moves`` says for each pair whether it is mirrored, and how far it goes down and right (edges repeated).
        """
        inputs, targets = self.rows(indices, moves)
        return to_float(inputs), None if targets is None else to_float(targets)

    def rows(self, indices: np.ndarray, moves: Sequence[Move] | None) -> tuple[np.ndarray, np.ndarray | None]:
        """The arrays behind ``batch``."""
        inputs, targets = self.inputs[indices], None if self.targets is None else self.targets[indices]
        if moves is not None and any(any(move) for move in moves):
            inputs = _moved(inputs, moves)
            targets = None if targets is None else _moved(targets, moves)
        return inputs, targets

    def digest(self) -> str:
        """A short hash of every pixel: the provenance that a score carries."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        sha = hashlib.sha256(self.inputs.tobytes())
        if self.targets is not None:
            sha.update(self.targets.tobytes())
        return sha.hexdigest()[:12]


def _moved(images: np.ndarray, moves: Sequence[Move]) -> np.ndarray:
    """Each image mirrored and shifted by its own ``(mirror, down, right)``."""
    _, height, width, _ = images.shape
    rows, columns = np.arange(height), np.arange(width)
    moved = np.empty_like(images)
    for position, (mirror, down, right, *_) in enumerate(moves):
        image = images[position][:, ::-1] if mirror else images[position]
        take_rows, take_columns = np.clip(rows - down, 0, height - 1), np.clip(columns - right, 0, width - 1)
        moved[position] = image[take_rows[:, None], take_columns]
    return moved
