"""Pictures in a folder for each class, ``train/cat/*.png``, as torchvision's ``ImageFolder`` has them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gantailor.evaluators.pictures.files import is_picture_name
from gantailor.supernet.errors import DataError
from gantailor.zoo.data.class_labels import ClassLabels
from gantailor.zoo.data.config import DataConfig
from gantailor.zoo.data.fit import Reading
from gantailor.zoo.data.kinds.files import FileItems, read_items
from gantailor.zoo.data.pairs import Pairs
from gantailor.zoo.data.record import DataKind, check_path, shared_out, split_folder


@dataclass(frozen=True)
class ClassFiles:
    """Pictures of a split in the order of ``ImageFolder``, the class of each, and the names of all classes."""

    root: Path
    files: tuple[Path, ...]
    labels: tuple[str, ...]
    names: tuple[str, ...]


def class_files(root: Path, split: str) -> ClassFiles:
    """Classes are the folders of the training split in the order of the alphabet, so ``10`` comes before ``2``.

    Without a folder of the split, classes that lie in ``root`` itself are every split's, which are then shared out.

    Raises:
        DataError: no class folders, one without pictures, or one that training does not have.
    """
    chosen = {name: _split_root(root, name) for name in ("train", split)}
    names, found = (_classes(chosen[name]) for name in ("train", split))
    files, labels = [], []
    for name in found:
        if name not in names:
            raise DataError(
                f"class {name!r} of {str(chosen[split])!r} is not in {str(chosen['train'])!r}, which has "
                f"{', '.join(names[:6])}{', ...' if len(names) > 6 else ''}; every class needs training pictures"
            )
        inside = _pictures(chosen[split] / name)
        if not inside:
            raise DataError(f"class folder {str(chosen[split] / name)!r} holds no pictures; fill or remove it")
        files += inside
        labels += [name] * len(inside)
    return ClassFiles(chosen[split], tuple(files), tuple(labels), tuple(names))


def _split_root(root: Path, split: str) -> Path:
    found = split_folder(root, split)
    if found.is_dir():
        return found
    loose = root.is_dir() and not split_folder(root, "train").is_dir()
    return root if loose and any(_pictures(root / name) for name in _folders(root)) else found


def _folders(folder: Path) -> list[str]:
    """Names of the folders inside, without hidden ones: ``.ipynb_checkpoints`` is no class."""
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _classes(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise DataError(f"data folder {str(folder)!r} does not exist; give one with a folder for each class inside")
    names = _folders(folder)
    if not names:
        raise DataError(
            f"data folder {str(folder)!r} has no folders inside, one for each class; data.kind folder reads pictures "
            "without classes"
        )
    return names


def _pictures(folder: Path) -> list[Path]:
    """Those of all depths; links are followed, but not in a circle."""
    found, seen = [], set[str]()
    for place, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        folders[:] = [] if real in seen else sorted(name for name in folders if not name.startswith("."))
        if real not in seen:
            found += [Path(place) / name for name in files if is_picture_name(name)]
        seen.add(real)
    order = sorted(found, key=lambda file: (str(file.parent), file.name))
    return [file for file in order if file.is_file()]


def _read(config: DataConfig, split: str) -> Pairs:
    """Pictures without targets, and their classes."""
    root = Path(str(config.path))
    found = class_files(root, split)
    numbers = {name: number for number, name in enumerate(found.names)}
    values = np.array([numbers[label] for label in found.labels], np.int64)
    names = tuple(file.relative_to(found.root).as_posix() for file in found.files)
    items = FileItems(names, tuple((file,) for file in found.files), Reading.of(config), values)
    what, key = f"class folders {str(found.root)!r}", f"{found.root.resolve()}|{'|'.join(found.names)}"
    labels = ClassLabels(values, found.names)
    pairs = read_items(items, labels, name="classes", what=what, key=key, source=found.root.name)
    return shared_out(pairs, config, split, lambda name: _split_root(root, name))


CLASSES = DataKind(name="classes", read=_read, check=check_path)
