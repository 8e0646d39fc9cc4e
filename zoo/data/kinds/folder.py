"""Pictures of a folder, decoded once into arrays in the cache folder and memory-mapped afterwards."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from gantailor.evaluators.pictures.files import list_pictures, picture_files
from gantailor.evaluators.pictures.modes import as_channels
from gantailor.evaluators.pictures.reader import say
from gantailor.supernet.errors import DataError
from gantailor.supernet.files import cache_folder
from gantailor.zoo.data.config import DataConfig
from gantailor.zoo.data.domains import Domains
from gantailor.zoo.data.fit import Reading, halves
from gantailor.zoo.data.pairs import Pairs
from gantailor.zoo.data.record import DataKind, check_path, split_folder

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
    files = picture_files(path)
    stamp = "|".join(f"{f.name}:{f.stat().st_size}:{f.stat().st_mtime_ns}" for f in files)
    channels = [reading.channels_of(side) for side in (0, 1)]
    key = hashlib.sha256(f"{path.resolve()}|{reading.key}|{channels}|{direction}|{stamp}".encode()).hexdigest()[:16]
    cached = cache_folder() / f"folder-{key}"
    if not cached.is_dir():
        _store(cached, files, reading, direction)
    about = json.loads((cached / "about.json").read_text(encoding="utf8"))
    say(f"folder {str(folder)!r}", len(files), about["lost"])
    inputs = np.load(cached / "inputs.npy", mmap_mode="r")
    targets = None if direction == "unpaired" else np.load(cached / "targets.npy", mmap_mode="r")
    return Pairs(inputs, targets, tuple(about["names"]), f"{path.name}@{reading.label}")


def _store(cached: Path, files: Sequence[Path], reading: Reading, direction: str) -> None:
    """Decode into a folder of arrays, which is there whole or not at all."""
    scratch = Path(tempfile.mkdtemp(dir=cached.parent, prefix=f".{cached.name}."))
    try:
        names, arrays, lost = _decoded(files, reading, direction)
        for name, pictures in zip(("inputs", "targets"), arrays, strict=False):
            np.save(scratch / f"{name}.npy", pictures)
        (scratch / "about.json").write_text(json.dumps({"names": names, "lost": lost}), encoding="utf8")
        try:
            scratch.rename(cached)
        except OSError:  # another process was quicker
            if not cached.is_dir():
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _decoded(
    files: Sequence[Path], reading: Reading, direction: str
) -> tuple[list[str], list[np.ndarray], dict[str, int]]:
    """Names, uint8 ``[N, H, W, C]`` of inputs and, if there are any, of targets, and what was lost."""
    paired = direction != "unpaired"
    order = (1, 0) if direction == "BtoA" else (0, 1)  # which half is the input
    channels = [reading.channels_of(side) for side in (0, 1)][: 1 + paired]
    reader = reading.reader(max(channels))
    names: list[str] = []
    arrays = [np.empty((len(files), *reading.shape, count), np.uint8) for count in channels]

    def sides(image: Image.Image, rawmode: str) -> tuple[np.ndarray, ...]:
        pixels = reader.pixels(image, rawmode)
        if not paired:
            return (reading.fitted(pixels, reader.note),)
        cut = halves(pixels)
        first, second = (as_channels(cut[order[side]], channels[side], reading.colour) for side in (0, 1))
        return reading.fitted(first, reader.note), reading.fitted(second, lambda lost: None)  # said once

    for file in files:
        decoded = reader.decode(file, sides)
        if decoded is not None:
            for array, pixels in zip(arrays, decoded, strict=True):
                array[len(names)] = pixels
            names.append(file.name)
    if not names:
        raise DataError(f"data folder {str(files[0].parent)!r}: none of its {len(files)} pictures can be read")
    return names, [array[: len(names)] for array in arrays], reader.summary()


def _read(config: DataConfig, split: str) -> Pairs:
    """The split's folder; where there is none, the pictures that lie in ``data.path`` itself are every split."""
    root = Path(str(config.path))
    found = split_folder(root, split)
    chosen = root if not found.is_dir() and list_pictures(root) else found
    return read_folder(chosen, Reading.of(config), config.direction)


FOLDER = DataKind(
    name="folder", read=_read, domains=lambda config: Domains.of(_read(config, "train")), check=check_path
)
