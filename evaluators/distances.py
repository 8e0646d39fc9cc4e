"""Distances between two sets of features, in float64."""

from __future__ import annotations

import numpy as np


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Frechet distance of the Gaussians fitted to ``[N, d]`` and ``[M, d]`` (Heusel et al. 2017, arXiv 1706.08500).

    ``tr sqrt(A B)`` is the sum of singular values of ``Xa Xb^T`` for centred, scaled features, so no matrix square
    root is taken and rank-deficient covariances need no special care.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if len(a) < 2 or len(b) < 2:
        raise ValueError(f"a Frechet distance needs at least 2 images on each side, not {len(a)} and {len(b)}")
    mean = float(np.square(a.mean(0) - b.mean(0)).sum())
    xa, xb = (a - a.mean(0)) / np.sqrt(len(a) - 1), (b - b.mean(0)) / np.sqrt(len(b) - 1)
    overlap = np.linalg.svd(xa @ xb.T, compute_uv=False).sum()
    return mean + float(np.square(xa).sum() + np.square(xb).sum() - 2 * overlap)


def kernel_distance(a: np.ndarray, b: np.ndarray) -> float:
    """KID: unbiased squared MMD with the kernel ``(x.y/d + 1)^3`` (Binkowski et al. 2018, arXiv 1801.01401)."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    n, m, d = len(a), len(b), a.shape[1]
    aa, bb, ab = (np.power(x @ y.T / d + 1, 3) for x, y in ((a, a), (b, b), (a, b)))
    within = (aa.sum() - np.trace(aa)) / (n * (n - 1)) + (bb.sum() - np.trace(bb)) / (m * (m - 1))
    return float(within - 2 * ab.mean())
