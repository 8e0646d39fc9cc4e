"""Where the two sides of a data set lie, as the folders of this field are named, and which of their files match."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gantailor.evaluators.pictures.files import list_pictures, picture_files
from gantailor.evaluators.pictures.names import by_stem, match_names
from gantailor.evaluators.pictures.reader import tell
from gantailor.supernet.errors import DataError
from gantailor.zoo.data.record import FOLDERS

# trainA of CycleGAN; train_A; train/A; A/train of pix2pix's combine_A_and_B.py
LAYOUTS = ("{split}{side}", "{split}_{side}", "{split}/{side}", "{side}/{split}")


def side_folders(root: Path, split: str, sides: Sequence[str]) -> tuple[Path, ...]:
    """A folder for each side of a split, all of one layout; the second may be missing.

    Where no layout is there, folders that bear the sides' names alone hold every split; else what CycleGAN would call
    them is returned, for a message.
    """
    for name in FOLDERS[split]:
        for layout in LAYOUTS:
            folders = tuple(root / layout.format(split=name, side=side) for side in sides)
            if folders[0].is_dir():
                return folders
    plain = tuple(root / side for side in sides)
    if all(list_pictures(folder) for folder in plain):
        return plain
    return tuple(root / f"{FOLDERS[split][0]}{side}" for side in sides)


def need_sides(root: Path, split: str, folders: Sequence[Path], sides: Sequence[str]) -> None:
    """That the folders of a split are there.

    Raises:
        DataError: one is not; the layouts and what lies there instead are named.
    """
    if not root.is_dir():
        raise DataError(f"data folder {str(root)!r} does not exist; give a folder that holds both sides")
    missing = next((folder for folder in folders if not folder.is_dir()), None)
    if missing is None:
        return
    side = sides[list(folders).index(missing)]
    allowed = ", ".join(layout.format(split=FOLDERS[split][0], side=side) for layout in LAYOUTS)
    there = sorted(entry.name for entry in root.iterdir() if entry.is_dir())
    found = f"there are {', '.join(there[:6])}{', ...' if len(there) > 6 else ''}" if there else "there is no folder"
    raise DataError(
        f"data folder {str(root)!r} has none of {allowed} for {split}; {found}. data.sides names others than "
        f"[{', '.join(sides)}]"
    )


@dataclass(frozen=True)
class Matched:
    """Files of two sides by the names that they share."""

    names: tuple[str, ...]
    files: tuple[tuple[Path, Path], ...]


def matched(folders: Sequence[Path], sides: Sequence[str]) -> Matched:
    """Which pictures of two folders belong together; those without a partner are told in a line of the log.

    As ``match_names``: by name, by stem, by numbers with other zeros in front; ``1_A.png`` and ``1_B.png`` too.

    Raises:
        DataError: a folder holds no pictures, two files of one have one name up to the suffix, or fewer than half of
            the smaller folder have a partner.
    """
    first, second = (picture_files(folder) for folder in folders)
    found = match_names(first, second)
    if not found.pairs and all(_marked(files, side) for files, side in zip((first, second), sides, strict=True)):
        return _by_marks(first, second, sides)
    needed = min(len(first), len(second))
    if 2 * len(found.pairs) < needed:
        raise DataError(
            f"{len(found.pairs)} of {needed} pictures match by name: no partner have {found.unmatched()}; give the two "
            "of a pair one name, or say which belong together with data.kind list (data.kind domains: none do)"
        )
    if rest := found.unmatched():
        tell(f"{len(found.pairs)} pairs by name; no partner have {rest}")
    return Matched(tuple(a.name for a, _ in found.pairs), found.pairs)


def _marked(files: Sequence[Path], side: str) -> bool:
    return all(file.stem.endswith(f"_{side}") for file in files)


def _by_marks(first: Sequence[Path], second: Sequence[Path], sides: Sequence[str]) -> Matched:
    """Stems that end in ``_`` and their side."""
    ones, others = (
        {stem.removesuffix(f"_{side}"): file for stem, file in by_stem(files).items()}
        for files, side in zip((first, second), sides, strict=True)
    )
    names = tuple(sorted(ones.keys() & others.keys()))
    odd = sorted([*(ones[n].name for n in ones.keys() - others), *(others[n].name for n in others.keys() - ones)])
    if 2 * len(names) < min(len(ones), len(others)):
        raise DataError(
            f"{len(names)} of {min(len(ones), len(others))} pictures match by name: {odd[0]!r} has no partner; give "
            "the two of a pair one name"
        )
    if odd:
        tell(f"{len(names)} pairs by name; no partner have {len(odd)} ({', '.join(odd[:3])})")
    return Matched(names, tuple((ones[name], others[name]) for name in names))
