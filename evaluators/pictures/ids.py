"""Label and instance maps: pictures whose pixels are numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from gantailor.evaluators.pictures.modes import upright
from gantailor.supernet.errors import DataError

NO_COLOUR = -2  # the id of a colour that the table does not have
_ONE_CHANNEL = ("1", "L", "LA", "I", "I;16", "I;16L", "I;16B", "I;16N")
# Pillow stretches values of few bits to 0..255: the step between two of them.
_STEPS = {"L;2": 85, "L;4": 17, "L;2I": 85, "L;4I": 17, "L;2R": 85, "L;4R": 17, "L;2IR": 85, "L;4IR": 17}


@dataclass(frozen=True, eq=False)
class Colours:
    """Which colour is which id.

    Attributes:
        colours: uint8 ``[M, 3]``; of equal ones the first counts.
        ids: ``[M]``.
        name: of the table, for messages.
        key: another for another table.
    """

    colours: np.ndarray
    ids: np.ndarray
    name: str
    key: str = ""

    def ids_of(self, pixels: np.ndarray) -> np.ndarray:
        """Ids ``[H, W]`` of uint8 ``[H, W, 3]``, ``NO_COLOUR`` where the table has no such colour."""
        known, first = np.unique(packed(self.colours), return_index=True)
        wanted = packed(pixels)
        places = np.searchsorted(known, wanted).clip(max=len(known) - 1)
        return np.where(known[places] == wanted, np.asarray(self.ids)[first][places], NO_COLOUR).astype(np.int32)


def packed(colours: np.ndarray) -> np.ndarray:
    """uint8 ``[..., 3]`` as one number each, ``red + 256 green + 65536 blue``."""
    parts = colours.astype(np.int32)
    return parts[..., 0] + 256 * parts[..., 1] + 65536 * parts[..., 2]


def label_ids(image: Image.Image, rawmode: str, colours: Colours | None = None) -> np.ndarray:
    """The ids of a loaded label map, int32 ``[H, W]``, upright.

    One channel is read by value and a palette by index, whatever the bits; with a table, palettes and colours are read
    by their colours, and without one colours only where their three channels are the same.

    Raises:
        DataError: colours that nobody knows the ids of.
    """
    if colours is not None and image.mode not in _ONE_CHANNEL:
        return upright(colours.ids_of(np.asarray(image.convert("RGB"))), image)
    if image.mode in (*_ONE_CHANNEL, "P", "PA"):
        return upright(_values(image, rawmode), image)
    rgb = np.asarray(image.convert("RGB")) if image.mode != "F" else None
    if rgb is None or (rgb != rgb[..., :1]).any():
        what = "fractions" if rgb is None else "colours"
        raise DataError(
            f"label map {str(getattr(image, 'filename', ''))!r} has {what}, and no ids: name a table of them, "
            "data.labels: FILE.csv (id,name,red,green,blue), or store one channel of ids"
        )
    return upright(rgb[..., 0].astype(np.int32), image)


def instance_ids(image: Image.Image, rawmode: str) -> np.ndarray:
    """Numbers of a loaded instance map, int32 ``[H, W]``, upright: other instances have other ones, and no more.

    Colours are ``red + 256 green + 65536 blue``; of fractions the bits are the number.
    """
    if image.mode in (*_ONE_CHANNEL, "P", "PA"):
        return upright(_values(image, rawmode), image)
    if image.mode == "F":
        return upright(np.asarray(image).view(np.int32), image)
    return upright(packed(np.asarray(image.convert("RGB"))), image)


def _values(image: Image.Image, rawmode: str) -> np.ndarray:
    values = np.asarray(image)
    values = values[..., 0] if values.ndim == 3 else values
    return values.astype(np.int32) // _STEPS.get(rawmode, 1)
