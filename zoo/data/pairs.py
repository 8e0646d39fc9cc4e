"""Image pairs in memory: what the trainer and the evaluators read.

Images are uint8 at this border and float in [-1, 1] behind it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Self

import numpy as np
import torch
from torch import Tensor

from gantailor.supernet.calling import Inputs
from gantailor.zoo.data.class_labels import ClassLabels
from gantailor.zoo.data.pictures import Pictures, to_float
from gantailor.zoo.data.shards import Side

PICTURES = 4  # dimensions of a batch


@dataclass(frozen=True)
class Pairs:
    """Aligned pictures: ``inputs`` and ``targets`` are uint8 ``[N, H, W, C]``, arrays or others, of equal length.

    Float32 pictures lie in [-1, 1] already.

    Args:
        targets: ``None`` for unpaired data, whose targets are the teacher's outputs.
        more: further inputs of the generator in the order of its forward: pictures, which move as the first does, or
            vectors float32 ``[N, d]``.
        class_labels: of the pictures; what a generator that takes them has in ``more``, see ``read_split``.
    """

    inputs: Pictures
    targets: Pictures | None
    names: tuple[str, ...]
    source: str
    more: tuple[Pictures, ...] = field(default=(), kw_only=True)
    class_labels: ClassLabels | None = field(default=None, kw_only=True)

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
        targets = None if self.targets is None else _some(self.targets, indices)
        more = tuple(_some(further, indices) for further in self.more)
        labels = None if self.class_labels is None else self.class_labels.take(indices)
        inputs = _some(self.inputs, indices)
        return replace(self, inputs=inputs, targets=targets, names=names, more=more, class_labels=labels)

    def batch(
        self, indices: np.ndarray, *, moves: Sequence[tuple[bool, int, int]] | None = None
    ) -> tuple[Inputs, Tensor | None]:
        """Inputs and targets as float ``[n, C, H, W]`` in [-1, 1]; several inputs are a tuple.

        ``moves`` says for each pair whether it is mirrored, and how far it goes down and right (edges repeated).
        """
        inputs, targets = self.rows(indices, moves)
        first, goal = to_float(inputs), None if targets is None else to_float(targets)
        if not self.more:
            return first, goal
        return (first, *(_further(further[indices], moves) for further in self.more)), goal

    def rows(
        self, indices: np.ndarray, moves: Sequence[tuple[bool, int, int]] | None
    ) -> tuple[np.ndarray, np.ndarray | None]:
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
        return pixel_digest(*(side for side in (self.inputs, self.targets, *self.more) if side is not None))


def pixel_digest(*sides: Pictures) -> str:
    """A short hash of every pixel; stored items have it in their index."""
    sha = hashlib.sha256()
    for pictures in sides:
        if isinstance(pictures, Side):
            sha.update(pictures.digest())
            continue
        for start in range(0, len(pictures), 64):
            sha.update(np.asarray(pictures[start : start + 64]).tobytes())
    return sha.hexdigest()[:12]


def _some(pictures: Pictures, rows: np.ndarray | slice) -> Pictures:
    some: Pictures = pictures.some(rows) if isinstance(pictures, Side) else pictures[rows]
    return some


def _further(values: np.ndarray, moves: Sequence[tuple[bool, int, int]] | None) -> Tensor:
    """Pictures, moved, or vectors."""
    if values.ndim != PICTURES:
        return torch.from_numpy(np.ascontiguousarray(values, np.float32))
    return to_float(values if moves is None or not any(any(move) for move in moves) else _moved(values, moves))


def _moved(images: np.ndarray, moves: Sequence[tuple[bool, int, int]]) -> np.ndarray:
    """Each image mirrored and shifted by its own ``(mirror, down, right)``."""
    _, height, width, _ = images.shape
    rows, columns = np.arange(height), np.arange(width)
    moved = np.empty_like(images)
    for position, (mirror, down, right) in enumerate(moves):
        image = images[position][:, ::-1] if mirror else images[position]
        take_rows, take_columns = np.clip(rows - down, 0, height - 1), np.clip(columns - right, 0, width - 1)
        moved[position] = image[take_rows[:, None], take_columns]
    return moved
