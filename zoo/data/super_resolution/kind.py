"""Data of super-resolution as a kind: ``train/`` and ``test/`` hold large pictures, which are made small."""

from __future__ import annotations

from pathlib import Path

from gantailor.evaluators.pictures.files import list_pictures, picture_files
from gantailor.evaluators.pictures.reader import tell, tell_folders
from gantailor.supernet.errors import ConfigError, DataError
from gantailor.zoo.data import SPLITS
from gantailor.zoo.data.config import DataConfig
from gantailor.zoo.data.fit import Reading
from gantailor.zoo.data.items import stored
from gantailor.zoo.data.pairs import Pairs
from gantailor.zoo.data.record import DataKind, DataSet, PictureFiles, shared_out, split_folder
from gantailor.zoo.data.super_resolution.pictures import Degraded, Tiles, WholePictures
from gantailor.zoo.data.super_resolution.settings import degradation_of
from gantailor.zoo.data.super_resolution.shrinking import Shrinking


def _read(config: DataConfig, split: str) -> DataSet:
    """Tiles of the training pictures, the others whole; a picture's tiles are never in two splits."""
    root = Path(str(config.path))

    def place(name: str) -> Path:
        found = split_folder(root, name)
        return root if not found.is_dir() and list_pictures(root) else found

    folder = place(split)
    files = picture_files(folder)
    tell_folders(folder, "folder")
    found = PictureFiles(tuple(file.name for file in files), tuple(files), folder.name)
    found = shared_out(found, config, split, place)
    shrinking = Shrinking(*degradation_of(config.options), config.scale or 1)
    reading = Reading.of(config)
    if split == "train":
        return _tiles(found, folder, reading, shrinking)
    return WholePictures(found, reading, shrinking, SPLITS.index(split))


def _tiles(found: PictureFiles, folder: Path, reading: Reading, shrinking: Shrinking) -> Pairs:
    tiles, what = Tiles.of(found, reading, shrinking), f"folder {str(folder)!r}"
    if tiles.used < len(found):
        tell(f"{what}: {len(found) - tiles.used} of {len(found)} pictures are smaller than a tile, and left out")
    key = f"{folder.resolve()}|{found.source}|{shrinking.plain_key}"
    kept = stored(tiles, reading, name="super_resolution", what=what, key=key)
    source = f"{found.source}@{reading.label}/{shrinking.degradation}"
    small, large = kept.sides
    if shrinking.random:
        return Degraded(small, large, kept.names, source, shrinking=shrinking)
    return Pairs(small, large, kept.names, source)


def _check(config: DataConfig) -> None:
    if config.path is None:
        raise DataError(
            "data.kind is super_resolution, but data.path is missing; name a folder of large pictures: "
            "--data.path FOLDER"
        )
    name, _ = degradation_of(config.options)
    if config.channels_of(0) != config.channels_of(1):
        raise ConfigError(
            "data.channels differ, but data.kind super_resolution makes the inputs of the targets; give one number"
        )
    if name == "realesrgan" and config.channels_of(0) == 4:
        raise ConfigError("data.options.degradation realesrgan has no alpha; give data.channels 3 or 1, or bicubic")


SUPER_RESOLUTION = DataKind(name="super_resolution", read=_read, check=_check)
