"""Reads the data of a configuration: a split for a generator, or two domains."""

from __future__ import annotations

import traceback
from dataclasses import replace

from gantailor.supernet.errors import ConfigError, DataError, GantailorError, nearest
from gantailor.supernet.plugins import find
from gantailor.supernet.traits import Traits
from gantailor.zoo.data import DATA_KINDS, SPLITS
from gantailor.zoo.data.config import DataConfig
from gantailor.zoo.data.domains import NEEDS_TWO, Domains
from gantailor.zoo.data.kinds.dataset import GIVEN, dataset_kind, given
from gantailor.zoo.data.latents import Latents
from gantailor.zoo.data.pairs import Pairs
from gantailor.zoo.data.record import DataKind, DataSet


def read_split(config: DataConfig, split: str, traits: Traits | None = None) -> DataSet:
    """One split, train, search or test: what the generator takes, and real pictures.

    A generator that takes latents gets other ones in each split, beside the real pictures that it was trained on.

    Args:
        traits: of the generator; without them the pictures as they lie on disk.

    Raises:
        ConfigError: unknown kind, or a generator that makes pictures of another size.
        DataError: the data cannot be read, or there is no such split.
    """
    if split not in SPLITS:
        raise DataError(f"split {split!r} is unknown: {nearest(split, SPLITS)}")
    kind = _checked(config)
    if traits is None or traits.takes != "latents":
        return with_classes(_read(kind, config, split), traits)
    if traits.size not in (None, config.size):
        raise ConfigError(f"the generator makes {traits.size} px, data.size is {config.size}; make them the same")
    return Latents.of(_read(kind, config, "train"), traits.input_shapes[0][0], seed=SPLITS.index(split), name=split)


def with_classes(data: DataSet, traits: Traits | None) -> DataSet:
    """The data set with one-hot classes as its last input, if the generator takes them: the one input that is missing.

    A generator that takes no classes gets none.

    Raises:
        DataError: the generator takes another number of classes.
    """
    if not isinstance(data, Pairs) or data.class_labels is None or traits is None:
        return data
    missing = traits.input_shapes[1 + len(data.more) :]
    if len(missing) != 1 or len(missing[0]) != 1:
        return data
    return replace(data, more=(*data.more, data.class_labels.vectors(missing[0][0], "the generator")))


def find_kind(name: str) -> DataKind:
    """The record of a built-in, or one's own as ``module:name``; a torch Dataset may stand for one.

    Raises:
        ConfigError: an unknown name (the nearest are shown), or what it names is neither.
        DataError: it was given from Python, to another process.
    """
    found = given(name) if name.startswith(f"{GIVEN}:") else find(name, DATA_KINDS, "data kind")
    return found if isinstance(found, DataKind) else dataset_kind(name, found)


def _read(kind: DataKind, config: DataConfig, split: str) -> DataSet:
    """A split as its kind reads it; what a kind of one's own raises is told with its place."""
    try:
        return kind.read(config, split)
    except GantailorError:
        raise
    except Exception as error:
        if ":" not in config.kind:
            raise
        place = traceback.extract_tb(error.__traceback__)[-1]
        raise DataError(
            f"data kind {config.kind!r} failed at {split} with {error!r} in {place.filename}, line {place.lineno}"
        ) from error


def read_domains(config: DataConfig) -> Domains:
    """Two unpaired sets of pictures, for a CycleGAN or MUNIT teacher.

    Raises:
        DataError: the data has no two sets.
    """
    kind = _checked(config)
    if kind.domains is None:
        raise DataError(NEEDS_TWO)
    return kind.domains(config)


def _checked(config: DataConfig) -> DataKind:
    kind = find_kind(config.kind)
    kind.check(config)
    return kind
