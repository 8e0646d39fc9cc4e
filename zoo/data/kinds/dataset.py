"""Any map-style torch ``Dataset``: named as ``module:name``, or given from Python.

    data: {kind: "mymodule:Faces", size: 64, options: {root: faces}}     # a class or function of (split, **options)
    gantailor.compress(config, data={"train": train, "test": test})      # or one Dataset for every split

An item is an input alone; ``(input, target)``; ``(input, class)``, the class being a whole number; ``(input, target,
class)``; or a dictionary of ``input`` or ``inputs``, ``target`` and ``class``. Several inputs are a tuple or a
dictionary.

=========================  =====================================================================
value                      is taken for
=========================  =====================================================================
PIL picture                a picture; any mode, any size: fitted to ``data.size`` as files are
numpy uint8 ``[H, W, C]``  the same, 0 to 255; ``[H, W]`` is grey
tensor uint8 ``[C, H, W]`` the same
tensor float ``[C, H, W]`` a picture in [-1, 1] of ``data.size``; another range is refused
float ``[d]``              a vector, of further inputs
=========================  =====================================================================
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any, cast

import numpy as np
from torch.utils.data import Dataset, IterableDataset

from gantailor.evaluators.pictures.reader import Notes, say
from gantailor.supernet.errors import ConfigError, DataError, GantailorError, nearest, with_place
from gantailor.supernet.plugins import checked_call
from gantailor.zoo.data.class_labels import ClassLabels
from gantailor.zoo.data.config import DataConfig
from gantailor.zoo.data.domains import Domains
from gantailor.zoo.data.fit import Reading
from gantailor.zoo.data.kinds.values import check_range, check_shapes, value_of
from gantailor.zoo.data.pairs import Pairs
from gantailor.zoo.data.record import FOLDERS, SPLIT_NAMES, DataKind, check_options, shared_out
from gantailor.zoo.data.shards import DIGEST_BYTES, Decoded, Layout, Side, digest_of

SAMPLE = 256  # items that are looked at before anything begins, and that the digest is of
RANGED = 64  # of these, the pictures whose range is looked at
GIVEN = "python"  # the module of kinds that were given from Python
ITEM = "give input, (input, target), (input, class number), (input, target, class number) or a dictionary of these"
_KEYS = ("input", "inputs", "target", "class")
_given: dict[str, Any] = {}  # by their kind's name: what only this process has


@dataclass(frozen=True)
class Parts:
    """An item's values by what they are."""

    inputs: tuple[Any, ...]
    target: Any
    label: int | None


def parts_of(item: Any, what: str) -> Parts:
    """What an item holds.

    Raises:
        DataError: that cannot be told.
    """
    if isinstance(item, Mapping):
        unknown = [str(name) for name in item if name not in _KEYS]
        if unknown or ("input" in item) == ("inputs" in item):
            names = ", ".join(map(str, item))
            raise DataError(f"{what} is a dictionary of {names}; of input or inputs, target and class it is made")
        found, target, label = item.get("input", item.get("inputs")), item.get("target"), item.get("class")
    elif isinstance(item, tuple | list) and 1 <= len(item) <= 3:
        found, *rest = item
        label = rest.pop() if rest and _number(rest[-1]) is not None else None
        target = rest.pop() if rest else None
        if rest:
            raise DataError(f"{what} has {len(item)} values; {ITEM}")
    elif isinstance(item, tuple | list):
        raise DataError(f"{what} has {len(item)} values; {ITEM}")
    else:
        found, target, label = item, None, None
    inputs = tuple(found.values()) if isinstance(found, Mapping) else found
    inputs = tuple(inputs) if isinstance(inputs, tuple | list) else (inputs,)
    if not inputs:
        raise DataError(f"{what} has no input; {ITEM}")
    number = None if label is None else _number(label)
    if label is not None and (number is None or number < 0):
        raise DataError(f"{what} has the class {label!r}; give a whole number from 0")
    return Parts(inputs, target, number)


def _number(value: Any) -> int | None:
    """A whole number, also of numpy or as a tensor without axes."""
    if isinstance(value, bool | np.bool_) or getattr(value, "shape", ()) != ():
        return None
    if isinstance(value, int | np.integer):
        return int(value)
    kind = str(getattr(value, "dtype", ""))
    return int(value) if "int" in kind else None


@dataclass
class DatasetItems:
    """The items of a Dataset as arrays: inputs, target, class.

    Args:
        what: they are called in messages.
        swapped: targets become the inputs.
        layout: that all have, once the first was read.
    """

    dataset: Any
    reading: Reading
    what: str
    swapped: bool = False
    layout: Layout | None = None
    names: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        try:
            count = len(self.dataset)
        except Exception as error:
            raise DataError(f"{self.what}: its length cannot be told ({error!r}); give it __len__") from None
        if not count:
            raise DataError(f"{self.what} is empty; give items")
        width = len(str(count - 1))
        self.names = tuple(f"{number:0{width}d}" for number in range(count))

    def __len__(self) -> int:
        return len(self.names)

    def stamp(self, index: int) -> str:
        """Nothing is known of where items come from."""
        return ""

    def parts(self, index: int) -> Parts:
        """An item as it is.

        Raises:
            DataError: the Dataset raises something, or the item is nothing that a generator takes.
        """
        try:
            item = self.dataset[index]
        except GantailorError:
            raise
        except Exception as error:
            raise DataError(f"{self.what} failed at item {index} with {with_place(error)}") from error
        return parts_of(item, f"{self.what}: item {index}")

    def read(self, index: int, note: Notes) -> tuple[np.ndarray, ...]:
        """Inputs, target, and the class ``[1]``."""
        parts = self.parts(index)
        said = f"{self.what}: item {index}'s"
        found = [
            value_of(value, self.reading.side(int(self.swapped)), note, f"{said} input{number or ''}", first=not number)
            for number, value in enumerate(parts.inputs)
        ]
        if parts.target is not None:
            found.append(
                value_of(parts.target, self.reading.side(int(not self.swapped)), note, f"{said} target", first=True)
            )
        if parts.label is not None:
            found.append(np.array([parts.label], np.int64))
        layout = Layout.of(tuple(found), len(self))
        if self.layout is not None and layout != self.layout:
            raise DataError(f"{said} values are {layout}, those before {self.layout}; make them alike")
        return tuple(found)


def dataset_pairs(dataset: Any, config: DataConfig, what: str, source: str) -> Pairs:
    """A Dataset as pairs; items are read when they are asked for.

    The digest is of up to 256 items, evenly spaced: reading all would take an epoch at each start.

    Raises:
        DataError: it is no map-style Dataset, an item cannot be used, or the same item is another when asked again.
    """
    items = DatasetItems(checked(dataset, what), Reading.of(config), what, config.direction == "BtoA")
    notes, rows = Notes(), np.unique(np.linspace(0, len(items) - 1, SAMPLE).astype(int))
    first = items.read(0, notes)
    items.layout = Layout.of(first, len(items))
    if any(not np.array_equal(one, other) for one, other in zip(first, items.read(0, Notes()), strict=True)):
        raise DataError(
            f"{what} gives another item 0 each time; leave random changes out: train.mirror, train.shift and data.crop "
            "make them, the same ones after a break"
        )
    digests = np.zeros((len(first), len(items), DIGEST_BYTES), np.uint8)
    kept: list[tuple[np.ndarray, ...]] = []
    for row in rows.tolist():
        sides = items.read(row, notes) if row else first
        kept += [sides] if len(kept) < RANGED else []
        for side, values in enumerate(sides):
            digests[side, row] = np.frombuffer(digest_of(values), np.uint8)
    say(f"{what}, the first items", len(rows), notes.summary())
    decoded = Decoded(items, items.layout, None)
    every = np.arange(len(items))
    sides_ = [Side(decoded, side, every, digests[side]) for side in range(len(first))]
    return _pairs(items.parts(0), sides_, kept, items, config, source)


def _pairs(
    form: Parts,
    sides: list[Side],
    kept: list[tuple[np.ndarray, ...]],
    items: DatasetItems,
    config: DataConfig,
    source: str,
) -> Pairs:
    """Sides by what an item's values are."""
    count = len(form.inputs)
    target = sides[count] if form.target is not None else None
    for side, name in ((0, "input"), (count, "target")):
        if not side or target is not None:
            check_range(np.stack([values[side] for values in kept]), f"{items.what}: {name}")
    order = [sides[0], target]
    if config.direction == "BtoA" and target is not None:
        order = [target, sides[0]]
    if config.direction == "unpaired":
        order = [sides[0], None]
    check_shapes(config, items.what, cast(Side, order[0]), order[1])
    labels = None if form.label is None else ClassLabels(sides[-1])
    return Pairs(cast(Side, order[0]), order[1], items.names, source, more=tuple(sides[1:count]), class_labels=labels)


def checked(dataset: Any, what: str) -> Any:
    """The same, if items can be had of it by their numbers.

    Raises:
        DataError: it has no numbers, or no length.
    """
    if isinstance(dataset, IterableDataset):
        raise DataError(
            f"{what} is an IterableDataset, of which the 5th item cannot be asked for; the order of training, and "
            "going on after a break, need that: give a Dataset with __len__ and __getitem__, or write it out as files"
        )
    if not is_dataset(dataset):
        raise DataError(f"{what} is {_article(dataset)}; give a torch Dataset, with __len__ and __getitem__")
    return dataset


def is_dataset(value: Any) -> bool:
    """Whether it has a length and items by numbers: a torch Dataset, or what is like one."""
    if isinstance(value, str | bytes | Mapping | type):
        return False
    return isinstance(value, Dataset) or (hasattr(value, "__len__") and hasattr(value, "__getitem__"))


def _article(value: Any) -> str:
    name = type(value).__name__
    return f"an {name}" if name[:1].lower() in "aeiou" else f"a {name}"


def dataset_kind(name: str, found: Any) -> DataKind:
    """The record of a Dataset, of a dictionary of them by split, or of what makes one.

    Raises:
        ConfigError: it is something else.
    """
    makes = callable(found) and not is_dataset(found)
    if not makes and not isinstance(found, Mapping | IterableDataset) and not is_dataset(found):
        raise ConfigError(f"data kind {name!r} is {_article(found)}; {_WANTED}")
    if makes:
        checked_call(found, name, "data kind", _WANTED)
    read = partial(_read, found, makes)
    return DataKind(
        name=name,
        read=read,
        domains=lambda config: Domains.of(read(config, "train")),
        check=partial(_check, found) if makes else check_options,
    )


_WANTED = (
    "give a DataKind record (gantailor.zoo.data.record), a torch Dataset, or a class or function of (split, "
    "**data.options) that makes one"
)


def _check(make: Callable[..., Any], config: DataConfig) -> None:
    """That it can be called with a split and the options."""
    try:
        inspect.signature(make).bind("train", **config.options)
    except ValueError:  # it has no signature to look at
        return
    except TypeError as error:
        raise ConfigError(
            f"data kind {config.kind!r} is {_article(make)}; {_WANTED}: with data.options {config.options} it is "
            f"called in vain ({error})"
        ) from None


def _read(found: Any, makes: bool, config: DataConfig, split: str) -> Pairs:
    what = f"data kind {config.kind!r}"

    @cache
    def named(name: str) -> Any:
        return found(name, **config.options) if makes else found.get(name)

    def place(name: str) -> str | None:
        if not makes and not isinstance(found, Mapping):
            return ""  # one data set for every split
        try:
            return next((one for one in FOLDERS[name] if named(one) is not None), None)
        except Exception:
            if name == split:
                raise
            return f"fails at {name}"  # which is told where that split is read

    chosen = place(split)
    if chosen is None and makes:
        raise DataError(f"{what} makes nothing of {' or '.join(FOLDERS[split])}, which {split} needs")
    if chosen is None:
        raise DataError(f"{what} has no {split}: it has {', '.join(map(str, found)) or 'nothing'}; add it")
    dataset = named(chosen) if chosen else found
    pairs = dataset_pairs(dataset, config, f"{what} ({split})", f"{config.kind}/{split}")
    return shared_out(pairs, config, split, place)


def give(data: Any, config: DataConfig) -> DataConfig:
    """Settings that name data given from Python by its digest; only this process can read it.

    Args:
        data: a Dataset, or Datasets by split: train, test, and perhaps search or val.

    Raises:
        ConfigError: there is a ``data.path`` or there are ``data.options`` too, or splits are of other names.
        DataError: it cannot be used.
    """
    if config.path is not None or config.options:
        raise ConfigError("data= was given, and data.path or data.options as well; leave one out")
    if isinstance(data, Mapping) and not data:
        raise DataError('data= is empty; give Datasets by split, {"train": ..., "test": ...}, or one for all')
    for name in data if isinstance(data, Mapping) else ():
        if name not in SPLIT_NAMES:
            raise ConfigError(f"data= has the split {name!r}; {nearest(str(name), SPLIT_NAMES)}")
    splits = data if isinstance(data, Mapping) else {"": data}
    sha = hashlib.sha256()
    for name, dataset in splits.items():
        pairs = dataset_pairs(dataset, config, f"data={f'[{name!r}]' if name else ''}", "")
        sha.update(f"{name}|{len(pairs)}|{pairs.digest()}".encode())
    kind = f"{GIVEN}:{sha.hexdigest()[:12]}"
    _given[kind] = data
    return config.model_copy(update={"kind": kind})


def is_given(kind: str) -> bool:
    """Whether a kind's data was given from Python."""
    return kind.startswith(f"{GIVEN}:")


def given(kind: str) -> Any:
    """What was given to this process under a name.

    Raises:
        DataError: nothing was; the run needs it again.
    """
    if kind not in _given:
        raise DataError(
            f"the run's data was given from Python ({kind}), and this process does not have it; pass it again: "
            "gantailor.open_run(folder, data=...), or gantailor.compress(config, data=...)"
        )
    return _given[kind]
