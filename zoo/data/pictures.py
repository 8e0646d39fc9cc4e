"""Pictures as files, arrays and tensors."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, TypeGuard

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from gantailor.evaluators.pictures.modes import background_of
from gantailor.evaluators.pictures.rgb import as_rgb, as_seen, shades


class Pictures(Protocol):
    """Pictures ``[N, H, W, C]`` by their rows: a numpy array is such, and a side of stored items."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of all of them."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """uint8, or uint16 of label maps."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any) -> Any:
        """A numpy array of one row (a number) or several (a slice, an array of numbers)."""
        ...


def to_float(images: np.ndarray) -> Tensor:
    """uint8 ``[n, H, W, C]``, or float32 in [-1, 1], to float ``[n, C, H, W]`` in [-1, 1]."""
    if images.dtype == np.float32:
        return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).to(torch.float32).div_(127.5).sub_(1)


def mirror(images: np.ndarray, chosen: Sequence[bool]) -> np.ndarray:
    """Those of ``[n, H, W, C]`` that are chosen, left and right exchanged; the others as they are."""
    return np.stack([image[:, ::-1] if turned else image for image, turned in zip(images, chosen, strict=True)])


def cropped(images: np.ndarray, corners: Sequence[Sequence[int]], size: tuple[int, int]) -> np.ndarray:
    """Of each of ``[n, H, W, C]`` the part of a height and width that begins at its own ``[top, left]``."""
    height, width = size
    return np.stack(
        [image[top : top + height, left : left + width] for image, (top, left) in zip(images, corners, strict=True)]
    )


def is_picture(images: Tensor | None) -> TypeGuard[Tensor]:
    """Whether a batch can be shown: ``[N, C, H, W]``, grey, RGB, or RGB and alpha."""
    return images is not None and images.ndim == 4 and images.shape[1] in (1, 3, 4)


def to_rgb(images: Tensor, background: str = "white") -> np.ndarray:
    """Pictures to show: float ``[n, 1, 3 or 4, H, W]`` in [-1, 1] to uint8 ``[n, H, W, 3]``, alpha laid on a colour."""
    return to_uint8(as_rgb(as_seen(images), background_of(background)))


def to_uint8(images: Tensor) -> np.ndarray:
    """Float ``[n, C, H, W]`` in [-1, 1] to uint8 ``[n, H, W, C]``, rounded and clipped."""
    return shades(images).permute(0, 2, 3, 1).to(torch.uint8).cpu().numpy()


def picture_grid(columns: Sequence[np.ndarray], *, names: Sequence[str] = (), gap: int = 2) -> bytes:
    """A PNG: a row for each picture, a column for each uint8 ``[N, H, W, 3]``; all are made as large as the largest.

    Args:
        names: of the columns, written above them, smaller where they are wider, then cut.
        gap: pixels between pictures.
    """
    height, width = (max(c.shape[axis] for c in columns) for axis in (1, 2))
    rows, top = len(columns[0]), 14 if names else 0
    size = (len(columns) * (width + gap) - gap, top + rows * (height + gap) - gap)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for x, column in enumerate(columns):
        for y, picture in enumerate(column):
            fitted = Image.fromarray(picture).resize((width, height))
            sheet.paste(fitted, (x * (width + gap), top + y * (height + gap)))
    for x, name in enumerate(names):
        font = next((size for size in (10, 9, 8) if draw.textlength(name, font_size=size) <= width), 8)
        shown = name
        while draw.textlength(shown, font_size=font) > width and shown:
            shown = shown[:-1]
        draw.text((x * (width + gap) + width / 2, 1), shown, "black", font_size=font, anchor="ma")
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()


def save_array(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write an ``.npz`` so that a reader sees the whole file or none of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    Path(file.name).replace(path)
