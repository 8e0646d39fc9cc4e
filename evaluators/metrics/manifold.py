"""Fidelity and diversity apart: nearest neighbours of generated features among real ones, and the other way round."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gantailor.supernet.errors import EvaluationError


def precision_recall(real: np.ndarray, fake: np.ndarray, *, k: int = 3) -> dict[str, float]:
    """Improved precision and recall of ``fake`` ``[M, d]`` against ``real`` ``[N, d]`` (arXiv 1904.06991).

    Precision: share of fake points within the k-th neighbour radius of some real point. Recall: the converse.
    """
    a, b = _checked(real, fake, k)
    inside_real, _ = _within(a, b, _radii(a, k))
    inside_fake, _ = _within(b, a, _radii(b, k))
    return {"precision": float((inside_real > 0).double().mean()), "recall": float((inside_fake > 0).double().mean())}


def density_coverage(real: np.ndarray, fake: np.ndarray, *, k: int = 5) -> dict[str, float]:
    """Density and coverage of ``fake`` against ``real`` (Naeem et al. 2020, arXiv 2002.09797).

    Density: mean number of real balls that hold a fake point, over k (may exceed 1). Coverage: share of real balls
    that hold some fake point.
    """
    a, b = _checked(real, fake, k)
    counts, held = _within(a, b, _radii(a, k))
    return {"density": float(counts.double().mean() / k), "coverage": float(held.double().mean())}


def _checked(real: np.ndarray, fake: np.ndarray, k: int) -> tuple[Tensor, Tensor]:
    if min(len(real), len(fake)) <= k:
        raise EvaluationError(f"{k} neighbours need more than {k} images on each side, not {len(real)} and {len(fake)}")
    return torch.from_numpy(np.asarray(real)), torch.from_numpy(np.asarray(fake))


def _distances(x: Tensor, y: Tensor) -> Tensor:
    """In float64, which only a slab of ``y`` at a time is held in: 50,000 images stay under 2 GiB."""
    exact = "donot_use_mm_for_euclid_dist"  # a difference of products does not find equal points at distance 0
    return torch.cat([torch.cdist(x.double(), part.double(), compute_mode=exact) for part in torch.split(y, 4096)], 1)


def _radii(x: Tensor, k: int) -> Tensor:
    """Distance of each point to its k-th nearest other point."""
    return torch.cat([_distances(rows, x).kthvalue(k + 1, dim=1).values for rows in torch.split(x, 512)])


def _within(centres: Tensor, points: Tensor, radii: Tensor) -> tuple[Tensor, Tensor]:
    """For each point the number of balls that hold it; for each ball whether it holds any point."""
    counts, held = [], torch.zeros(len(centres), dtype=torch.bool)
    for rows in torch.split(points, 512):
        inside = _distances(rows, centres) <= radii
        counts.append(inside.sum(1))
        held |= inside.any(0)
    return torch.cat(counts), held
