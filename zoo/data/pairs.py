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
from gantailor.zoo.data.class_labels import ClassLabels
from gantailor.zoo.data.pictures import Pictures, to_float
from gantailor.zoo.data.shards import Side


@dataclass(frozen=True)
class Pairs:
    """Aligned pictures: ``inputs`` and ``targets`` are uint8 ``[N, H, W, C]``, arrays or others, of equal length.

    Or they are float32, in [-1, 1] already.

    ``targets`` is ``None`` for unpaired data, whose targets are the teacher's outputs. Their sides may be a multiple of
    those of ``inputs``.

    Args:
        more: what the generator takes beside ``inputs``, in the order of its forward: pictures as those (masks), which
            move alike, or float32 vectors ``[N, d]``.
        others: pictures of the domain that is translated to, which belong to no input: what an unconditional
            discriminator takes for real. As large as the inputs.
        class_labels: of the pictures, for generators that take classes (``fitted_to``).
        crop: height and width of the parts of the inputs that moves keep; whole pictures without.
        middle: height and width of the middle that comes without moves, where pictures are kept larger for crops.
    """

    inputs: Pictures
    targets: Pictures | None
    names: tuple[str, ...]
    source: str
    more: tuple[Pictures, ...] = field(default=(), kw_only=True)
    others: Pictures | None = field(default=None, kw_only=True)
    class_labels: ClassLabels | None = field(default=None, kw_only=True)
    crop: tuple[int, int] | None = field(default=None, kw_only=True)
    middle: tuple[int, int] | None = field(default=None, kw_only=True)

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def paired(self) -> bool:
        """Whether a real picture belongs to each input."""
        return self.targets is not None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the inputs in pixels, before any crop."""
        return self.inputs.shape[1], self.inputs.shape[2]

    def take(self, indices: np.ndarray | slice) -> Self:
        """The pairs at ``indices``, as a new object on the same memory where numpy allows."""
        names = tuple(np.asarray(self.names, dtype=object)[indices])
        targets = None if self.targets is None else _some(self.targets, indices)
        more = tuple(_some(one, indices) for one in self.more)
        labels = None if self.class_labels is None else self.class_labels.take(indices)
        inputs = _some(self.inputs, indices)
        return replace(self, inputs=inputs, targets=targets, names=names, more=more, class_labels=labels)

    def batch(self, indices: np.ndarray, *, moves: Sequence[Move] | None = None) -> tuple[Inputs, Tensor | None]:
        """Inputs and targets as float ``[n, C, H, W]`` in [-1, 1]; inputs are a tuple where there are ``more``.

        ``moves`` says for each pair whether it is mirrored, how far it goes down and right (edges repeated), and where
        the part of it begins that is kept.
        """
        inputs, targets = self.rows(indices, moves)
        return self.beside(to_float(inputs), indices, moves), None if targets is None else to_float(targets)

    def beside(self, shown: Tensor, indices: np.ndarray, moves: Sequence[Move] | None) -> Inputs:
        """The first input with the others; pictures among them are moved as it is."""
        if not self.more:
            return shown
        others = [one[indices] for one in self.more]
        return (shown, *(to_float(self.moved(o, moves)) if o.ndim == 4 else torch.from_numpy(o) for o in others))

    def other(self, indices: np.ndarray, moves: Sequence[Move] | None) -> Tensor:
        """These of the ``others`` as float ``[n, C, H, W]`` in [-1, 1], each with its own move."""
        assert self.others is not None, "there are none"
        return to_float(self.moved(self.others[indices], moves))

    def rows(self, indices: np.ndarray, moves: Sequence[Move] | None) -> tuple[np.ndarray, np.ndarray | None]:
        """The arrays behind ``batch``."""
        inputs = self.moved(self.inputs[indices], moves)
        return inputs, None if self.targets is None else self.moved(self.targets[indices], moves)

    def moved(self, images: np.ndarray, moves: Sequence[Move] | None) -> np.ndarray:
        """Inputs or targets ``[n, H, W, C]``, each with its own move; moves are in pixels of the inputs."""
        factor = images.shape[1] // self.size[0]
        if moves is None:
            return images if self.middle is None else _middle(images, [factor * side for side in self.middle])
        if self.crop is None and not any(any(move) for move in moves):
            return images
        height, width = (factor * side for side in self.crop or self.size)
        parts = np.empty((len(images), height, width, images.shape[3]), images.dtype)
        for part, image, given in zip(parts, images, moves, strict=True):
            mirror, *lengths = Move(*given)
            down, right, top, left = (factor * length for length in lengths)
            turned = image[:, ::-1] if mirror else image
            if not down and not right:
                part[:] = turned[top : top + height, left : left + width]
                continue
            rows = np.clip(np.arange(top, top + height) - down, 0, len(image) - 1)
            columns = np.clip(np.arange(left, left + width) - right, 0, image.shape[1] - 1)
            part[:] = turned[rows[:, None], columns]
        return parts

    def digest(self) -> str:
        """A short hash of every pixel: the provenance that a score carries."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        return pixel_digest(
            *(side for side in (self.inputs, self.targets, *self.more, self.others) if side is not None)
        )


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


def digests_of(pictures: Pictures) -> list[bytes]:
    """A digest of each picture ``[N, H, W, C]``, the same for the same pixels; stored items have it in their index."""
    if isinstance(pictures, Side):
        return [row.tobytes() for row in pictures.digests]
    return [hashlib.sha256(np.ascontiguousarray(pictures[row]).tobytes()).digest() for row in range(len(pictures))]


def _some(pictures: Pictures, rows: np.ndarray | slice) -> Pictures:
    some: Pictures = pictures.some(rows) if isinstance(pictures, Side) else pictures[rows]
    return some


def _middle(images: np.ndarray, size: Sequence[int]) -> np.ndarray:
    top, left = ((side - wanted) // 2 for side, wanted in zip(images.shape[1:3], size, strict=True))
    return images[:, top : top + size[0], left : left + size[1]]
