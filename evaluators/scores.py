"""Scores of a generator on aligned pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from evaluators.distances import frechet_distance, kernel_distance
from evaluators.features import Extractor, extractor_provenance


class Pairs(Protocol):
    """What an evaluator asks of a data set."""

    @property
    def source(self) -> str: ...

    def __len__(self) -> int: ...

    def batch(self, indices: np.ndarray) -> tuple[Tensor, Tensor | None]: ...

    def digest(self) -> str: ...


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


def provenance_differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """In what two provenances differ, as lines for the user; scores compare only where there is none.

    The images scored may differ, the protocol may not.
    """
    names = dict.fromkeys([*first, *second])
    return [f"{n}: {first.get(n)} against {second.get(n)}" for n in names if first.get(n) != second.get(n)]


@torch.no_grad()
def render(
    generator: nn.Module, pairs: Pairs, *, batch: int = 32, device: str = "cpu"
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Outputs and targets in batches, float in [-1, 1]; the generator is put into eval mode."""
    generator.eval()
    for start in range(0, len(pairs), batch):
        inputs, targets = pairs.batch(np.arange(start, min(start + batch, len(pairs))))
        yield generator(inputs.to(device)).float().cpu(), targets


def evaluate(
    generator: nn.Module, pairs: Pairs, *, extractor: Extractor | None = None, device: str = "cpu"
) -> dict[str, Score]:
    """L1 to the real pictures, and with an extractor also ``fid[...]`` and ``kid[...]`` against them."""
    errors, fakes, reals = [], [], []
    for outputs, targets in render(generator, pairs, device=device):
        if targets is None:
            raise ValueError("these scores compare with real pictures; the data set has inputs only")
        errors.append((outputs - targets).abs().mean((1, 2, 3)))
        if extractor is not None:
            fakes.append(extractor(outputs))
            reals.append(extractor(targets))
    provenance: dict[str, Any] = {"reference": pairs.source, "reference_hash": pairs.digest(), "images": len(pairs)}
    if extractor is not None:
        provenance |= extractor_provenance(extractor)
    scores = {"l1": Score(float(torch.cat(errors).mean()), "of the range [-1, 1]", True, provenance)}
    if extractor is not None:
        fake, real = torch.cat(fakes).numpy(), torch.cat(reals).numpy()
        name = extractor.name
        scores[f"fid[{name}]"] = Score(frechet_distance(fake, real), "squared feature distance", True, provenance)
        scores[f"kid[{name}]"] = Score(kernel_distance(fake, real), "squared MMD", True, provenance)
    return scores
