"""Large pictures in files: cut into tiles of one size for training, whole for scores."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from gantailor.evaluators.pictures.modes import ORIENTATION
from gantailor.evaluators.pictures.reader import Notes
from gantailor.supernet.errors import DataError
from gantailor.supernet.training.batches import Move
from gantailor.zoo.data.fit import Reading
from gantailor.zoo.data.items import stamp_of
from gantailor.zoo.data.pairs import Pairs
from gantailor.zoo.data.pictures import to_float
from gantailor.zoo.data.record import PictureFiles
from gantailor.zoo.data.super_resolution.shrinking import Shrinking

MEMO_BYTES = 256 * 2**20  # of decoded whole pictures
_TURNED = (5, 6, 7, 8)  # orientations of EXIF that exchange height and width


def size_of(file: Path) -> tuple[int, int]:
    """Height and width as the reader gives them, from the header; (0, 0) where that cannot be read."""
    try:
        with Image.open(file) as image:
            width, height = image.size
            return (width, height) if image.getexif().get(ORIENTATION) in _TURNED else (height, width)
    except Exception:  # decoders of broken files raise SyntaxError, struct.error, IndexError, ...
        return 0, 0


def starts(side: int, tile: int, scale: int) -> list[int]:
    """Where tiles begin that cover a side, evenly, at multiples of the scale; none where it is smaller.

    >>> starts(1000, 400, 4)
    [0, 300, 600]
    """
    if side < tile:
        return []
    count = -(-side // tile)
    room = (side - tile) // scale
    return [round(room * k / max(1, count - 1)) * scale for k in range(count)] if room else [0]


@dataclass(frozen=True, eq=False)
class Tiles:
    """Items of ``stored``: (small, large) parts of one size; the picture is made small before it is cut.

    Args:
        places: for each tile the number of its file, and where it begins in the large picture.
        reading: whose size is that of the small parts.
    """

    found: PictureFiles
    places: tuple[tuple[int, int, int], ...]
    reading: Reading
    shrinking: Shrinking
    _last: dict[int, tuple[np.ndarray, np.ndarray] | None] = field(default_factory=dict, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_last": {}}

    @classmethod
    def of(cls, found: PictureFiles, reading: Reading, shrinking: Shrinking) -> Tiles:
        """Tiles that cover every picture.

        Raises:
            DataError: all pictures are smaller than one.
        """
        large, places = [side * shrinking.scale for side in reading.shape], []
        for number, file in enumerate(found.files):
            height, width = size_of(file)
            if not height:
                reading.reader(reading.channels_of(1), Notes()).read(file)  # which says what is wrong
                continue
            tops, lefts = (starts(*sides, shrinking.scale) for sides in zip((height, width), large, strict=True))
            places += [(number, top, left) for top in tops for left in lefts]
        if not places:
            raise DataError(
                f"no picture of {found.source!r} is as large as {' x '.join(map(str, large))}, {shrinking.scale} times "
                f"the inputs' {' x '.join(map(str, reading.shape))}; lower data.size (data.load), or give larger ones"
            )
        return cls(found, tuple(places), reading, shrinking)

    @property
    def used(self) -> int:
        """How many pictures have a tile."""
        return len({number for number, _, _ in self.places})

    @property
    def names(self) -> tuple[str, ...]:
        """The file's, and where the tile begins."""
        return tuple(f"{self.found.names[number]}[{top},{left}]" for number, top, left in self.places)

    def __len__(self) -> int:
        return len(self.places)

    def stamp(self, index: int) -> str:
        """Of the file."""
        return stamp_of(self.found.files[self.places[index][0]])

    def read(self, index: int, note: Notes) -> tuple[np.ndarray, ...] | None:
        """The small and the large part."""
        number, top, left = self.places[index]
        if number not in self._last:  # the tiles of a picture come one after the other
            self._last.clear()
            self._last[number] = read_both(self.found.files[number], self.reading, self.shrinking, note)
        both = self._last[number]
        if both is None:
            return None
        (height, width), scale = self.reading.shape, self.shrinking.scale
        small, large = both[0][top // scale :, left // scale :], both[1][top:, left:]
        return small[:height, :width].copy(), large[: height * scale, : width * scale].copy()


def read_both(
    file: Path, reading: Reading, shrinking: Shrinking, note: Notes, multiple: int = 1
) -> tuple[np.ndarray, np.ndarray] | None:
    """The small and the large picture, cut on the right and below to multiples of the scale; None: skipped."""
    large = reading.reader(reading.channels_of(1), note).read(file)
    if large is None:
        return None
    unit = shrinking.scale * multiple
    large = np.ascontiguousarray(large[: large.shape[0] // unit * unit, : large.shape[1] // unit * unit])
    if not large.size:
        raise DataError(f"{file.name!r} is smaller than {unit} pixels; leave it out, or give a larger one")
    return shrinking.plain(large), large


@dataclass(frozen=True)
class Degraded(Pairs):
    """Pairs whose small pictures are made when they are asked for, each by a seed.

    ``inputs`` are the bicubic ones, which tell the size; without seeds each picture has one of its own.
    """

    shrinking: Shrinking = field(kw_only=True)

    @property
    def degrades(self) -> bool:
        """Whether ``batch`` takes ``chances``, a seed for each picture: other ones at each step of a training."""
        return True

    def batch(
        self,
        indices: np.ndarray,
        *,
        moves: Sequence[Move] | None = None,
        chances: Sequence[int] | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Inputs and targets in [-1, 1]; what is made small is the part that is kept."""
        assert self.targets is not None
        large = self.moved(self.targets[indices], moves)
        seeds = [(0, int(row)) for row in indices] if chances is None else [(1, int(chance)) for chance in chances]
        small = np.stack([self.shrinking(one, seed) for one, seed in zip(large, seeds, strict=True)])
        return to_float(small), to_float(large)

    @cached_property
    def _digest(self) -> str:
        return hashlib.sha256(f"{super()._digest}|{self.shrinking.key}".encode()).hexdigest()[:12]


@dataclass(frozen=True, eq=False)
class WholePictures:
    """Pictures of any sizes, each with its small one, for scores: ``whole``. ``batch`` has their middles, to show.

    Args:
        multiple: sides of inputs are cut to multiples of it.
        seed: of the degradation, with the picture's number.
    """

    found: PictureFiles
    reading: Reading
    shrinking: Shrinking
    seed: int
    multiple: int = 1
    _memo: dict[int, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_memo": {}}

    def __len__(self) -> int:
        return len(self.found)

    @property
    def paired(self) -> bool:
        """The large picture belongs to the small one."""
        return True

    @property
    def names(self) -> tuple[str, ...]:
        """Of the files."""
        return self.found.names

    @property
    def source(self) -> str:
        """The folder, and how its pictures are made small."""
        return f"{self.found.source}/{self.shrinking.degradation} whole"

    def _read(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        if row not in self._memo:
            file, number = self.found.files[row], row
            both = read_both(file, self.reading, self.shrinking, Notes(), self.multiple)
            if both is None:
                raise DataError(f"{file.name!r} cannot be read; mend or remove it")
            if self.shrinking.random:
                both = self.shrinking(both[1], (2, self.seed, number)), both[1]
            if sum(side.nbytes for pair in self._memo.values() for side in pair) > MEMO_BYTES:
                self._memo.clear()
            self._memo[row] = both
        return self._memo[row]

    def whole(self, row: int) -> tuple[Tensor, Tensor]:
        """Input ``[1, C, h, w]`` and target ``[1, C, H, W]`` of a picture at its own size, in [-1, 1]."""
        small, large = self._read(int(row))
        return to_float(small[None]), to_float(large[None])

    def batch(self, indices: np.ndarray, *, moves: Sequence[Move] | None = None) -> tuple[Tensor, Tensor | None]:
        """The middles of pictures, inputs of ``data.size``; edges are repeated where they are smaller."""
        (height, width), scale = self.reading.shape, self.shrinking.scale
        both = [[], []]  # type: list[list[np.ndarray]]
        for row in indices:
            small, large = self._read(int(row))
            corner = [(have - want) // 2 for have, want in zip(small.shape, (height, width), strict=False)]
            both[0].append(_part(small, corner, (height, width)))
            both[1].append(_part(large, [scale * side for side in corner], (scale * height, scale * width)))
        return to_float(np.stack(both[0])), to_float(np.stack(both[1]))

    def digest(self) -> str:
        """Of the files' contents, and of what makes them small."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        sha = hashlib.sha256(f"{self.shrinking.key}|{self.seed}|{self.multiple}|{self.reading.key}".encode())
        for file in self.found.files:
            sha.update(hashlib.sha256(file.read_bytes()).digest())
        return sha.hexdigest()[:12]


def _part(picture: np.ndarray, corner: Sequence[int], size: tuple[int, int]) -> np.ndarray:
    rows, columns = (
        np.clip(np.arange(begin, begin + length), 0, side - 1)
        for begin, length, side in zip(corner, size, picture.shape, strict=False)
    )
    return picture[rows[:, None], columns]
