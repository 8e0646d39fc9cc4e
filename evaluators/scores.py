"""What an evaluator is: a generator and a data set in, named scores out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from gantailor.evaluators.pictures.rgb import as_seen
from gantailor.supernet.calling import Inputs, each, evaluating, first, forward, rows_of, size_of
from gantailor.supernet.device import HOST, Device, device_of
from gantailor.supernet.errors import EvaluationError
from gantailor.supernet.files import state_digest

_digests: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()  # of frozen teachers, computed once
SEEN = {"pictures": "8 bits"}  # in every provenance: scores of raw outputs do not compare


class Pairs(Protocol):
    """What an evaluator asks of a data set.

    One whose real pictures belong to no input, unpaired ones, has no targets, but ``others``, as many as there are, of
    which ``other(rows, None)`` are ``[n, C, H, W]`` in [-1, 1]. One whose pictures are of several sizes has
    ``whole(row)``, input and target ``[1, C, H, W]`` of one picture; its ``batch`` are parts of them, to be shown.
    """

    @property
    def source(self) -> str:
        """Where the pictures come from, for provenance."""
        ...

    def __len__(self) -> int: ...

    def batch(self, indices: np.ndarray) -> tuple[Inputs, Tensor | None]:
        """Inputs ``[N, C, H, W]`` in [-1, 1], several as a tuple, and their targets if there are any."""
        ...

    def digest(self) -> str:
        """Changes when the pictures do."""
        ...


class Subset:
    """A sample of ``count`` pictures of a data set, for a search: spread over all of it, and always the same.

    The first by name would be one scene or class of a folder that is sorted by such. Real pictures that belong to no
    input (``others``) are sampled alike. The source says of how many they are.
    """

    def __init__(self, pairs: Pairs, count: int) -> None:
        self.pairs, self.rows = pairs, spread(len(pairs), count)
        others = getattr(pairs, "others", None)
        self.others = None if others is None else spread(len(others), count)
        self._note = "" if len(self) == len(pairs) else f"[{len(self)} of {len(pairs)}, spread]"
        if others is not None and self.others is not None and len(self.others) < len(others):
            self._note += f"[{len(self.others)} of {len(others)} real, spread]"
        self.source = f"{pairs.source}{self._note}"
        own: Any = getattr(pairs, "whole", None)
        self.whole = None if own is None else lambda row: own(int(self.rows[row]))

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, indices: np.ndarray) -> tuple[Inputs, Tensor | None]:
        """As the data set's."""
        return self.pairs.batch(self.rows[indices])

    def other(self, indices: np.ndarray, moves: Any = None) -> Tensor:
        """As the data set's."""
        assert self.others is not None, "there are none"
        found: Tensor = self.pairs.other(self.others[indices], moves)  # type: ignore[attr-defined]
        return found

    def digest(self) -> str:
        """Changes with the pictures, and with which of them they are."""
        return f"{self.pairs.digest()}{self._note}"


def spread(total: int, count: int, *, seed: int = 0) -> np.ndarray:
    """``count`` of ``total`` rows in their order: one at random of each of as many equal stretches; all where few.

    At random, as what repeats (the cameras of a scene, mirrored copies) would meet an even step.
    """
    edges = np.arange(min(count, total) + 1) * total // max(1, min(count, total))
    return edges[:-1] + np.random.default_rng(seed).integers(0, np.diff(edges))


def evenly(total: int, count: int) -> np.ndarray:
    """``count`` of ``total`` rows at even steps, first and last among them; all where few."""
    rows: np.ndarray = np.linspace(0, total - 1, min(count, total)).astype(int)
    return rows


@dataclass(frozen=True)
class Score:
    """One figure with what is needed to quote it.

    Attributes:
        halves: the same on random halves of the pictures (``gantailor.evaluators.halves``), where they were asked for.
    """

    value: float
    unit: str
    lower_is_better: bool
    provenance: dict[str, Any]
    halves: tuple[float, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON; without halves where there are none."""
        return {name: value for name, value in asdict(self).items() if name != "halves" or value}


class Evaluator(Protocol):
    """Scores a generator on a data set; the generator comes back exactly as it was.

    One's own is checked by inheriting ``gantailor.evaluators.conformance.EvaluatorConformance``, or
    ``MetricConformance`` where a ``Metric`` makes it.

    Raises:
        EvaluationError: no score can be had; never NaN in its place.
    """

    def __call__(self, generator: nn.Module, pairs: Pairs) -> dict[str, Score]: ...


def provenance_differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """In what two provenances differ, as lines for the user; scores compare only where there is none."""
    names = dict.fromkeys([*first, *second])
    return [f"{n}: {first.get(n)} against {second.get(n)}" for n in names if first.get(n) != second.get(n)]


def provenance_of(pairs: Pairs, *, teacher: nn.Module | None = None, **more: Any) -> dict[str, Any]:
    """What every score on these pictures says of them; with a ``teacher`` its outputs are what was compared with."""
    reference = pairs.source if teacher is None else f"teacher on {pairs.source}"
    others = getattr(pairs, "others", None)
    counts = {"images": len(pairs)} | ({} if others is None else {"reference_images": len(others)})
    taught = {} if teacher is None else {"teacher": _weights_of(teacher)}
    return {"reference": reference, "reference_hash": pairs.digest(), **taught, **counts, **SEEN, **more}


def _weights_of(teacher: nn.Module) -> str:
    """Which teacher: figures against another one do not compare."""
    if teacher not in _digests:
        _digests[teacher] = state_digest(teacher)[:12]
    return _digests[teacher]


def to_teacher(key: str) -> str:
    """The name of a score that compares with the teacher: ``l1[teacher]``, ``lpips[alex-v0.1,teacher]``."""
    base, bracket, marks = key.partition("[")
    if not bracket:
        return f"{base}[teacher]"
    return key if "teacher" in marks.rstrip("]").split(",") else f"{key[:-1]},teacher]"


def against_teacher(key: str) -> bool:
    """Whether a score, or a metric that is asked for, compares with the teacher: ``l1[teacher]``."""
    return "teacher" in key.partition("[")[2].rstrip("]").split(",")


def render(generator: nn.Module, pairs: Pairs, *, batch: int = 32) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
    """Inputs, outputs and targets in batches, float in [-1, 1], where the generator is; one is held at a time.

    Where memory does not hold a batch it goes through the generator in smaller parts.

    Outputs and targets are as a person sees them (``as_seen``): of 256 values. Of a generator with several inputs the
    first, the one that is shown.

    Raises:
        EvaluationError: no pictures, or outputs that are not finite.
    """
    if not len(pairs):
        raise EvaluationError(f"data set {pairs.source!r} is empty; a score needs pictures")
    device, size = device_of(generator), batch
    with evaluating(generator):
        for start, read, targets in _batches(pairs, batch):
            inputs = each(read, lambda one: one.to(device))
            outputs, size = _outputs(generator, inputs, size)
            broken = (~torch.isfinite(outputs)).flatten(1).any(1)
            if broken.any():
                raise EvaluationError(
                    f"the generator's output for picture {start + int(broken.int().argmax())} holds NaN or infinity; "
                    "look at its weights"
                )
            yield first(inputs), as_seen(outputs), None if targets is None else as_seen(targets.to(device))


@torch.no_grad()
def _outputs(generator: nn.Module, inputs: Inputs, size: int) -> tuple[Tensor, int]:
    """What the generator makes of a batch, ``size`` rows at a time, and with how many it came through."""
    while True:
        try:
            parts = [rows_of(inputs, slice(row, row + size)) for row in range(0, size_of(inputs), size)]
            made = [forward(generator, part).float() for part in parts]
            return made[0] if len(made) == 1 else torch.cat(made), size
        except torch.OutOfMemoryError as error:
            if size == 1:
                raise EvaluationError(
                    f"out of memory with a single picture on {device_of(generator)}; lower data.size, or compute on "
                    "another device"
                ) from error
        size = -(-min(size, size_of(inputs)) // 2)


def _batches(pairs: Pairs, batch: int) -> Iterator[tuple[int, Inputs, Tensor | None]]:
    """Number of the first picture, inputs and targets; picture by picture where these are of several sizes."""
    whole = getattr(pairs, "whole", None)
    if whole is not None:
        yield from ((row, *whole(row)) for row in range(len(pairs)))
        return
    for start in range(0, len(pairs), batch):
        yield start, *pairs.batch(np.arange(start, min(start + batch, len(pairs))))


def has_real(pairs: Pairs) -> bool:
    """Whether there are real pictures at all: a target of each input, or such that belong to none."""
    return getattr(pairs, "others", None) is not None or pairs.batch(np.arange(1))[1] is not None


def real_batches(pairs: Pairs, *, batch: int = 32, device: Device = HOST) -> Iterator[Tensor]:
    """Every real picture once, as it is seen: those that belong to no input where there are such, else the targets.

    Args:
        device: where they are put.

    Raises:
        EvaluationError: there are none.
    """
    others = getattr(pairs, "others", None)
    if others is None:
        yield from (as_seen(wanted(targets).to(device)) for _, _, targets in _batches(pairs, batch))
        return
    for start in range(0, len(others), batch):
        real = pairs.other(np.arange(start, min(start + batch, len(others))), None)  # type: ignore[attr-defined]
        yield as_seen(real.to(device))


def wanted(targets: Tensor | None) -> Tensor:
    """The real pictures.

    Raises:
        EvaluationError: the data set has inputs only.
    """
    if targets is None:
        raise EvaluationError(
            "this score compares with real pictures, and the data set has inputs only; compare with the teacher"
        )
    return targets
