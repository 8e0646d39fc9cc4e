"""The search: an Optuna study over subnets that inherit the supernet's weights.

The study lives in a journal file, so that a killed search goes on where it was and optuna-dashboard opens it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
from optuna.distributions import CategoricalDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from search.budget import Budget
from search.space import Space, as_mapping, uniform_indices
from supernet.graph import SubnetConfig

Scorer = Callable[[SubnetConfig], float]


def open_study(path: Path, *, name: str) -> optuna.Study:
    """The study in a journal file, made if missing."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = JournalStorage(JournalFileBackend(str(path)))
    return optuna.create_study(study_name=name, storage=storage, direction="minimize", load_if_exists=True)


def run_search(
    study: optuna.Study,
    budget: Budget,
    score: Scorer,
    *,
    trials: int,
    seed: int = 0,
    on_trial: Callable[[int, float], None] | None = None,
) -> None:
    """Evaluate until ``trials`` different subnets have a score (lower is better).

    The first candidate is the uniform shrink, then random ones inside the budget, then mutations of the best.
    """
    space = budget.space
    known = {_key(t.params, space): t.value for t in study.get_trials(states=(TrialState.COMPLETE,))}
    while len(known) < trials:
        rng = np.random.default_rng((seed, len(known)))
        indices = _propose(budget, known, rng, trials)
        if indices is None:
            return
        params = {name: int(value) for name, value in as_mapping(space, indices.tolist()).items()}
        study.enqueue_trial(params)
        trial = study.ask({v.name: CategoricalDistribution(v.choices) for v in space.variables})
        trial.set_user_attr("macs", int(budget.cost(indices)[0]))
        trial.set_user_attr("convention", budget.convention)
        value = float(score(space.to_config(indices)))
        study.tell(trial, value)
        known[tuple(int(i) for i in indices)] = value
        if on_trial:
            on_trial(len(known), min(v for v in known.values() if v is not None))


def _key(params: dict[str, int], space: Space) -> tuple[int, ...]:
    return tuple(v.choices.index(params[v.name]) for v in space.variables)


def _propose(
    budget: Budget, known: dict[tuple[int, ...], float | None], rng: np.random.Generator, trials: int
) -> np.ndarray | None:
    """A candidate that was not evaluated yet; ``None`` when a hundred draws in a row were (a tiny space)."""
    if not known:
        return uniform_indices(budget.space, budget.macs, convention=budget.convention)
    best = sorted(known, key=lambda key: known[key] or np.inf)[: max(1, len(known) // 4)]
    for _ in range(100):
        explore = len(known) < trials // 3 or rng.random() < 0.2
        drawn = budget.sample(rng) if explore else budget.mutate(np.array(best[rng.integers(len(best))]), rng)
        if tuple(int(i) for i in drawn) not in known:
            return drawn
    return None


def best_config(study: optuna.Study, budget: Budget) -> SubnetConfig:
    """The best evaluated subnet within the budget."""
    space = budget.space
    done = study.get_trials(states=(TrialState.COMPLETE,))
    fitting = [t for t in done if budget.cost(np.array(_key(t.params, space)))[0] <= budget.macs]
    best = min(fitting, key=lambda t: t.value if t.value is not None else np.inf)
    return space.to_config(_key(best.params, space))


def table(study: optuna.Study) -> pd.DataFrame:
    """All finished trials: a row each, with MACs, score and every width."""
    rows = [
        {"trial": t.number, "macs": t.user_attrs["macs"], "score": t.value, **t.params}
        for t in study.get_trials(states=(TrialState.COMPLETE,))
    ]
    return pd.DataFrame(rows)


def pareto_rows(frame: pd.DataFrame) -> pd.Series:
    """True for the rows that no other row beats in both MACs and score."""
    ordered = frame.sort_values(["macs", "score"])
    best = ordered["score"].cummin().shift(fill_value=np.inf)
    return (ordered["score"] < best).reindex(frame.index)
