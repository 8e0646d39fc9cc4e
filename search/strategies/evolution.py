"""The evolutionary search of GAN Compression, as its authors have it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gantailor.search.budget import Budget
from gantailor.search.errors import SearchError
from gantailor.search.pareto import ranked
from gantailor.search.strategies.common import History, key
from gantailor.search.strategies.random import random

DRAWS = 2_000_000  # that must give a first generation
AT_ONCE = 2_000  # of them are costed together
TRIES = 10_000  # for one child

Candidate = tuple[int, ...]


class Evolution:
    """The search of GAN Compression (Li et al. 2020, arXiv 2003.08936), with its parameters.

    Random subnets; then generations of the best quarter, the parents, and as many children as the first generation
    has: mutated parents, then crossovers of two parents, each gene from either. What does not meet the budget is drawn
    again, neither narrowed nor filled up. A generation may have a subnet several times; it is evaluated once.

    Chance comes from ``(seed, generation)`` alone, so each call goes through the generations anew and proposes the
    first child that is not taken; what was drawn before is looked up. What this strategy did not choose (a search's
    beginning, trials of earlier budgets) is in the first generation. With several workers a generation begins as soon
    as all children of the last one are taken; those that have no value yet are no parents. After the last generation
    candidates are random. With several objectives parents go by non-dominated rank.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        population: int = 100,
        parent_ratio: float = 0.25,
        mutation_ratio: float = 0.5,
        mutation_rate: float = 0.2,
        generations: int = 500,
    ) -> None:
        self.seed, self.population, self.generations = seed, population, generations
        self.parents, self.mutants = max(1, int(population * parent_ratio)), int(population * mutation_ratio)
        self.mutation_rate = mutation_rate
        self._drawn: dict[tuple[Budget, int, tuple[Candidate, ...]], list[Candidate]] = {}
        self._met: dict[tuple[Budget, Candidate], bool] = {}

    def __call__(self, history: History, budget: Budget, rng: np.random.Generator) -> np.ndarray | None:
        known = {key(row): number for number, row in enumerate(history.indices)}
        members = [one for one in known if one in history.given and self._meets(one, budget)]
        children = self._first(budget)[: max(0, self.population - len(members))]
        for generation in range(1, self.generations + 1):
            new = next((child for child in children if child not in history.taken), None)
            if new is not None:
                return np.array(new)
            members += [child for child in children if child in known]
            if not members:  # every one failed
                break
            best = ranked(history.values[[known[member] for member in members]])[: self.parents]
            members = [members[number] for number in best]
            children = self._next(members, budget, generation)
        return random(history, budget, rng)

    def remark(self, budget: Budget, trials: int) -> str:
        """What is to be said before a search of so many trials, if anything.

        Raises:
            SearchError: random subnets do not meet the budget.
        """
        self._first(budget)
        if trials > self.population:
            return ""
        return (
            f"evolution's first {self.population} subnets are random: with search.trials {trials} it is a random "
            f"search; set search.trials above {self.population}, or search.strategy predictor, which needs fewer"
        )

    def _first(self, budget: Budget) -> list[Candidate]:
        """A first generation: uniformly random candidates that meet the budget; for a front, below random MAC limits.

        Raises:
            SearchError: two million draws do not give as many.
        """
        if (budget, 0, ()) not in self._drawn:
            rng = np.random.default_rng((self.seed, 0))
            if budget.fill:
                rows = _uniform(budget, rng, self.population)
            else:
                rows = np.array([budget.sample(rng) for _ in range(self.population)])
            self._drawn[budget, 0, ()] = [key(row) for row in rows]
        return self._drawn[budget, 0, ()]

    def _next(self, parents: list[Candidate], budget: Budget, generation: int) -> list[Candidate]:
        """The children of these parents, the best first: mutants, then crossovers; each may equal a parent."""
        cached = (budget, generation, tuple(parents))
        if cached in self._drawn:
            return self._drawn[cached]
        rng, rows, ends = np.random.default_rng((self.seed, generation)), np.array(parents), budget.space.largest + 1

        def mutant() -> Candidate:
            parent = rows[rng.integers(len(rows))]
            rate = self.mutation_rate
            return self._redrawn(
                parent, budget, lambda: np.where(rng.random(len(ends)) < rate, rng.integers(0, ends), parent)
            )

        def crossover() -> Candidate:
            one, other = rows[rng.integers(len(rows), size=2)]
            return self._redrawn(one, budget, lambda: np.where(rng.random(len(ends)) < 0.5, one, other))

        children = [mutant() for _ in range(self.mutants)]
        children += [crossover() for _ in range(self.population - self.mutants)]
        self._drawn[cached] = children
        return children

    def _redrawn(self, parent: np.ndarray, budget: Budget, draw: Callable[[], np.ndarray]) -> Candidate:
        """The first draw that meets the budget; the parent where none of many does."""
        drawn = (key(draw()) for _ in range(TRIES))
        return next((one for one in drawn if self._meets(one, budget)), key(parent))

    def _meets(self, candidate: Candidate, budget: Budget) -> bool:
        if (budget, candidate) not in self._met:
            self._met[budget, candidate] = bool(budget.fits(np.array(candidate))[0])
        return self._met[budget, candidate]


def _uniform(budget: Budget, rng: np.random.Generator, count: int) -> np.ndarray:
    """Uniformly random candidates that meet the budget, ``[count, n_variables]``, by rejection.

    Raises:
        SearchError: two million draws do not give as many, and the space is too large to be listed.
    """
    found: np.ndarray = np.empty((0, len(budget.space.variables)), np.int64)
    for _ in range(DRAWS // AT_ONCE):
        drawn = rng.integers(0, budget.space.largest + 1, (AT_ONCE, found.shape[1]))
        found = np.concatenate([found, drawn[budget.fits(drawn)]])
        if len(found) >= count:
            first: np.ndarray = found[:count]
            return first
    if budget.feasible is not None:  # the same distribution
        listed: np.ndarray = budget.feasible[rng.integers(len(budget.feasible), size=count)]
        return listed
    raise SearchError(
        f"evolution draws subnets until they meet the budget, as published, and of {DRAWS:,} random ones "
        f"{len(found) or 'none'} met {budget}; set search.strategy predictor, whose subnets meet it by construction, "
        "or a larger budget"
    )
