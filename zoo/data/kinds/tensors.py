"""Named arrays in ``.npz`` or ``.safetensors``: several inputs, masks, vectors, classes, targets."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from gantailor.supernet.errors import ConfigError, DataError, nearest
from gantailor.zoo.data.class_labels import ClassLabels
from gantailor.zoo.data.config import DataConfig
from gantailor.zoo.data.domains import Domains
from gantailor.zoo.data.kinds.values import CHANNELS, as_floats, as_pictures, check_range, check_shapes, last_channels
from gantailor.zoo.data.pairs import Pairs
from gantailor.zoo.data.record import FOLDERS, DataKind, check_path

SUFFIXES = (".npz", ".safetensors")
TARGET = "target"
PROBED = 64  # pictures whose range is looked at


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
    goal = target if target is not None else TARGET if TARGET in stored else None
    names = [name for name in stored if name != goal] if inputs is None else inputs
    for name in [*names, *([] if goal is None else [goal])]:
        if name not in stored:
            raise DataError(f"{str(file)!r} has no array {name!r}; {nearest(name, stored)}. data.options names them")
    if not names:
        raise DataError(
            f"{str(file)!r} has no inputs; {nearest('input', stored)}. data.options names them: {{inputs: [a]}}"
        )
    if inputs is None and len(names) > 1 and file.suffix == ".safetensors":
        raise DataError(
            f"{str(file)!r} keeps no order of its arrays; name them in that of the generator's forward: data.options "
            f"{{inputs: [{', '.join(names)}]}}"
        )
    chosen = {name: stored[name] for name in [*names, *([] if goal is None else [goal])]}
    _check_rows(file, chosen)
    ids = [name for name in names if chosen[name].ndim == 1]
    if len(ids) > 1 or (ids and names[-1] != ids[0]):
        raise DataError(f"{str(file)!r}: of the inputs {', '.join(names)} classes are the last one, and one at most")
    said = {name: f"array {name!r} of {str(file)!r}" for name in chosen}
    pictures = tuple(_values(chosen[name], said[name]) for name in names if name not in ids)
    found = Arrays(
        pictures,
        None if goal is None else _values(chosen[goal], said[goal]),
        _classes(chosen[ids[0]], said[ids[0]]) if ids else None,
    )
    for name, array in ((names[0], found.inputs[0] if found.inputs else None), (goal, found.target)):
        if array is not None and name is not None:
            if array.ndim != 4:
                raise DataError(
                    f"{said[name]} is {list(chosen[name].shape)}; the first input and the target are pictures"
                )
            check_range(array[:PROBED], said[name])
    return found


def _stored(file: Path) -> dict[str, np.ndarray]:
    """Everything in a file; no pickle is ever opened."""
    try:
        if file.suffix == ".npz":
            with np.load(file, allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files}
        with safe_open(file, framework="pt") as tensors:
            names = list(tensors.keys())
            return {name: _numpy(tensors.get_tensor(name)) for name in names}
    except (SafetensorError, ValueError, OSError, EOFError, zipfile.BadZipFile, MemoryError, AttributeError) as error:
        said = (str(error) or type(error).__name__).splitlines()[0][:120]
        if "allow_pickle" in said:
            said = "it holds Python objects, which are not opened"
        raise DataError(
            f"tensors {str(file)!r} cannot be read ({said}); write them by numpy.savez or safetensors"
        ) from None


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
        "of 1, 3 or 4 channels, vectors, float [N, d], and classes, whole numbers [N]"
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
    return Pairs(inputs, target, names, f"{path.name}/{file.stem}", more=more, class_labels=labels)


def _check(config: DataConfig) -> None:
    check_path(config.model_copy(update={"options": {}}))
    named_arrays(config.options)


TENSORS = DataKind(name="tensors", read=_read, domains=lambda config: Domains.of(_read(config, "train")), check=_check)
