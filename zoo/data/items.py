"""Data that lies in files: what a kind hands over, and what becomes of it: an index, and perhaps decoded pictures.

class Mine:                                    # picklable: other processes read as well
    names = ("a", "b")
    def __len__(self): ...
    def stamp(self, index): ...                # stamp_of(files...)
    def read(self, index, note): ...           # (input, target), uint8 [H, W, C]; None: skipped as corrupt

found = stored(Mine(), reading, name="mine", what="folder 'x'")
Pairs(*found.sides, found.names, source)
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from gantailor.evaluators.pictures.reader import Notes, say, tell
from gantailor.supernet.errors import DataError
from gantailor.supernet.files import cache_path
from gantailor.zoo.data.fit import Reading
from gantailor.zoo.data.index import Index, Job, build, read_item
from gantailor.zoo.data.shards import Decoded, Layout, NoRoomError, Shards, Side

logger = logging.getLogger(__name__)
INDEX_VERSION = 1  # raise when old indices must not be read
AUTO_BYTES = 8 * 10**9
BARE = "-index"  # the end of a folder without pictures


class Items(Protocol):
    """Items in files; picklable, so that worker processes can read them."""

    @property
    def names(self) -> Sequence[str]:
        """One for each item, each once, in their order."""
        ...

    def __len__(self) -> int: ...

    def stamp(self, index: int) -> str:
        """Changes when the files of an item do, see ``stamp_of``."""
        ...

    def read(self, index: int, note: Notes) -> tuple[np.ndarray, ...] | None:
        """The sides of an item in their order, of one shape in all items; None where it is corrupt and skipped.

        Pictures are uint8 or uint16 ``[H, W, C]``; what has one dimension, a class or some numbers, stays in memory.
        ``note("16 bits, read as 8")`` counts what a file loses; ``Reading.reader(channels, note)`` does so.

        Raises:
            DataError: it cannot be read; the message names the file.
        """
        ...


def stamp_of(*files: Path) -> str:
    """Names, sizes and times of change.

    Raises:
        DataError: a file is not there.
    """
    try:
        found = [(file.name, file.stat()) for file in files]
    except OSError as failure:
        raise DataError(f"{failure.filename!r} cannot be read ({failure.strerror}); mend or remove it") from None
    return ",".join(f"{name}:{stat.st_size}:{stat.st_mtime_ns}" for name, stat in found)


@dataclass(frozen=True, eq=False)
class Stored:
    """Items that can be read.

    Attributes:
        sides: of all items, ``[N, H, W, C]`` by their rows, or arrays ``[N, d]``.
        names: of the items.
        total: how many there are with those that were skipped.
    """

    sides: tuple[Any, ...]
    names: tuple[str, ...]
    total: int


def stored(items: Items, reading: Reading, *, name: str, what: str, key: str) -> Stored:
    """The sides of items; the first time all are read, later only their files' sizes and times.

    Args:
        reading: whose ``key`` changes pixels, and which says what is kept on disk and how many processes read.
        name: of the kind, for the cache folder.
        what: the items are called in messages, ``folder 'x/train'``.
        key: where the items come from, and everything else that changes their pixels. What was kept of the same key
            when its files were others is removed.

    Raises:
        DataError: there are none, or none can be read; one cannot be read.
    """
    total, stamps = len(items), hashlib.sha256()
    for number, item in enumerate(items.names):
        stamps.update(f"{item}|{items.stamp(number)}|".encode())
    place = hashlib.sha256(f"{INDEX_VERSION}|{key}|{reading.key}".encode())
    index, folder = _found_or_built(items, reading, f"{name}-{place.hexdigest()[:16]}", stamps.hexdigest()[:16], what)
    if not len(index.rows):
        raise DataError(f"data {what}: none of its {total} pictures can be read")
    say(what, total, index.lost)
    shards = None if folder is None else Shards(folder, index.layout)
    decoded = Decoded(items, index.layout, shards)
    sides = [
        index.vectors[k] if k in index.vectors else Side(decoded, k, index.rows, index.digests[k])
        for k in range(len(index.layout.sides))
    ]
    names = items.names
    return Stored(tuple(sides), tuple(names[row] for row in index.rows.tolist()), total)


def _found_or_built(items: Items, reading: Reading, place: str, stamps: str, what: str) -> tuple[Index, Path | None]:
    """The index, and the folder of decoded pictures if there is one."""
    name = f"{place}-{stamps}"
    try:
        with _room():
            cache = cache_path()
            cache.mkdir(parents=True, exist_ok=True)
        if (found := _found(cache, name, reading)) is not None:
            return found
        layout = _layout(items, what)
        kept = _kept(reading, layout, cache)
        with _alone(cache, name, what):
            found = _found(cache, name, reading) or _built(items, layout, reading, cache, name, what, kept=kept)
        for former in cache.glob(f"{place}-*"):
            if not former.name.startswith(name):
                shutil.rmtree(former, ignore_errors=True)
        return found
    except NoRoomError as failure:
        tell(
            f"the cache folder cannot be used ({failure.strerror}), so pictures are decoded each time they are asked "
            "for; name another: GANTAILOR_CACHE=FOLDER"
        )
        return build(Job(items, _layout(items, what), None, what), reading.workers), None


def _found(cache: Path, name: str, reading: Reading) -> tuple[Index, Path | None] | None:
    """A whole index that suits the settings; what is damaged is removed."""
    indices = []
    for folder in (cache / name, cache / f"{name}{BARE}"):
        file = folder / "index.npz"
        if not file.is_file():
            continue
        index = Index.load(file)
        if index is None or (index.sizes and Shards(folder, index.layout).sizes() != index.sizes):
            logger.warning("cached pictures in %r are damaged; they are read again", str(folder))
            shutil.rmtree(folder, ignore_errors=True)
            continue
        if index.sizes and reading.cache != "off":
            return index, folder
        indices.append(index)
    if indices and not _kept(reading, indices[0].layout, cache):
        return indices[0], None
    return None


def _kept(reading: Reading, layout: Layout, cache: Path) -> bool:
    """Whether decoded pictures are to be kept on disk."""
    if not layout.pictures:
        return False
    if reading.cache == "auto":
        return layout.bytes < AUTO_BYTES and shutil.disk_usage(cache).free > 2 * layout.bytes
    return reading.cache == "on"


def _layout(items: Items, what: str) -> Layout:
    """As the first item that can be read has it."""
    for number in range(len(items)):
        if (sides := read_item(items, number, Notes())) is not None:
            return Layout.of(sides, len(items))
    raise DataError(f"data {what}: none of its {len(items)} pictures can be read")


def _built(
    items: Items, layout: Layout, reading: Reading, cache: Path, name: str, what: str, *, kept: bool
) -> tuple[Index, Path | None]:
    """Read everything into a folder that is there whole or not at all."""
    for left in cache.glob(f".{name}.*"):  # by a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    folder = cache / (name if kept else f"{name}{BARE}")
    with _room():
        scratch = Path(tempfile.mkdtemp(dir=cache, prefix=f".{name}."))
    try:
        shards = Shards(scratch, layout) if kept else None
        if shards is not None:
            shards.create()
        index = build(Job(items, layout, shards, what), reading.workers)
        with _room():
            index.save(scratch / "index.npz")
            if not folder.is_dir():  # else another process was quicker
                scratch.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return index, folder if kept else None


@contextmanager
def _alone(cache: Path, name: str, what: str) -> Iterator[None]:
    """No other process reads the same meanwhile; who comes later waits, and finds the index."""
    path = cache / f"{name}.lock"
    with _room():
        file = path.open("w")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.warning("another process reads %s; this one waits for it", what)
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:  # a file system without locks: both read, and the first one's index stays
            pass
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


@contextmanager
def _room() -> Iterator[None]:
    """What goes wrong with the cache folder is one kind of error, which stops nothing."""
    try:
        yield
    except OSError as failure:
        raise NoRoomError(failure.errno, failure.strerror or str(failure)) from None
