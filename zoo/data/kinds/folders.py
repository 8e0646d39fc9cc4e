"""Pairs in two folders whose files bear the same names: ``trainA`` and ``trainB``, ``train/A`` and ``train/B``, ..."""

from __future__ import annotations

from pathlib import Path

from gantailor.supernet.errors import ConfigError
from gantailor.zoo.data.config import DataConfig
from gantailor.zoo.data.domains import Domains
from gantailor.zoo.data.fit import Reading
from gantailor.zoo.data.kinds.files import FileItems, read_items
from gantailor.zoo.data.kinds.sides import matched, need_sides, side_folders
from gantailor.zoo.data.pairs import Pairs
from gantailor.zoo.data.record import DataKind, check_path, shared_out


def _read(config: DataConfig, split: str) -> Pairs:
    """The first of ``data.sides`` is the input, with the direction BtoA the second."""
    root = Path(str(config.path))
    folders = side_folders(root, split, config.sides)
    need_sides(root, split, folders, config.sides)
    found = matched(folders, config.sides)
    files = found.files if config.direction == "AtoB" else tuple((b, a) for a, b in found.files)
    items = FileItems(found.names, files, Reading.of(config))
    inside = " and ".join(folder.relative_to(root).as_posix() for folder in folders)
    key = "|".join([*(str(folder.resolve()) for folder in folders), config.direction])
    source = f"{root.name}/{folders[0].relative_to(root).as_posix()}"
    pairs = read_items(items, None, name="folders", what=f"folders {inside} of {str(root)!r}", key=key, source=source)
    return shared_out(pairs, config, split, lambda name: side_folders(root, name, config.sides))


def _check(config: DataConfig) -> None:
    check_path(config)
    if config.direction == "unpaired":
        raise ConfigError(
            "data.direction cannot be unpaired where folders are matched by name: data.kind domains reads two that are "
            "not, data.kind folder one alone"
        )


FOLDERS = DataKind(name="folders", read=_read, domains=lambda config: Domains.of(_read(config, "train")), check=_check)
