"""What an evaluator is: a generator and a data set in, named scores out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from gantailor.supernet.calling import Inputs, each, evaluating, first, forward
from gantailor.supernet.errors import EvaluationError


class Pairs(Protocol):
    """What an evaluator asks of a data set."""

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
    """The first ``count`` pictures of a data set, for a search."""

    def __init__(self, pairs: Pairs, count: int) -> None:
        self.pairs, self.count = pairs, min(count, len(pairs))
        self.source = pairs.source if self.count == len(pairs) else f"{pairs.source}[:{self.count}]"

    def __len__(self) -> int:
        return self.count

    def batch(self, indices: np.ndarray) -> tuple[Inputs, Tensor | None]:
        """As the data set's."""
        return self.pairs.batch(indices)

    def digest(self) -> str:
        """Changes with the pictures, and with how many they are."""
        return f"{self.pairs.digest()}[:{self.count}]"


@dataclass(frozen=True)
class Score:
    """One figure with what is needed to quote it."""

    value: float
    unit: str
    lower_is_better: bool
    provenance: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self)


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
    return {"reference": reference, "reference_hash": pairs.digest(), "images": len(pairs), **more}


def to_teacher(key: str) -> str:
    """The name of a score that compares with the teacher: ``l1[teacher]``, ``lpips[alex-v0.1,teacher]``."""
    base, bracket, marks = key.partition("[")
    if not bracket:
        return f"{base}[teacher]"
    return key if "teacher" in marks.rstrip("]").split(",") else f"{key[:-1]},teacher]"


def render(
    generator: nn.Module, pairs: Pairs, *, batch: int = 32, device: str = "cpu"
) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
    """Inputs, outputs and targets in batches on the CPU, float in [-1, 1]; one batch is held at a time.

    Of a generator with several inputs the first, the one that is shown.

    Raises:
        EvaluationError: no pictures, or outputs that are not finite.
    """
    if not len(pairs):
        raise EvaluationError(f"data set {pairs.source!r} is empty; a score needs pictures")
    with evaluating(generator):
        for start in range(0, len(pairs), batch):
            inputs, targets = pairs.batch(np.arange(start, min(start + batch, len(pairs))))
            with torch.no_grad():  # not around the yield: it would reach into the caller
                outputs = forward(generator, each(inputs, lambda one: one.to(device))).float().cpu()
            broken = (~torch.isfinite(outputs)).flatten(1).any(1)
            if broken.any():
                raise EvaluationError(
                    f"the generator's output for picture {start + int(broken.int().argmax())} holds NaN or infinity; "
                    "look at its weights"
                )
            yield first(inputs), outputs, targets


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
