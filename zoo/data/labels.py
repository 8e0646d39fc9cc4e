"""Label maps with their pictures, in the folder layout of NVlabs/SPADE."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from gantailor.supernet.errors import DataError
from gantailor.zoo.data.config import DataConfig
from gantailor.zoo.data.pairs import Pairs
from gantailor.zoo.data.pictures import image_files, read_images
from gantailor.zoo.data.record import DataKind, check_path, split_folder


@dataclass(frozen=True)
class LabelPairs(Pairs):
    """``inputs`` are uint8 ``[N, H, W, 1 or 2]``: class ids and, where there are any, instance edges (0 or 1).

    Batches hold them one-hot, ``[n, classes + 1 (+ 1), H, W]``: the classes, one channel for every id beyond them
    (unknown), and the edges.
    """

    classes: int = 35

    def batch(
        self, indices: np.ndarray, *, moves: Sequence[tuple[bool, int, int]] | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """One-hot label maps of 0 and 1, and targets in [-1, 1]."""
        scaled, targets = super().batch(indices, moves=moves)
        values = scaled.add(1).mul(127.5).round().long()
        hot = F.one_hot(values[:, 0].clamp(max=self.classes), self.classes + 1).permute(0, 3, 1, 2).float()
        return torch.cat([hot, values[:, 1:].float()], 1), targets


def label_pairs(folder: str | Path, split: str, *, size: int, classes: int) -> LabelPairs:
    """``<split>_label`` (ids), ``<split>_img`` and, if it is there, ``<split>_inst``; stems say what belongs together.

    Label and instance maps are resized without mixing ids; edges are where an instance's neighbour is another.

    Raises:
        DataError: a folder or a partner is missing.
    """
    root = Path(folder)
    labels = {f.stem: f for f in image_files(root / f"{split}_label")}
    pictures = {f.stem: f for f in image_files(root / f"{split}_img")}
    names = sorted(labels.keys() & pictures.keys())
    if len(names) < max(len(labels), len(pictures)):
        odd = sorted(labels.keys() ^ pictures.keys())
        raise DataError(f"{odd[0]!r} is not in both {split}_label and {split}_img; every label map needs its picture")
    maps = [np.stack([_ids(labels[name], size) for name in names])]
    if (root / f"{split}_inst").is_dir():
        instances = {f.stem: f for f in image_files(root / f"{split}_inst")}
        missing = [name for name in names if name not in instances]
        if missing:
            raise DataError(f"{split}_inst has no {missing[0]!r}; remove the folder, or give every instance map")
        maps.append(_edges(np.stack([_ids(instances[name], size) for name in names])))
    return LabelPairs(
        np.stack(maps, -1),
        read_images([pictures[name] for name in names], height=size, width=size),
        tuple(names),
        f"{root.name}@{size}/{split}",
        classes,
    )


def _ids(file: Path, size: int) -> np.ndarray:
    with Image.open(file) as image:
        small = np.array(image.resize((size, size), Image.Resampling.NEAREST))
    return (small if small.ndim == 2 else small[..., 0]).astype(np.uint8)


def _edges(instances: np.ndarray) -> np.ndarray:
    """1 where a neighbour above, below, left or right has another id; ``[N, H, W]``."""
    edges = np.zeros(instances.shape, np.uint8)
    for axis in (1, 2):
        differs = np.diff(instances.astype(np.int16), axis=axis) != 0
        first = [slice(None)] * 3
        second = list(first)
        first[axis], second[axis] = slice(None, -1), slice(1, None)
        edges[tuple(first)] |= differs
        edges[tuple(second)] |= differs
    return edges


def _read(config: DataConfig, split: str) -> LabelPairs:
    root = Path(str(config.path))
    name = split_folder(root, split, suffix="_label").name.removesuffix("_label")
    return label_pairs(root, name, size=config.size, classes=config.classes)


LABELS = DataKind(name="labels", read=_read, yields="labels", check=check_path)
