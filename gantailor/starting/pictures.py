"""How the pictures of a folder lie, by the names of its folders and a look at some of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from gantailor.evaluators.pictures.files import list_pictures
from gantailor.evaluators.pictures.names import match_names
from gantailor.evaluators.scores import evenly
from gantailor.supernet.errors import ConfigError, DataError, GantailorError
from gantailor.zoo.data.kinds.sides import LAYOUTS, side_folders
from gantailor.zoo.data.record import FOLDERS, SPLIT_NAMES, split_folder

LOOKED_AT = 24  # pictures whose sizes are read
MOSTLY = 0.9  # of those that are looked at
MATCHED = 0.5  # of the smaller folder, from which two folders are pairs: as data.kind folders has it
HELD_OUT = "no test pictures: a part is held out by a hash of the names (data.split)"
SIDES = ("A", "B")
BY_SUFFIX = {".zip": "zip", ".csv": "list", ".tsv": "list", ".jsonl": "list", ".npz": "tensors"}
KINDS = (
    "pairs side by side, two folders (trainA and trainB), label maps (train_label and train_img), folders of classes"
)

Pair = tuple[Path, Path | None]  # an input's file, and the target's where that is another


@dataclass(frozen=True)
class Pictures:
    """What lies in a folder.

    Attributes:
        settings: of ``data``, without ``size``.
        said: what was found, a sentence each.
        assumed: what nothing tells, and was taken for likely.
        shape: height and width of most inputs, in pixels; None where no picture was looked at.
        train: files of some training inputs, with their targets' where these are files of their own.
        count: of training inputs, as far as known.
    """

    settings: dict[str, Any]
    said: tuple[str, ...]
    assumed: tuple[str, ...] = ()
    shape: tuple[int, int] | None = None
    train: tuple[Pair, ...] = field(default=(), repr=False)
    count: int | None = None

    @property
    def kind(self) -> str:
        """As ``data.kind``."""
        return str(self.settings["kind"])

    @property
    def alone(self) -> bool:
        """Whether they are inputs whose targets a teacher has to make."""
        return self.kind in ("classes", "zip") or self.settings.get("direction") == "unpaired"


def look_at(path: str | Path) -> Pictures:
    """What lies in a folder, or in a list, an archive or a file of tensors.

    Raises:
        ConfigError: there is nothing, or nothing that is known.
    """
    root = Path(path)
    if not root.exists():
        raise ConfigError(f"{str(path)!r} does not exist; give a folder of pictures: {KINDS}")
    if root.is_file():
        kind = BY_SUFFIX.get(root.suffix)
        if kind is None:
            raise ConfigError(f"{str(path)!r} is no {', '.join(BY_SUFFIX)}; give a folder of pictures: {KINDS}")
        return Pictures({"kind": kind, "path": str(path)}, (f"{root.name} is a {root.suffix} file, data.kind {kind}",))
    ways: Sequence[Callable[[Path], Pictures | None]] = (_labels, _sides, _folder, _other_sides, _classes, _files)
    try:
        for way in ways:
            if (found := way(root)) is not None:
                return found
    except OSError as error:
        raise ConfigError(f"{str(path)!r} cannot be read: {error.strerror}; mend its permissions") from None
    there = sorted(one.name for one in root.iterdir() if not one.name.startswith("."))
    what = f"there are {', '.join(there[:6])}{', ...' if len(there) > 6 else ''}" if there else "it is empty"
    raise ConfigError(f"{str(path)!r} holds no pictures in a layout that is known ({what}); known are {KINDS}")


def sizes(files: Sequence[Path]) -> Counter[tuple[int, int]]:
    """Heights and widths of some of the files, spread over them; only their heads are read.

    Raises:
        DataError: none of them can be read.
    """
    found: Counter[tuple[int, int]] = Counter()
    for index in evenly(len(files), LOOKED_AT):
        try:
            with Image.open(files[index]) as picture:
                found[picture.height, picture.width] += 1
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            continue
    if files and not found:
        raise DataError(
            f"none of {len(files)} pictures in {str(files[0].parent)!r} can be read; give PNG or JPEG files"
        )
    return found


def _labels(root: Path) -> Pictures | None:
    for label, picture in (("train_label", "train_img"), ("train/label", "train/img")):
        maps, shown = list_pictures(root / label), list_pictures(root / picture)
        if maps and shown:
            _need_tests(root, label, picture)
            said = f"{len(maps)} label maps in {label}/ with {_pictures(len(shown))} in {picture}/"
            edges = (root / label.replace("label", "inst")).is_dir()
            settings = {"kind": "labels", "path": str(root)}
            inside = ", and instance maps" if edges else ""
            (shape, _) = sizes(shown).most_common(1)[0]
            return Pictures(settings, (said + inside,), (), shape, tuple((file, None) for file in maps), len(maps))
    return None


def _need_tests(root: Path, label: str, picture: str) -> None:
    """That there are label maps to score: this kind holds none out."""
    wanted = [label.replace("train", split) for split in FOLDERS["test"]]
    if not any((root / name).is_dir() for name in wanted):
        shown = picture.replace("train", FOLDERS["test"][0])
        raise ConfigError(
            f"{str(root)!r} has label maps in {label}/ and none to score; give {' or '.join(wanted)}, and {shown}"
        )


def _sides(root: Path) -> Pictures | None:
    """``trainA`` and ``trainB``, and the other layouts of the two."""
    folders = side_folders(root, "train", SIDES)
    first, second = (list_pictures(folder) for folder in folders)
    return _of_two(root, folders, SIDES) if first and second else None


def _of_two(root: Path, folders: Sequence[Path], sides: Sequence[str]) -> Pictures:
    """Two folders with pictures: pairs where their names match."""
    first, second = (list_pictures(folder) for folder in folders)
    try:
        pairs = match_names(first, second).pairs
    except GantailorError:
        pairs = ()
    paired = len(pairs) >= MATCHED * min(len(first), len(second))
    settings: dict[str, Any] = {"kind": "folders" if paired else "domains", "path": str(root)}
    settings |= {} if tuple(sides) == SIDES else {"sides": list(sides)}
    names = " and ".join(folder.relative_to(root).as_posix() + "/" for folder in folders)
    said = [f"{len(first)} and {_pictures(len(second))} in {names}, {len(pairs)} of the same names"]
    said += _splits(root, lambda split: side_folders(root, split, sides)[0])
    why = "files of the same names are pairs; data.kind: domains where they are not"
    assumed = (why if paired else "the two folders are two domains, unpaired: their files have other names",)
    (shape, _) = sizes(first).most_common(1)[0]
    chosen: tuple[Pair, ...] = tuple(pairs) if paired else tuple((file, None) for file in first)
    return Pictures(settings, tuple(said), assumed, shape, chosen, len(pairs) if paired else len(first))


def _folder(root: Path) -> Pictures | None:
    """``train/`` or the folder itself: pairs side by side, or pictures alone."""
    place = split_folder(root, "train")
    place = place if list_pictures(place) else root
    files = list_pictures(place)
    if not files:
        return None
    counted = sizes(files)
    wide = sum(count for (height, width), count in counted.items() if width == 2 * height)
    paired = wide >= MOSTLY * counted.total()
    ((height, width), _) = counted.most_common(1)[0]
    said = [f"{_pictures(len(files))} in {place.name if place != root else str(root)}/, most {width} x {height}"]
    said += _splits(root, lambda split: _place(root, split))
    why = "they are twice as wide as high, so pairs side by side" if paired else "they are pictures alone, no pairs"
    settings = {"kind": "folder", "path": str(root)} | ({} if paired else {"direction": "unpaired"})
    shape = (height, width // 2) if paired else (height, width)
    return Pictures(settings, tuple(said), (why,), shape, tuple((file, None) for file in files), len(files))


def _place(root: Path, split: str) -> Path:
    place = split_folder(root, split)
    return place if place.is_dir() or not list_pictures(root) else root


def _other_sides(root: Path) -> Pictures | None:
    """Two folders of other names whose files match: ``train/photo`` and ``train/drawing``, or the two alone."""
    for place, layout in ((root / "train", LAYOUTS[2]), (root, "{side}")):
        inside = [folder.name for folder in _folders(place) if list_pictures(folder)]
        if len(inside) != 2 or set(inside) & set(SPLIT_NAMES):
            continue
        folders = [root / layout.format(split="train", side=side) for side in inside]
        found = _of_two(root, folders, inside)
        if found.kind == "folders":
            return found
    return None


def _classes(root: Path) -> Pictures | None:
    place = split_folder(root, "train")
    place = place if place.is_dir() else root
    inside = {folder.name: list_pictures(folder) for folder in _folders(place)}
    inside = {name: files for name, files in inside.items() if files}
    if not inside or set(inside) & set(SPLIT_NAMES):
        return None
    files = [file for several in inside.values() for file in several]
    said = f"{_pictures(len(files))} in {len(inside)} folders of classes ({', '.join(list(inside)[:3])})"
    (shape, _) = sizes(files).most_common(1)[0]
    settings = {"kind": "classes", "path": str(root)}
    return Pictures(settings, (said,), (), shape, tuple((file, None) for file in files), len(files))


def _files(root: Path) -> Pictures | None:
    """``train.zip``, ``train.csv``, ``train.npz``."""
    for suffix, kind in BY_SUFFIX.items():
        if (root / f"train{suffix}").is_file():
            return Pictures({"kind": kind, "path": str(root)}, (f"train{suffix} in {root}, data.kind {kind}",))
    return None


def _folders(place: Path) -> list[Path]:
    if not place.is_dir():
        return []
    return sorted(one for one in place.iterdir() if one.is_dir() and not one.name.startswith("."))


def _splits(root: Path, place: Callable[[str], Path]) -> Iterator[str]:
    """Where the pictures of the other splits come from."""
    own = place("train")
    for split, what in (("search", "the search looks at"), ("test", "scores are of")):
        found = place(split)
        if found != own and found.is_dir():
            yield f"{what} {_pictures(len(list_pictures(found)))} in {found.relative_to(root).as_posix()}/"
        elif split == "test":
            yield HELD_OUT


def _pictures(count: int) -> str:
    return "1 picture" if count == 1 else f"{count} pictures"
