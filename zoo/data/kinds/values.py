"""What the numbers of arrays and tensors mean: which are pictures, which are vectors, and what is refused."""

from __future__ import annotations

import numpy as np

from gantailor.supernet.errors import DataError

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
    """That float colour pictures ``[N, H, W, 3]`` do not seem to lie in [0, 1], as torchvision's ``ToTensor`` makes them.

    Raises:
        DataError: none of them is ever below 0.
    """
    if values.dtype != np.uint8 and values.ndim == 4 and values.shape[-1] == 3 and values.size and values.min() >= 0:
        raise DataError(
            f"{what} has no value below 0 in its first {len(values)}, so it seems to lie in [0, 1]; {WANTED}: "
            "Normalize(0.5, 0.5), or x * 2 - 1"
        )
