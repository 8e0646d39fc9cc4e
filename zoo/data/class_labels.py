"""Classes of pictures, and what a generator that takes them is given: one-hot vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gantailor.supernet.errors import DataError


@dataclass(frozen=True, eq=False)
class ClassLabels:
    """A class for each picture of a split.

    Args:
        values: whole numbers ``[N]``, or vectors float32 ``[N, K]`` where a data set has them in place of classes.
        names: of the classes in the order of their numbers, the same in every split; empty where the data has numbers
            alone, of which the largest need not occur.
    """

    values: np.ndarray
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
        return ClassLabels(self.values[indices], self.names)

    def vectors(self, count: int, whose: str) -> np.ndarray | OneHot:
        """float32 ``[N, count]`` for a generator that takes so many numbers.

        Raises:
            DataError: there are more classes, named ones are fewer, or vectors have another length.
        """
        if self.values.ndim == 2:
            found, wanted = self.values.shape[1], f"vectors of {self.values.shape[1]} numbers"
        elif self.names:
            found, wanted = len(self.names), f"{len(self.names)} classes ({', '.join(self.names[:3])}, ...)"
        else:
            largest = int(self.values.max(initial=0))
            found, wanted = max(largest + 1, count), f"classes up to {largest}"
        if found != count:
            raise DataError(
                f"{whose} takes {count} classes, the data has {wanted}; give a generator for {found}, or data with "
                f"{count}"
            )
        return self.values if self.values.ndim == 2 else OneHot(self.values, count)


class OneHot:
    """Whole numbers ``[N]`` that read as float32 ``[N, count]``; only the rows asked for are made."""

    def __init__(self, values: np.ndarray, count: int) -> None:
        self.values, self.shape, self.dtype = values, (len(values), count), np.dtype(np.float32)

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: np.ndarray | slice) -> np.ndarray:
        return (self.values[rows][..., None] == np.arange(self.shape[1])).astype(np.float32)
