"""The search: an Optuna study over subnets that inherit the supernet's weights.

The study lives in Optuna storage (a journal file, or a database for clusters), so that a killed search goes on where it
was, several processes and machines share it, and optuna-dashboard opens it. What is proposed next is a strategy's
(``search/strategies/``, a file each); here it is claimed, evaluated and told.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import CategoricalDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from gantailor.search.budget import Budget
from gantailor.search.errors import SearchError
from gantailor.search.results import key_of
from gantailor.search.scoring import Objective, Scorer, score_candidate
from gantailor.search.spaces.space import as_mapping
from gantailor.search.storage import exclusive
from gantailor.search.strategies import make_strategy
from gantailor.search.strategies.common import History, Strategy, listed
from gantailor.search.strategies.random import first
from gantailor.search.workers import UNFINISHED, Worker, can_tell, give_back, make_worker, release_lost
from gantailor.supernet.errors import first_line

FAILURES = 10  # in a row, and the search stops
START = 16  # trials of any strategy that are the uniform shrink and random candidates: the baseline of every plot
EVERY = 1_000_000  # trials: until a strategy proposes nothing more
PATIENCE = 0.5  # seconds between two looks at what other workers still evaluate

logger = logging.getLogger(__name__)


class Search:
    """Proposes, evaluates and records; any number of processes and machines may run one on the same study.

    Args:
        objectives: in the order of the study's directions.
        score: from a subnet to its named scores; what it raises marks the trial failed.
        strategy: a name of ``gantailor.search.strategies``, one's own as ``module:name``, or the strategy itself.
        start: how many trials are the uniform shrink and random candidates, before the strategy chooses; it may have a
            ``start`` of its own.
        provenance: identifies weights, data and scores: earlier trials count only where it is the same.
        lock: file that keeps the processes of one machine from choosing at the same moment.

    Attributes:
        probing: the search, in a study of its own, for what the strategy has to know first; None for most.
    """

    def __init__(
        self,
        study: optuna.Study,
        budget: Budget,
        score: Scorer,
        *,
        objectives: Sequence[Objective] = (Objective("score"),),
        strategy: str | Strategy = "predictor",
        seed: int = 0,
        start: int = START,
        provenance: str = "",
        lock: Path | None = None,
    ) -> None:
        self.study, self.budget, self.score, self.objectives = study, budget, score, tuple(objectives)
        self.strategy_name, self.seed = (strategy if isinstance(strategy, str) else "given"), seed
        self.strategy = make_strategy(strategy, seed=seed) if isinstance(strategy, str) else strategy
        self.start, self.provenance, self.lock = getattr(self.strategy, "start", start), provenance, lock
        self.probing = _probing(self)
        self._failures = 0
        self._worker: Worker | None = None

    @property
    def worker(self) -> Worker:
        """This process, as others see it; made when the first trial is claimed."""
        if self._worker is None or self._worker.pid != os.getpid():
            self._worker = make_worker(self.study)
        return self._worker

    def run(self, trials: int, *, on_trial: Callable[[int, Sequence[float]], None] | None = None) -> None:
        """Evaluate until ``trials`` different subnets have scores, or none is left in the budget.

        What other workers still evaluate is waited for: should one of them be lost, its subnet is tried here.

        Raises:
            SearchError: ten evaluations in a row failed.
        """
        release_lost(self.study)
        if self.probing is not None and self.history().counted < trials:
            self.probing.run(EVERY)
        while True:
            claimed = self.claim(trials)
            if claimed is None:
                if not self._others_run():
                    return
                time.sleep(PATIENCE)
                release_lost(self.study)
                continue
            number, indices = claimed
            values = self._evaluate(number, indices)
            done = self.record(number, values)
            if on_trial and not isinstance(values, str):
                on_trial(done, values)

    def unfinished(self, trials: int) -> bool:
        """Whether subnets are to be evaluated, or others still evaluate some; what lost workers held is given back."""
        release_lost(self.study)
        return self.history().counted < trials or self._others_run()

    def history(self, *, before: int | None = None) -> History:
        """What is known of this budget's space, under the same provenance.

        Args:
            before: as the trial of that number found it; what is being claimed just then is taken too.
        """
        space, trials = self.budget.space, self._trials(before)
        done: dict[tuple[int, ...], list[float]] = {}
        taken: set[tuple[int, ...]] = set()
        mine: set[tuple[int, ...]] = set()
        given: set[tuple[int, ...]] = set()
        failed: list[str] = []
        whole_front, budget = len(self.objectives) > 1, str(self.budget)
        signs = [1 if objective.minimize else -1 for objective in self.objectives]
        for candidate, trial in trials:
            taken.add(candidate)
            here = whole_front or trial.user_attrs.get("budget") == budget
            if here:
                mine.add(candidate)
            if not here or trial.user_attrs.get("origin") != self.strategy_name:
                given.add(candidate)
            if here and trial.state == TrialState.FAIL:
                failed.append(first_line(ValueError(trial.user_attrs["reason"])))
            if trial.state == TrialState.COMPLETE:
                done.setdefault(candidate, [s * v for s, v in zip(signs, trial.values, strict=True)])
        indices = np.array(list(done), np.int64).reshape(-1, len(space.variables))
        values = np.array(list(done.values()), np.float64).reshape(-1, len(self.objectives))
        if whole_front and mine:  # a later, tighter budget has those that meet it
            mine = {c for c, fits in zip(mine, self.budget.fits(np.array(list(mine))), strict=True) if fits}
        known = History(
            indices, values, frozenset(taken), len(mine), frozenset(given & done.keys()), failed=tuple(failed)
        )
        if self.probing is None:
            return known
        probed = self.probing.history()
        return replace(known, probes=(probed.indices, probed.values))

    def _trials(self, before: int | None = None) -> Iterable[tuple[tuple[int, ...], FrozenTrial]]:
        """Candidates that need no proposal any more, and their trials."""
        for trial in self.study.get_trials(deepcopy=False):
            if before is not None and trial.number >= before:
                return
            if trial.user_attrs.get("provenance", "") != self.provenance:
                continue
            candidate = key_of(trial.params, self.budget.space)
            given_back = trial.state == TrialState.FAIL and "reason" not in trial.user_attrs
            if candidate is not None and not given_back:  # of another space; or its worker was lost
                yield candidate, trial

    def _others_run(self) -> bool:
        """Whether other workers evaluate what counts here."""
        if not can_tell(self.study):
            return False
        budget, whole_front = str(self.budget), len(self.objectives) > 1
        mine = self._worker.name if self._worker else ""
        return any(
            trial.state in UNFINISHED
            and trial.user_attrs.get("worker") != mine
            and (whole_front or trial.user_attrs.get("budget") == budget)
            for _, trial in self._trials()
        )

    def take(self, indices: np.ndarray, origin: str) -> None:
        """Evaluate and store one subnet that a method chose, if that was not done.

        Raises:
            SearchError: it has no score.
        """
        if tuple(indices.tolist()) in set(map(tuple, self.history().indices.tolist())):
            return
        with exclusive(self.lock):
            number = self._mark(indices, origin)
        values = self._evaluate(number, indices)
        self.record(number, values)
        if isinstance(values, str):
            raise SearchError(f"the chosen subnet cannot be scored: {values}")

    def claim(self, trials: int) -> tuple[int, np.ndarray] | None:
        """A trial number and the subnet it is for, marked as running; ``None`` when enough are done or running."""
        with exclusive(self.lock):
            while True:
                seen = len(self.study.get_trials(deepcopy=False))
                history = self.history()
                if history.counted >= trials:
                    return None
                rng = np.random.default_rng((self.seed, len(history.taken)))
                beginning = history.counted < self.start
                indices = (first if beginning else self.strategy)(history, self.budget, rng)
                if indices is None:
                    return None
                _check_proposal(self.strategy_name, indices, history, self.budget)
                number = self._mark(indices, "start" if beginning else self.strategy_name)
                if number == seen:
                    return number, indices
                earlier = self.history(before=number)  # another machine, with a lock of its own, came between
                if tuple(indices.tolist()) not in earlier.taken and earlier.counted < trials:
                    return number, indices
                self.give_back(number)

    def _mark(self, indices: np.ndarray, origin: str) -> int:
        """Store a subnet as running; its trial's number.

        First it waits, then it is held, then it runs: a worker that is lost at any moment leaves nothing that looks
        alive.
        """
        space, storage = self.budget.space, self.study._storage
        trial = optuna.create_trial(
            state=TrialState.WAITING,
            params={name: int(v) for name, v in as_mapping(space, indices.tolist()).items()},
            distributions={v.name: CategoricalDistribution(v.choices) for v in space.variables},
            user_attrs=self._attributes(indices, origin),
        )
        trial_id = storage.create_new_trial(self.study._study_id, template_trial=trial)
        self.worker.hold(trial_id)
        storage.set_trial_state_values(trial_id, state=TrialState.RUNNING)
        return storage.get_trial_number_from_id(trial_id)

    def _attributes(self, indices: np.ndarray, origin: str) -> dict[str, Any]:
        space = self.budget.space
        return {
            "macs": int(self.budget.cost(indices)[0]),
            "convention": self.budget.convention,
            **{f"macs_{c}": int(space.macs(indices, convention=c)[0]) for c in ("true", "published")},
            "params": int(space.supernet.cost.parameters(space.sizes(indices))[0]),
            "budget": str(self.budget),
            "origin": origin,
            "provenance": self.provenance,
            "worker": self.worker.name,
            "claimed": time.time(),
        }

    def evaluate(self, indices: np.ndarray) -> list[float] | str:
        """Objective values of a subnet, or why there are none."""
        return score_candidate(self.score, self.budget, self.objectives, indices)

    def _evaluate(self, number: int, indices: np.ndarray) -> list[float] | str:
        """``evaluate``; interrupted, it gives the trial back."""
        try:
            return self.evaluate(indices)
        except BaseException:
            self.give_back(number)
            raise

    def give_back(self, number: int) -> None:
        """A claimed trial will not be evaluated here: others may try its subnet."""
        trial_id = _trial_id(self.study, number)
        self.worker.let_go(trial_id)
        give_back(self.study, trial_id)

    def record(self, number: int, values: Sequence[float] | str) -> int:
        """Store a result; the number of subnets with scores.

        Raises:
            SearchError: it was the tenth failure in a row.
        """
        trial_id, storage = _trial_id(self.study, number), self.study._storage
        self._failures = self._failures + 1 if isinstance(values, str) else 0
        with suppress(UpdateFinishedTrialError):  # it was taken for lost, and its subnet is tried elsewhere
            if isinstance(values, str):
                storage.set_trial_user_attr(trial_id, "reason", values)
                storage.set_trial_state_values(trial_id, state=TrialState.FAIL)
            else:
                storage.set_trial_state_values(trial_id, state=TrialState.COMPLETE, values=list(values))
        self.worker.let_go(trial_id)
        if self._failures >= FAILURES:
            raise SearchError(f"{FAILURES} evaluations in a row failed, the last with: {values}")
        return self.history().counted


def _probing(search: Search) -> Search | None:
    """The search for a strategy's ``probes``: a study beside its own in the same storage, without its budget."""
    probes = getattr(search.strategy, "probes", None)
    if probes is None:
        return None
    space, convention = search.budget.space, search.budget.convention
    study = optuna.create_study(
        study_name=f"{search.study.study_name}-probes",
        storage=search.study._storage,
        directions=search.study.directions,
        load_if_exists=True,
    )
    return Search(
        study,
        Budget(space, int(space.macs(space.largest, convention=convention)[0]), convention),
        search.score,
        objectives=search.objectives,
        strategy=listed(probes(space)),
        start=0,
        provenance=search.provenance,
        lock=search.lock,
    )


def _trial_id(study: optuna.Study, number: int) -> int:
    return study._storage.get_trial_id_from_study_id_trial_number(study._study_id, number)


def _check_proposal(strategy: str, indices: np.ndarray, history: History, budget: Budget) -> None:
    """A user's strategy may propose anything.

    Raises:
        SearchError: it is outside the budget, or was proposed before.
    """
    if not budget.fits(indices)[0]:
        wrong = f"one that does not meet {budget}; budget.settle brings it within"
    elif tuple(indices.tolist()) in history.taken:
        wrong = "one of history.taken again; return None when none is left"
    else:
        return
    raise SearchError(f"strategy {strategy!r} proposed a subnet that it must not: {wrong}")
