"""The search: an Optuna study over subnets that inherit the supernet's weights.

The study lives in Optuna storage (a journal file, or a database for clusters), so that a killed search goes on where it
was, several processes share it, and optuna-dashboard opens it.
"""

from __future__ import annotations

import fcntl
import math
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
from optuna.distributions import CategoricalDistribution
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from gantailor.search.budget import Budget
from gantailor.search.samplers import OptunaStrategy
from gantailor.search.spaces.space import Space, as_mapping
from gantailor.search.strategies import SAMPLERS, STRATEGIES, History, Strategy, check_strategy, first, front
from gantailor.supernet.errors import ConfigError, GantailorError
from gantailor.supernet.graph import SubnetConfig

Scorer = Callable[[SubnetConfig], Mapping[str, float]]
FAILURES = 10  # in a row, and the search stops
START = 16  # trials of any strategy that are the uniform shrink and random candidates: the baseline of every plot


class SearchError(GantailorError):
    """The search cannot go on; the message says why."""


@dataclass(frozen=True)
class Objective:
    """A score that is minimised or maximised; ``macs`` is known without a forward."""

    name: str
    minimize: bool = True


def open_study(
    storage: str | Path, *, name: str, objectives: Sequence[Objective] = (Objective("score"),)
) -> optuna.Study:
    """The study in a journal file, or behind a database URL (``postgresql://...``), made if missing.

    Raises:
        ConfigError: a study of that name has other objectives.
    """
    place = _place(storage)
    kinds = optuna.study.StudyDirection
    wanted = [kinds.MINIMIZE if objective.minimize else kinds.MAXIMIZE for objective in objectives]
    study = optuna.create_study(study_name=name, storage=place, directions=wanted, load_if_exists=True)
    known = study.user_attrs.get("objectives")
    if known is None:
        study.set_user_attr("objectives", [objective.name for objective in objectives])
    elif known != [objective.name for objective in objectives]:
        raise ConfigError(
            f"study {name!r} searches for {', '.join(known)}; choose another run folder for other objectives"
        )
    return study


def load_study(storage: str | Path, *, name: str) -> optuna.Study:
    """A study that exists.

    Raises:
        ConfigError: there is none.
    """
    if "://" in str(storage) or Path(storage).exists():
        with suppress(KeyError):
            return optuna.load_study(study_name=name, storage=_place(storage))
    raise ConfigError(f"nothing was searched yet in {str(storage)!r}")


def _place(storage: str | Path) -> str | BaseStorage:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if "://" in str(storage):
        return str(storage)
    return JournalStorage(JournalFileBackend(str(storage)))


@contextmanager
def exclusive(path: Path | None) -> Iterator[None]:
    """Only one process of this machine at a time."""
    if path is None:
        yield
        return
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def make_strategy(name: str, *, seed: int) -> Strategy:
    """A strategy by name.

    Raises:
        ConfigError: there is none.
    """
    check_strategy(name)
    return OptunaStrategy(name, seed=seed) if name in SAMPLERS else STRATEGIES[name]


class Search:
    """Proposes, evaluates and records; any number of processes may run one on the same study.

    Args:
        objectives: in the order of the study's directions.
        score: from a subnet to its named scores; what it raises marks the trial failed.
        strategy: see ``gantailor.search.strategies``.
        start: how many trials are the uniform shrink and random candidates, before the strategy chooses.
        provenance: identifies weights, data and scores: earlier trials count only where it is the same.
        lock: file that keeps the processes of one machine from proposing the same subnet.
    """

    def __init__(
        self,
        study: optuna.Study,
        budget: Budget,
        score: Scorer,
        *,
        objectives: Sequence[Objective] = (Objective("score"),),
        strategy: str = "predictor",
        seed: int = 0,
        start: int = START,
        provenance: str = "",
        lock: Path | None = None,
    ) -> None:
        self.study, self.budget, self.score, self.objectives = study, budget, score, tuple(objectives)
        self.strategy_name, self.strategy, self.seed = strategy, make_strategy(strategy, seed=seed), seed
        self.start, self.provenance, self.lock = start, provenance, lock
        self._failures = 0

    def run(self, trials: int, *, on_trial: Callable[[int, Sequence[float]], None] | None = None) -> None:
        """Evaluate until ``trials`` different subnets have scores, or none is left in the budget.

        Raises:
            SearchError: ten evaluations in a row failed.
        """
        release_dead(self.study)
        while (claimed := self.claim(trials)) is not None:
            number, indices = claimed
            values = self.evaluate(indices)
            done = self.record(number, values)
            if on_trial and not isinstance(values, str):
                on_trial(done, values)

    def history(self) -> History:
        """What is known of this budget's space, under the same provenance."""
        space = self.budget.space
        done: dict[tuple[int, ...], list[float]] = {}
        taken: set[tuple[int, ...]] = set()
        mine: set[tuple[int, ...]] = set()
        whole_front, budget = len(self.objectives) > 1, str(self.budget)
        signs = [1 if objective.minimize else -1 for objective in self.objectives]
        for trial in self.study.get_trials(deepcopy=False):
            if trial.user_attrs.get("provenance", "") != self.provenance or trial.state == TrialState.WAITING:
                continue
            candidate = _key(trial.params, space)
            failed = trial.state == TrialState.FAIL
            if candidate is None or (failed and "reason" not in trial.user_attrs):
                continue  # of another space; or its process died: it may be tried again
            taken.add(candidate)
            if whole_front or trial.user_attrs.get("budget") == budget:
                mine.add(candidate)
            if trial.state == TrialState.COMPLETE:
                done.setdefault(candidate, [s * v for s, v in zip(signs, trial.values, strict=True)])
        indices = np.array(list(done), np.int64).reshape(-1, len(space.variables))
        values = np.array(list(done.values()), np.float64).reshape(-1, len(self.objectives))
        if whole_front and mine:  # a later, tighter budget has those that meet it
            mine = {c for c, fits in zip(mine, self.budget.fits(np.array(list(mine))), strict=True) if fits}
        return History(indices, values, frozenset(taken), len(mine))

    def take(self, indices: np.ndarray, origin: str) -> None:
        """Evaluate and store one subnet that a method chose, if that was not done.

        Raises:
            SearchError: it has no score.
        """
        if tuple(indices.tolist()) in set(map(tuple, self.history().indices.tolist())):
            return
        with exclusive(self.lock):
            number = self._mark(indices, origin)
        values = self.evaluate(indices)
        self.record(number, values)
        if isinstance(values, str):
            raise SearchError(f"the chosen subnet cannot be scored: {values}")

    def claim(self, trials: int) -> tuple[int, np.ndarray] | None:
        """A trial number and the subnet it is for, marked as running; ``None`` when enough are done or running."""
        with exclusive(self.lock):
            history = self.history()
            if history.counted >= trials:
                return None
            rng = np.random.default_rng((self.seed, len(history.taken)))
            strategy = first if history.counted < self.start else self.strategy
            indices = strategy(history, self.budget, rng)
            if indices is None:
                return None
            return self._mark(indices, "start" if strategy is first else self.strategy_name), indices

    def _mark(self, indices: np.ndarray, origin: str) -> int:
        """Store a subnet as running; its trial's number."""
        assert self.budget.fits(indices)[0], "a strategy left the budget"
        space = self.budget.space
        attributes = {
            "macs": int(self.budget.cost(indices)[0]),
            "convention": self.budget.convention,
            **{f"macs_{c}": int(space.macs(indices, convention=c)[0]) for c in ("true", "published")},
            "params": int(space.supernet.cost.parameters(space.sizes(indices))[0]),
            "budget": str(self.budget),
            "origin": origin,
            "provenance": self.provenance,
            "process": f"{socket.gethostname()}:{os.getpid()}",
        }
        self.study.add_trial(
            optuna.create_trial(
                state=TrialState.RUNNING,
                params={name: int(v) for name, v in as_mapping(space, indices.tolist()).items()},
                distributions={v.name: CategoricalDistribution(v.choices) for v in space.variables},
                user_attrs=attributes,
            )
        )
        return self.study.get_trials(deepcopy=False)[-1].number

    def evaluate(self, indices: np.ndarray) -> list[float] | str:
        """Objective values of a subnet, or why there are none."""
        return score_candidate(self.score, self.budget, self.objectives, indices)

    def record(self, number: int, values: Sequence[float] | str) -> int:
        """Store a result; the number of subnets with scores.

        Raises:
            SearchError: it was the tenth failure in a row.
        """
        if isinstance(values, str):
            trial = self.study.get_trials(deepcopy=False)[number]
            Trial(self.study, trial._trial_id).set_user_attr("reason", values)
            self.study.tell(number, state=TrialState.FAIL)
            self._failures += 1
            if self._failures >= FAILURES:
                raise SearchError(f"{FAILURES} evaluations in a row failed, the last with: {values}")
        else:
            self._failures = 0
            self.study.tell(number, values)
        return self.history().counted


def score_candidate(
    score: Scorer, budget: Budget, objectives: Sequence[Objective], indices: np.ndarray
) -> list[float] | str:
    """Objective values of a subnet, or why there are none; needs no study, so that any machine can do it."""
    try:
        found = dict(score(budget.space.to_config(indices)))
    except Exception as error:  # a user's evaluator may raise anything; the study goes on
        return f"{type(error).__name__}: {error}"
    found.setdefault("macs", float(budget.cost(indices)[0]))
    missing = [objective.name for objective in objectives if objective.name not in found]
    if missing:
        return f"the evaluator gave {', '.join(found)}, not {missing[0]}"
    values = [float(found[objective.name]) for objective in objectives]
    broken = [o.name for o, value in zip(objectives, values, strict=True) if not math.isfinite(value)]
    return f"{broken[0]} is not finite" if broken else values


def release_dead(study: optuna.Study) -> None:
    """Running trials whose process on this machine is gone are marked failed: their subnets may be tried again."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        host, _, pid = str(trial.user_attrs.get("process", "")).rpartition(":")
        if host == socket.gethostname() and pid.isdigit() and not Path(f"/proc/{pid}").exists():
            study.tell(trial.number, state=TrialState.FAIL)


def _key(params: Mapping[str, Any], space: Space) -> tuple[int, ...] | None:
    """Choice indices of a trial's parameters; ``None`` for those of another space."""
    try:
        return tuple(v.choices.index(params[v.name]) for v in space.variables)
    except (KeyError, ValueError):
        return None


def best_trial(
    study: optuna.Study, budget: Budget, *, objective: int = 0, provenance: str | None = None
) -> tuple[int, np.ndarray]:
    """Number and choice indices of the best evaluated subnet within the budget, by one of the objectives.

    Raises:
        SearchError: none was evaluated within it.
    """
    sign = 1 if study.directions[objective] == optuna.study.StudyDirection.MINIMIZE else -1
    found: list[tuple[float, int, tuple[int, ...]]] = []
    for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        candidate = _key(trial.params, budget.space)
        if candidate is None or (provenance is not None and trial.user_attrs.get("provenance", "") != provenance):
            continue
        found.append((sign * trial.values[objective], trial.number, candidate))
    fits = budget.fits(np.array([row[2] for row in found])).tolist() if found else []
    within = [row for row, met in zip(found, fits, strict=True) if met]
    if not within:
        raise SearchError(f"no evaluated subnet meets {budget}; search again with that budget")
    _, number, candidate = min(within)
    return number, np.array(candidate)


def best_config(
    study: optuna.Study, budget: Budget, *, objective: int = 0, provenance: str | None = None
) -> SubnetConfig:
    """The widths of ``best_trial``."""
    return budget.space.to_config(best_trial(study, budget, objective=objective, provenance=provenance)[1])


def table(study: optuna.Study) -> pd.DataFrame:
    """All finished trials: a row each, with costs, scores, every width's choice and the provenance."""
    names = study.user_attrs.get("objectives", ["score"])
    return pd.DataFrame([_row(trial, names) for trial in study.get_trials(states=(TrialState.COMPLETE,))])


def _row(trial: FrozenTrial, names: Sequence[str]) -> dict[str, Any]:
    costs = ("macs", "convention", "macs_true", "macs_published", "params")
    row: dict[str, Any] = {"trial": trial.number, **{name: trial.user_attrs.get(name) for name in costs}}
    row |= {name: value for name, value in zip(names, trial.values, strict=True) if name not in costs}
    stamps = ("origin", "budget", "provenance")
    return {**row, **trial.params, **{name: trial.user_attrs.get(name, "") for name in stamps}}


def pareto_rows(frame: pd.DataFrame, *, macs: str = "macs", score: str = "score", minimize: bool = True) -> pd.Series:
    """True for the rows that no other row beats in both MACs and score (names of columns)."""
    values = frame[[macs, score]].to_numpy(np.float64) * [1, 1 if minimize else -1]
    return pd.Series(front(values), index=frame.index)
