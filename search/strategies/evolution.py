"""The evolutionary search of GAN Compression."""

from __future__ import annotations

import numpy as np

from gantailor.search.budget import Budget
from gantailor.search.pareto import ranked
from gantailor.search.strategies.common import History, untaken
from gantailor.search.strategies.random import random


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
    best = history.indices[ranked(history.values[:seen])[:parents]]

    def child() -> np.ndarray:
        if rng.random() < mutation_ratio:
            return budget.mutate(best[rng.integers(parents)], rng, rate=mutation_rate)
        return budget.cross(best[rng.choice(parents, 2, replace=False)], rng)

    return untaken(history, child, budget, rng)
