"""What a segmentation network sees in generated pictures: mIoU and pixel accuracy, as Cityscapes computes them."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gantailor.evaluators.metric import Metric, MetricContext
from gantailor.evaluators.scores import Pairs, Score, provenance_of, render
from gantailor.evaluators.weights import load_weights, weights_digest
from gantailor.supernet.device import placed
from gantailor.supernet.errors import EvaluationError
from gantailor.supernet.plugins import checked_call, import_name

IGNORED, UNKNOWN = 255, -1
TABLES = Path(__file__).parents[1] / "labels"
_FILES = ("segmentation", "segmentation_weights")


def make_segmentation(context: MetricContext) -> Segmentation:
    """One reading of the outputs for both."""
    name, weights = str(context.config.segmentation), str(context.config.segmentation_weights)
    wanted = "give a class or function that makes a network"
    network: nn.Module = checked_call(import_name(name, "segmentation"), name, "segmentation", wanted, nn.Module)()
    load_weights(network, weights)
    table = LabelTable.read(context.config.labels)
    return Segmentation(network, table, name=name.replace(":", "."), weights_hash=weights_digest(weights))


def _of_labels(name: str) -> Metric:
    reads = (*_FILES, "labels")
    return Metric(
        name=name, unit="%", lower_is_better=False, compares="inputs", make=make_segmentation, needs=_FILES, reads=reads
    )


MIOU, PIXEL_ACCURACY = _of_labels("miou"), _of_labels("pixel_accuracy")


@dataclass(frozen=True, eq=False)
class LabelTable:
    """Which colour of a label map is which class.

    Attributes:
        classes: names of class 0, 1, ...
        colours: uint8 ``[M, 3]``, several of which may mean one class.
        ids: ``[M]``, the class of each colour, or 255 where pixels do not count.
        label_ids: for the numbers that label maps hold, where these are others than the classes, the class or 255.
    """

    classes: tuple[str, ...]
    colours: np.ndarray
    ids: np.ndarray
    label_ids: Mapping[int, int] | None = None

    @property
    def key(self) -> str:
        """Another for another table."""
        return f"{self.colours.tolist()}{self.ids.tolist()}"

    @classmethod
    def read(cls, name: str | Path) -> LabelTable:
        """A shipped table (``cityscapes``) or a CSV file with the columns id, name, red, green, blue.

        An id of 255, or an empty one, marks colours whose pixels do not count. Where label maps hold other numbers than
        the classes' (Cityscapes' ids 0 to 33 of its 19 classes), a column ``label_ids`` has them, ``7`` or ``0 1 2``.

        Raises:
            EvaluationError: the file is missing or no such table.
        """
        path = TABLES / f"{name}.csv" if (TABLES / f"{name}.csv").is_file() else Path(name)
        try:
            with path.open(newline="", encoding="utf8") as file:
                rows = list(csv.DictReader(file))
            ids = np.array([int(row["id"] or IGNORED) for row in rows])
            colours = np.array([[int(row[c]) for c in ("red", "green", "blue")] for row in rows], np.uint8)
            names = {int(i): row["name"] for i, row in zip(ids, rows, strict=True) if i != IGNORED}
            told = [(int(number), int(i)) for i, row in zip(ids, rows, strict=True) for number in _numbers(row)]
            label_ids = dict(told) if told else None
            return cls(tuple(names[i] for i in range(len(names))), colours, ids, label_ids)
        except (OSError, KeyError, ValueError, TypeError, OverflowError) as error:
            shipped = ", ".join(sorted(f.stem for f in TABLES.glob("*.csv")))
            raise EvaluationError(
                f"label table {str(name)!r} cannot be read ({type(error).__name__}: {error}); give a CSV file with the "
                f"columns id,name,red,green,blue and classes 0, 1, 2, ..., or one of: {shipped}"
            ) from None

    def labels(self, maps: Tensor, *, numbers: int | None = None, table: str | None = None) -> Tensor:
        """Class ids ``[N, H, W]`` of coloured maps ``[N, 3, H, W]`` in [-1, 1], by the nearest colour.

        One-hot maps, of zeros and ones, by ``label_ids``; they may hold the classes' own numbers where they are as many
        as the classes.

        Args:
            numbers: how many of a one-hot map's channels are numbers; all if missing.
            table: ``key`` of the table by which its numbers were read from colours.

        Raises:
            EvaluationError: what numbers mean cannot be told.
        """
        if maps.shape[1] != 3 or bool(((maps == 0) | (maps == 1)).all() and (maps == 0).any()):
            return self._of_numbers(maps, maps.shape[1] if numbers is None else numbers, table)
        pixels = maps.add(1).mul(127.5).permute(0, 2, 3, 1).reshape(-1, 3)
        nearest = torch.cdist(pixels, torch.from_numpy(self.colours).float()).argmin(1)
        return torch.from_numpy(self.ids)[nearest].reshape(maps.shape[0], *maps.shape[2:])

    def _of_numbers(self, maps: Tensor, numbers: int, table: str | None) -> Tensor:
        count = len(self.classes)
        if table is not None and table != self.key:
            raise EvaluationError("data.labels and evaluation.labels are different tables; name one for both")
        own = table is not None or (numbers == count and not self._holds(numbers))
        if not own and not self._holds(numbers):
            raise EvaluationError(
                f"label maps of {numbers} numbers and a label table of {count} classes: which number is which class "
                "cannot be told by position; give evaluation.labels a table with a column label_ids"
            )
        known = {number: number for number in range(count)} if own else dict(self.label_ids or {})
        found = torch.full((maps.shape[1],), UNKNOWN if not own else IGNORED)
        found[numbers:] = IGNORED  # unknown pixels, edges
        for number, meant in known.items():
            found[number] = meant
        shown = maps[:, : max(numbers, count)]
        classes = torch.where(shown.amax(1) > 0, found[shown.argmax(1)], IGNORED)
        if (classes == UNKNOWN).any():
            strange = int(shown.argmax(1)[classes == UNKNOWN][0])
            raise EvaluationError(f"label maps hold the number {strange}, which label_ids of the table does not name")
        return classes

    def _holds(self, numbers: int) -> bool:
        """Whether the numbers of label maps are those of ``label_ids``."""
        return self.label_ids is not None and max(self.label_ids) < numbers


def _numbers(row: Mapping[str, str]) -> list[str]:
    return (row.get("label_ids") or "").split()


def numbering_of(pairs: Any) -> dict[str, Any]:
    """What a data set of one-hot label maps says of its numbers, behind a sample or vectors beside it."""
    while pairs is not None:
        if isinstance(getattr(pairs, "classes", None), int):
            return {"numbers": pairs.classes, "table": getattr(pairs, "table", None)}
        pairs = getattr(pairs, "pairs", getattr(pairs, "data", None))
    return {}


class Segmentation:
    """``miou[...]`` and ``pixel_accuracy[...]`` in percent, of a segmentation network's reading of the outputs.

    The truth is the label map that the picture was generated from (the inputs). Pixels of ignored colours do not
    count; a class counts where it occurs in the truth or in the reading (the Cityscapes benchmark's definition).

    Args:
        network: pictures ``[N, 3, h, w]`` in [-1, 1] to class scores ``[N, K, h', w']``, resized to the label map.
        table: what the label maps' colours mean.
        name: of the network, carried by the scores.
        weights_hash: sha256 of its weights.
        size: height and width that the network sees; the outputs' own if ``None``.
    """

    def __init__(
        self,
        network: nn.Module,
        table: LabelTable,
        *,
        name: str,
        weights_hash: str = "",
        size: tuple[int, int] | None = None,
        batch: int = 8,
    ) -> None:
        self.network, self.table, self.name = network.eval().requires_grad_(False), table, name
        self.weights_hash, self.size, self.batch = weights_hash, size, batch

    def _read(self, outputs: Tensor, shape: torch.Size) -> Tensor:
        """Class ids in the label map's size."""
        if self.size is not None:
            outputs = F.interpolate(outputs, size=self.size, mode="bilinear", align_corners=False)
        scores = placed(self.network, outputs.device)(outputs)
        if scores.ndim != 4 or scores.shape[1] != len(self.table.classes):
            at_least = "at least " if scores.ndim != 4 or scores.shape[1] < len(self.table.classes) else ""
            raise EvaluationError(
                f"segmentation network {self.name!r} gives {list(scores.shape)}; wanted are scores [N, K, h, w] of "
                f"{at_least}{len(self.table.classes)} classes, those of the label table"
            )
        return F.interpolate(scores, size=tuple(shape), mode="bilinear", align_corners=False).argmax(1)

    @torch.no_grad()
    def __call__(self, generator: nn.Module, pairs: Pairs) -> dict[str, Score]:
        count = len(self.table.classes)
        confusion = torch.zeros(count, count, dtype=torch.int64)
        told = numbering_of(pairs)
        for inputs, outputs, _ in render(generator, pairs, batch=self.batch):
            truth = self.table.labels(inputs.cpu(), **told)
            read = self._read(outputs, truth.shape[1:]).cpu()
            counts = truth != IGNORED
            confusion += torch.bincount(truth[counts] * count + read[counts], minlength=count**2).reshape(count, count)
        if not confusion.sum():
            raise EvaluationError("no pixel of the inputs has a colour of the label table; is this its data set?")
        right, union = confusion.diag(), confusion.sum(0) + confusion.sum(1) - confusion.diag()
        values = {
            MIOU: float((right / union)[union > 0].mean()),
            PIXEL_ACCURACY: float(right.sum() / confusion.sum()),
        }
        size = "own" if self.size is None else f"bilinear {self.size[0]}x{self.size[1]}"
        provenance = provenance_of(pairs, network=self.name, weights=self.weights_hash[:12], resize=size, classes=count)
        return {f"{m.name}[{self.name}]": m.score(100 * value, provenance) for m, value in values.items()}
