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
from gantailor.supernet.training.batches import Move
from gantailor.zoo.data.pictures import to_float


@dataclass(frozen=True)
class Pairs:
    """Aligned pictures: ``inputs`` and ``targets`` are uint8 ``[N, H, W, C]`` arrays of equal length.

    ``targets`` is ``None`` for unpaired data, whose targets are the teacher's outputs. ``more`` holds what the
    generator takes beside ``inputs``, in the order of its forward: pictures as those (masks), which move alike, or
    float32 vectors ``[N, d]``.
    """

    inputs: np.ndarray
    targets: np.ndarray | None
    names: tuple[str, ...]
    source: str
    more: tuple[np.ndarray, ...] = field(default=(), kw_only=True)

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
        more = tuple(one[indices] for one in self.more)
        return replace(self, inputs=self.inputs[indices], targets=targets, names=names, more=more)

    def batch(self, indices: np.ndarray, *, moves: Sequence[Move] | None = None) -> tuple[Inputs, Tensor | None]:
        """Inputs and targets as float ``[n, C, H, W]`` in [-1, 1]; inputs as a tuple where there are ``more``.

        ``moves`` says for each pair whether it is mirrored, and how far it goes down and right (edges repeated).
        """
        inputs, targets = self.rows(indices, moves)
        return self.beside(to_float(inputs), indices, moves), None if targets is None else to_float(targets)

    def beside(self, shown: Tensor, indices: np.ndarray, moves: Sequence[Move] | None) -> Inputs:
        """The first input with the others; pictures among them are moved as it is."""
        if not self.more:
            return shown
        others = [one[indices] for one in self.more]
        return (shown, *(to_float(_moved(o, moves)) if o.ndim == 4 else torch.from_numpy(o) for o in others))

    def rows(self, indices: np.ndarray, moves: Sequence[Move] | None) -> tuple[np.ndarray, np.ndarray | None]:
        """The arrays behind ``batch``."""
        inputs, targets = self.inputs[indices], None if self.targets is None else self.targets[indices]
        return _moved(inputs, moves), None if targets is None else _moved(targets, moves)

    def digest(self) -> str:
        """A short hash of every pixel: the provenance that a score carries."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        sha = hashlib.sha256(self.inputs.tobytes())
        if self.targets is not None:
            sha.update(self.targets.tobytes())
        for one in self.more:
            sha.update(np.ascontiguousarray(one[:]).tobytes())
        return sha.hexdigest()[:12]


def _moved(images: np.ndarray, moves: Sequence[Move] | None) -> np.ndarray:
    """Each image mirrored and shifted by its own ``(mirror, down, right)``."""
    if moves is None or not any(any(move) for move in moves):
        return images
    _, height, width, _ = images.shape
    rows, columns = np.arange(height), np.arange(width)
    moved = np.empty_like(images)
    for position, (mirror, down, right, *_) in enumerate(moves):
        image = images[position][:, ::-1] if mirror else images[position]
        take_rows, take_columns = np.clip(rows - down, 0, height - 1), np.clip(columns - right, 0, width - 1)
        moved[position] = image[take_rows[:, None], take_columns]
    return moved
