"""How the next subnets are chosen. Every strategy proposes only candidates that meet the budget.

A strategy is a function of what is known, the budget and a random generator; it keeps nothing between calls, so a
search that was killed goes on as if it had not been.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from gantailor.search.budget import Budget
from gantailor.search.spaces.space import uniform_indices
from gantailor.supernet.errors import ConfigError, nearest


@dataclass(frozen=True, eq=False)
class History:
    """What was evaluated: choice indices ``[N, n_variables]`` and objectives ``[N, n_objectives]``, all minimised.

    ``taken`` are the candidates that need no proposal any more: evaluated, running or failed; ``counted`` of them count
    as trials of this budget.
    """

    indices: np.ndarray
    values: np.ndarray
    taken: frozenset[tuple[int, ...]]
    counted: int = 0


Strategy = Callable[[History, Budget, np.random.Generator], np.ndarray | None]


def key(indices: np.ndarray) -> tuple[int, ...]:
    """A candidate as a hashable."""
    return tuple(int(i) for i in indices)


def untaken(
    history: History, draw: Callable[[], np.ndarray], budget: Budget, rng: np.random.Generator, *, draws: int = 50
) -> np.ndarray | None:
    """The first draw that is not taken; where they repeat, a random candidate; ``None`` when none seems left."""
    for number in range(draws + 50):
        drawn = draw() if number < draws else budget.sample(rng)
        if key(drawn) not in history.taken:
            return drawn
    if budget.feasible is not None:
        left = [row for row in budget.feasible if key(row) not in history.taken]
        return left[rng.integers(len(left))] if left else None
    return None


def random(history: History, budget: Budget, rng: np.random.Generator) -> np.ndarray | None:
    """Random candidates close under the budget: the baseline."""
    return untaken(history, lambda: budget.sample(rng), budget, rng)


def first(history: History, budget: Budget, rng: np.random.Generator) -> np.ndarray | None:
    """How every search begins: the uniform shrink, then random candidates."""
    uniform = uniform_indices(budget.space, budget.macs, convention=budget.convention)
    if key(uniform) not in history.taken and budget.fits(uniform)[0]:
        return uniform
    return random(history, budget, rng)


def exhaustive(history: History, budget: Budget, rng: np.random.Generator) -> np.ndarray | None:
    """Every candidate that fits, the costliest first.

    Raises:
        ConfigError: the space is too large to be listed.
    """
    if budget.feasible is None:
        raise ConfigError(f"exhaustive search of {budget.space.count:,} subnets is hopeless; use predictor")
    order = np.argsort(-budget.cost(budget.feasible), kind="stable")
    return next((row for row in budget.feasible[order] if key(row) not in history.taken), None)


def evolution(
    history: History,
    budget: Budget,
    rng: np.random.Generator,
    *,
    population: int = 100,
    parent_ratio: float = 0.25,
    mutation_ratio: float = 0.5,
    mutation_rate: float = 0.2,
) -> np.ndarray | None:
    """The search of GAN Compression (Li et al. 2020, arXiv 2003.08936), with its parameters.

    A random population; then generations whose parents are the best quarter of all so far, and whose children are
    mutated parents and crossovers, half each. With several objectives, parents are chosen by non-dominated rank.
    """
    parents = max(2, int(population * parent_ratio))
    done = len(history.values)
    if done < population:
        return random(history, budget, rng)
    seen = done - (done - population) % (population - parents)  # evaluated before this generation
    best = history.indices[_ranked(history.values[:seen])[:parents]]

    def child() -> np.ndarray:
        if rng.random() < mutation_ratio:
            return budget.mutate(best[rng.integers(parents)], rng, rate=mutation_rate)
        return budget.cross(best[rng.choice(parents, 2, replace=False)], rng)

    return untaken(history, child, budget, rng)


def predictor(history: History, budget: Budget, rng: np.random.Generator, *, explore: float = 0.1) -> np.ndarray | None:
    """A Gaussian process over widths, fitted anew each time; the candidate with the best lower confidence bound.

    With several objectives each proposal serves another part of
    the front: a random weighting (augmented Chebyshev, Knowles 2006, ParEGO) of the normalised objectives is modelled.
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
    return pool[int(np.argmin(mean - 0.5 * deviation))]


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
    centre, scale = y.mean(), y.std() + 1e-12
    y = (y - centre) / scale
    best: tuple[float, float, float] | None = None
    for length in (0.5, 1.0, 2.0):
        for noise in (0.01, 0.05, 0.2):
            kernel = _kernel(x, x, length) + noise * np.eye(len(x))
            lower = np.linalg.cholesky(kernel)
            alpha = np.linalg.solve(lower, y)
            likelihood = -0.5 * alpha @ alpha - np.log(np.diag(lower)).sum()
            if best is None or likelihood > best[0]:
                best = (likelihood, length, noise)
    assert best is not None
    _, length, noise = best
    lower = np.linalg.cholesky(_kernel(x, x, length) + noise * np.eye(len(x)))
    cross = np.linalg.solve(lower, _kernel(x, new, length))
    mean = cross.T @ np.linalg.solve(lower, y)
    variance = 1 + (new**2).sum(1) - (cross**2).sum(0)
    return mean * scale + centre, np.sqrt(np.maximum(variance, 0)) * scale


def _kernel(a: np.ndarray, b: np.ndarray, length: float) -> np.ndarray:
    """A linear part and a smooth part (Matern 5/2)."""
    distance = np.sqrt(np.maximum(((a[:, None] - b[None]) ** 2).sum(2), 0)) * np.sqrt(5) / length
    return a @ b.T + (1 + distance + distance**2 / 3) * np.exp(-distance)


def _scalarised(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if values.shape[1] == 1:
        return values[:, 0]
    low, high = values.min(0), values.max(0)
    normal = (values - low) / np.where(high > low, high - low, 1)
    weights = rng.dirichlet(np.ones(values.shape[1]))
    return (weights * normal).max(1) + 0.05 * normal @ weights


def front(values: np.ndarray) -> np.ndarray:
    """Which rows no other row beats: none is as good everywhere and better somewhere; equal rows all count."""
    kept = np.ones(len(values), bool)
    for i, row in enumerate(values):
        kept[i] = not ((values <= row).all(1) & (values < row).any(1)).any()
    return kept


def hypervolume(values: np.ndarray, reference: Sequence[float]) -> float:
    """Area that two minimised objectives ``[N, 2]`` dominate below ``reference``."""
    right, top = reference
    area, low = 0.0, float(top)
    for x, y in sorted(map(tuple, values[(values < np.asarray(reference)).all(1)])):
        if y < low:
            area += (right - x) * (low - y)
            low = y
    return area


def _ranked(values: np.ndarray) -> np.ndarray:
    """Row numbers, best first: by value, or by non-dominated rank and then by the sum of normalised objectives."""
    if values.shape[1] == 1:
        return np.argsort(values[:, 0], kind="stable")
    rank, left, number = np.zeros(len(values)), np.arange(len(values)), 0
    while len(left):
        best = front(values[left])
        rank[left[best]] = number
        left, number = left[~best], number + 1
    spread = np.ptp(values, axis=0)
    total = ((values - values.min(0)) / np.where(spread > 0, spread, 1)).sum(1)
    return np.lexsort((total, rank))


STRATEGIES: dict[str, Strategy] = {
    "predictor": predictor,
    "evolution": evolution,
    "random": random,
    "exhaustive": exhaustive,
}
SAMPLERS = ("tpe", "nsga2", "nsga3", "gp")  # Optuna's, in search/samplers.py


def check_strategy(name: str) -> str:
    """The same name.

    Raises:
        ConfigError: there is no such strategy.
    """
    if name not in STRATEGIES and name not in SAMPLERS:
        raise ConfigError(f"strategy {name!r} is unknown; {nearest(name, [*STRATEGIES, *SAMPLERS])}")
    return name
