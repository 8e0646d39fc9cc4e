"""How much a score owes to which pictures it was computed on: the same score on random halves of them.

The scores of halves that are drawn without replacement vary as much as the score itself would over other sets of as
many pictures (a jackknife that deletes half; Shao and Wu 1989, doi 10.1214/aos/1176347263). A bootstrap would draw
pictures twice, and what compares sets, as KID does, would take the doubles for likeness.

The halves are the same for every generator, so differences between two are paired by picture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

HALVES = 100
MOST = 1000  # pictures of a set above which its halves would take minutes, and matter little


def halves(total: int, *, seed: int = 0) -> np.ndarray:
    """Rows ``[100, total // 2]`` of random halves of ``total`` pictures, each beside its other half; always the same.

    Args:
        seed: other halves, for pictures that do not belong to the first ones.
    """
    rng, size = np.random.default_rng(seed), total // 2
    orders = (rng.permutation(total) for _ in range(HALVES // 2))
    return np.array([part for order in orders for part in (order[:size], order[total - size :])])


def halves_of_mean(values: np.ndarray) -> tuple[float, ...]:
    """The mean of each half of one figure for each picture ``[N]``; none of a single picture."""
    return rounded(values[halves(len(values))].mean(1)) if len(values) > 1 else ()


def halves_of_sets(
    made: np.ndarray, real: np.ndarray, distance: Callable[[np.ndarray, np.ndarray], float]
) -> tuple[float, ...]:
    """A distance of features ``[N, d]`` and ``[M, d]`` on halves of both sets, of the same pictures where N is M.

    None where there are fewer than 4 pictures on a side, or more than 1,000.
    """
    if min(len(made), len(real)) < 4 or max(len(made), len(real)) > MOST:
        return ()
    ours = halves(len(made))
    theirs = ours if len(made) == len(real) else halves(len(real), seed=1)
    return rounded([distance(made[a], real[b]) for a, b in zip(ours, theirs, strict=True)])


def rounded(values: np.ndarray | list[float]) -> tuple[float, ...]:
    """To six digits: they are kept as text."""
    return tuple(float(f"{value:.6g}") for value in values)


def interval(differences: Sequence[float] | np.ndarray, halves: np.ndarray | None = None) -> tuple[float, float]:
    """Mean and half of the 95% interval of paired differences: over seeds, and over pictures where halves are given.

    The pictures are the same for all arms and seeds: the choice of them moves all differences together. So its variance
    is that of the mean over seeds on random halves, and is added to the seeds' own; Student's t, with the degrees of
    freedom of such a sum (Welch 1947, doi 10.1093/biomet/34.1-2.28).

    Args:
        differences: one for each seed.
        halves: the same on halves of the pictures, ``[seeds, halves]``.

    Returns:
        Of one seed its own difference, and the interval over pictures alone; NaN without halves.
    """
    from scipy import stats

    values = np.asarray(differences, dtype=float)
    of_pictures = 0.0 if halves is None else float(np.asarray(halves).mean(0).var(ddof=1))
    if len(values) < 2:
        return float(values.mean()), float("nan") if halves is None else 1.96 * np.sqrt(of_pictures)
    of_seeds = float(values.var(ddof=1)) / len(values)
    freedom = (len(values) - 1) * ((of_seeds + of_pictures) / of_seeds) ** 2 if of_seeds else np.inf
    return float(values.mean()), float(stats.t.ppf(0.975, freedom) * np.sqrt(of_seeds + of_pictures))


def shown_interval(differences: Sequence[float] | np.ndarray, halves: np.ndarray | None = None) -> str:
    """It as a cell: bold where it leaves out 0."""
    mean, half = interval(differences, halves)
    if np.isnan(half):
        return f"{mean:+.1f}"
    return f"**{mean:+.1f} ± {half:.1f}**" if abs(mean) > half else f"{mean:+.1f} ± {half:.1f}"
