"""Pictures of a folder, decoded once into an array in the cache folder and memory-mapped afterwards."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

import numpy as np

from gantailor.supernet.errors import DataError
from gantailor.supernet.files import cache_folder
from gantailor.zoo.data.config import DataConfig
from gantailor.zoo.data.domains import Domains
from gantailor.zoo.data.pairs import Pairs
from gantailor.zoo.data.pictures import image_files, read_images
from gantailor.zoo.data.record import DataKind, check_path, split_folder


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
        decoded = read_images(files, height=size, width=size * 2 if paired else size)
        with tempfile.NamedTemporaryFile(dir=cached.parent, suffix=".tmp", delete=False) as file:
            np.save(file, decoded)
        Path(file.name).replace(cached)
    pictures = np.load(cached, mmap_mode="r")
    names, source = tuple(f.name for f in files), f"{Path(folder).name}@{size}"
    if not paired:
        return Pairs(pictures, None, names, source)
    left, right = pictures[:, :, :size], pictures[:, :, size:]
    first, second = (left, right) if direction == "AtoB" else (right, left)
    return Pairs(first, second, names, source)


def _read(config: DataConfig, split: str) -> Pairs:
    """The split's folder; where there is none, the pictures that lie in ``data.path`` itself are every split."""
    root = Path(str(config.path))
    found = split_folder(root, split)
    chosen = root if not found.is_dir() and list(root.glob("*.*")) else found
    return folder_pairs(chosen, size=config.size, direction=config.direction)


FOLDER = DataKind(
    name="folder", read=_read, domains=lambda config: Domains.of(_read(config, "train")), check=check_path
)
