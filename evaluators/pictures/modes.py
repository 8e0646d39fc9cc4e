"""What becomes of each kind of pixel: a table of Pillow's modes, alpha, orientation, channels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageColor

ORIENTATION = 0x0112  # the EXIF tag
CHANNELS = {1: "grey", 3: "RGB", 4: "RGB and alpha"}
SIXTEEN = "16 bits, read as 8"
# Rawmodes of files whose pixels fill less than the mode that Pillow opens them in.
_FULL = {"I;12": 4095}

# From the stored array to the upright one, by EXIF's number.
ORIENTATIONS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda pixels: pixels,
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: np.rot90(pixels, 2).swapaxes(0, 1),
    8: np.rot90,
}


class RefusedPixelsError(ValueError):
    """Pixels that have no reading; the text says why."""


def scaled(values: np.ndarray, full: int = 65535) -> np.ndarray:
    """Whole numbers 0 to ``full`` as uint8, ``value * 255 / full`` rounded."""
    return ((values.astype(np.uint32) * 255 + full // 2) // full).astype(np.uint8)


def _same(image: Image.Image, rawmode: str) -> Image.Image:
    return image


def _as(mode: str) -> Callable[[Image.Image, str], Image.Image]:
    return lambda image, rawmode: image.convert(mode)


def _keyed(mode: str) -> Callable[[Image.Image, str], Image.Image]:
    """With alpha where a colour or palette entry is transparent."""
    return lambda image, rawmode: _converted(image, "RGBA" if image.has_transparency_data else mode)


def _converted(image: Image.Image, mode: str) -> Image.Image:
    return image if image.mode == mode else image.convert(mode)  # which would copy it


def _deep(image: Image.Image, rawmode: str) -> Image.Image:
    values, full = np.asarray(image), _FULL.get(rawmode, 65535)
    grey = scaled(np.minimum(values, full), full)
    key = image.info.get("transparency")
    if not isinstance(key, int):
        return Image.fromarray(grey)
    return Image.fromarray(np.stack([grey, np.where(values == key, 0, 255).astype(np.uint8)], -1))


def _integers(image: Image.Image, rawmode: str) -> Image.Image:
    values = np.asarray(image)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise RefusedPixelsError(f"32-bit values from {low} to {high}; wanted are 0 to 65535: store 8 or 16 bits")
    return Image.fromarray(scaled(values))


def _floats(image: Image.Image, rawmode: str) -> Image.Image:
    values = np.asarray(image)
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):  # a NaN is neither
        raise RefusedPixelsError(
            f"float values from {low:g} to {high:g}; wanted are 0 to 1: scale them, or store 8 or 16 bits"
        )
    return Image.fromarray((values.astype(np.float64) * 255 + 0.5).astype(np.uint8))


@dataclass(frozen=True)
class Mode:
    """What becomes of the pixels of one of Pillow's modes.

    Attributes:
        read: the image and its file's rawmode to an image of 8 bits, ``L``, ``LA``, ``RGB`` or ``RGBA``.
        lost: what is lost by that, said with a count.
    """

    read: Callable[[Image.Image, str], Image.Image]
    lost: str = ""


MODES: dict[str, Mode] = {
    "1": Mode(_keyed("L")),  # black and white: 0 and 255
    "L": Mode(_keyed("L")),
    "LA": Mode(_same),
    "La": Mode(_as("LA")),  # multiplied by alpha: divided again
    "P": Mode(_keyed("RGB")),  # the palette's colours, and its transparency
    "PA": Mode(_as("RGBA")),
    "RGB": Mode(_keyed("RGB")),
    "RGBA": Mode(_same),
    "RGBa": Mode(_as("RGBA")),
    "RGBX": Mode(_as("RGB")),  # the fourth is padding
    "CMYK": Mode(_as("RGB"), "CMYK, turned to RGB without its colour profile"),
    "YCbCr": Mode(_as("RGB")),
    "LAB": Mode(_as("RGB"), "LAB, of which colours beyond sRGB are clipped"),
    "HSV": Mode(_as("RGB")),
    "I;16": Mode(_deep, SIXTEEN),  # 0 to 65535 in either order of bytes
    "I;16L": Mode(_deep, SIXTEEN),
    "I;16B": Mode(_deep, SIXTEEN),
    "I;16N": Mode(_deep, SIXTEEN),
    "I": Mode(_integers, "32-bit whole numbers, read as 16 bits and then as 8"),  # others are refused
    "F": Mode(_floats, "float, read as 8 bits"),  # 0 to 1; others are refused with minimum and maximum
}


def rawmode_of(image: Image.Image) -> str:
    """How the file stores its pixels (``RGB;16B``, ``L;4``); known before they are loaded."""
    tiles = getattr(image, "tile", None)
    arguments = tiles[0][3] if tiles else ""
    if isinstance(arguments, tuple | list):
        arguments = arguments[0] if arguments else ""
    return arguments if isinstance(arguments, str) else ""


def upright(pixels: np.ndarray, image: Image.Image) -> np.ndarray:
    """``[H, W, ...]`` as the EXIF orientation says; of a loaded image."""
    try:
        number = image.getexif().get(ORIENTATION, 1)
    except Exception:  # whatever broken metadata raises: the pixels are there
        number = 1
    return ORIENTATIONS.get(number, ORIENTATIONS[1])(pixels)


@lru_cache(maxsize=16)
def background_of(name: str) -> tuple[int, int, int]:
    """A colour's name (``white``, ``#808080``, ``rgb(0, 0, 0)``) as red, green, blue.

    Raises:
        ValueError: it is none.
    """
    return ImageColor.getrgb(name)[:3]


def composited(pixels: np.ndarray, background: tuple[int, int, int]) -> np.ndarray:
    """uint8 ``[H, W, 4]`` laid on a colour: ``[H, W, 3]``, rounded."""
    alpha = pixels[..., 3:].astype(np.uint16)
    laid = pixels[..., :3] * alpha + np.array(background, np.uint16) * (255 - alpha)
    return ((laid + np.uint16(127)) // np.uint16(255)).astype(np.uint8)


def as_channels(pixels: np.ndarray, channels: int, background: tuple[int, int, int]) -> np.ndarray:
    """uint8 ``[H, W, 1, 3 or 4]`` with another number of channels."""
    if pixels.shape[2] == channels:
        return pixels
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    return _in_channels(image, channels, background, lambda lost: None)


def pixels_of(
    image: Image.Image, rawmode: str, *, channels: int, background: tuple[int, int, int], note: Callable[[str], None]
) -> np.ndarray:
    """The pixels of a loaded image, uint8 ``[H, W, channels]``, upright.

    Args:
        channels: 1 is luminance (ITU-R 601), 3 RGB, 4 RGB and alpha.
        background: what transparent pixels are laid on where there are 1 or 3 channels.
        note: is told what was lost.

    Raises:
        RefusedPixelsError: an unknown mode, or values out of range.
    """
    mode = MODES.get(image.mode)
    if mode is None:
        raise RefusedPixelsError(f"Pillow mode {image.mode!r}; allowed are {', '.join(MODES)}")
    plain = mode.read(image, rawmode)
    lost = mode.lost or (SIXTEEN if "16" in rawmode else "")
    if lost:
        note(lost)
    return np.require(upright(_in_channels(plain, channels, background, note), image), requirements=["C", "W"])


def _in_channels(
    image: Image.Image, channels: int, background: tuple[int, int, int], note: Callable[[str], None]
) -> np.ndarray:
    if channels == 4:
        return np.asarray(_converted(image, "RGBA"))
    if image.mode in ("LA", "RGBA"):
        if image.getextrema()[-1] == (255, 255):
            image = image.convert(image.mode.removesuffix("A"))
        else:
            note("transparent, laid on the background")
            image = Image.fromarray(composited(np.asarray(image.convert("RGBA")), background))
    if channels == 1:
        return np.asarray(_converted(image, "L"))[..., None]
    return np.asarray(_converted(image, "RGB"))
