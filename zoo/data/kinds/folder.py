"""Pictures of a folder: pairs side by side, or plain inputs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from gantailor.evaluators.pictures.files import list_pictures, picture_files
from gantailor.evaluators.pictures.modes import as_channels
from gantailor.evaluators.pictures.reader import Notes, tell_folders
from gantailor.supernet.errors import DataError
from gantailor.zoo.data.config import DataConfig
from gantailor.zoo.data.domains import Domains
from gantailor.zoo.data.fit import Reading, halves
from gantailor.zoo.data.items import stamp_of, stored
from gantailor.zoo.data.pairs import Pairs
from gantailor.zoo.data.record import DataKind, check_path, shared_out, split_folder

DIRECTIONS = ("AtoB", "BtoA", "unpaired")


def folder_pairs(
    folder: str | Path,
    *,
    size: int | tuple[int, int],
    direction: str = "AtoB",
    fit: str = "stretch",
    background: str = "white",
    channels: int | tuple[int, int] = 3,
    skip_corrupt: bool = False,
) -> Pairs:
    """Pictures of a folder as pairs.

    ``direction`` says what a file is: ``AtoB`` or ``BtoA`` for side-by-side pairs (the pix2pix layout, A left),
    ``unpaired`` for plain inputs whose targets the teacher supplies. A pair is cut in two before anything else happens
    to it. The other settings are those of ``Reading``.

    Raises:
        DataError: an unknown direction or fit, no pictures, or one that cannot be read.
    """
    reading = Reading(size=size, fit=fit, background=background, channels=channels, skip_corrupt=skip_corrupt)
    return read_folder(folder, reading, direction)


def read_folder(folder: str | Path, reading: Reading, direction: str) -> Pairs:
    """As ``folder_pairs``."""
    if direction not in DIRECTIONS:
        raise DataError(f"direction {direction!r} is unknown. Allowed: {', '.join(DIRECTIONS)}")
    path = Path(folder)
    files = picture_files(path, fix=f"give pictures there, or put all into {str(path.parent)!r}: splits share them out")
    tell_folders(path, "folder")
    items = FolderItems(path, tuple(file.name for file in files), reading, direction)
    found = stored(items, reading, name="folder", what=f"folder {str(folder)!r}", key=f"{path.resolve()}|{direction}")
    inputs, targets = (*found.sides, None)[:2]
    return Pairs(inputs, targets, found.names, f"{path.name}@{reading.label}")


@dataclass(frozen=True)
class FolderItems:
    """The pictures of a folder: pairs side by side, or plain inputs where the direction is ``unpaired``."""

    folder: Path
    names: tuple[str, ...]
    reading: Reading
    direction: str

    def __len__(self) -> int:
        return len(self.names)

    def stamp(self, index: int) -> str:
        return stamp_of(self.folder / self.names[index])

    @cached_property
    def sides(self) -> tuple[Reading, ...]:
        """Of the input and, if there is one, of the target."""
        return tuple(self.reading.side(side) for side in range(1 if self.direction == "unpaired" else 2))

    def read(self, index: int, note: Notes) -> tuple[np.ndarray, ...] | None:
        reader = self.reading.reader(max(side.channels_of(0) for side in self.sides), note)
        return reader.decode(
            self.folder / self.names[index], lambda image, rawmode: self._cut(reader.pixels(image, rawmode), note)
        )

    def _cut(self, pixels: np.ndarray, note: Notes) -> tuple[np.ndarray, ...]:
        if len(self.sides) == 1:
            return (self.sides[0].fitted(pixels, note),)
        parts = halves(pixels)[:: -1 if self.direction == "BtoA" else 1]  # which half is the input
        first, second = (
            as_channels(part, side.channels_of(0), side.colour) for part, side in zip(parts, self.sides, strict=True)
        )
        target = self.sides[1].fitted(second, lambda lost: None)  # what halves lose is said once
        if self.reading.fit == "crop" and self.reading.scale > 1:  # the part that the target shows, made smaller
            same = replace(self.sides[1], channels=self.sides[0].channels).fitted(first, note)
            return replace(self.sides[0], fit="stretch").fitted(same, note), target
        return self.sides[0].fitted(first, note), target


def _read(config: DataConfig, split: str) -> Pairs:
    """The split's folder; where there is none, its part of the pictures that lie in ``data.path`` itself."""
    root = Path(str(config.path))

    def place(name: str) -> Path:
        found = split_folder(root, name)
        return root if not found.is_dir() and list_pictures(root) else found

    return shared_out(read_folder(place(split), Reading.of(config), config.direction), config, split, place)


FOLDER = DataKind(
    name="folder", read=_read, domains=lambda config: Domains.of(_read(config, "train")), check=check_path
)
