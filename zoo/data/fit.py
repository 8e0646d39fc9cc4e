"""How a picture of any shape becomes one of ``data.size``, as the settings say it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from PIL import Image

from gantailor.evaluators.pictures.modes import RefusedPixelsError, background_of
from gantailor.evaluators.pictures.reader import READER_VERSION, Notes, PictureReader
from gantailor.supernet.errors import DataError, nearest

if TYPE_CHECKING:
    from gantailor.zoo.data.config import DataConfig

Fit = Literal["stretch", "crop", "scale-and-crop", "pad"]
FITS: tuple[str, ...] = get_args(Fit)
SQUASHED = 0.02  # a change of the sides' ratio from which stretching is said


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What becomes of a picture on its way from a file to an array.

    Args:
        size: height and width in pixels; one number is both.
        fit: ``stretch`` both sides; ``crop`` the middle (what is smaller is enlarged to fill it); ``scale-and-crop``:
            scale until it fills, and crop the middle; ``pad``: scale until it is inside, on the background.
        background: name of a colour, which transparent pixels and pads have.
        channels: of inputs and of targets: 1 grey, 3 RGB, 4 with alpha; one number is both.
        scale: sides of targets over those of inputs.
        skip_corrupt: go on without files that cannot be read.
        cache: keep decoded pictures on disk: ``on``, ``off``, or ``auto``, where they take less than 8 GB.
        workers: processes that decode pictures the first time; 0 is this one.

    Raises:
        DataError: an unknown fit.
    """

    size: int | tuple[int, int]
    fit: str = "stretch"
    background: str = "white"
    channels: int | tuple[int, int] = 3
    scale: int = 1
    skip_corrupt: bool = False
    cache: str = "auto"
    workers: int = 0

    def __post_init__(self) -> None:
        if self.fit not in FITS:
            raise DataError(f"data.fit {self.fit!r} is unknown: {nearest(self.fit, FITS)}")

    @classmethod
    def of(cls, config: DataConfig) -> Reading:
        """What the settings say."""
        names = ("size", "fit", "background", "skip_corrupt", "cache", "workers")
        channels = (config.channels_of(0), config.channels_of(1))
        return cls(**{name: getattr(config, name) for name in names}, channels=channels, scale=config.scale or 1)

    def side(self, side: int) -> Reading:
        """That of inputs (0) or of targets (1), with one number of channels and its own size."""
        scale = self.scale if side else 1
        size = self.size * scale if isinstance(self.size, int) else (self.size[0] * scale, self.size[1] * scale)
        return replace(self, size=size, channels=self.channels_of(side), scale=1)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    @property
    def key(self) -> str:
        """Everything that changes the pixels, for the names of caches."""
        channels = [self.channels_of(side) for side in (0, 1)]
        return f"{READER_VERSION}|{self.shape}|{self.scale}|{self.fit}|{self.colour}|{channels}|{self.skip_corrupt}"

    @property
    def label(self) -> str:
        """Size, and the fit where it is another than stretch: what a data set's name carries."""
        size = str(self.size) if isinstance(self.size, int) else "x".join(map(str, self.size))
        return size if self.fit == "stretch" else f"{size} {self.fit}"

    def channels_of(self, side: int) -> int:
        """Of inputs (0) or of targets (1)."""
        return self.channels if isinstance(self.channels, int) else self.channels[side]

    @property
    def colour(self) -> tuple[int, int, int]:
        """The background."""
        return background_of(self.background)

    def reader(self, channels: int, note: Notes | None = None) -> PictureReader:
        """Of one folder's files, which tells ``note`` what they lose."""
        return PictureReader(
            channels=channels, background=self.background, skip_corrupt=self.skip_corrupt, note=note or Notes()
        )

    def fitted(self, pixels: np.ndarray, note: Callable[[str], None]) -> np.ndarray:
        """uint8 ``[H, W, C]`` at the size, resampled bicubically; ``note`` is told what was lost."""
        height, width = pixels.shape[:2]
        wanted = self.shape
        if self.fit == "stretch" and abs(height * wanted[1] / (width * wanted[0]) - 1) > SQUASHED:
            note("stretched to another shape (data.fit says how else)")
        if self.fit == "crop" and (height < wanted[0] or width < wanted[1]):
            note("smaller than data.size, enlarged to it before the crop")
        fill = np.array([*self.colour, 0], np.uint8)
        if pixels.shape[2] == 1:
            fill = np.asarray(Image.new("RGB", (1, 1), tuple(fill[:3].tolist())).convert("L"))[0]
        return fitted(pixels, wanted, self.fit, fill=fill[: pixels.shape[2]])

    def fitted_ids(self, ids: np.ndarray) -> np.ndarray:
        """int32 ``[H, W]`` at the size; no id is mixed with another, and pads are -1."""
        return fitted(ids, self.shape, self.fit, fill=np.int32(-1), resample=Image.Resampling.NEAREST)


def scaled_size(height: int, width: int, wanted: tuple[int, int], fit: str) -> tuple[int, int]:
    """Height and width of a picture after scaling, before crop or pad."""
    down, across = wanted[0] / height, wanted[1] / width
    if fit == "stretch":
        return wanted
    if fit == "pad":
        factor = min(down, across)
        return min(wanted[0], max(1, round(height * factor))), min(wanted[1], max(1, round(width * factor)))
    factor = max(down, across, 1.0) if fit == "crop" else max(down, across)
    return max(wanted[0], round(height * factor)), max(wanted[1], round(width * factor))


def fitted(
    pixels: np.ndarray,
    wanted: tuple[int, int],
    fit: str,
    *,
    fill: np.ndarray | np.int32,
    resample: Image.Resampling = Image.Resampling.BICUBIC,
) -> np.ndarray:
    """uint8 ``[H, W, C]`` or int32 ``[H, W]`` at the wanted size; crops and pads are centred."""
    height, width = scaled_size(pixels.shape[0], pixels.shape[1], wanted, fit)
    if pixels.shape[:2] != (height, width):
        flat = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
        resized = np.asarray(Image.fromarray(flat).resize((width, height), resample))
        pixels = resized.reshape(height, width, *pixels.shape[2:])
    if fit == "pad":
        canvas = np.empty((*wanted, *pixels.shape[2:]), pixels.dtype)
        canvas[:] = fill
        top, left = (wanted[0] - height) // 2, (wanted[1] - width) // 2
        canvas[top : top + height, left : left + width] = pixels
        return canvas
    top, left = (height - wanted[0]) // 2, (width - wanted[1]) // 2
    return pixels[top : top + wanted[0], left : left + wanted[1]]


def halves(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The left and right half of ``[H, W, C]``; a middle column belongs to neither.

    Raises:
        RefusedPixelsError: there is one column.
    """
    half = pixels.shape[1] // 2
    if not half:
        raise RefusedPixelsError("one column wide; a pair lies side by side")
    return pixels[:, :half], pixels[:, pixels.shape[1] - half :]
