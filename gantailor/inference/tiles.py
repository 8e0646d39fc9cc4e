"""A picture through a model as a whole or by tiles that overlap: equal where tiles see all that a pixel depends on."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import numpy as np

from gantailor.export.errors import ExportError
from gantailor.inference.models import PictureModel, Sides
from gantailor.supernet.errors import ConfigError

WHOLE = 1 << 20  # pixels up to which a picture goes as a whole, where any size is taken
TILE, OVERLAP = 512, 32  # pixels of the input
OnTile = Callable[[int, int], None]  # told (tiles done, all tiles)


@dataclass(frozen=True)
class Made:
    """What a model made of a picture.

    Attributes:
        picture: ``[C, H, W]``, in the model's range.
        tiles: how many it went in.
        seam: by how much two neighbouring tiles differ at most where one ends and the other begins, as a part of the
            way from black to white.
    """

    picture: np.ndarray
    tiles: int = 1
    seam: float = 0.0


@dataclass(frozen=True)
class Cut:
    """A tile along one side: what it is fed, and which part of that is kept, in pixels of the input."""

    start: int
    end: int
    first: int
    last: int


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """How pictures are cut for a model.

    Args:
        tile: side in pixels; 0 is the whole picture, None what suits model and picture.
        overlap: pixels that a tile sees beyond what is kept of it; None: 32, an eighth of a small tile.

    Raises:
        ConfigError: the model takes no tile of this side, or nothing of a tile would be kept.
    """

    model: PictureModel
    tile: int | None = None
    overlap: int | None = None

    def __post_init__(self) -> None:
        model, tile = self.model, self.tile
        if model.size is not None and tile and (tile, tile) != model.size:
            raise ConfigError(
                f"--tile {tile}: {model.name!r} takes {_shown(model.size)} alone; leave --tile out, it goes by tiles "
                "of that size, or export with size: dynamic"
            )
        if model.size is None and tile and (tile % model.multiple or tile > (model.largest or tile)):
            bound = f" of at most {model.largest}" if model.largest else ""
            raise ConfigError(f"--tile {tile}: {model.name!r} takes multiples of {model.multiple}{bound}")
        if self.tile != 0:
            for side in self._tile_sides():
                _step(side, self._overlap(side), model.multiple)

    def _tile_sides(self) -> Sides:
        multiple = self.model.multiple
        usual = min(TILE, self.model.largest or TILE) // multiple * multiple or multiple
        return self.model.size or (self.tile or usual, self.tile or usual)

    def _overlap(self, side: int) -> int:
        usual = min(OVERLAP, side // 8) // self.model.multiple * self.model.multiple
        return usual if self.overlap is None else self.overlap

    def sides(self, picture: Sides) -> Sides:
        """Of the tiles for a picture of this height and width: its own, in multiples, where it goes as a whole.

        Raises:
            ConfigError: the model does not take it as a whole.
        """
        model = self.model
        whole = model.size or tuple(math.ceil(side / model.multiple) * model.multiple for side in picture)
        fits = picture == model.size if model.size else max(whole) <= (model.largest or max(whole))
        if self.tile == 0 and not fits:
            taken = _shown(model.size) if model.size else f"sides of at most {model.largest}"
            raise ConfigError(
                f"--tile 0: the picture has {_shown(picture)} pixels, {model.name!r} takes {taken} alone; leave --tile "
                "out, it goes by tiles"
            )
        if self.tile == 0 or (self.tile is None and model.size is None and fits and math.prod(picture) <= WHOLE):
            return whole[0], whole[1]
        return self._tile_sides()

    def __call__(self, picture: np.ndarray, *, on_tile: OnTile | None = None) -> Made:
        """What the model makes of ``[C, H, W]``.

        Beyond the right and the lower border, where sides have to be multiples or a tile is larger, it is mirrored.

        Raises:
            ExportError: what the model makes is not so many times as large as what it is given.
            ConfigError: see ``sides``.
        """
        height, width = picture.shape[1:]
        tile = self.sides((height, width))
        first = self.model(_mirrored(picture[:, : tile[0], : tile[1]], tile))  # tells how large all is
        canvas = _Canvas.beside(first, self.model, tile, (height, width))
        rows, columns = (
            cuts(length, side, self._overlap(side), canvas.grain)
            for length, side in zip((height, width), tile, strict=True)
        )
        padded = _mirrored(picture, (rows[-1].end, columns[-1].end))
        canvas.begin(len(first), padded.shape)
        for number, (row, column) in enumerate((row, column) for row in rows for column in columns):
            part = padded[:, row.start : row.end, column.start : column.end]
            canvas.put(self.model(part) if number else first, row, column)
            if on_tile:
                on_tile(number + 1, len(rows) * len(columns))
        return canvas.result((height, width), len(rows) * len(columns))


def _mirrored(picture: np.ndarray, sides: Sides) -> np.ndarray:
    """``[C, H, W]`` grown to these sides, at the right and below."""
    more = [(0, side - have) for side, have in zip(sides, picture.shape[1:], strict=True)]
    return np.pad(picture, [(0, 0), *more], "reflect") if max(more) > (0, 0) else picture


def cuts(length: int, side: int, overlap: int, grain: int) -> list[Cut]:
    """The tiles along a side of a picture, all of one size; everything begins at multiples of the grain.

    The last ends where the picture does, in multiples. What is kept of a tile lies ``overlap`` within it, but for the
    ends of the picture, where tiles see what the whole picture does; the pixels before it, too, see that much, so that
    they can be compared with the neighbour's.
    """
    end = max(math.ceil(length / grain) * grain, side)
    step = _step(side, overlap, grain) if end > side else side
    starts = [*range(0, end - side, step), end - side]
    within = math.ceil(overlap / grain) * grain + grain
    borders = [0, *(start + within for start in starts[1:]), end]
    return [
        Cut(start, start + side, first, last) for start, (first, last) in zip(starts, pairwise(borders), strict=True)
    ]


def _step(side: int, overlap: int, grain: int) -> int:
    """From one tile to the next.

    Raises:
        ConfigError: nothing of a tile would be kept.
    """
    step = (side - 2 * math.ceil(overlap / grain) * grain - grain) // grain * grain
    if step < grain:
        raise ConfigError(
            f"--overlap {overlap}: of a tile of {side} pixels nothing is left between two of it; give less, or a "
            "larger --tile"
        )
    return step


class _Canvas:
    """The output, as its tiles come.

    Attributes:
        scales: of the output's height and width to the input's.
        grain: pixels of the input; multiples of it are whole pixels of the output.
    """

    def __init__(self, model: PictureModel, scales: tuple[Fraction, Fraction]) -> None:
        self.model, self.scales = model, scales
        odd = any(scale.numerator > 1 and scale.denominator > 1 for scale in scales)  # goes as a whole
        self.grain = 1 if odd else math.lcm(model.multiple, *(scale.denominator for scale in scales))
        self.picture, self.seam = np.zeros(0, np.float32), 0.0

    @classmethod
    def beside(cls, made: np.ndarray, model: PictureModel, tile: Sides, picture: Sides) -> _Canvas:
        """For a picture of which one tile became this.

        Raises:
            ExportError: it is not so many times as large, nor a part.
        """
        down, across = (Fraction(made.shape[1 + side], tile[side]) for side in (0, 1))
        found = cls(model, (down, across))
        odd = any(scale.numerator > 1 and scale.denominator > 1 for scale in found.scales)
        if odd and any(have > side for have, side in zip(picture, tile, strict=True)):
            raise ExportError(
                f"{model.name!r} makes {_shown(made.shape[1:])} of a tile of {_shown(tile)}, neither so many times as "
                "much nor a part of it, so that tiles cannot be joined; try --tile 0"
            )
        return found

    def begin(self, channels: int, whole: tuple[int, ...]) -> None:
        """Make room for the output of a picture of this shape."""
        self.picture = np.zeros(
            (channels, *(int(n * s) for n, s in zip(whole[1:], self.scales, strict=True))), np.float32
        )

    def put(self, made: np.ndarray, row: Cut, column: Cut) -> None:
        """What a tile became; where it meets tiles that are there the two are compared."""
        rows, columns = (_scaled(cut, scale) for cut, scale in zip((row, column), self.scales, strict=True))
        inside = slice(rows.first - rows.start, rows.last - rows.start)
        across = slice(columns.first - columns.start, columns.last - columns.start)
        self.picture[:, rows.first : rows.last, columns.first : columns.last] = made[:, inside, across]
        self._compare(made, rows, columns)

    def _compare(self, made: np.ndarray, rows: Cut, columns: Cut) -> None:
        """With the row above what is kept, and the column before it, which other tiles made."""
        found = []
        if rows.first > 0:
            there = self.picture[:, rows.first - 1, columns.first : columns.last]
            inside = slice(columns.first - columns.start, columns.last - columns.start)
            found.append(np.abs(made[:, rows.first - 1 - rows.start, inside] - there).max())
        if columns.first > 0:
            there = self.picture[:, rows.first : rows.last, columns.first - 1]
            inside = slice(rows.first - rows.start, rows.last - rows.start)
            found.append(np.abs(made[:, inside, columns.first - 1 - columns.start] - there).max())
        black, white = self.model.picture_range
        self.seam = max([self.seam, *(float(one) / (white - black) for one in found)])

    def result(self, sides: Sides, tiles: int) -> Made:
        """Without what was added at the borders."""
        height, width = (math.ceil(n * s) for n, s in zip(sides, self.scales, strict=True))
        return Made(self.picture[:, :height, :width], tiles, self.seam)


def _scaled(cut: Cut, scale: Fraction) -> Cut:
    """A tile in pixels of the output."""
    return Cut(*(int(end * scale) for end in (cut.start, cut.end, cut.first, cut.last)))


def _shown(sides: tuple[int, ...]) -> str:
    return " x ".join(map(str, sides))
