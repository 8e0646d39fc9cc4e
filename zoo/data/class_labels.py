"""Classes of pictures, and what a generator that takes them is given: one-hot vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gantailor.supernet.errors import DataError
from gantailor.zoo.data.pictures import Pictures as Rows
from gantailor.zoo.data.shards import Side


@dataclass(frozen=True, eq=False)
class ClassLabels:
    """A class for each picture of a split.

    Args:
        values: whole numbers ``[N]``, or ``[N, 1]`` where they are read when asked for; vectors float32 ``[N, K]``
            where a data set has them in place of classes.
        names: of the classes in the order of their numbers, the same in every split; empty where the data has numbers
            alone, of which the largest need not occur.
    """

    values: Rows
    names: tuple[str, ...] = ()

    @classmethod
    def of(cls, labels: Sequence[str | int], every: Sequence[str | int]) -> ClassLabels:
        """Of labels as files have them: numbers where all are; else names, numbered in the order of the alphabet.

        Args:
            every: the labels of all splits.
        """
        if all(isinstance(label, int) for label in every):
            return cls(np.array(labels, np.int64))
        names = tuple(sorted({str(label) for label in every}))
        numbers = {name: number for number, name in enumerate(names)}
        return cls(np.array([numbers[str(label)] for label in labels], np.int64), names)

    def __len__(self) -> int:
        return len(self.values)

    def take(self, indices: np.ndarray | slice) -> ClassLabels:
        """Those at ``indices``."""
        return replace(
            self, values=self.values.some(indices) if isinstance(self.values, Side) else self.values[indices]
        )

    def vectors(self, count: int, whose: str) -> Rows | OneHot:
        """float32 ``[N, count]`` for a generator that takes so many numbers.

        Raises:
            DataError: there are more classes, named ones are fewer, or vectors have another length.
        """
        floats = self.values.dtype.kind == "f"
        found, wanted = count, ""
        if floats:
            found, wanted = self.values.shape[1], f"vectors of {self.values.shape[1]} numbers"
        elif self.names:
            found, wanted = len(self.names), f"{len(self.names)} ({', '.join(self.names[:3])}, ...)"
        elif isinstance(self.values, np.ndarray) and self.values.max(initial=0) >= count:
            found = int(self.values.max()) + 1
            wanted = f"numbers up to {found - 1}"
        if found != count:
            raise DataError(
                f"{whose} takes {count} classes, the data has {wanted}; give a generator for {found}, or other data"
            )
        return self.values if floats else OneHot(self.values, count)


class OneHot:
    """Whole numbers ``[N]`` or ``[N, 1]`` that read as float32 ``[N, count]``; only the rows asked for are made."""

    def __init__(self, values: Rows, count: int) -> None:
        self.values, self.shape, self.dtype = values, (len(values), count), np.dtype(np.float32)

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: Any) -> np.ndarray:
        numbers = np.asarray(self.values[rows]).reshape(-1)
        if numbers.max(initial=0) >= self.shape[1]:
            raise DataError(f"class {numbers.max()} is in the data, the generator takes 0 to {self.shape[1] - 1}")
        return (numbers[:, None] == np.arange(self.shape[1])).astype(np.float32)
