"""Several objectives at once, all minimised: who is beaten by nobody, in which order, and what a front dominates."""

from __future__ import annotations

from collections.abc import Sequence

import moocore
import numpy as np


def front(values: np.ndarray) -> np.ndarray:
    """Which rows no other row beats: none is as good everywhere and better somewhere; equal rows all count."""
    kept: np.ndarray = moocore.is_nondominated(values, keep_weakly=True)
    return kept


def hypervolume(values: np.ndarray, reference: Sequence[float]) -> float:
    """Volume that minimised objectives ``[N, n_objectives]`` dominate below ``reference``."""
    return float(moocore.hypervolume(values, ref=reference))


def ranked(values: np.ndarray) -> np.ndarray:
    """Row numbers, best first: by value, or by non-dominated rank and then by the sum of normalised objectives."""
    if values.shape[1] == 1:
        return np.argsort(values[:, 0], kind="stable")
    known = np.ma.masked_invalid(values)  # one that could not be scored is infinitely bad, and says nothing of the rest
    low, high = (np.ma.filled(end, 0.0) for end in (known.min(0), known.max(0)))
    spread = high - low
    total = ((values - low) / np.where(spread > 0, spread, 1)).sum(1)
    return np.lexsort((total, moocore.pareto_rank(values)))
