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
    from sklearn.neighbors import NearestNeighbors

    if not 0 < count < len(features):
        raise ConfigError(f"{count} neighbours cannot be found: allowed are 1 to {len(features) - 1}")
    unit = np.asarray(features, np.float64)
    unit = unit / np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    search = NearestNeighbors(n_neighbors=count + 1, metric="cosine", algorithm="brute").fit(unit)
    found: np.ndarray = search.kneighbors(unit, return_distance=False)
    for row, indices in enumerate(found):  # equal pictures are at distance 0 too: the centre itself comes first
        others = indices[indices != row]
        found[row] = [row, *others[:count]]
    return found
