"""The house as its own imports draw it: five floors, their rooms, and which room reads which.

    python benchmarks/structure.py    # prints a table, writes docs/house.png

A floor is a top-level folder, a room a folder in it (with the folders inside), the bar over the rooms the floor's own
files. A room is as wide as it has lines. An arrow leads from a room to one that it imports, late imports too, what only
types need not; it is thicker where more files are read. Arrows down keep the order of the floors; one up would be red.
Bodies are counted without their docstrings; docstrings are asked of modules, classes and functions without an
underscore.
"""

from __future__ import annotations

import argparse
import ast
import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path as Curve
from PIL import Image

ROOT = Path(__file__).parents[1]
FLOORS = ("supernet", "evaluators", "zoo", "search", "gantailor")  # from the ground up
COLOURS = dict(zip(FLOORS, ("#4c78a8", "#2a9d8f", "#b07c1e", "#9c5fa8", "#5b6472"), strict=True))
LARGEST, GAP, HALL, HIGH, STOREY = 12.0, 0.14, 0.34, 0.74, 2.3  # of the picture, in its own units
NARROWEST, LABEL = 1.2, 4.2  # of a room, of a bar: their labels fit

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass
class Room:
    """What is counted in a folder.

    Attributes:
        bodies: lines of each function's body.
        public: names that should have a docstring; ``told`` of them have one.
    """

    name: str
    files: int = 0
    lines: int = 0
    bodies: list[int] = field(default_factory=list)
    public: int = 0
    told: int = 0

    @property
    def floor(self) -> str:
        """The top-level folder."""
        return self.name.partition("/")[0]

    def count(self, text: str, tree: ast.Module) -> None:
        """Add a file."""
        self.files += 1
        self.lines += text.count("\n")
        self.bodies += [body_lines(node) for node in ast.walk(tree) if isinstance(node, Function)]
        for node in public_nodes(tree):
            self.public += 1
            self.told += ast.get_docstring(node) is not None

    def row(self) -> dict[str, object]:
        """A line of the table."""
        middle, high = np.percentile(self.bodies or [0], [50, 90])
        return {
            "room": self.name,
            "files": self.files,
            "lines": self.lines,
            "functions": len(self.bodies),
            "median body": round(middle),
            "p90": round(high),
            "longest": max(self.bodies, default=0),
            "docstrings": f"{100 * self.told / max(self.public, 1):.0f}%",
        }


def body_lines(node: Function) -> int:
    """Lines of a function without head and docstring."""
    first = node.body[1:] if ast.get_docstring(node) else node.body
    return (node.end_lineno or 0) - first[0].lineno + 1 if first else 0


def public_nodes(tree: ast.Module) -> Iterator[ast.Module | ast.ClassDef | Function]:
    """A file that holds anything, and its classes, functions and methods without an underscore."""
    if tree.body:
        yield tree
    for node in tree.body:
        if isinstance(node, ast.ClassDef | Function) and not node.name.startswith("_"):
            yield node
            inner = node.body if isinstance(node, ast.ClassDef) else []
            yield from (n for n in inner if isinstance(n, Function) and not n.name.startswith("_"))


def read(root: Path) -> dict[str, tuple[str, str, ast.Module]]:
    """By module name: its room, its text and its tree. The folders within ``gantailor`` are links to the floors."""
    found = {}
    for floor in FLOORS:
        for file in sorted((root / floor).rglob("*.py")):
            parts = file.relative_to(root).parts
            if not any(folder.is_symlink() for folder in file.parents):
                module = [*(() if floor == "gantailor" else ("gantailor",)), *parts[:-1]]
                name = ".".join(module if file.stem == "__init__" else [*module, file.stem])
                text = file.read_text(encoding="utf8")
                found[name] = "/".join(parts[:-1][:2]), text, ast.parse(text)
    return found


def imported(node: ast.AST, known: dict[str, tuple[str, str, ast.Module]]) -> Iterator[str]:
    """Modules that a file reads when it runs."""
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        return
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        inner = [f"{node.module}.{alias.name}" for alias in node.names]
        yield from (name if name in known else str(node.module) for name in inner)
    for child in ast.iter_child_nodes(node):
        yield from imported(child, known)


def house(root: Path) -> tuple[list[Room], Counter[tuple[str, str]]]:
    """Rooms in the order of the floors, and how many pairs of files join each two of them."""
    modules = read(root)
    rooms: dict[str, Room] = {}
    arrows: Counter[tuple[str, str]] = Counter()
    for room, text, tree in modules.values():
        rooms.setdefault(room, Room(room)).count(text, tree)
        used = {name for name in imported(tree, modules) if name in modules and name != "gantailor"}
        arrows.update((room, modules[name][0]) for name in sorted(used) if modules[name][0] != room)
    return sorted(rooms.values(), key=lambda room: (FLOORS.index(room.floor), room.name)), arrows


@dataclass(frozen=True)
class Box:
    """Where a room is drawn."""

    left: float
    bottom: float
    width: float
    height: float

    @property
    def middle(self) -> float:
        """Of its width."""
        return self.left + self.width / 2

    def port(self, share: float) -> float:
        """A place along its width; the corners stay free."""
        return self.left + self.width * (0.08 + 0.84 * share)


def places(rooms: list[Room]) -> dict[str, Box]:
    """Each floor's rooms in a row, as wide as they have lines, under the bar of the floor's own files."""
    inner = {floor: [r for r in rooms if r.floor == floor and "/" in r.name] for floor in FLOORS}
    scale = LARGEST / max(sum(room.lines for room in row) for row in inner.values())
    found = {}
    for number, (floor, row) in enumerate(inner.items()):
        widths = np.maximum(NARROWEST, [room.lines * scale for room in row])
        widths *= max(1, LABEL / (widths.sum() + GAP * (len(row) - 1)))
        whole, bottom = widths.sum() + GAP * (len(row) - 1), number * STOREY
        left = -whole / 2
        found[floor] = Box(left, bottom + HIGH + 0.26, whole, HALL)
        for room, width in zip(row, widths, strict=True):
            found[room.name] = Box(left, bottom, width, HIGH)
            left += width + GAP
    return found


def ends(arrows: Counter[tuple[str, str]], boxes: dict[str, Box]) -> dict[tuple[str, str], tuple[float, float]]:
    """Where each arrow between floors leaves and arrives: side by side, and straight down onto a bar."""
    leaves: dict[tuple[str, str], float] = {}
    arrives: dict[tuple[str, str], float] = {}
    down = [pair for pair in arrows if pair[0].partition("/")[0] != pair[1].partition("/")[0]]
    for name, box in boxes.items():
        out = sorted((pair for pair in down if pair[0] == name), key=lambda pair: boxes[pair[1]].middle)
        leaves |= {pair: box.port((n + 0.5) / len(out)) for n, pair in enumerate(out)}
    for name, box in boxes.items():
        into = sorted((pair for pair in down if pair[1] == name), key=lambda pair: leaves[pair])
        straight = name in FLOORS
        for n, pair in enumerate(into):
            low, high = box.port(0), box.port(1)
            arrives[pair] = float(np.clip(leaves[pair], low, high)) if straight else box.port((n + 0.5) / len(into))
    return {pair: (leaves[pair], arrives[pair]) for pair in down}


def arrow(axes: Axes, points: list[tuple[float, float]], count: int, **look: object) -> None:
    """One arrow behind the rooms, straight or a curve; thicker where more files are read."""
    curve = Curve(points, [Curve.MOVETO] + [Curve.LINETO if len(points) == 2 else Curve.CURVE4] * (len(points) - 1))
    fixed = {"arrowstyle": "-|>", "mutation_scale": 8, "zorder": 1, "linewidth": 0.6 + 0.45 * count**0.5, **look}
    axes.add_patch(FancyArrowPatch(path=curve, fill=False, **fixed))


def draw_descents(axes: Axes, arrows: Counter[tuple[str, str]], boxes: dict[str, Box]) -> None:
    """Arrows from floor to floor."""
    for pair, (out, into) in ends(arrows, boxes).items():
        above, below = (FLOORS.index(name.partition("/")[0]) for name in pair)
        colour = COLOURS[FLOORS[above]] if above > below else "red"
        source, target = boxes[pair[0]], boxes[pair[1]]
        points = [(out, source.bottom), (into, target.bottom + target.height)]
        arrow(axes, points, arrows[pair], color=colour, alpha=0.45)


def draw_neighbours(axes: Axes, arrows: Counter[tuple[str, str]], boxes: dict[str, Box]) -> None:
    """Arrows within a floor: upright between a room and the bar, an arc below the rooms from one to another."""
    for (reader, read_room), count in arrows.items():
        floor, source, target = reader.partition("/")[0], boxes[reader], boxes[read_room]
        if floor != read_room.partition("/")[0]:
            continue
        if read_room == floor:
            points = [(source.middle - 0.12, source.bottom + HIGH), (source.middle - 0.12, target.bottom)]
        elif reader == floor:
            points = [(target.middle + 0.12, source.bottom), (target.middle + 0.12, target.bottom + HIGH)]
        else:
            right = target.left > source.left
            start, end = source.port(0.68 if right else 0.32), target.port(0.32 if right else 0.68)
            depth = source.bottom - min(0.62, 0.24 + 0.05 * abs(end - start))
            points = [(start, source.bottom), (start, depth), (end, depth), (end, target.bottom)]
        arrow(axes, points, count, color=COLOURS[floor])


def draw_room(axes: Axes, room: Room, box: Box) -> None:
    """A box with its name and size."""
    colour, bar = COLOURS[room.floor], room.name in FLOORS
    style: dict[str, Any] = {
        "boxstyle": "round,pad=0,rounding_size=0.05",
        "linewidth": 1.2,
        "edgecolor": colour,
        "zorder": 3,
    }
    corner = (box.left, box.bottom)
    axes.add_patch(FancyBboxPatch(corner, box.width, box.height, facecolor=colour if bar else "white", **style))
    sizes = [f"{room.files} files, {room.lines:,} lines", f"{len(room.bodies)} functions"]
    if bar:
        text = f"{room.name}/   own files: {', '.join(sizes).replace(' files', '', 1)}"
        place = (box.middle, box.bottom + box.height / 2)
        axes.text(*place, text, ha="center", va="center", color="white", weight="bold", fontsize=9, zorder=4)
        return
    name = room.name.partition("/")[2]
    axes.text(box.middle, box.bottom + 0.55, name, ha="center", va="center", weight="bold", fontsize=9, zorder=4)
    lines = "\n".join(sizes)
    axes.text(box.middle, box.bottom + 0.24, lines, ha="center", va="center", fontsize=7, color="#444444", zorder=4)


def total(rooms: list[Room]) -> Room:
    """All of them as one."""
    whole = Room("all")
    for room in rooms:
        whole.files, whole.lines = whole.files + room.files, whole.lines + room.lines
        whole.bodies += room.bodies
        whole.public, whole.told = whole.public + room.public, whole.told + room.told
    return whole


def caption(rooms: list[Room]) -> str:
    """What the picture shows."""
    row = total(rooms).row()
    return (
        f"{row['files']} files,\n{row['functions']:,} functions\nbodies: median {row['median body']} lines,\n"
        f"p90 {row['p90']}, longest {row['longest']}\n\nan arrow: imports, in the\ncolour of the floor that\n"
        "reads; thicker: more files"
    )


def draw(rooms: list[Room], arrows: Counter[tuple[str, str]], file: Path) -> None:
    """Write the picture, in few colours."""
    boxes = places(rooms)
    left, right = min(b.left for b in boxes.values()), max(b.left + b.width for b in boxes.values())
    top = max(b.bottom + b.height for b in boxes.values())
    figure, axes = plt.subplots(figsize=(13, 10.4), layout="constrained", facecolor="white")
    draw_descents(axes, arrows, boxes)
    draw_neighbours(axes, arrows, boxes)
    for room in rooms:
        draw_room(axes, room, boxes[room.name])
    axes.text(
        left, boxes["supernet"].bottom, caption(rooms), va="center", fontsize=8.5, color="#333333", linespacing=1.4
    )
    axes.set_xlim(left - 0.1, right + 0.1)
    axes.set_ylim(-0.62, top + 0.1)
    axes.axis("off")
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110)
    Image.open(buffer).convert("RGB").quantize(96, dither=Image.Dither.NONE).save(file, optimize=True)


def main() -> None:
    """Run it from the command line; see the head of this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=ROOT)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "house.png")
    arguments = parser.parse_args()
    rooms, arrows = house(arguments.root)
    print(pd.DataFrame([room.row() for room in [*rooms, total(rooms)]]).to_string(index=False))
    draw(rooms, arrows, arguments.out)


if __name__ == "__main__":
    main()
