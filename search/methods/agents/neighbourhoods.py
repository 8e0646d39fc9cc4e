"""Local neighbourhoods of a generator's outputs: which of them lie near each other in a space of features."""

from __future__ import annotations

import numpy as np

from gantailor.supernet.errors import ConfigError


def neighbourhoods(features: np.ndarray, count: int) -> np.ndarray:
    """Each row's nearest rows by cosine similarity, itself first: ``[N, d]`` to indices ``[N, count + 1]``.

    A neighbourhood is a centre with its neighbours (Casanova et al. 2021, IC-GAN, arXiv 2109.05070, whose k nearest
    neighbours Ganjdanesh et al. partition a generator's outputs by).

    Raises:
        ConfigError: there are not that many others.
    """
    if not 0 < count < len(features):
        raise ConfigError(f"{count} neighbours cannot be found: allowed are 1 to {len(features) - 1}")
    found = nearest(features, features, count + 1)
    for row, indices in enumerate(found):  # equal pictures are at distance 0 too: the centre itself comes first
        others = indices[indices != row]
        found[row] = [row, *others[:count]]
    return found


def nearest(centres: np.ndarray, features: np.ndarray, count: int) -> np.ndarray:
    """For each of ``[N, d]`` the rows of ``[M, d]`` nearest by cosine similarity: ``[N, min(count, M)]``."""
    from sklearn.neighbors import NearestNeighbors

    count = min(count, len(features))
    search = NearestNeighbors(n_neighbors=count, metric="cosine", algorithm="brute").fit(_unit(features))
    found: np.ndarray = search.kneighbors(_unit(centres), return_distance=False)
    return found


def other_pictures(count: int, seed: int) -> np.ndarray:
    """For each of ``count`` pictures another one, each once: a random circle, which leaves none with itself."""
    circle = np.random.default_rng((seed, 6)).permutation(count)
    found = np.empty(count, np.int64)
    found[circle] = np.roll(circle, 1)
    return found


def _unit(features: np.ndarray) -> np.ndarray:
    rows = np.asarray(features, np.float64)
    unit: np.ndarray = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return unit


def centred(features: np.ndarray) -> np.ndarray:
    """What tells centres apart: features ``[N, d]`` of unit length less their mean, made of unit length again."""
    unit = _unit(features)
    return _unit(unit - unit.mean(0)).astype(np.float32)
