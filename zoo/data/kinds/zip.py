"""Pictures in a zip archive with their classes in ``dataset.json``: what StyleGAN's ``dataset_tool.py`` writes.

The archive is read as it lies; nothing is unpacked, and no name in it becomes a path.
"""

from __future__ import annotations

import json
import lzma
import os
import threading
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from gantailor.evaluators.pictures.files import is_picture_name
from gantailor.supernet.errors import DataError, first_line
from gantailor.zoo.data.class_labels import ClassLabels
from gantailor.zoo.data.config import DataConfig
from gantailor.zoo.data.fit import Reading
from gantailor.zoo.data.kinds.files import FileItems, read_items
from gantailor.zoo.data.pairs import Pairs
from gantailor.zoo.data.record import FOLDERS, SPLIT_NAMES, DataKind, check_path, shared_out

LABELS_FILE = "dataset.json"
LARGEST = 1 << 29  # bytes of one file, unpacked
BOMB = 200  # times that a file of some size may be larger than it is stored; pictures are compressed already
SMALL = 1 << 24  # bytes that are no danger, however small they are stored
ENCRYPTED = 0x1
MOST = 1e9  # of a label
# What Python raises of broken archives, of broken files in them, and of ways of packing that it lacks.
_BROKEN = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, OSError, EOFError, ValueError, RuntimeError)


@dataclass
class Archive:
    """A zip file that every process, and every thread, opens for itself.

    Raises:
        DataError: it is missing, damaged, encrypted, a bomb, or has names that lead out of it.
    """

    path: Path
    _local: threading.local = field(default_factory=threading.local, repr=False)

    def __post_init__(self) -> None:
        if not self.path.is_file():
            raise DataError(f"data.path {str(self.path)!r} does not exist; give a .zip file with pictures inside")
        self.entries = {info.filename: info for info in self._listed()}

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "entries": self.entries}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state | {"_local": threading.local()}

    def _listed(self) -> list[zipfile.ZipInfo]:
        try:
            with zipfile.ZipFile(self.path) as archive:
                found = [info for info in archive.infolist() if not info.is_dir()]
        except _BROKEN as error:
            raise DataError(f"archive {str(self.path)!r} cannot be read ({error}); copy or make it again") from None
        seen = set[str]()
        for info in found:
            if mistake := _mistake(info) or ("is there twice" if info.filename in seen else ""):
                raise DataError(f"archive {str(self.path)!r}: {info.filename[:120]!r} {mistake}; make it again without")
            seen.add(info.filename)
        return found

    def pictures(self) -> list[str]:
        """Names of the pictures, in order; hidden ones and those of a Mac's ``__MACOSX`` are none."""
        return sorted(name for name in self.entries if _is_picture(name))

    def read(self, name: str) -> bytes:
        """A file's content.

        Raises:
            DamagedEntryError: it cannot be unpacked.
        """
        try:
            return self._opened().read(name)
        except _BROKEN as error:
            raise DamagedEntryError(first_line(error)[:120]) from None

    def _opened(self) -> zipfile.ZipFile:
        if getattr(self._local, "pid", None) != os.getpid():  # a fork would share the place in the file
            self._local.pid, self._local.archive = os.getpid(), zipfile.ZipFile(self.path)
        found: zipfile.ZipFile = self._local.archive
        return found


class DamagedEntryError(ValueError):
    """A file of an archive cannot be unpacked; the text says why."""


def _mistake(info: zipfile.ZipInfo) -> str:
    name = info.filename
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if name.startswith(("/", "\\")) or ".." in parts or ":" in parts[0]:
        return "leads out of the archive"
    if info.flag_bits & ENCRYPTED:
        return "is encrypted"
    if info.file_size > LARGEST or (info.file_size > SMALL and info.file_size > BOMB * max(1, info.compress_size)):
        return f"would be {info.file_size / 1e6:.0f} MB unpacked, {info.compress_size / 1e6:.1f} MB as it lies there"
    return ""


def _is_picture(name: str) -> bool:
    path = PurePosixPath(name)
    return is_picture_name(path.name) and not any(part.startswith((".", "__MACOSX")) for part in path.parts)


def archive_of(path: Path, split: str) -> Archive:
    """The archive itself, or of a folder that of the split: ``train.zip``.

    Raises:
        DataError: there is none, or it cannot be read.
    """
    if not path.is_dir():
        return Archive(path)
    files = [path / f"{name}.zip" for name in FOLDERS[split]]
    return Archive(next((file for file in files if file.is_file()), files[0]))


def pictures_of(archive: Archive, split: str) -> list[str]:
    """Names of a split's pictures: those beneath ``train/``, or all where the archive has no such folders.

    Raises:
        DataError: there are none.
    """
    names = archive.pictures()
    root, (folders, tops) = _root_of(names), _folders_of(names, split)
    if folders or "train" in tops:
        names = [name for name in names if name.startswith(f"{root}{(folders or ['test'])[0]}/")]
    if not names:
        raise DataError(
            f"archive {str(archive.path)!r} has no pictures of {split}; put them beneath {split}/, or all "
            "pictures beneath no such folder"
        )
    return names


def _folders_of(names: Sequence[str], split: str) -> tuple[list[str], set[str]]:
    """Those of the topmost folders that a split may read, and all of them."""
    root = _root_of(names)
    tops = {name[len(root) :].partition("/")[0] for name in names}
    return [name for name in FOLDERS[split] if name in tops], tops


def labels_of(archive: Archive, names: Sequence[str]) -> ClassLabels | None:
    """Classes, or vectors, from ``dataset.json``; None where there are none.

    Raises:
        DataError: the file is damaged, lacks a picture, or its labels are neither numbers nor vectors of one length.
    """
    folders = ("", _root_of(archive.pictures()))
    folder = next((folder for folder in folders if f"{folder}{LABELS_FILE}" in archive.entries), None)
    if folder is None:
        return None
    where = f"{LABELS_FILE} of archive {str(archive.path)!r}"
    try:
        stored = json.loads(archive.read(f"{folder}{LABELS_FILE}"))
        pairs = stored.get("labels") if isinstance(stored, dict) else stored
        known = None if pairs is None else {folder + str(name).replace("\\", "/"): label for name, label in pairs}
    except (ValueError, TypeError, RecursionError):
        raise DataError(
            f'{where} cannot be read; it holds {{"labels": [["a.png", 0], ...]}}, or null for none'
        ) from None
    if known is None:
        return None
    missing = [name for name in names if name not in known]
    if missing:
        raise DataError(f"{where} has no label of {missing[0]!r} ({len(missing)} of {len(names)}); label every picture")
    values = _numbers(where, names, [known[name] for name in names])
    every = [label for label in known.values() if type(label) is int]
    return ClassLabels(values, largest=max(every) if values.ndim == 1 else None)


def _root_of(names: Sequence[str]) -> str:
    """The folder that was packed, where all lies in one that is no split's: ``faces/``."""
    tops = {name.partition("/")[0] if "/" in name else "" for name in names}
    top = tops.pop() if len(tops) == 1 else ""
    return f"{top}/" if top and top not in SPLIT_NAMES else ""


def _numbers(where: str, names: Sequence[str], labels: Sequence[Any]) -> np.ndarray:
    """Whole numbers as int64, or vectors as float32."""
    rows = [label if isinstance(label, list) else [label] for label in labels]
    for name, label, row in zip(names, labels, rows, strict=True):
        alike = type(label) is type(labels[0]) and len(row) == len(rows[0]) > 0
        if not alike or not all(type(number) in (int, float) and abs(number) < MOST for number in row):
            raise DataError(
                f"{where}: the label of {name!r} is {str(label)[:60]}; give whole numbers from 0, or vectors of one "
                "length"
            )
    if isinstance(labels[0], list):
        return np.array(rows, np.float32)
    if not all(type(label) is int and label >= 0 for label in labels):
        raise DataError(f"{where}: {min(labels)} is among the classes; give whole numbers from 0")
    return np.array(labels, np.int64)


@dataclass(frozen=True)
class Entry:
    """A picture of an archive."""

    archive: Archive
    name: str

    def __str__(self) -> str:
        return f"{self.archive.path}:{self.name}"

    def read_bytes(self) -> bytes:
        """As it was before it was packed."""
        return self.archive.read(self.name)


@dataclass(frozen=True)
class ArchiveItems(FileItems):
    """Pictures of an archive, which know of a change by their checksums."""

    archive: Archive | None = None

    def stamp(self, index: int) -> str:
        """Size and checksum of the picture, and the class."""
        assert self.archive is not None
        info = self.archive.entries[self.names[index]]
        return f"{info.file_size}:{info.CRC}{super().stamp(index)}"


def _read(config: DataConfig, split: str) -> Pairs:
    """Pictures without targets, and their classes where there are any."""
    archive = archive_of(Path(str(config.path)), split)
    names = pictures_of(archive, split)
    labels = labels_of(archive, names)
    values = None if labels is None else np.asarray(labels.values)
    files = tuple((Entry(archive, name),) for name in names)
    items = ArchiveItems(tuple(names), files, Reading.of(config), values, archive)
    what, key = f"archive {str(archive.path)!r}", str(archive.path.resolve())
    pairs = read_items(items, labels, name="zip", what=what, key=key, source=f"{archive.path.stem}/{split}")
    return shared_out(pairs, config, split, lambda name: _place(Path(str(config.path)), name))


def _place(path: Path, split: str) -> tuple[Path, str]:
    """The archive, and the folder in it."""
    archive = archive_of(path, split)
    folders, tops = _folders_of(archive.pictures(), split)
    return archive.path, (folders or ["test"])[0] if folders or "train" in tops else ""


ZIP = DataKind(name="zip", read=_read, check=check_path)
