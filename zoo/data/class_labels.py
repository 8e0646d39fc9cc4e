"""Classes of pictures, and what a generator that takes them is given: one-hot vectors."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

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
            alone, of which the generator's largest need not occur.
        largest: number in any split, where that is known.
    """

    values: Rows
    names: tuple[str, ...] = ()
    largest: int | None = None

    @classmethod
    def of(cls, labels: Sequence[str | int], every: Sequence[str | int]) -> ClassLabels:
        """Of labels as files have them: numbers where all are; else names, numbered in the order of the alphabet.

        Args:
            every: the labels of all splits.
        """
        numbered = [label for label in every if isinstance(label, int)]
        if len(numbered) == len(every):
            return cls(np.array(labels, np.int64), largest=max(numbered))
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

    @property
    def count(self) -> int | None:
        """How many classes there are, or numbers in a vector; None where that is known when all were read."""
        if self.values.dtype.kind == "f":
            return int(self.values.shape[1])
        if self.names:
            return len(self.names)
        largest = (
            int(self.values.max()) if self.largest is None and isinstance(self.values, np.ndarray) else self.largest
        )
        return None if largest is None else largest + 1

    def vectors(self, width: int) -> OneHot:
        """float32 ``[N, width]`` for a generator that takes so many numbers.

        Raises:
            DataError: there are more classes, named ones are fewer, or vectors have another length.
        """
        known, vectors = self.count, self.values.dtype.kind == "f"
        if known is not None and (known != width if vectors or self.names else known > width):
            told = f"vectors of {known}" if vectors else f"{known} classes"
            named = f" ({', '.join(self.names[:3])}{', ...' if len(self.names) > 3 else ''})" if self.names else ""
            raise DataError(
                f"the generator takes {width} classes, the data has {told}{named}; give a generator for {known}, or "
                f"data of {width}"
            )
        return OneHot(self.values, width)


@dataclass(frozen=True, eq=False)
class OneHot:
    """Classes ``[N]`` from 0 as vectors of 0 and one 1, made when they are asked for; vectors as they are."""

    values: Rows
    width: int

    @cached_property
    def key(self) -> str:
        """A hash of the classes."""
        if isinstance(self.values, Side):
            return f"classes{self.width}-{self.values.digest().hex()[:8]}"
        return f"classes{self.width}-{hashlib.sha256(np.ascontiguousarray(self.values).tobytes()).hexdigest()[:8]}"

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        found = np.asarray(self.values[rows])
        if found.dtype.kind == "f":
            return found
        numbers = found.reshape(-1)
        if numbers.max(initial=0) >= self.width:
            raise DataError(f"class {numbers.max()} is in the data, the generator takes 0 to {self.width - 1}")
        hot: np.ndarray = numbers[:, None] == np.arange(self.width)
        return hot.astype(np.float32)
