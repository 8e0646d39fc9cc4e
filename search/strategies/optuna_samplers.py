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
from gantailor.search.strategies import History, key, untaken


def _sampler(name: str, seed: int, population: int) -> BaseSampler:
    if name == "tpe":
        return TPESampler(seed=seed, multivariate=True)
    if name == "gp":
        return GPSampler(seed=seed)
    with warnings.catch_warnings():  # "experimental" since 2023
        warnings.simplefilter("ignore", ExperimentalWarning)
        return (NSGAIISampler if name == "nsga2" else NSGAIIISampler)(population_size=population, seed=seed)


class OptunaStrategy:
    """A sampler with a study of its own in memory.

    The sampler's suggestion is settled within the budget; the result is what is evaluated, and its values are told to
    the sampler for its suggestion, with the excess of the suggestion over the budget as an Optuna constraint.
    After an interruption earlier results are given to the sampler anew (NSGA's generations then start afresh).

    Args:
        name: ``tpe``, ``gp``, ``nsga2`` or ``nsga3``.
        population: of the two genetic ones.
    """

    def __init__(self, name: str, *, seed: int = 0, population: int = 24) -> None:
        self.name, self.seed, self.population = name, seed, population
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

    def _begin(self, history: History) -> optuna.Study:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        objectives = history.values.shape[1]
        return optuna.create_study(
            directions=["minimize"] * objectives, sampler=_sampler(self.name, self.seed, self.population)
        )

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
