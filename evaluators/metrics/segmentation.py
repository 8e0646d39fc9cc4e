"""What a segmentation network sees in generated pictures: mIoU and pixel accuracy, as Cityscapes computes them."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gantailor.evaluators.metric import Metric, MetricContext
from gantailor.evaluators.scores import Pairs, Score, provenance_of, render
from gantailor.evaluators.weights import load_weights, weights_digest
from gantailor.supernet.errors import EvaluationError
from gantailor.supernet.plugins import import_name

IGNORED = 255
TABLES = Path(__file__).parents[1] / "labels"
_FILES = ("segmentation", "segmentation_weights")


def make_segmentation(context: MetricContext) -> Segmentation:
    """One reading of the outputs for both."""
    name, weights = str(context.config.segmentation), str(context.config.segmentation_weights)
    network: nn.Module = import_name(name, "segmentation")()
    load_weights(network, weights)
    table = LabelTable.read(context.config.labels)
    return Segmentation(network, table, name=name.replace(":", "."), weights_hash=weights_digest(weights))


MIOU = Metric(name="miou", unit="%", lower_is_better=False, compares="inputs", make=make_segmentation, needs=_FILES)
PIXEL_ACCURACY = Metric(
    name="pixel_accuracy", unit="%", lower_is_better=False, compares="inputs", make=make_segmentation, needs=_FILES
)


@dataclass(frozen=True, eq=False)
class LabelTable:
    """Which colour of a label map is which class.

    Attributes:
        classes: names of class 0, 1, ...
        colours: uint8 ``[M, 3]``, several of which may mean one class.
        ids: ``[M]``, the class of each colour, or 255 where pixels do not count.
    """

    classes: tuple[str, ...]
    colours: np.ndarray
    ids: np.ndarray

    @classmethod
    def read(cls, name: str | Path) -> LabelTable:
        """A shipped table (``cityscapes``) or a CSV file with the columns id, name, red, green, blue.

        An id of 255, or an empty one, marks colours whose pixels do not count.

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
            return cls(tuple(names[i] for i in range(len(names))), colours, ids)
        except (OSError, KeyError, ValueError, TypeError, OverflowError) as error:
            shipped = ", ".join(sorted(f.stem for f in TABLES.glob("*.csv")))
            raise EvaluationError(
                f"label table {str(name)!r} cannot be read ({type(error).__name__}: {error}); give a CSV file with the "
                f"columns id,name,red,green,blue and classes 0, 1, 2, ..., or one of: {shipped}"
            ) from None

    def labels(self, maps: Tensor) -> Tensor:
        """Class ids ``[N, H, W]`` of coloured maps ``[N, 3, H, W]`` in [-1, 1], by the nearest colour.

        Maps with more than three channels are taken as one-hot, in the order of the classes.
        """
        if maps.shape[1] != 3:
            found = maps[:, : len(self.classes)].argmax(1)
            return torch.where(maps[:, : len(self.classes)].amax(1) > 0, found, IGNORED)
        pixels = maps.add(1).mul(127.5).permute(0, 2, 3, 1).reshape(-1, 3)
        nearest = torch.cdist(pixels, torch.from_numpy(self.colours).float()).argmin(1)
        return torch.from_numpy(self.ids)[nearest].reshape(maps.shape[0], *maps.shape[2:])


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
        scores = self.network(outputs)
        if scores.ndim != 4 or scores.shape[1] < len(self.table.classes):
            raise EvaluationError(
                f"segmentation network {self.name!r} gives {list(scores.shape)}; wanted are scores [N, K, h, w] of at "
                f"least {len(self.table.classes)} classes"
            )
        scores = scores[:, : len(self.table.classes)]
        return F.interpolate(scores, size=tuple(shape), mode="bilinear", align_corners=False).argmax(1)

    @torch.no_grad()
    def __call__(self, generator: nn.Module, pairs: Pairs) -> dict[str, Score]:
        count = len(self.table.classes)
        confusion = torch.zeros(count, count, dtype=torch.int64)
        for inputs, outputs, _ in render(generator, pairs, batch=self.batch):
            truth = self.table.labels(inputs)
            read = self._read(outputs, truth.shape[1:])
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
