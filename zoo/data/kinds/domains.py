"""Unpaired pictures in two folders: ``trainA`` and ``trainB`` of CycleGAN, or the other layouts of ``sides``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from gantailor.zoo.data.config import DataConfig
from gantailor.zoo.data.domains import Domains
from gantailor.zoo.data.fit import Reading
from gantailor.zoo.data.kinds.folder import read_folder
from gantailor.zoo.data.kinds.sides import need_sides, side_folders
from gantailor.zoo.data.pairs import Pairs
from gantailor.zoo.data.record import DataKind, check_path, shared_out


def _sides(config: DataConfig) -> tuple[str, str]:
    """The side whose pictures are translated, and the other."""
    first, second = config.sides
    return (second, first) if config.direction == "BtoA" else (first, second)


def _side(config: DataConfig, folder: Path, number: int, split: str) -> Pairs:
    reading, root = Reading.of(config).side(number), Path(str(config.path))
    source = f"{folder.relative_to(root).as_posix()}@{reading.label}"
    pairs = replace(read_folder(folder, reading, "unpaired"), source=source)
    return shared_out(pairs, config, split, lambda name: side_folders(root, name, _sides(config))[number])


def _read(config: DataConfig, split: str) -> Pairs:
    """Pictures of A, whose targets are the teacher's outputs, and B's beside them, where there are any: all of both."""
    root, sides = Path(str(config.path)), _sides(config)
    first, second = side_folders(root, split, sides)
    need_sides(root, split, [first], sides)
    pairs = _side(config, first, 0, split)
    if not second.is_dir():
        return pairs
    real = _side(config, second, 1, split)
    source = pairs.source if split == "train" else f"{pairs.source} to {real.source}"
    return replace(pairs, others=real.inputs, source=source)


def _domains(config: DataConfig) -> Domains:
    root, sides = Path(str(config.path)), _sides(config)
    folders = side_folders(root, "train", sides)
    need_sides(root, "train", folders, sides)
    first, second = (_side(config, folder, number, "train") for number, folder in enumerate(folders))
    return Domains(first.inputs, second.inputs)


DOMAINS = DataKind(name="domains", read=_read, domains=_domains, check=check_path)
