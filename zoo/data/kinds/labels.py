"""Label maps with their pictures, in the folder layout of NVlabs/SPADE."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
from gantailor.evaluators.pictures.reader import Notes
from gantailor.supernet.calling import Inputs
from gantailor.supernet.errors import DataError
from gantailor.supernet.training.batches import Move
from gantailor.zoo.data.config import DataConfig
from gantailor.zoo.data.fit import Reading
from gantailor.zoo.data.items import stamp_of, stored
from gantailor.zoo.data.pairs import Pairs
from gantailor.zoo.data.pictures import to_float
from gantailor.zoo.data.record import FOLDERS, DataKind, check_path, shared_out

NO_ID = (255, 65535, -1)  # unknown pixels, as data sets mark them; no mistake


@dataclass(frozen=True)
class LabelPairs(Pairs):
    """``inputs`` are ``[N, H, W, 1 or 2]``: class ids and, where there are any, instance edges (0 or 1).

    They are uint8, or uint16 of more than 255 classes. Batches hold them one-hot, ``[n, classes + 1 (+ 1), H, W]``: the
    classes, one channel for every id beyond them (unknown), and the edges.

    Args:
        table: ``key`` of the colour table that gave the ids; None where the maps hold them.
    """

    classes: int = 35
    table: str | None = None

    def batch(self, indices: np.ndarray, *, moves: Sequence[Move] | None = None) -> tuple[Inputs, Tensor | None]:
        """One-hot label maps of 0 and 1, and targets in [-1, 1]."""
        maps, targets = self.rows(indices, moves)
        values = torch.from_numpy(maps.astype(np.int64)).permute(0, 3, 1, 2)
        hot = F.one_hot(values[:, 0].clamp(max=self.classes), self.classes + 1).permute(0, 3, 1, 2).float()
        shown = torch.cat([hot, values[:, 1:].float()], 1)
        return self.beside(shown, indices, moves), None if targets is None else to_float(targets)


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

    The folders may be ``<split>/label``, ``<split>/img`` and ``<split>/inst`` as well. Label and instance maps are
    resized without mixing ids; edges are where an instance's neighbour is another.

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
    folder, triples = _folder(root, split, "label"), _triples(root, split)
    items = LabelItems(tuple(triples), tuple(triples.values()), reading, classes, _colours(table))
    key = f"{root.resolve()}|{split}|{classes}|{items.colours_key}|{'inst' if items.edges else ''}"
    found = stored(items, reading, name="labels", what=f"folder {str(folder)!r}", key=key)
    inputs, targets, counts = found.sides
    items.check(counts, folder)
    return LabelPairs(inputs, targets, found.names, f"{root.name}@{reading.label}/{split}", classes, items.table)


def _triples(root: Path, split: str) -> dict[str, tuple[Path, Path, Path | None]]:
    """Label map, picture and instance map by name."""
    label, picture, instance = (_folder(root, split, what) for what in ("label", "img", "inst"))
    labels, pictures = (by_stem(picture_files(folder)) for folder in (label, picture))
    said = [folder.relative_to(root).as_posix() for folder in (label, picture, instance)]
    names = sorted(labels.keys() & pictures.keys())
    if len(names) < max(len(labels), len(pictures)):
        odd = sorted(labels.keys() ^ pictures.keys())
        raise DataError(f"{odd[0]!r} is not in both {said[0]} and {said[1]}; every label map needs its picture")
    instances: dict[str, Path] = {}
    if instance.is_dir():
        instances = by_stem(picture_files(instance))
        missing = [name for name in names if name not in instances]
        if missing:
            raise DataError(f"{said[2]} has no {missing[0]!r}; remove the folder, or give every instance map")
    return {name: (labels[name], pictures[name], instances.get(name)) for name in names}


def _folder(root: Path, split: str, what: str) -> Path:
    """``train/label`` where it is there, else ``train_label``."""
    inside = root / split / what
    return inside if inside.is_dir() else root / f"{split}_{what}"


def _colours(name: str | None) -> Colours | None:
    if name is None:
        return None
    table = LabelTable.read(name)
    return Colours(table.colours, np.where(table.ids == IGNORED, -1, table.ids), name, table.key)


@dataclass(frozen=True, eq=False)
class LabelItems:
    """Label maps, their pictures and instance maps.

    Attributes:
        files: label map, picture, and instance map or None.
    """

    names: tuple[str, ...]
    files: tuple[tuple[Path, Path, Path | None], ...]
    reading: Reading
    classes: int
    colours: Colours | None

    def __len__(self) -> int:
        return len(self.names)

    @property
    def edges(self) -> bool:
        """Whether there are instance maps."""
        return self.files[0][2] is not None

    @property
    def table(self) -> str | None:
        """Of the colour table, if there is one."""
        return None if self.colours is None else self.colours.key

    @property
    def colours_key(self) -> str:
        """Changes with the colour table."""
        table = self.colours
        return "" if table is None else f"{table.colours.tolist()}{np.asarray(table.ids).tolist()}"

    def stamp(self, index: int) -> str:
        return stamp_of(*(file for file in self.files[index] if file is not None))

    def read(self, index: int, note: Notes) -> tuple[np.ndarray, ...] | None:
        """Ids and edges ``[H, W, 1 or 2]``; the picture; how many pixels have ids beyond, of how many, up to which."""
        label, picture, instances = self.files[index]
        inputs, targets = self.reading.side(0), self.reading.side(1)
        reader = inputs.reader(3, note)
        ids = reader.decode(label, partial(label_ids, colours=self.colours))
        found = None if instances is None or ids is None else reader.decode(instances, instance_ids)
        if ids is None or (instances is not None and found is None):
            return None
        pixels = targets.reader(targets.channels_of(1), note).read(picture)
        if pixels is None:
            return None
        if label.suffix.lower() in (".jpg", ".jpeg", ".jfif"):
            note("label maps in JPEG, which changes ids")
        known, counts = self._known(inputs.fitted_ids(ids), note)
        maps = [known] if found is None else [known, _edges(inputs.fitted_ids(found)[None])[0].astype(known.dtype)]
        return np.stack(maps, -1), targets.fitted(pixels, note), counts

    def _known(self, ids: np.ndarray, note: Notes) -> tuple[np.ndarray, np.ndarray]:
        """uint8, or uint16 of many classes, with the largest number for what is unknown; and counts of such pixels."""
        kind = np.uint8 if self.classes <= 255 else np.uint16
        most = np.iinfo(kind).max
        marks = [mark for mark in NO_ID if not 0 <= mark < self.classes]
        beyond = ((ids >= self.classes) | (ids < 0)) & ~np.isin(ids, marks)
        if beyond.any():
            note(f"with ids beyond data.classes {self.classes} or colours that no table has: unknown")
        counts = np.array([beyond.sum(), (ids != -1).sum(), ids[beyond].max(initial=0)], np.int64)
        return np.where((ids < 0) | (ids > most), most, ids).astype(kind), counts

    def check(self, counts: np.ndarray, folder: Path) -> None:
        """That most pixels have a class or are marked as unknown.

        Raises:
            DataError: they have ids beyond the classes.
        """
        beyond, pixels, largest = int(counts[:, 0].sum()), int(counts[:, 1].sum()), int(counts[:, 2].max())
        if beyond * 2 > pixels:
            share = f"{100 * beyond / pixels:.0f} % of the pixels of {str(folder)!r}"
            if self.colours is not None and not largest:
                raise DataError(f"{share} have colours that data.labels {self.colours.name} does not; name its table")
            raise DataError(
                f"{share} have ids beyond data.classes {self.classes}, up to {largest}; set data.classes {largest + 1}"
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

    def place(name: str) -> str:
        return next((one for one in FOLDERS[name] if _folder(root, one, "label").is_dir()), FOLDERS[name][0])

    pairs = read_labels(root, place(split), Reading.of(config), config.classes, config.labels)
    return shared_out(pairs, config, split, place)


LABELS = DataKind(name="labels", read=_read, yields="labels", check=check_path)
