"""Pictures of items by their rows: decoded when asked for, or read piece by piece from files of decoded ones.

Shards are read and not mapped: what is read often lies in the system's page cache, and not in this process's memory.
"""

from __future__ import annotations

import hashlib
import logging
import os
from dataclasses import dataclass, field
from functools import cached_property
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gantailor.evaluators.pictures.reader import Notes
from gantailor.supernet.errors import DataError

if TYPE_CHECKING:
    from gantailor.zoo.data.items import Items

logger = logging.getLogger(__name__)
SHARD_BYTES = 128 * 2**20
OPEN_FILES = 256
MEMO_BYTES = 64 * 2**20


DIGEST_BYTES = 16


def digest_of(values: np.ndarray) -> bytes:
    """Of one side of an item."""
    return hashlib.sha256(values.tobytes()).digest()[:DIGEST_BYTES]


class NoRoomError(OSError):
    """A shard cannot be written."""


@dataclass(frozen=True)
class Layout:
    """What an item is: ``(dtype, shape)`` of each side, pictures ``[H, W, C]`` and vectors ``[d]``; and how many."""

    sides: tuple[tuple[str, tuple[int, ...]], ...]
    total: int

    def __str__(self) -> str:
        return " and ".join(f"{np.dtype(kind)} {list(shape)}" for kind, shape in self.sides)

    @classmethod
    def of(cls, sides: tuple[np.ndarray, ...], total: int) -> Layout:
        """As that of one item."""
        return cls(tuple((side.dtype.str, side.shape) for side in sides), total)

    @property
    def pictures(self) -> tuple[int, ...]:
        """Which sides are pictures; the others lie in the index."""
        return tuple(number for number, (_, shape) in enumerate(self.sides) if len(shape) == 3)

    @cached_property
    def record(self) -> np.dtype[Any]:
        """The pictures of an item, one behind the other."""
        return np.dtype([(str(k), np.dtype(self.sides[k][0]), self.sides[k][1]) for k in self.pictures])

    @property
    def per_shard(self) -> int:
        """Items in a shard."""
        return max(1, SHARD_BYTES // self.record.itemsize)

    @property
    def bytes(self) -> int:
        """Of all pictures."""
        return self.total * self.record.itemsize


class Shards:
    """Decoded pictures in ``.npy`` files of records, an item at the place of its number; what is skipped is a gap."""

    def __init__(self, folder: Path, layout: Layout) -> None:
        self.folder, self.layout = folder, layout
        self._files: dict[int, tuple[FileIO, int]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_files": {}}

    def _path(self, shard: int) -> Path:
        return self.folder / f"{shard:05d}.npy"

    def create(self) -> None:
        """Empty files, which take no room until they are written.

        Raises:
            NoRoomError: they cannot be made.
        """
        for shard, start in enumerate(range(0, self.layout.total, self.layout.per_shard)):
            count = min(self.layout.per_shard, self.layout.total - start)
            try:
                with self._path(shard).open("wb") as file:
                    header = {"descr": self.layout.record.descr, "fortran_order": False, "shape": (count,)}
                    np.lib.format.write_array_header_1_0(file, header)
                    file.truncate(file.tell() + count * self.layout.record.itemsize)
            except OSError as failure:
                raise NoRoomError(failure.errno, failure.strerror) from None

    def sizes(self) -> list[int]:
        """Bytes of each file; those that are missing end the list."""
        count = -(-self.layout.total // self.layout.per_shard)
        paths = [self._path(shard) for shard in range(count)]
        return [path.stat().st_size for path in paths if path.is_file()]

    def _opened(self, item: int, mode: str) -> tuple[FileIO, int]:
        """The file of an item, and where it begins in it; several threads may ask at once."""
        shard, place = divmod(item, self.layout.per_shard)
        found = self._files.get(shard)
        if found is None:
            file = FileIO(self._path(shard), mode)
            np.lib.format.read_magic(file)
            np.lib.format.read_array_header_1_0(file)
            found = self._files[shard] = file, file.tell()
            for oldest in list(self._files)[:-OPEN_FILES]:  # closed when nobody reads it any more
                self._files.pop(oldest, None)
        return found[0], found[1] + place * self.layout.record.itemsize

    def write(self, item: int, sides: tuple[np.ndarray, ...]) -> None:
        """Keep the pictures of an item.

        Raises:
            NoRoomError: the disk is full.
        """
        content = b"".join(np.ascontiguousarray(sides[k]).tobytes() for k in self.layout.pictures)
        try:
            file, place = self._opened(item, "r+")
            if os.pwrite(file.fileno(), content, place) < len(content):
                raise OSError("no space left")
        except OSError as failure:
            raise NoRoomError(failure.errno, failure.strerror or str(failure)) from None

    def read(self, side: int, items: np.ndarray) -> np.ndarray:
        """One side of some items.

        Raises:
            OSError, ValueError: a file is missing or too short.
        """
        kind, offset = self.layout.record.fields[str(side)][:2]  # type: ignore[index]
        found = np.empty((len(items), *kind.shape), kind.base)
        into = found.reshape(len(items), -1).view(np.uint8)
        for row, item in enumerate(items.tolist()):
            file, place = self._opened(item, "r")
            if os.preadv(file.fileno(), [into[row]], place + offset) < kind.itemsize:
                raise OSError(f"{self._path(item // self.layout.per_shard)} is too short")
        return found


@dataclass(eq=False)
class Decoded:
    """Pictures from shards, if there are any, else from the items' files, of which the last ones are remembered."""

    items: Items
    layout: Layout
    shards: Shards | None
    _last: dict[int, tuple[np.ndarray, ...]] = field(default_factory=dict, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_last": {}}

    def read(self, side: int, items: np.ndarray) -> np.ndarray:
        """One side of some items, ``[n, H, W, C]``.

        Raises:
            DataError: an item cannot be read any more, or is another than it was.
        """
        if self.shards is not None:
            try:
                return self.shards.read(side, items)
            except (OSError, ValueError) as failure:
                logger.warning("decoded pictures cannot be read (%s); they are decoded again from here on", failure)
                self.shards = None
        last = self._last
        found: dict[int, tuple[np.ndarray, ...]] = {}
        for item in items.tolist():
            if item not in found:
                found[item] = last[item] if item in last else self._decode(item)
        # one batch has several sides, asked for one after the other
        self._last = found if len(found) * self.layout.record.itemsize <= MEMO_BYTES else {}
        kind, shape = self.layout.sides[side]
        pictures = np.empty((len(items), *shape), kind)
        for row, item in enumerate(items.tolist()):
            pictures[row] = found[item][side]
        return pictures

    def _decode(self, item: int) -> tuple[np.ndarray, ...]:
        sides = self.items.read(item, Notes())
        if sides is None or Layout.of(sides, self.layout.total) != self.layout:
            raise DataError(f"{self.items.names[item]!r} is another than when this began; start again")
        return sides


class Side:
    """One side of stored items, ``[N, H, W, C]``, by its rows; nothing is read before.

    Args:
        rows: numbers of the items.
        digests: uint8 ``[N, 16]`` of the pixels.
    """

    def __init__(self, decoded: Decoded, side: int, rows: np.ndarray, digests: np.ndarray) -> None:
        self.decoded, self.side, self.rows, self.digests = decoded, side, rows, digests
        kind, shape = decoded.layout.sides[side]
        self.shape, self.dtype = (len(rows), *shape), np.dtype(kind)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: Any) -> Any:
        """As numpy's; what comes behind the first index is done to what was read."""
        if isinstance(rows, tuple):
            if rows[0] is Ellipsis:
                return self[:][rows]
            read = self[rows[0]]
            return read[rows[1:]] if isinstance(rows[0], int | np.integer) else read[(slice(None), *rows[1:])]
        chosen = self.rows[rows]
        if chosen.ndim == 0:
            return self.decoded.read(self.side, chosen[None])[0]
        return self.decoded.read(self.side, chosen)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype)

    def some(self, rows: np.ndarray | slice) -> Side:
        """These rows, unread."""
        return Side(self.decoded, self.side, self.rows[rows], self.digests[rows])

    def digest(self) -> bytes:
        """Changes with every pixel."""
        return hashlib.sha256(f"{self.shape}{self.dtype}".encode() + self.digests.tobytes()).digest()
