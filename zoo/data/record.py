"""What a kind of data is: one record, found by its name or, one's own, as ``module:name``.

    def read(config, split):                       # config: data.path, data.shape, data.options, ...
        return Pairs(inputs, targets, names, source)

    MINE = DataKind(name="mine", read=read)        # data: {kind: mymodule:MINE}

``gantailor.zoo.conformance.DataKindConformance`` has the tests that a record must pass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from gantailor.evaluators.scores import Pairs
from gantailor.supernet.errors import ConfigError, DataError
from gantailor.supernet.training.batches import PairSource
from gantailor.zoo.data.config import DataConfig
from gantailor.zoo.data.domains import Domains

# The folders of a split, the first one that there is.
FOLDERS = {"train": ("train",), "search": ("search", "val", "train"), "test": ("test", "val")}
SPLIT_NAMES = tuple(dict.fromkeys(name for names in FOLDERS.values() for name in names))


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


@dataclass(frozen=True, kw_only=True)
class DataKind:
    """A kind of data.

    Attributes:
        name: as a configuration names it.
        read: the data set of (the ``data`` section, ``train``, ``search`` or ``test``): ``Pairs`` of uint8
            arrays, or one's own whose ``batch`` gives inputs as float ``[N, C, H, W]``, and targets in [-1, 1] or None.
        yields: what inputs are: ``pictures`` in [-1, 1], or ``labels``, one-hot maps of 0 and 1.
        domains: two unpaired sets of pictures for training (CycleGAN, MUNIT); None where there are none.
        check: raises a ``GantailorError`` about settings that cannot be; called before anything is read.
    """

    name: str
    read: Callable[[DataConfig, str], DataSet]
    yields: Literal["pictures", "labels"] = "pictures"
    domains: Callable[[DataConfig], Domains] | None = None
    check: Callable[[DataConfig], None] = no_check
