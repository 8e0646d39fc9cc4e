"""Image pairs in memory: what the trainer and the evaluators read.

Images are uint8 at this border and float in [-1, 1] behind it. Folders are decoded once into an array in the
cache folder and memory-mapped afterwards, so that an epoch costs no decoding.
"""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeGuard

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from gantailor.supernet.errors import DataError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
SPLITS = ("train", "search", "test")


def cache_folder() -> Path:
    """``$GANTAILOR_CACHE``, or ``gantailor`` in the user's cache folder; made if missing."""
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "gantailor"
    folder = Path(os.environ.get("GANTAILOR_CACHE", default))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@dataclass(frozen=True)
class Pairs:
    """Aligned pictures: ``inputs`` and ``targets`` are uint8 ``[N, H, W, C]`` arrays of equal length.

    ``targets`` is ``None`` for unpaired data, whose targets are the teacher's outputs.
    """

    inputs: np.ndarray
    targets: np.ndarray | None
    names: tuple[str, ...]
    source: str

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def paired(self) -> bool:
        """Whether a real picture belongs to each input."""
        return self.targets is not None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.inputs.shape[1], self.inputs.shape[2]

    def take(self, indices: np.ndarray | slice) -> Pairs:
        """The pairs at ``indices``, as a new object on the same memory where numpy allows."""
        names = tuple(np.asarray(self.names, dtype=object)[indices])
        targets = None if self.targets is None else self.targets[indices]
        return Pairs(self.inputs[indices], targets, names, self.source)

    def batch(
        self, indices: np.ndarray, *, moves: Sequence[tuple[bool, int, int]] | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Inputs and targets as float ``[n, C, H, W]`` in [-1, 1].

        ``moves`` says for each pair whether it is mirrored, and how far it goes down and right (edges repeated).
        """
        inputs, targets = self.inputs[indices], None if self.targets is None else self.targets[indices]
        if moves is not None and any(any(move) for move in moves):
            inputs = _moved(inputs, moves)
            targets = None if targets is None else _moved(targets, moves)
        return to_float(inputs), None if targets is None else to_float(targets)

    def digest(self) -> str:
        """A short hash of every pixel: the provenance that a score carries."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        sha = hashlib.sha256(self.inputs.tobytes())
        if self.targets is not None:
            sha.update(self.targets.tobytes())
        return sha.hexdigest()[:12]


def _moved(images: np.ndarray, moves: Sequence[tuple[bool, int, int]]) -> np.ndarray:
    """Each image mirrored and shifted by its own ``(mirror, down, right)``."""
    _, height, width, _ = images.shape
    rows, columns = np.arange(height), np.arange(width)
    moved = np.empty_like(images)
    for position, (mirror, down, right) in enumerate(moves):
        image = images[position][:, ::-1] if mirror else images[position]
        take_rows, take_columns = np.clip(rows - down, 0, height - 1), np.clip(columns - right, 0, width - 1)
        moved[position] = image[take_rows[:, None], take_columns]
    return moved


def to_float(images: np.ndarray) -> Tensor:
    """uint8 ``[n, H, W, C]`` to float ``[n, C, H, W]`` in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).to(torch.float32).div_(127.5).sub_(1)


def is_picture(images: Tensor | None) -> TypeGuard[Tensor]:
    """Whether a batch can be shown: ``[N, 3, H, W]``."""
    return images is not None and images.ndim == 4 and images.shape[1] == 3


def to_uint8(images: Tensor) -> np.ndarray:
    """Float ``[n, C, H, W]`` in [-1, 1] to uint8 ``[n, H, W, C]``, rounded and clipped."""
    scaled = images.detach().float().add(1).mul(127.5).round().clamp(0, 255)
    return scaled.permute(0, 2, 3, 1).to(torch.uint8).cpu().numpy()


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
        while draw.textlength(name, font_size=font) > width and name:
            name = name[:-1]
        draw.text((x * (width + gap) + width / 2, 1), name, "black", font_size=font, anchor="ma")
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()


def save_array(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write an ``.npz`` so that a reader sees the whole file or none of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    os.replace(file.name, path)


def image_files(folder: Path) -> list[Path]:
    """The pictures of a folder, by name.

    Raises:
        DataError: the folder is missing or holds none.
    """
    if not folder.is_dir():
        raise DataError(f"data folder {str(folder)!r} does not exist; give a folder with pictures")
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise DataError(
            f"data folder {str(folder)!r} holds no pictures; allowed are files ending in {', '.join(IMAGE_SUFFIXES)}"
        )
    return files


def read_images(files: list[Path], *, height: int, width: int) -> np.ndarray:
    """Decode, convert to RGB and resize (bicubic) to uint8 ``[N, height, width, 3]``.

    Raises:
        DataError: a file is not a readable picture; the message names it.
    """
    pictures = np.empty((len(files), height, width, 3), np.uint8)
    for position, file in enumerate(files):
        try:
            with Image.open(file) as image:
                rgb = image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
        except OSError as error:
            raise DataError(f"{str(file)!r} is not a readable picture ({error}); remove or replace it") from None
        pictures[position] = np.asarray(rgb)
    return pictures


def folder_pairs(folder: str | Path, *, size: int, direction: str = "AtoB") -> Pairs:
    """Pictures of a folder as pairs.

    ``direction`` says what a file is: ``AtoB`` or ``BtoA`` for side-by-side pairs (the pix2pix layout, A left),
    ``unpaired`` for plain inputs whose targets the teacher supplies.
    """
    directions = ("AtoB", "BtoA", "unpaired")
    if direction not in directions:
        raise DataError(f"direction {direction!r} is unknown. Allowed: {', '.join(directions)}")
    files = image_files(Path(folder))
    stamp = "|".join(f"{f.name}:{f.stat().st_size}:{f.stat().st_mtime_ns}" for f in files)
    key = hashlib.sha256(f"{Path(folder).resolve()}|{size}|{direction}|{stamp}".encode()).hexdigest()[:16]
    cached = cache_folder() / f"folder-{key}.npy"
    paired = direction != "unpaired"
    if not cached.exists():
        pictures = read_images(files, height=size, width=size * 2 if paired else size)
        with tempfile.NamedTemporaryFile(dir=cached.parent, suffix=".tmp", delete=False) as file:
            np.save(file, pictures)
        os.replace(file.name, cached)
    pictures = np.load(cached, mmap_mode="r")
    names, source = tuple(f.name for f in files), f"{Path(folder).name}@{size}"
    if not paired:
        return Pairs(pictures, None, names, source)
    left, right = pictures[:, :, :size], pictures[:, :, size:]
    return Pairs(*((left, right) if direction == "AtoB" else (right, left)), names, source)
