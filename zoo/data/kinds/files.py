"""Items of whole picture files: one for each side, and perhaps a class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from gantailor.evaluators.pictures.files import PictureFile
from gantailor.evaluators.pictures.reader import Notes
from gantailor.zoo.data.class_labels import ClassLabels
from gantailor.zoo.data.fit import Reading
from gantailor.zoo.data.items import stamp_of, stored
from gantailor.zoo.data.pairs import Pairs


@dataclass(frozen=True)
class FileItems:
    """The files of each item, input and perhaps target, with what becomes of them.

    Args:
        labels: a class or a vector for each item, ``[N]`` or ``[N, K]``.
    """

    names: tuple[str, ...]
    files: tuple[tuple[PictureFile, ...], ...]
    reading: Reading
    labels: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.names)

    def stamp(self, index: int) -> str:
        """Of the files, and the class."""
        label = "" if self.labels is None else f"|{self.labels[index].tolist()}"
        return stamp_of(*(file for file in self.files[index] if isinstance(file, Path))) + label

    def read(self, index: int, note: Notes) -> tuple[np.ndarray, ...] | None:
        """The pictures at their sizes, and the class as ``[1]`` or ``[K]``."""
        sides = []
        for side, file in enumerate(self.files[index]):
            reading = self.reading.side(side)
            pixels = reading.reader(reading.channels_of(0), note).read(file)
            if pixels is None:
                return None
            sides.append(reading.fitted(pixels, note))
        return (*sides, *([] if self.labels is None else [np.atleast_1d(self.labels[index])]))


def read_items(items: FileItems, labels: ClassLabels | None, *, name: str, what: str, key: str, source: str) -> Pairs:
    """Items as pairs, whose targets are missing where an item has one file.

    Args:
        labels: whose values the items have.
        name: and ``what``, ``key``: as those of ``stored``.

    Raises:
        DataError: a picture cannot be read.
    """
    found = stored(items, items.reading, name=name, what=what, key=key)
    count = len(items.files[0])
    if labels is not None:
        values = np.asarray(found.sides[count])
        labels = replace(labels, values=values[:, 0] if labels.values.ndim == 1 else values)
    targets = found.sides[1] if count > 1 else None
    return Pairs(found.sides[0], targets, found.names, f"{source}@{items.reading.label}", class_labels=labels)


def unique(names: Sequence[str]) -> tuple[str, ...]:
    """Names of which each is there once: the second ``a.png`` is ``a.png (2)``."""
    total, seen = Counter(names), Counter[str]()
    found = []
    for name in names:
        seen[name] += 1
        found.append(name if total[name] == 1 or seen[name] == 1 else f"{name} ({seen[name]})")
    return tuple(found)
