"""Optuna's samplers as strategies."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import optuna
from optuna.distributions import IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, GPSampler, NSGAIIISampler, NSGAIISampler, TPESampler

from gantailor.search.budget import Budget
from gantailor.search.strategies.common import History, key, untaken

POPULATION = 24  # of the two genetic ones


class OptunaStrategy:
    """A sampler with a study of its own in memory.

    The sampler's suggestion is settled within the budget; the result is what is evaluated, and its values are told to
    the sampler for its suggestion, with the excess of the suggestion over the budget as an Optuna constraint.
    After an interruption earlier results are given to the sampler anew (NSGA's generations then start afresh).

    A kind of it says how its sampler is made.
    """

    def __init__(self, *, seed: int = 0) -> None:
        self.seed = seed
        self._study: optuna.Study | None = None
        self._asked: dict[tuple[int, ...], Any] = {}
        self._told: set[tuple[int, ...]] = set()

    def __call__(self, history: History, budget: Budget, rng: np.random.Generator) -> np.ndarray | None:
        if len(budget.space.variables) == 0:
            return None
        study = self._study = self._study or self._begin(history)
        values = {key(row): value.tolist() for row, value in zip(history.indices, history.values, strict=True)}
        self._tell(study, budget, values)

        def draw() -> np.ndarray:
            trial = study.ask(self._distributions(budget))
            suggested = np.array([trial.params[v.name] for v in budget.space.variables])
            settled = budget.settle(suggested, np.random.default_rng((self.seed, *key(suggested))))
            trial.set_constraint("budget", budget.excess(suggested))
            if key(settled) in values:
                study.tell(trial, values[key(settled)])
            else:
                self._asked[key(settled)] = trial
            return settled

        return untaken(history, draw, budget, rng, draws=4)  # each repeat slows the sampler down

    def sampler(self) -> BaseSampler:
        """A new sampler with this seed."""
        raise NotImplementedError

    def _begin(self, history: History) -> optuna.Study:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        objectives = history.values.shape[1]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # some are "experimental" since 2023
            return optuna.create_study(directions=["minimize"] * objectives, sampler=self.sampler())

    def _tell(self, study: optuna.Study, budget: Budget, values: dict[tuple[int, ...], list[float]]) -> None:
        """What became known since the last call, suggested here or not."""
        for candidate, found in values.items():
            if candidate in self._told:
                continue
            self._told.add(candidate)
            trial = self._asked.pop(candidate, None)
            if trial is not None:
                study.tell(trial, found)
                continue
            names = [v.name for v in budget.space.variables]
            study.add_trial(
                optuna.create_trial(
                    params=dict(zip(names, candidate, strict=True)),
                    distributions=self._distributions(budget),
                    values=found,
                    constraints={"budget": 0.0},
                )
            )

    @staticmethod
    def _distributions(budget: Budget) -> dict[str, Any]:
        return {v.name: IntDistribution(0, len(v.choices) - 1) for v in budget.space.variables}


class TPE(OptunaStrategy):
    """Tree-structured Parzen estimators (Bergstra et al. 2011), of all variables at once."""

    def sampler(self) -> BaseSampler:
        return TPESampler(seed=self.seed, multivariate=True)


class GP(OptunaStrategy):
    """Optuna's Gaussian process."""

    def sampler(self) -> BaseSampler:
        return GPSampler(seed=self.seed)


class NSGA2(OptunaStrategy):
    """The non-dominated sorting genetic algorithm II (Deb et al. 2002)."""

    def sampler(self) -> BaseSampler:
        return NSGAIISampler(population_size=POPULATION, seed=self.seed)


class NSGA3(OptunaStrategy):
    """The non-dominated sorting genetic algorithm III (Deb and Jain 2014)."""

    def sampler(self) -> BaseSampler:
        return NSGAIIISampler(population_size=POPULATION, seed=self.seed)
