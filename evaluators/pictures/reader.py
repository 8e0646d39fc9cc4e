"""The one reader of picture files: of training, of label maps, of scores."""

from __future__ import annotations

import io
import logging
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

from gantailor.evaluators.pictures.files import PictureFile, list_pictures
from gantailor.evaluators.pictures.modes import background_of, pixels_of, rawmode_of
from gantailor.supernet.errors import DataError, GantailorError

READER_VERSION = 1  # raise when pixels come out otherwise, so that old caches are not read
logger = logging.getLogger(__name__)
_said: set[str] = set()
T = TypeVar("T")


@dataclass
class Notes:
    """What pictures lost on their way into arrays; called with what one file loses.

    Attributes:
        lost: in how many files.
        skipped: names of files that were left out.
    """

    lost: Counter[str] = field(default_factory=Counter)
    skipped: list[str] = field(default_factory=list)

    def __call__(self, lost: str) -> None:
        self.lost[lost] += 1

    def add(self, other: Notes) -> None:
        """What others lost as well."""
        self.lost.update(other.lost)
        self.skipped.extend(other.skipped)

    def summary(self) -> dict[str, int]:
        """What was lost, with the number of files; what was left out too."""
        found = dict(self.lost)
        if self.skipped:
            names = ", ".join(self.skipped[:3]) + (", ..." if len(self.skipped) > 3 else "")
            found[f"cannot be read and are left out ({names})"] = len(self.skipped)
        return found


@dataclass(frozen=True, kw_only=True)
class PictureReader:
    """From a file to uint8 ``[H, W, channels]``; what becomes of each kind of pixel is in ``modes.MODES``.

    Args:
        channels: 1 (luminance), 3 (RGB) or 4 (RGB and alpha).
        background: name of the colour that transparent pixels are laid on.
        skip_corrupt: go on without files that cannot be read.
        error: type of what is raised.
        way_out: how the user says ``skip_corrupt``, for messages.
        note: is told what was lost, and what was left out; ``say`` tells it.
    """

    channels: int = 3
    background: str = "white"
    skip_corrupt: bool = False
    error: type[GantailorError] = DataError
    way_out: str = "set data.skip_corrupt: true"
    note: Notes = field(default_factory=Notes)

    @property
    def notes(self) -> Counter[str]:
        """What was lost, and in how many files."""
        return self.note.lost

    def read(self, file: PictureFile) -> np.ndarray | None:
        """The pixels of a picture; None where it cannot be read and is skipped.

        Of animated files and several pages it is the first.

        Raises:
            GantailorError: it cannot be read; one line that names it.
        """
        return self.decode(file, self.pixels)

    def pixels(self, image: Image.Image, rawmode: str) -> np.ndarray:
        """Those of a loaded image, for ``decode``."""
        pixels = pixels_of(
            image, rawmode, channels=self.channels, background=background_of(self.background), note=self.note
        )
        if image.format != "MPO" and getattr(image, "is_animated", False):  # an MPO's others are previews
            self.note("animated or of several pages, of which the first is read")
        return pixels

    def decode(self, file: PictureFile, how: Callable[[Image.Image, str], T]) -> T | None:
        """What ``how`` makes of the loaded image and its rawmode; None where the file is skipped.

        Raises:
            GantailorError: the file cannot be read, or what ``how`` raises of this type.
        """
        try:
            with warnings.catch_warnings():  # of large pictures and odd metadata, file after file
                warnings.simplefilter("ignore")
                with Image.open(file if isinstance(file, Path) else io.BytesIO(file.read_bytes())) as image:
                    rawmode = rawmode_of(image)
                    image.load()
                    return how(image, rawmode)
        except GantailorError:
            raise
        except Exception as failure:  # decoders of broken files raise SyntaxError, struct.error, IndexError, ...
            if self.skip_corrupt:
                self.note.skipped.append(file.name)
                return None
            raise self.error(
                f"picture {str(file)!r} cannot be read ({_reason(file, failure)}); mend or remove it, or {self.way_out}"
            ) from None

    def summary(self) -> dict[str, int]:
        """As that of the notes."""
        return self.note.summary()


def say(what: str, total: int, summary: Mapping[str, int]) -> None:
    """Tell once in a process what pictures of a folder lost, in one line of the log."""
    if not summary:
        return
    tell(f"{what}: of {total} pictures " + "; ".join(f"{count} {lost}" for lost, count in sorted(summary.items())))


def tell_folders(folder: Path, what: str) -> None:
    """Tell once that pictures which lie deeper than in a folder itself are left out."""
    inside: list[str] = []
    with suppress(OSError):  # one that nobody may look into
        inside += [found.name for found in sorted(folder.iterdir()) if found.is_dir() and list_pictures(found)]
    if inside:
        names = ", ".join(inside[:3]) + (", ..." if len(inside) > 3 else "")
        tell(f"{what} {str(folder)!r}: the pictures in folders inside it ({names}) are left out")


def tell(text: str) -> None:
    """Log a warning once in a process."""
    if text not in _said:
        _said.add(text)
        logger.warning(text)


def _reason(file: PictureFile, failure: Exception) -> str:
    if isinstance(failure, Image.DecompressionBombError):
        return f"more than {2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6:.0f} million pixels; a smaller copy can"
    if isinstance(failure, UnidentifiedImageError):
        return "no picture, or a broken one" if file.read_bytes() else "empty file"
    if isinstance(failure, MemoryError):
        return "not enough memory for it"
    said = (failure.strerror if isinstance(failure, OSError) else None) or str(failure) or type(failure).__name__
    return said.splitlines()[0][:120]
