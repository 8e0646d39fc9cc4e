"""What a kind of data is: one record, found by its name or, one's own, as ``module:name``.

    def read(config, split):                       # config: data.path, data.shape, data.options, ...
        return Pairs(inputs, targets, names, source)

    MINE = DataKind(name="mine", read=read)        # data: {kind: mymodule:MINE}

``gantailor.zoo.conformance.DataKindConformance`` has the tests that a record must pass.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol, Self, TypeVar, cast

import numpy as np

from gantailor.evaluators.pictures.reader import tell
from gantailor.evaluators.scores import Pairs
from gantailor.supernet.errors import ConfigError, DataError
from gantailor.supernet.training.batches import PairSource
from gantailor.zoo.data.config import DataConfig
from gantailor.zoo.data.domains import Domains
from gantailor.zoo.data.pairs import Pairs as ArrayPairs

# The folders of a split, the first one that there is.
FOLDERS = {"train": ("train",), "search": ("search", "val", "train"), "test": ("test", "val")}
SHARES = {"train": 8, "search": 1, "test": 1}  # of pictures that several splits find
SPLIT_NAMES = tuple(dict.fromkeys(name for names in FOLDERS.values() for name in names))


@dataclass(frozen=True)
class PictureFiles:
    """Files of a folder, before any is read."""

    names: tuple[str, ...]
    files: tuple[Path, ...]
    source: str

    def __len__(self) -> int:
        return len(self.names)

    def take(self, rows: np.ndarray | slice) -> Self:
        """Those at some rows."""
        chosen = np.arange(len(self))[rows].tolist()
        return replace(self, names=tuple(self.names[k] for k in chosen), files=tuple(self.files[k] for k in chosen))


AllPairs = TypeVar("AllPairs", bound=ArrayPairs | PictureFiles)


class DataSet(PairSource, Pairs, Protocol):
    """What both training and scoring ask of a data set, and whether its targets belong to its inputs."""

    @property
    def paired(self) -> bool:
        """Whether a real picture belongs to each input."""
        ...


def no_check(config: DataConfig) -> None:
    """Every setting is allowed."""


def check_options(config: DataConfig) -> None:
    """That there are no settings for a kind of one's own.

    Raises:
        ConfigError: there are.
    """
    if config.options:
        raise ConfigError(
            f"data.options cannot be {config.options}: data.kind {config.kind} reads none; leave them out"
        )


def check_path(config: DataConfig) -> None:
    """That a folder is named, and nothing but what ours read.

    Raises:
        ConfigError: there are ``data.options``.
        DataError: ``data.path`` is missing.
    """
    check_options(config)
    if config.path is None:
        raise DataError(f"data.kind is {config.kind}, but data.path is missing; name a folder: --data.path FOLDER")


def split_folder(root: Path, split: str, *, suffix: str = "") -> Path:
    """The folder of a split that there is, ``<name><suffix>``; what it should be called where there is none."""
    names = [root / f"{name}{suffix}" for name in FOLDERS[split]]
    return next((folder for folder in names if folder.is_dir()), names[0])


def shared_out(pairs: AllPairs, config: DataConfig, split: str, place: Callable[[str], object]) -> AllPairs:
    """A split's part of pictures that other splits find too: no picture is trained on and scored unless that is said.

    By a hash of the names, so it is the same part on every machine and whatever was read before. What is shared out,
    and what a split reads of another, is told in a line.

    Args:
        place: from the name of a split to where its pictures lie; equal for splits that find the same.

    Raises:
        DataError: there are too few pictures, or ``data.split`` is ``folders``.
    """
    here = _resolved(place(split))
    sharing = [name for name in SHARES if _resolved(place(name)) == here]
    others = " and ".join(name for name in sharing if name != split)
    if not others:
        return pairs
    if config.split == "folders":
        raise DataError(
            f"{split} finds the same {len(pairs)} pictures as {others}; give folders for each (train, val, test), or "
            "set data.split hash, which holds some out by a hash of their names"
        )
    if config.split == "all" or (config.split == "auto" and "test" not in sharing):
        if split != "train":
            tell(f"{split} has no pictures of its own in {pairs.source!r}: it scores those of {others} (data.split)")
        return pairs
    rows = _part(pairs.names, sharing, split)
    tell(
        f"{split} has {len(rows)} of the {len(pairs)} pictures of {pairs.source!r}, which {others} would find too: "
        "held out by a hash of their names (data.split)"
    )
    source = f"{pairs.source}[{split}, {len(rows)} of {len(pairs)} by hash]"
    return cast(AllPairs, replace(pairs.take(rows), source=source))


def _resolved(place: object) -> object:
    """Where pictures lie in truth: ``test`` may be a link to ``train``."""
    if isinstance(place, tuple):
        return tuple(map(_resolved, place))
    return place.resolve() if isinstance(place, Path) else place


def _part(names: Sequence[str], sharing: Sequence[str], split: str) -> np.ndarray:
    """Rows of a split, in their order: the first of all by their hash are the test's, then come the search's."""
    least = 2 if len(names) >= 2 * len(sharing) else 1
    if len(names) < least * len(sharing):
        raise DataError(
            f"{len(names)} pictures cannot be shared out to {', '.join(sharing)}; give more, or set data.split all"
        )
    order = np.array(sorted(range(len(names)), key=lambda row: hashlib.sha256(names[row].encode()).digest()))
    total, begin = sum(SHARES[name] for name in sharing), 0
    for name in reversed(sharing):
        count = max(least, round(len(names) * SHARES[name] / total))
        end = len(names) if name == sharing[0] else begin + count
        if name == split:
            break
        begin = end
    return np.sort(order[begin:end])


@dataclass(frozen=True, kw_only=True)
class DataKind:
    """A kind of data.

    Attributes:
        name: as a configuration names it.
        read: the data set of (the ``data`` section, ``train``, ``search`` or ``test``): ``Pairs`` of uint8
            arrays, or one's own whose ``batch`` gives inputs as float ``[N, C, H, W]``, and targets in [-1, 1] or None.
        yields: what inputs are: ``pictures`` in [-1, 1], or ``labels``, one-hot maps of 0 and 1.
        domains: two unpaired sets of pictures for training (CycleGAN, MUNIT); None where there are none.
        licence: of the pictures, where the kind knows it; manifests of exports say it.
        check: raises a ``GantailorError`` about settings that cannot be; called before anything is read.
    """

    name: str
    read: Callable[[DataConfig, str], DataSet]
    yields: Literal["pictures", "labels"] = "pictures"
    domains: Callable[[DataConfig], Domains] | None = None
    licence: str | None = None
    check: Callable[[DataConfig], None] = no_check
