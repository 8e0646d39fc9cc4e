"""Vectors beside pictures: what a generator with several inputs takes and a data set does not hold as such."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from gantailor.supernet.calling import Inputs, as_tuple
from gantailor.supernet.errors import DataError
from gantailor.supernet.traits import Traits
from gantailor.zoo.data.class_labels import ClassLabels, OneHot
from gantailor.zoo.data.record import DataSet

Shape = tuple[int, ...]


class Vectors(Protocol):
    """float32 ``[N, d]``, of which rows are read; ``key`` changes when the numbers do."""

    @property
    def key(self) -> str: ...

    def __getitem__(self, rows: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True, eq=False)
class Normal:
    """Latents, normally distributed: one for each item, the same whenever it is read."""

    count: int
    width: int
    seed: tuple[int, ...]

    @property
    def key(self) -> str:
        """What they are drawn from."""
        return f"normal{self.width}-{'-'.join(map(str, self.seed))}"

    @cached_property
    def _every(self) -> np.ndarray:
        return np.random.default_rng(self.seed).standard_normal((self.count, self.width), dtype=np.float32)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        found: np.ndarray = self._every[rows]
        return found


@dataclass(frozen=True, eq=False)
class WithVectors:
    """A data set with latents or classes among its inputs.

    Args:
        data: the pictures.
        order: for each input of the generator, in the order of its forward, the position of one of the data's own
            inputs, or vectors.
    """

    data: DataSet
    order: tuple[int | Vectors, ...]

    def __len__(self) -> int:
        return len(self.data)

    @property
    def paired(self) -> bool:
        """Whether a real picture belongs to each input."""
        return self.data.paired

    @property
    def source(self) -> str:
        """The pictures', and what is beside them."""
        return f"{self.data.source}, {' and '.join(one.key for one in self.order if not isinstance(one, int))}"

    @property
    def drawn(self) -> Mapping[int, int]:
        """Which inputs are latents, and of how many numbers: those that training draws anew at each step."""
        return {number: one.width for number, one in enumerate(self.order) if isinstance(one, Normal)}

    def told(self, names: Sequence[str]) -> str:
        """What stands in for the inputs of these names that the data does not hold, for the user."""
        said = {
            Normal: "a latent, drawn anew at each step of a training, and one for each picture where it is scored",
            OneHot: "the class of each picture",
        }
        parts = [
            f"{name} is {said[type(one)]}" for name, one in zip(names, self.order, strict=True) if type(one) in said
        ]
        return f"the generator takes {', '.join(names)}; {'; '.join(parts)}"

    @property
    def size(self) -> Any:
        """Height and width of the pictures, where the data set says it."""
        return getattr(self.data, "size", None)

    @property
    def crop(self) -> Any:
        """Height and width of the parts that are trained on, if there are such."""
        return getattr(self.data, "crop", None)

    def batch(self, indices: np.ndarray, *, moves: Sequence[Any] | None = None) -> tuple[Inputs, Tensor | None]:
        """Every input, and the targets; the latents are those of the items."""
        given, targets = self.data.batch(indices, moves=moves)
        own, rows = as_tuple(given), np.asarray(indices)
        return tuple(own[one] if isinstance(one, int) else torch.from_numpy(one[rows]) for one in self.order), targets

    def digest(self) -> str:
        """Changes with the pictures and with the vectors."""
        return "-".join([self.data.digest(), *(one.key for one in self.order if not isinstance(one, int))])


def fitted_to(data: DataSet, traits: Traits, seed: int, *, labels: ClassLabels | None = None) -> DataSet:
    """The data set with every input that a generator declares.

    What the generator takes in the order of its forward is taken from the data's inputs in their order. A vector that
    they lack is the class of the item, one-hot, where there are ``labels``, else a latent:
    normally distributed, the same for an item of a split, and drawn anew at each step of a training.

    Args:
        seed: of the latents: the number of the split.

    Raises:
        DataError: there are more or fewer inputs than the generator takes, or others; one line names both.
    """
    wanted = traits.input_shapes
    if not wanted or not len(data):
        return data
    given = as_tuple(data.batch(np.arange(1))[0])
    found: list[Shape] = [tuple(one.shape[1:]) for one in given]
    if len(wanted) == len(found) == 1:
        return data
    order: list[int | Vectors | None] = []
    taken = 0
    for shape in wanted:
        if taken < len(found) and _same_kind(shape, found[taken]):
            order.append(taken)
            taken += 1
        elif len(shape) == 1:
            order.append(None)
        else:
            raise _misfit(wanted, found)
    if taken < len(found):
        raise _misfit(wanted, found)
    if None not in order:
        return data
    return WithVectors(data, _filled(order, wanted, len(data), seed, labels))


def _filled(
    order: Sequence[int | Vectors | None],
    wanted: Sequence[Shape],
    count: int,
    seed: int,
    labels: ClassLabels | None,
) -> tuple[int | Vectors, ...]:
    """The order with classes and latents in its gaps; classes where their number is the vector's, or in the first."""
    gaps = [number for number, one in enumerate(order) if one is None]
    filled: dict[int, Vectors] = {}
    if labels is not None:
        place = next((number for number in gaps if wanted[number] == (labels.count,)), gaps[0])
        gaps.remove(place)
        filled = {place: labels.vectors(wanted[place][0])}
    filled |= {number: Normal(count, wanted[number][0], (seed, number)) for number in gaps}
    return tuple(filled[number] if one is None else one for number, one in enumerate(order))


def _same_kind(wanted: Shape, found: Shape) -> bool:
    """Both vectors of one length, or both pictures with as many channels; sizes are the data's to say."""
    return len(wanted) == len(found) and wanted[0] == found[0]


def _misfit(wanted: Sequence[Shape], found: Sequence[Shape]) -> DataError:
    return DataError(
        f"the generator takes {_told(wanted)}, the data has {_told(found)}; give data with the same inputs in the same "
        "order (latents may be missing), or another generator"
    )


def _told(shapes: Sequence[Shape]) -> str:
    """``2 inputs, 3x64x64 and 8 numbers``."""
    each = [f"{shape[0]} numbers" if len(shape) == 1 else "x".join(map(str, shape)) for shape in shapes]
    return f"{len(shapes)} input{'s' * (len(shapes) > 1)}, {' and '.join(each)}"
