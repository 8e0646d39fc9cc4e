"""A model of the score over widths, fitted to what was evaluated, chooses what is evaluated next."""

from __future__ import annotations

from typing import Any

import numpy as np

from gantailor.search.budget import Budget
from gantailor.search.strategies.common import History, key
from gantailor.search.strategies.random import random

LENGTHS, NOISES = (0.5, 1.0, 2.0), (0.01, 0.05, 0.2)  # of which the likeliest are taken


def predictor(history: History, budget: Budget, rng: np.random.Generator, *, explore: float = 0.1) -> np.ndarray | None:
    """A Gaussian process over widths, fitted anew each time; the candidate with the best lower confidence bound.

    With several objectives each proposal serves another part of the front: a random weighting (augmented Chebyshev,
    Knowles 2006, ParEGO) of the normalised objectives is modelled.
    """
    if len(history.values) < 4 or rng.random() < explore:
        return random(history, budget, rng)
    target = _scalarised(history.values, rng)
    best = history.indices[np.argsort(target)[:8]]
    if budget.feasible is not None and len(budget.feasible) <= 5000:
        pool = budget.feasible
    else:
        drawn = [budget.sample(rng) for _ in range(150)]
        pool = np.stack(drawn + [budget.mutate(best[rng.integers(len(best))], rng) for _ in range(150)])
    pool = np.array([row for row in pool if key(row) not in history.taken])
    if not len(pool):
        return random(history, budget, rng)
    known, new = _features(budget, history.indices), _features(budget, pool)
    mean, deviation = _gaussian_process(known, target, new)
    chosen: np.ndarray = pool[int(np.argmin(mean - 0.5 * deviation))]
    return chosen


def _features(budget: Budget, indices: np.ndarray) -> np.ndarray:
    """Each variable's choice as a share of its width and inverse (errors fall about as 1 / width), the log of MACs."""
    space = budget.space
    shares = np.stack(
        [np.asarray(v.choices)[indices[:, i]] / v.choices[-1] for i, v in enumerate(space.variables)], axis=1
    )
    low, high = np.log(budget.cost(np.stack([space.smallest, space.largest])))
    macs = (np.log(budget.cost(indices)) - low) / max(high - low, 1e-9)
    return np.concatenate([shares, 0.25 / (shares + 0.1), macs[:, None]], 1)


def _gaussian_process(x: np.ndarray, y: np.ndarray, new: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Posterior mean and deviation at ``new``: a linear trend and a smooth rest, scales by marginal likelihood."""
    fitted = (_fitted(x, y, length, noise) for length in LENGTHS for noise in NOISES)  # each holds a square of x
    best = max(fitted, key=lambda process: process.log_marginal_likelihood_value_)  # the first of equals
    mean, deviation = best.predict(new, return_std=True)
    return mean, deviation


def _fitted(x: np.ndarray, y: np.ndarray, length: float, noise: float) -> Any:
    """A process with these scales, of values that are normalised for it."""
    from sklearn.gaussian_process import GaussianProcessRegressor  # slow to import, and mistakes are told before
    from sklearn.gaussian_process.kernels import DotProduct, Matern

    kernel = DotProduct(0.0, "fixed") + Matern(length, "fixed", nu=2.5)
    return GaussianProcessRegressor(kernel, alpha=noise, optimizer=None, normalize_y=True).fit(x, y)


def _scalarised(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if values.shape[1] == 1:
        return values[:, 0]
    low, high = values.min(0), values.max(0)
    normal = (values - low) / np.where(high > low, high - low, 1)
    weights = rng.dirichlet(np.ones(values.shape[1]))
    scalar: np.ndarray = (weights * normal).max(1) + 0.05 * normal @ weights
    return scalar
