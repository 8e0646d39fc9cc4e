"""The index of items: which can be read, digests of their pixels, what they lose; made once, in several processes."""

from __future__ import annotations

import json
import multiprocessing
import signal
import sys
import threading
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gantailor.evaluators.pictures.reader import Notes
from gantailor.supernet.errors import DataError
from gantailor.supernet.training.loading import end_with_parent
from gantailor.zoo.data.shards import DIGEST_BYTES, Layout, Shards, digest_of

if TYPE_CHECKING:
    from gantailor.zoo.data.items import Items

CHUNK = 64  # items at once in a process
_listener: ContextVar[Callable[[int, int], None] | None] = ContextVar("listener", default=None)


@contextmanager
def telling(listener: Callable[[int, int], None]) -> Iterator[None]:
    """The listener hears (pictures read, all pictures) of what is read inside for the first time."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


@dataclass(frozen=True)
class Index:
    """What is known of items without reading them.

    Attributes:
        rows: numbers of those that can be read.
        digests: uint8 ``[sides, N, 16]`` of the pixels of each.
        vectors: sides that are no pictures, by their number, ``[N, d]``.
        lost: what pictures lose, with the number of files.
        sizes: bytes of the shards; none where nothing decoded is kept.
    """

    layout: Layout
    rows: np.ndarray
    digests: np.ndarray
    vectors: dict[int, np.ndarray]
    lost: dict[str, int]
    sizes: list[int] = field(default_factory=list)

    def save(self, file: Path) -> None:
        """Into an ``.npz``, whose parts carry checksums."""
        about = {"sides": self.layout.sides, "total": self.layout.total, "lost": self.lost, "sizes": self.sizes}
        arrays: dict[str, Any] = {f"vectors{side}": values for side, values in self.vectors.items()}
        text = np.frombuffer(json.dumps(about).encode(), np.uint8)
        np.savez(file, about=text, rows=self.rows, digests=self.digests, **arrays)

    @classmethod
    def load(cls, file: Path) -> Index | None:
        """What ``save`` wrote; None where it is damaged."""
        try:
            with np.load(file, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
            about = json.loads(arrays.pop("about").tobytes())
            layout = Layout(tuple((kind, tuple(shape)) for kind, shape in about["sides"]), about["total"])
            rows, digests = arrays.pop("rows"), arrays.pop("digests")
            vectors = {int(name.removeprefix("vectors")): values for name, values in arrays.items()}
            return cls(layout, rows, digests, vectors, about["lost"], about["sizes"])
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error):
            return None


@dataclass
class _Chunk:
    """What was found of some items."""

    rows: list[int] = field(default_factory=list)
    digests: list[list[bytes]] = field(default_factory=list)
    vectors: list[list[np.ndarray]] = field(default_factory=list)
    notes: Notes = field(default_factory=Notes)


@dataclass(frozen=True)
class Job:
    """What each process has to read, and where it puts the pixels."""

    items: Items
    layout: Layout
    shards: Shards | None
    what: str

    def read(self, start: int) -> _Chunk:
        """The items of a chunk.

        Raises:
            DataError: one cannot be read, or is of another shape than the others.
            NoRoomError: the disk is full.
        """
        found = _Chunk()
        vectors = [k for k in range(len(self.layout.sides)) if k not in self.layout.pictures]
        for number in range(start, min(start + CHUNK, self.layout.total)):
            sides = read_item(self.items, number, found.notes)
            if sides is None:
                continue
            if (layout := Layout.of(sides, self.layout.total)) != self.layout:
                raise DataError(
                    f"{self.what}: {self.items.names[number]!r} is {layout}, those before {self.layout}; "
                    "all must be alike"
                )
            if self.shards is not None:
                self.shards.write(number, sides)
            found.rows.append(number)
            found.digests.append([digest_of(side) for side in sides])
            found.vectors.append([sides[k] for k in vectors])
        return found


def read_item(items: Items, number: int, notes: Notes) -> tuple[np.ndarray, ...] | None:
    """The sides of an item; one that is skipped is noted, if not by its files."""
    own = Notes()
    sides = items.read(number, own)
    if sides is None and not own.skipped:
        own.skipped.append(items.names[number])
    notes.add(Notes(Counter(own.lost.keys()), own.skipped))  # an item of two files that lose the same is one item
    return sides


def build(job: Job, workers: int) -> Index:
    """Read everything once.

    Raises:
        DataError: as ``Job.read``; a process died.
        NoRoomError: the disk is full.
    """
    total, listener = job.layout.total, _listener.get()
    chunks: list[_Chunk] = []
    for chunk in _chunks(job, range(0, total, CHUNK), workers):
        chunks.append(chunk)
        if listener is not None:
            listener(min(len(chunks) * CHUNK, total), total)
    notes = Notes()
    for chunk in chunks:
        notes.add(chunk.notes)
    rows = [row for chunk in chunks for row in chunk.rows]
    joined = b"".join(digest for chunk in chunks for digests in chunk.digests for digest in digests)
    digests = np.frombuffer(joined, np.uint8).reshape(len(rows), len(job.layout.sides), DIGEST_BYTES)
    sides = [side for side in range(len(job.layout.sides)) if side not in job.layout.pictures]
    every = [vectors for chunk in chunks for vectors in chunk.vectors]
    vectors = {side: np.stack([found[place] for found in every]) for place, side in enumerate(sides)}
    sizes = [] if job.shards is None else job.shards.sizes()
    digests = np.ascontiguousarray(digests.swapaxes(0, 1))
    return Index(job.layout, np.array(rows, np.int64), digests, vectors, notes.summary(), sizes)


_job: Job | None = None  # of a process that reads


def _begin(job: Job) -> None:
    global _job  # noqa: PLW0603
    _job = job
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the process that waits, which ends these
    threading.Thread(target=end_with_parent, daemon=True).start()


def _read(start: int) -> _Chunk:
    assert _job is not None
    return _job.read(start)


def _chunks(job: Job, starts: range, workers: int) -> Iterator[_Chunk]:
    """In the order of the items, so that the first mistake is told whatever the number of processes."""
    workers = min(workers, len(starts) - 1)
    if workers < 1:
        yield from map(job.read, starts)
        return
    # a forked process starts quickly, and asks nothing of the user's main module
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else None)
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=(job,)) as pool:
        futures: list[Future[_Chunk]] = [pool.submit(_read, start) for start in starts]
        try:
            for future in futures:
                yield future.result()
        except BrokenProcessPool:
            raise DataError(
                f"{job.what}: a process that read pictures was killed, perhaps for want of memory; set data.workers "
                f"below {workers}, or 0"
            ) from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
