"""Distances between two sets of features, in float64."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gantailor.supernet.errors import EvaluationError


def finite(features: np.ndarray) -> np.ndarray:
    """The same features ``[N, d]``.

    Raises:
        EvaluationError: values that are not finite.
    """
    broken = sum(int((~np.isfinite(features[i : i + 4096])).any(1).sum()) for i in range(0, len(features), 4096))
    if broken:
        raise EvaluationError(
            f"{broken} of {len(features)} images have features that are NaN or infinite; look at them"
        )
    return features


@dataclass(frozen=True, eq=False)
class Gaussian:
    """The normal distribution of a feature set.

    Attributes:
        mean: ``[d]``.
        thin: centred, scaled features ``[n, d]`` with ``covariance = thin.T @ thin``, kept when n <= d; else ``None``.
        full: the covariance ``[d, d]`` otherwise.
    """

    mean: np.ndarray
    thin: np.ndarray | None
    full: np.ndarray | None

    @classmethod
    def fit(cls, features: np.ndarray) -> Gaussian:
        """Mean and unbiased covariance of ``[N, d]``, N at least 2.

        Raises:
            EvaluationError: fewer than 2 images, or values that are not finite.
        """
        x = np.asarray(features)
        if len(x) < 2:
            raise EvaluationError(f"a Frechet distance needs at least 2 images on each side, not {len(x)}")
        finite(x)
        mean = x.mean(0, dtype=np.float64)
        if len(x) <= x.shape[1]:
            return cls(mean, (x - mean) / np.sqrt(len(x) - 1), None)
        full = np.zeros((x.shape[1], x.shape[1]))
        for i in range(0, len(x), 4096):  # slabs: 50,000 images never stand in memory twice
            part = x[i : i + 4096] - mean
            full += part.T @ part
        return cls(mean, None, full / (len(x) - 1))

    @cached_property
    def trace(self) -> float:
        """Trace of the covariance."""
        if self.thin is not None:
            return float(np.square(self.thin).sum())
        assert self.full is not None
        return float(np.trace(self.full))

    @cached_property
    def root(self) -> np.ndarray:
        """``[r, d]`` with ``covariance = root.T @ root``; the costly step for a full covariance, done once."""
        if self.thin is not None:
            return self.thin
        assert self.full is not None
        values, vectors = np.linalg.eigh(self.full)
        root: np.ndarray = np.sqrt(np.maximum(values, 0))[:, None] * vectors.T
        return root


def frechet(a: Gaussian, b: Gaussian) -> float:
    """Frechet distance of two Gaussians (Heusel et al. 2017, arXiv 1706.08500).

    ``tr sqrt(A B)`` is the sum of the square roots of the eigenvalues of ``R A R^T`` for ``B = R^T R``, which is
    symmetric, so no general matrix square root is taken; it is as small as the smaller set where images are fewer than
    features. Rank-deficient covariances need no special care. ``b``'s root is cached: give the reference set there.
    """
    if a.thin is not None and b.thin is not None:
        overlap = np.linalg.svd(a.thin @ b.thin.T, compute_uv=False).sum()
    elif a.thin is not None:
        half = b.root @ a.thin.T
        overlap = _roots(half.T @ half)
    else:
        overlap = _roots(b.root @ a.full @ b.root.T)
    return float(np.square(a.mean - b.mean).sum() + a.trace + b.trace - 2 * overlap)


def _roots(symmetric: np.ndarray) -> float:
    return float(np.sqrt(np.maximum(np.linalg.eigvalsh(symmetric), 0)).sum())


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Frechet distance of the Gaussians fitted to features ``[N, d]`` and ``[M, d]``."""
    return frechet(Gaussian.fit(a), Gaussian.fit(b))


def kernel_distance(a: np.ndarray, b: np.ndarray) -> float:
    """KID: unbiased squared MMD with the kernel ``(x.y/d + 1)^3`` (Binkowski et al. 2018, arXiv 1801.01401).

    Over all images; the published protocol averages this estimate over random subsets (``kernel_distance_subsets``).
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    n, m = len(a), len(b)
    if min(n, m) < 2:
        raise EvaluationError(f"a kernel distance needs at least 2 images on each side, not {n} and {m}")
    return float(
        _kernel_sum(a, a, diagonal=False) / (n * (n - 1))
        + _kernel_sum(b, b, diagonal=False) / (m * (m - 1))
        - 2 * _kernel_sum(a, b, diagonal=True) / (n * m)
    )


def _kernel_sum(x: np.ndarray, y: np.ndarray, *, diagonal: bool, rows: int = 2048) -> float:
    """Sum of the kernel over all pairs, a slab of rows at a time: memory stays bounded."""
    total = sum(float(np.power(x[i : i + rows] @ y.T / x.shape[1] + 1, 3).sum()) for i in range(0, len(x), rows))
    return total if diagonal else total - float(np.power(np.square(x).sum(1) / x.shape[1] + 1, 3).sum())


def kernel_distance_subsets(
    a: np.ndarray, b: np.ndarray, *, subsets: int = 100, size: int = 1000, seed: int = 2020
) -> tuple[float, float]:
    """KID's published protocol: mean and standard deviation over random subsets, drawn as torch-fidelity draws them.

    Raises:
        EvaluationError: a subset is larger than a set.
    """
    if size > min(len(a), len(b)):
        raise EvaluationError(
            f"KID subsets of {size} do not fit {len(a)} and {len(b)} images; take a smaller subset size"
        )
    rng = np.random.RandomState(seed)
    values = []
    for _ in range(subsets):
        first = rng.choice(len(a), size, replace=False)
        values.append(kernel_distance(a[first], b[rng.choice(len(b), size, replace=False)]))
    return float(np.mean(values)), float(np.std(values))
