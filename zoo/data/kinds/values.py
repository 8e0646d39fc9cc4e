"""What the numbers of arrays and tensors mean: which are pictures, which are vectors, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from gantailor.evaluators.pictures.modes import as_channels, rawmode_of
from gantailor.evaluators.pictures.reader import Notes
from gantailor.supernet.errors import DataError
from gantailor.zoo.data.config import DataConfig
from gantailor.zoo.data.fit import Reading
from gantailor.zoo.data.pictures import Pictures

CHANNELS = (1, 3, 4)  # of pictures in bytes
SLACK = 1e-3  # beyond [-1, 1], as half precision and resampling leave it; it is cut off
WANTED = "float pictures lie in [-1, 1], bytes in 0..255"


def last_channels(values: np.ndarray, what: str) -> np.ndarray:
    """``[..., C, H, W]`` as ``[..., H, W, C]``.

    Raises:
        DataError: the channels seem to be last already.
    """
    channels, _, width = values.shape[-3:]
    if channels not in CHANNELS and width in CHANNELS:
        raise DataError(f"{what} has the shape {list(values.shape)}; channels come first, [C, H, W]: permute it")
    return np.moveaxis(values, -3, -1)


def as_floats(values: np.ndarray, what: str) -> np.ndarray:
    """Finite float32.

    Raises:
        DataError: there is a NaN or an infinity; of several rows the first is named.
    """
    found = np.asarray(values, np.float32)
    if not np.isfinite(found).all():
        bad = ~np.isfinite(found)
        row = f" in row {int(bad.reshape(len(bad), -1).any(1).argmax())}" if found.ndim in (2, 4) else ""
        raise DataError(f"{what} holds NaN or infinity{row}; mend or leave out that one")
    return found


def as_pictures(values: np.ndarray, what: str) -> np.ndarray:
    """Float pictures in [-1, 1], float32.

    Raises:
        DataError: they are not finite, or reach beyond; the range is named.
    """
    found = as_floats(values, what)
    low, high = float(found.min(initial=0)), float(found.max(initial=0))
    if low < -1 - SLACK or high > 1 + SLACK:
        raise DataError(f"{what} has values from {low:.4g} to {high:.4g}; {WANTED}")
    return np.clip(found, -1, 1) if low < -1 or high > 1 else found


def check_range(values: np.ndarray, what: str) -> None:
    """That float colour pictures ``[N, H, W, 3]`` do not seem to lie in [0, 1], as ``ToTensor`` makes them.

    Raises:
        DataError: none of them is ever below 0.
    """
    if values.dtype != np.uint8 and values.ndim == 4 and values.shape[-1] == 3 and values.size and values.min() >= 0:
        raise DataError(
            f"{what} has no value below 0 in its first {len(values)}, so it seems to lie in [0, 1]; {WANTED}: "
            "Normalize(0.5, 0.5), or x * 2 - 1"
        )


def check_shapes(config: DataConfig, what: str, inputs: Pictures, targets: Pictures | None) -> None:
    """That pictures which nobody resizes have the size and the channels of the settings.

    Raises:
        DataError: they have not; the setting that fits them is named.
    """
    for side, (name, pictures) in enumerate((("inputs", inputs), ("targets", targets))):
        if pictures is None:
            continue
        height, width, channels = pictures.shape[1:]
        scale = (config.scale or 1) if side else 1
        wanted = tuple(length * scale for length in config.shape)
        if (height, width) != wanted:
            fix = f"set data.size [{height}, {width}]" if not side else "set data.scale, or make them of one size"
            raise DataError(f"{what}: {name} are {height}x{width}, data.size wants {wanted[0]}x{wanted[1]}; {fix}")
        if config.channels is not None and channels != config.channels_of(side):
            raise DataError(
                f"{what}: {name} have {channels} channels, data.channels says {config.channels_of(side)}; leave it out"
            )


def value_of(value: Any, reading: Reading, note: Notes, what: str, *, first: bool) -> np.ndarray:
    """A value of a Dataset's item as a picture, uint8 or float32 ``[H, W, C]``, or as a vector float32 ``[d]``.

    Args:
        reading: what becomes of pictures in bytes.
        first: of the first input and of targets, which are pictures of ``data.channels``; further inputs stay as they
            are, but must have the size already: masks are not to be blurred.

    Raises:
        DataError: it is neither, or what it means is not sure.
    """
    array = _array(value, reading, note, what, first=first)
    if array.dtype.kind == "f" and array.ndim == 3 and not isinstance(value, np.ndarray):
        return as_pictures(array, what)
    if array.dtype.kind == "f" and array.ndim == 1 and not first:
        return as_floats(array, what)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.dtype != np.uint8 or array.shape[2] not in CHANNELS:
        raise DataError(
            f"{what} is {array.dtype} {list(array.shape)}; give a PIL picture, numpy uint8 [H, W, C], a tensor "
            f"[C, H, W] of uint8 or of floats in [-1, 1]{'' if first else ', or a float vector [d]'}"
        )
    if first:
        return reading.fitted(as_channels(array, reading.channels_of(0), reading.colour), note)
    if array.shape[:2] != reading.shape:
        raise DataError(
            f"{what} is {array.shape[0]}x{array.shape[1]}, data.size wants {reading.shape[0]}x{reading.shape[1]}; "
            "further inputs are not resized: make it that size"
        )
    return array


def _array(value: Any, reading: Reading, note: Notes, what: str, *, first: bool) -> np.ndarray:
    """Pictures with their channels last."""
    if isinstance(value, Image.Image):
        channels = reading.channels_of(0) if first else {"1": 1, "L": 1, "RGBA": 4}.get(value.mode, 3)
        return reading.reader(channels, note).pixels(value, rawmode_of(value))
    if isinstance(value, Tensor):
        found = value.detach().cpu()
        array: np.ndarray = (found.float() if found.is_floating_point() else found).numpy()
        return last_channels(array, what) if array.ndim == 3 else array
    if not isinstance(value, np.ndarray):
        raise DataError(f"{what} is a {type(value).__name__}; give a PIL picture, a numpy array or a tensor")
    return value
