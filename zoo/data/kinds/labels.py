"""Label maps with their pictures, in the folder layout of NVlabs/SPADE."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gantailor.evaluators.metrics.segmentation import IGNORED, LabelTable
from gantailor.evaluators.pictures.files import picture_files
from gantailor.evaluators.pictures.ids import Colours, instance_ids, label_ids
from gantailor.evaluators.pictures.names import by_stem
from gantailor.evaluators.pictures.reader import say
from gantailor.supernet.errors import DataError
from gantailor.supernet.training.batches import Move
from gantailor.zoo.data.config import DataConfig
from gantailor.zoo.data.fit import Reading
from gantailor.zoo.data.pairs import Pairs
from gantailor.zoo.data.pictures import to_float
from gantailor.zoo.data.record import DataKind, check_path, split_folder

NO_ID = (255, 65535, -1)  # unknown pixels, as data sets mark them; no mistake


@dataclass(frozen=True)
class LabelPairs(Pairs):
    """``inputs`` are ``[N, H, W, 1 or 2]``: class ids and, where there are any, instance edges (0 or 1).

    They are uint8, or uint16 of more than 255 classes. Batches hold them one-hot, ``[n, classes + 1 (+ 1), H, W]``: the
    classes, one channel for every id beyond them (unknown), and the edges.
    """

    classes: int = 35

    def batch(self, indices: np.ndarray, *, moves: Sequence[Move] | None = None) -> tuple[Tensor, Tensor | None]:
        """One-hot label maps of 0 and 1, and targets in [-1, 1]."""
        maps, targets = self.rows(indices, moves)
        values = torch.from_numpy(maps.astype(np.int64)).permute(0, 3, 1, 2)
        hot = F.one_hot(values[:, 0].clamp(max=self.classes), self.classes + 1).permute(0, 3, 1, 2).float()
        return torch.cat([hot, values[:, 1:].float()], 1), None if targets is None else to_float(targets)


def label_pairs(
    folder: str | Path,
    split: str,
    *,
    size: int | tuple[int, int],
    classes: int,
    labels: str | None = None,
    fit: str = "stretch",
    background: str = "white",
    skip_corrupt: bool = False,
) -> LabelPairs:
    """``<split>_label`` (ids), ``<split>_img`` and, if it is there, ``<split>_inst``; stems say what belongs together.

    Label and instance maps are resized without mixing ids; edges are where an instance's neighbour is another.

    Args:
        labels: the colour table of label maps in colours, see ``LabelTable.read``; without one they hold ids.
        fit: and ``background``, ``skip_corrupt``: as those of ``Reading``. Padded pixels are unknown.

    Raises:
        DataError: a folder or a partner is missing, a file cannot be read, colours without a table, or most pixels
            have ids beyond ``classes``.
        EvaluationError: the table cannot be read.
    """
    reading = Reading(size=size, fit=fit, background=background, skip_corrupt=skip_corrupt)
    return read_labels(Path(folder), split, reading, classes, labels)


def read_labels(root: Path, split: str, reading: Reading, classes: int, table: str | None) -> LabelPairs:
    """As ``label_pairs``."""
    found = _triples(root, split)
    maps = _Maps(reading, classes, _colours(table))
    for name, files in found.items():
        maps.add(name, *files)
    if not maps.names:
        raise DataError(f"data folder {str(root / f'{split}_label')!r}: none of its {len(found)} pairs can be read")
    say(f"folder {str(root / f'{split}_img')!r}", len(found), maps.pictures_reader.summary())
    say(f"folder {str(root / f'{split}_label')!r}", len(found), maps.reader.summary())
    maps.check(root / f"{split}_label")
    inputs = [np.stack(maps.ids)] + ([np.stack(maps.edges)] if maps.edges else [])
    source = f"{root.name}@{reading.label}/{split}"
    return LabelPairs(np.stack(inputs, -1), np.stack(maps.pictures), tuple(maps.names), source, classes)


def _triples(root: Path, split: str) -> dict[str, tuple[Path, Path, Path | None]]:
    """Label map, picture and instance map by name."""
    labels, pictures = (by_stem(picture_files(root / f"{split}_{what}")) for what in ("label", "img"))
    names = sorted(labels.keys() & pictures.keys())
    if len(names) < max(len(labels), len(pictures)):
        odd = sorted(labels.keys() ^ pictures.keys())
        raise DataError(f"{odd[0]!r} is not in both {split}_label and {split}_img; every label map needs its picture")
    instances: dict[str, Path] = {}
    if (root / f"{split}_inst").is_dir():
        instances = by_stem(picture_files(root / f"{split}_inst"))
        missing = [name for name in names if name not in instances]
        if missing:
            raise DataError(f"{split}_inst has no {missing[0]!r}; remove the folder, or give every instance map")
    return {name: (labels[name], pictures[name], instances.get(name)) for name in names}


def _colours(name: str | None) -> Colours | None:
    if name is None:
        return None
    table = LabelTable.read(name)
    return Colours(table.colours, np.where(table.ids == IGNORED, -1, table.ids), name)


@dataclass
class _Maps:
    """What is read of the files, one after the other."""

    reading: Reading
    classes: int
    colours: Colours | None
    names: list[str] = field(default_factory=list)
    ids: list[np.ndarray] = field(default_factory=list)
    edges: list[np.ndarray] = field(default_factory=list)
    pictures: list[np.ndarray] = field(default_factory=list)
    beyond: int = 0  # pixels
    pixels: int = 0
    largest: int = 0

    def __post_init__(self) -> None:
        self.reader = self.reading.reader(3)
        self.pictures_reader = self.reading.reader(self.reading.channels_of(1))

    def add(self, name: str, label: Path, picture: Path, instances: Path | None) -> None:
        """Read one triple; nothing of it where a file is skipped."""
        ids = self.reader.decode(label, partial(label_ids, colours=self.colours))
        found = None if instances is None else self.reader.decode(instances, instance_ids)
        pixels = self.pictures_reader.read(picture)
        if ids is None or pixels is None or (instances is not None and found is None):
            return
        if label.suffix.lower() in (".jpg", ".jpeg", ".jfif"):
            self.reader.note("label maps in JPEG, which changes ids")
        self.names.append(name)
        self.ids.append(self._known(self.reading.fitted_ids(ids)))
        self.pictures.append(self.reading.fitted(pixels, self.pictures_reader.note))
        if found is not None:
            self.edges.append(_edges(self.reading.fitted_ids(found)[None])[0])

    def _known(self, ids: np.ndarray) -> np.ndarray:
        """uint8, or uint16 of many classes, with the largest number for what is unknown."""
        kind = np.uint8 if self.classes <= 255 else np.uint16
        most = np.iinfo(kind).max
        marks = [mark for mark in NO_ID if not 0 <= mark < self.classes]
        beyond = ((ids >= self.classes) | (ids < 0)) & ~np.isin(ids, marks)
        self.beyond += int(beyond.sum())
        self.pixels += int((ids != -1).sum())
        self.largest = max(self.largest, int(ids[beyond].max(initial=0)))
        if beyond.any():
            self.reader.note(f"with ids beyond data.classes {self.classes} or colours that no table has: unknown")
        return np.where((ids < 0) | (ids > most), most, ids).astype(kind)

    def check(self, folder: Path) -> None:
        """That most pixels have a class or are marked as unknown.

        Raises:
            DataError: they have ids beyond the classes.
        """
        if self.beyond * 2 > self.pixels:
            share = f"{100 * self.beyond / self.pixels:.0f} % of the pixels of {str(folder)!r}"
            if self.colours is not None and not self.largest:
                raise DataError(f"{share} have colours that data.labels {self.colours.name} does not; name its table")
            raise DataError(
                f"{share} have ids beyond data.classes {self.classes}, up to {self.largest}; "
                f"set data.classes {self.largest + 1}"
            )


def _edges(instances: np.ndarray) -> np.ndarray:
    """1 where a neighbour above, below, left or right has another id; ``[N, H, W]``."""
    edges = np.zeros(instances.shape, np.uint8)
    for axis in (1, 2):
        differs = np.diff(instances.astype(np.int64), axis=axis) != 0
        first = [slice(None)] * 3
        second = list(first)
        first[axis], second[axis] = slice(None, -1), slice(1, None)
        edges[tuple(first)] |= differs
        edges[tuple(second)] |= differs
    return edges


def _read(config: DataConfig, split: str) -> LabelPairs:
    root = Path(str(config.path))
    name = split_folder(root, split, suffix="_label").name.removesuffix("_label")
    return read_labels(root, name, Reading.of(config), config.classes, config.labels)


LABELS = DataKind(name="labels", read=_read, yields="labels", check=check_path)
