"""The end of a search: its best subnets are tuned for a while, the poor ones of them stopped early."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Container, Sequence
from contextlib import suppress

import numpy as np
import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.pruners import SuccessiveHalvingPruner
from optuna.trial import FrozenTrial, TrialState

from gantailor.search.strategies.common import key, listed
from gantailor.search.study import Search
from gantailor.supernet.graph import SubnetConfig

FACTOR, RUNGS = 2, 3  # of successive halving: looks after a quarter, a half and all of the tuning

Tune = Callable[[SubnetConfig, float], float]


class Stopped(str):
    """Why a subnet's tuning was not gone on with, though nothing failed."""

    __slots__ = ()


class _Counted(optuna.Study):
    """A study as its pruner sees it: without trials that were given back, whose subnets come again."""

    def get_trials(self, deepcopy: bool = True, states: Container[TrialState] | None = None) -> list[FrozenTrial]:
        return [trial for trial in super().get_trials(deepcopy, states) if trial.state != TrialState.FAIL]


class Finalists(Search):
    """Tunes the best subnets of a finished search, in a study of its own beside it.

    Each is tuned to a quarter of the length, to the half, and to the end; after each part Optuna's pruner
    (asynchronous successive halving, Li et al. 2018, arXiv 1810.05934) stops those that are not in the better half of
    what came so far by then. Claims, workers and going on after a stop are the search's. Those that come to the end
    are finished trials, whose score is the tuned one.

    Args:
        screen: the search, whose scores order the subnets; what it has to beat is tuned too, if it was scored.
        tune: from a subnet and the thousands of images that it has to be tuned on in all to its score then; what was
            done before is not done again.
        count: how many subnets; kimg: length of the whole tuning; settings: identifies all else that tunes.

    Attributes:
        rows: choice indices of the finalists ``[N, variables]``, the best of the screen first.
        lengths: thousands of images after which there is a look.
    """

    def __init__(self, screen: Search, tune: Tune, *, count: int, kimg: float, settings: str) -> None:
        known = f"{screen.provenance}|{settings}|{screen.budget}|{kimg}"
        study = optuna.create_study(
            study_name=f"{screen.study.study_name}-tuned-{hashlib.sha256(known.encode()).hexdigest()[:12]}",
            storage=screen.study._storage,
            direction=screen.study.directions[0],
            load_if_exists=True,
        )
        self.rows = best_rows(screen, count)
        super().__init__(
            study,
            screen.budget,
            _not_scored,
            objectives=screen.objectives[:1],
            strategy=listed(self.rows),
            start=0,
            provenance=screen.provenance,
            lock=screen.lock,
        )
        self.pruner = SuccessiveHalvingPruner(min_resource=1, reduction_factor=FACTOR)
        self.seen = _Counted(study.study_name, study._storage)
        self.tune = tune
        self.lengths = [kimg * FACTOR ** (rung - RUNGS + 1) for rung in range(RUNGS)]

    def _evaluate(self, number: int, indices: np.ndarray) -> list[float] | str:
        """Tune part by part; what it scored at the end, or why it did not get there."""
        config, storage = self.budget.space.to_config(indices), self.study._storage
        trial_id = storage.get_trial_id_from_study_id_trial_number(self.study._study_id, number)
        value = float("nan")
        try:
            for rung, kimg in enumerate(self.lengths):
                value = float(self.tune(config, kimg))
                storage.set_trial_intermediate_value(trial_id, FACTOR**rung, value)
                last = rung == len(self.lengths) - 1
                if not last and self.pruner.prune(self.seen, storage.get_trial(trial_id)):
                    return Stopped(f"stopped after {kimg:g} kimg with {value:.5g}")
        except Exception as error:  # one that cannot be trained does not take the others with it
            return f"{type(error).__name__}: {error}"
        except BaseException:
            self.give_back(number)
            raise
        return [value] if np.isfinite(value) else "the score is not finite"

    def record(self, number: int, values: Sequence[float] | str) -> int:
        """Store a result; those that were stopped are pruned trials. The number of subnets that were claimed."""
        if not isinstance(values, Stopped):
            return super().record(number, values)
        trial_id = self.study._storage.get_trial_id_from_study_id_trial_number(self.study._study_id, number)
        with suppress(UpdateFinishedTrialError):
            self.study._storage.set_trial_user_attr(trial_id, "reason", str(values))
            self.study._storage.set_trial_state_values(trial_id, state=TrialState.PRUNED)
        self.worker.let_go(trial_id)
        return self.history().counted

    def tuned(self, indices: np.ndarray) -> list[float]:
        """Scores of a subnet after each of ``lengths``, as far as it came."""
        found: dict[int, float] = {}
        for candidate, trial in self._trials():
            if candidate == key(indices):
                found |= trial.intermediate_values
        return [found[step] for step in sorted(found)]


def best_rows(screen: Search, count: int) -> np.ndarray:
    """Choice indices of the best evaluated subnets within the budget, and of the baseline; the best first."""
    history, budget = screen.history(), screen.budget
    fitting = budget.fits(history.indices) if len(history.indices) else np.zeros(0, bool)
    rows = history.indices[fitting][np.argsort(history.values[fitting, 0], kind="stable")]
    chosen: np.ndarray = rows[:count]
    baseline = budget.baseline
    is_baseline = (rows == baseline).all(1)
    if is_baseline.any() and not is_baseline[:count].any():
        chosen = np.concatenate([rows[: count - 1], baseline[None]])
    return chosen


def _not_scored(config: SubnetConfig) -> dict[str, float]:
    raise NotImplementedError("finalists are tuned")
