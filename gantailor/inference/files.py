"""Pictures and numbered frames from files, through a model, into files of the same names."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

from gantailor.evaluators.pictures.files import picture_files
from gantailor.evaluators.pictures.modes import as_channels, background_of
from gantailor.evaluators.pictures.reader import PictureReader
from gantailor.inference.models import PictureModel
from gantailor.inference.tiles import OnTile, Tiling
from gantailor.supernet.errors import ConfigError, DataError
from gantailor.supernet.files import write_bytes

ALPHA, OPAQUE = 4, 255  # channels with alpha; its value where nothing shines through
MADE_BY = "gantailor"  # the entry of a PNG that says from what it was made, so that it need not be made again
BACKGROUND = "white"  # where a model of one channel meets what is transparent
_NUMBER = re.compile(r"%0?\d*d")


def input_files(inputs: Sequence[str]) -> list[Path]:
    """The pictures of files, folders, and patterns of numbered frames (``frames/%05d.png``), in their order.

    Raises:
        DataError: one is missing, or a folder or pattern without a picture; or two have one name up to the suffix.
    """
    files: list[Path] = []
    for one in inputs:
        place = Path(one)
        if _NUMBER.search(place.name) and not place.exists():
            files += _frames(place)
        elif place.is_file():
            files.append(place)
        else:
            fix = "give a picture, a folder of pictures, or numbered frames as frames/%05d.png"
            files += picture_files(place, what="input", fix=fix)
    names: dict[str, Path] = {}
    for file in files:
        if (other := names.setdefault(file.stem, file)) is not file:
            raise DataError(
                f"{str(other)!r} and {str(file)!r} would both be written as {file.stem}.png; rename one, or run them "
                "into different folders"
            )
    return files


def _frames(pattern: Path) -> list[Path]:
    """Those of a pattern, by their numbers."""
    before, after = _NUMBER.split(pattern.name, maxsplit=1)
    name = re.compile(re.escape(before) + r"(\d+)" + re.escape(after))
    there = pattern.parent.iterdir() if pattern.parent.is_dir() else ()
    found = {file: match for file in there if (match := name.fullmatch(file.name)) and file.is_file()}
    if not found:
        raise DataError(
            f"no frame has a name like {str(pattern)!r}; give numbered frames as frames/%05d.png, or a folder"
        )
    return sorted(found, key=lambda file: int(found[file][1]))


def check_out(out: Path, files: Sequence[Path]) -> None:
    """That outputs overwrite no input.

    Raises:
        ConfigError: they would, or there is a file of this name.
    """
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {str(out)!r} is a file; name a folder")
    if any(file.parent.resolve() == out.resolve() for file in files):
        raise ConfigError(f"--out {str(out)!r} is the folder of the inputs, which would be overwritten; name another")


@dataclass
class Application:
    """A model applied to files.

    Attributes:
        made, kept, skipped: files that were written, that lay there already, that are no pictures.
        seam: the largest of all pictures, see ``Made``.
    """

    tiling: Tiling
    out: Path
    skip_corrupt: bool = False
    made: int = 0
    kept: int = 0
    skipped: list[str] = field(default_factory=list)
    seam: float = 0.0

    def __post_init__(self) -> None:
        self.reader = PictureReader(channels=ALPHA, skip_corrupt=self.skip_corrupt, way_out="pass --skip-corrupt")

    def __call__(
        self,
        files: Sequence[Path],
        *,
        on_picture: Callable[[int, int], None] | None = None,
        on_tile: OnTile | None = None,
    ) -> None:
        """Write ``out/NAME.png`` for each; what lies there, made of the same by the same, stays.

        Raises:
            DataError: a file is no picture.
            ConfigError, ExportError: the model does not take it, see ``Tiling``.
        """
        for number, file in enumerate(files):
            self._one(file, on_tile)
            if on_picture:
                on_picture(number + 1, len(files))

    def _one(self, file: Path, on_tile: OnTile | None) -> None:
        pixels = self.reader.read(file)
        if pixels is None:
            self.skipped.append(file.name)
            return
        target, key = self.out / f"{file.stem}.png", self._key(pixels)
        if _made_by(target) == key:
            self.kept += 1
            return
        made = self.tiling(to_model(pixels, self.tiling.model), on_tile=on_tile)
        self.seam = max(self.seam, made.seam)
        write_bytes(target, png(from_model(made.picture, pixels, self.tiling.model), key))
        self.made += 1

    def _key(self, pixels: np.ndarray) -> str:
        """Of everything that the output depends on."""
        tiling = self.tiling
        said = f"{tiling.model.digest} {tiling.tile} {tiling.overlap} {pixels.shape}"
        return hashlib.sha256(said.encode() + pixels.tobytes()).hexdigest()


def to_model(pixels: np.ndarray, model: PictureModel) -> np.ndarray:
    """uint8 ``[H, W, 4]`` as the model takes it: float32 ``[channels, H, W]`` in its range."""
    if model.channels < ALPHA:  # colours as they are stored, whatever shines through
        pixels = as_channels(np.ascontiguousarray(pixels[..., :3]), model.channels, background_of(BACKGROUND))
    black, white = model.picture_range
    return pixels.transpose(2, 0, 1).astype(np.float32) * ((white - black) / 255) + np.float32(black)


def from_model(made: np.ndarray, pixels: np.ndarray, model: PictureModel) -> np.ndarray:
    """What a model made as uint8 ``[H, W, 1, 3 or 4]``: clipped, rounded, with the input's alpha where it had one.

    Args:
        made: ``[C, H, W]`` in the model's range.
        pixels: the input, uint8 ``[H', W', 4]``, whose alpha is enlarged by bicubic interpolation.
    """
    black, white = model.picture_range
    shades = np.rint((made - black) * (255 / (white - black))).clip(0, 255).astype(np.uint8).transpose(1, 2, 0)
    alpha = pixels[..., 3]
    if shades.shape[2] == ALPHA or (alpha == OPAQUE).all():
        return shades
    height, width = shades.shape[:2]
    if alpha.shape != (height, width):
        alpha = np.asarray(Image.fromarray(alpha).resize((width, height), Image.Resampling.BICUBIC))
    colours = np.repeat(shades, 3, 2) if shades.shape[2] == 1 else shades
    return np.concatenate([colours, alpha[..., None]], 2)


def png(pixels: np.ndarray, key: str) -> bytes:
    """A PNG file that says what it was made of."""
    buffer, info = io.BytesIO(), PngImagePlugin.PngInfo()
    info.add_text(MADE_BY, key)
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def _made_by(file: Path) -> str | None:
    """What a PNG says that it was made of; None of any other file."""
    try:
        with Image.open(file) as image:
            found = getattr(image, "text", {}).get(MADE_BY)
            return found if isinstance(found, str) else None
    except Exception:  # whatever a broken file makes the decoder raise
        return None
