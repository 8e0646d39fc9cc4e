"""Reads the data of a configuration: a split for a generator, or two domains."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gantailor.supernet.errors import ConfigError, DataError, GantailorError, nearest, with_place
from gantailor.supernet.plugins import find
from gantailor.supernet.traits import Traits
from gantailor.zoo.data import DATA_KINDS, SPLITS
from gantailor.zoo.data.class_labels import ClassLabels
from gantailor.zoo.data.config import DataConfig
from gantailor.zoo.data.domains import NEEDS_TWO, Domains
from gantailor.zoo.data.kinds.dataset import dataset_kind, given, is_given
from gantailor.zoo.data.latents import Latents
from gantailor.zoo.data.pairs import Pairs
from gantailor.zoo.data.record import DataKind, DataSet
from gantailor.zoo.data.super_resolution.pictures import WholePictures
from gantailor.zoo.data.vectors import fitted_to


def read_split(config: DataConfig, split: str, traits: Traits | None = None) -> DataSet:
    """One split, train, search or test: what the generator takes, and real pictures.

    A generator that takes latents gets other ones in each split, beside the real pictures that it was trained on. One
    with several inputs gets latents or classes for the vectors that the data does not hold (``fitted_to``).

    Args:
        traits: of the generator; without them the pictures as they lie on disk.

    Training pictures are of ``data.load``; their batches with moves are crops, those without the middle.

    Raises:
        ConfigError: unknown kind, or a generator that makes pictures of another size.
        DataError: the data cannot be read, or there is no such split; or it has other inputs than the generator.
    """
    if split not in SPLITS:
        raise DataError(f"split {split!r} is unknown: {nearest(split, SPLITS)}")
    kind = _checked(config)
    if traits is None:
        return _read(kind, config, split)
    number = SPLITS.index(split)
    if traits.takes != "latents":
        found = _read(kind, config, split)
        if isinstance(found, WholePictures):
            found = replace(found, multiple=traits.size_multiple)
        return fitted_to(found, traits, number, labels=_labels(found))
    if traits.size not in (None, config.size):
        raise ConfigError(f"the generator makes {traits.size} px, data.size is {config.size}; make them the same")
    if config.cropped is not None:
        raise ConfigError(
            f"data.crop {config.crop or config.size} is for generators of pictures; leave it and load out"
        )
    real = _read(kind, whole(config), "train")
    latents = Latents.of(real, traits.input_shapes[0][0], seed=number, name=split)
    return fitted_to(latents, traits, number, labels=_labels(real))


def whole(config: DataConfig) -> DataConfig:
    """With all training pictures: those of a generator from latents are the reference too, as is usual for such."""
    return config.model_copy(update={"split": "all"})


def _labels(data: DataSet) -> ClassLabels | None:
    """The class of each item, where the data set has such: ``class_labels``, or numbers ``classes`` ``[N]``."""
    found, numbers = getattr(data, "class_labels", None), getattr(data, "classes", None)
    if isinstance(numbers, np.ndarray) and found is None:
        return ClassLabels(numbers)
    return found if isinstance(found, ClassLabels) else None


def find_kind(name: str) -> DataKind:
    """The record of a built-in, or one's own as ``module:name``; a torch Dataset may stand for one.

    Raises:
        ConfigError: an unknown name (the nearest are shown), or what it names is neither.
        DataError: it was given from Python, to another process.
    """
    found = given(name) if is_given(name) else find(name, DATA_KINDS, "data kind")
    return found if isinstance(found, DataKind) else dataset_kind(name, found)


def _read(kind: DataKind, config: DataConfig, split: str) -> DataSet:
    """A split as its kind reads it; what a kind of one's own raises is told with its place."""
    crop = config.cropped if split == "train" else None
    try:
        found = kind.read(_loaded(config) if split == "train" else config, split)
    except GantailorError:
        raise
    except Exception as error:
        if ":" not in config.kind:
            raise
        raise DataError(f"data kind {config.kind!r} failed at {split} with {with_place(error)}") from error
    if crop is None:
        return found
    if not isinstance(found, Pairs):
        raise ConfigError(
            f"data.crop {config.crop or config.size} is not possible: data.kind {config.kind} makes its own batches; "
            "let it return Pairs, or leave out data.load and data.crop"
        )
    height, width = (min(sides) for sides in zip(config.shape, config.loaded, strict=True))
    return replace(found, crop=crop, middle=(height, width))


def _loaded(config: DataConfig) -> DataConfig:
    """As training reads its pictures."""
    return config if config.load is None else config.model_copy(update={"size": config.load})


def read_domains(config: DataConfig) -> Domains:
    """Two unpaired sets of pictures, for a CycleGAN or MUNIT teacher.

    Raises:
        DataError: the data has no two sets.
    """
    kind = _checked(config)
    if kind.domains is None:
        raise DataError(NEEDS_TWO)
    return replace(kind.domains(_loaded(config)), crop=config.cropped)


def _checked(config: DataConfig) -> DataKind:
    kind = find_kind(config.kind)
    kind.check(config)
    return kind
