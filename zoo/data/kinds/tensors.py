"""Named arrays in ``.npz`` or ``.safetensors``: several inputs, masks, vectors, classes, targets."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from gantailor.supernet.errors import ConfigError, DataError, first_line, nearest
from gantailor.zoo.data.class_labels import ClassLabels
from gantailor.zoo.data.config import DataConfig
from gantailor.zoo.data.domains import Domains
from gantailor.zoo.data.kinds.values import CHANNELS, as_floats, as_pictures, check_range, check_shapes, last_channels
from gantailor.zoo.data.pairs import Pairs
from gantailor.zoo.data.record import FOLDERS, DataKind, check_path, shared_out

SUFFIXES = (".npz", ".safetensors")
TARGET = "target"
PROBED = 64  # pictures whose range is looked at
PICTURES = 4  # axes of such an array


@dataclass(frozen=True)
class Arrays:
    """Arrays of a split, one row for each item.

    Attributes:
        inputs: pictures uint8 or float32 ``[N, H, W, C]``, and after the first vectors float32 ``[N, d]`` too.
        target: pictures, or None.
        classes: int64 ``[N]``, or None.
    """

    inputs: tuple[np.ndarray, ...]
    target: np.ndarray | None
    classes: np.ndarray | None


def tensor_file(path: Path, split: str) -> Path:
    """The file itself, or of a folder that of the split.

    Raises:
        DataError: there is none.
    """
    if path.is_file():
        return path
    files = [path / f"{name}{suffix}" for name in FOLDERS[split] for suffix in SUFFIXES]
    found = next((file for file in files if file.is_file()), None)
    if found is None:
        raise DataError(
            f"data.path {str(path)!r} has no tensors of {split}; call them {files[0].name} or {files[1].name}"
        )
    return found


def read_arrays(file: Path, inputs: list[str] | None, target: str | None) -> Arrays:
    """Arrays by their names.

    Args:
        inputs: in the order of the generator's forward; None: every array but the target, in the order of the file.
        target: None: the array ``target``, if there is one.

    Raises:
        DataError: the file cannot be read, lacks an array, or an array is nothing that a generator takes.
    """
    stored = _stored(file)
    names, goal = _chosen(file, stored, inputs, target)
    arrays = {name: stored[name] for name in [*names, *([] if goal is None else [goal])]}
    _check_rows(file, arrays)
    said = {name: f"array {name!r} of {str(file)!r}" for name in arrays}
    label = names.pop() if arrays[names[-1]].ndim == 1 else None
    values = {name: _values(array, said[name]) for name, array in arrays.items() if name != label}
    for name in [*names[:1], *([] if goal is None else [goal])]:
        if values[name].ndim != PICTURES:
            raise DataError(f"{said[name]} is {list(arrays[name].shape)}; the first input and the target are pictures")
        check_range(values[name][:PROBED], said[name])
    if not names:
        raise DataError(f"{str(file)!r}: {label!r} is a class; the first input is a picture")
    return Arrays(
        tuple(values[name] for name in names),
        None if goal is None else values[goal],
        None if label is None else _classes(arrays[label], said[label]),
    )


def _chosen(
    file: Path, stored: Mapping[str, np.ndarray], inputs: list[str] | None, target: str | None
) -> tuple[list[str], str | None]:
    """Names of the inputs and of the target, all of which are there."""
    goal = TARGET if target is None and TARGET in stored else target
    names = [name for name in stored if name != goal] if inputs is None else list(inputs)
    for name in [*names, *([] if goal is None else [goal])]:
        if name not in stored:
            raise DataError(f"{str(file)!r} has no array {name!r}; {nearest(name, stored)}. data.options names them")
    if not names:
        raise DataError(
            f"{str(file)!r} has no inputs; {nearest('input', stored)}. Name them: data.options {{inputs: [a]}}"
        )
    if inputs is None and len(names) > 1 and file.suffix == ".safetensors":
        raise DataError(
            f"{str(file)!r} keeps no order of its arrays; name them in that of the generator's forward: data.options "
            f"{{inputs: [{', '.join(names)}]}}"
        )
    return names, goal


def _stored(file: Path) -> dict[str, np.ndarray]:
    """Everything in a file; no pickle is ever opened."""
    try:
        if file.suffix == ".npz":
            _check_memory(file)
            with np.load(file, allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files}
        with safe_open(file, framework="pt") as tensors:
            names = list(tensors.keys())
            return {name: _numpy(tensors.get_tensor(name)) for name in names}
    except DataError:
        raise
    except (SafetensorError, ValueError, OSError, EOFError, zipfile.BadZipFile, MemoryError, AttributeError) as error:
        said = first_line(error)[:120]
        if "allow_pickle" in said:
            said = "it holds Python objects, which are not opened"
        raise DataError(
            f"tensors {str(file)!r} cannot be read ({said}); write them by numpy.savez or safetensors"
        ) from None


def _check_memory(file: Path) -> None:
    """That the arrays, which are all held in memory, are not larger than it: an archive of zeros is small.

    Raises:
        DataError: they are.
    """
    with zipfile.ZipFile(file) as archive:
        needed = sum(info.file_size for info in archive.infolist())
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there:
        raise DataError(
            f"tensors {str(file)!r} take {needed / 1e9:.1f} GB in memory, of which there are {there / 1e9:.1f}; give "
            "pictures as files"
        )


def _numpy(tensor: Any) -> np.ndarray:
    """bfloat16 as float32, which numpy has."""
    found: np.ndarray = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    return found


def _check_rows(file: Path, arrays: Mapping[str, np.ndarray]) -> None:
    lengths = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
    if len(set(lengths.values())) > 1 or not min(lengths.values()):
        told = ", ".join(f"{name} {list(array.shape)}" for name, array in arrays.items())
        raise DataError(f"arrays of {str(file)!r} need equal lengths of at least 1; they are {told}")


def _values(array: np.ndarray, what: str) -> np.ndarray:
    """Pictures ``[N, H, W, C]`` or vectors ``[N, d]``."""
    floats = array.dtype.kind == "f"
    if array.ndim == 4 and floats:
        return as_pictures(last_channels(array, what), what)
    if array.ndim == 4 and array.dtype == np.uint8:
        found = last_channels(array, what)
        if found.shape[-1] in CHANNELS:
            return found
    if array.ndim == 2 and floats:
        return as_floats(array, what)
    raise DataError(
        f"{what} is {array.dtype} {list(array.shape)}; allowed are pictures, float [N, C, H, W] in [-1, 1] or uint8 "
        "of 1, 3 or 4 channels, vectors, float [N, d], and as the last input classes, whole numbers [N]"
    )


def _classes(array: np.ndarray, what: str) -> np.ndarray:
    if array.dtype.kind not in "iu" or array.min() < 0 or array.max() >= 10**9:
        raise DataError(
            f"{what} is {array.dtype} {list(array.shape)}; an array of one axis holds classes, whole numbers from 0"
        )
    return array.astype(np.int64)


def named_arrays(options: Mapping[str, Any]) -> tuple[list[str] | None, str | None]:
    """Names of inputs and of the target that ``data.options`` gives.

    Raises:
        ConfigError: there is something else in it.
    """
    for name in options:
        if name not in ("inputs", TARGET):
            raise ConfigError(
                f"data.options.{name} is no setting of data.kind tensors; {nearest(name, ('inputs', TARGET))}"
            )
    inputs, target = options.get("inputs"), options.get(TARGET)
    inputs = [inputs] if isinstance(inputs, str) else inputs
    texts = isinstance(inputs, list | tuple) and inputs and all(isinstance(name, str) for name in inputs)
    if (inputs is not None and not texts) or not isinstance(target, str | None):
        raise ConfigError(f"data.options cannot be {dict(options)}; give {{inputs: [image, mask], target: target}}")
    return None if inputs is None else list(inputs), target


def _read(config: DataConfig, split: str) -> Pairs:
    """Arrays as they are; nothing is resized."""
    path = Path(str(config.path))
    file = tensor_file(path, split)
    arrays = read_arrays(file, *named_arrays(config.options))
    inputs, target = arrays.inputs[0], arrays.target
    if config.direction == "BtoA" and target is not None:
        inputs, target = target, inputs
    if config.direction == "unpaired":
        target = None
    check_shapes(config, f"tensors {str(file)!r}", inputs, target)
    labels = None if arrays.classes is None else ClassLabels(arrays.classes)
    names = tuple(str(row) for row in range(len(inputs)))
    more = arrays.inputs[1:]
    pairs = Pairs(inputs, target, names, f"{path.name}/{file.stem}", more=more, class_labels=labels)
    return shared_out(pairs, config, split, lambda name: _place(path, name))


def _place(path: Path, split: str) -> Path | None:
    try:
        return tensor_file(path, split)
    except DataError:
        return None


def _check(config: DataConfig) -> None:
    check_path(config.model_copy(update={"options": {}}))
    named_arrays(config.options)


TENSORS = DataKind(name="tensors", read=_read, domains=lambda config: Domains.of(_read(config, "train")), check=_check)
