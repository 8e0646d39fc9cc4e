"""``gantailor.search``: the widths within a budget that a score of one's own likes best."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
import torch
from torch import nn

from gantailor.search.budget import Budget
from gantailor.search.errors import SearchError
from gantailor.search.results import best_trial, table
from gantailor.search.scoring import Objective
from gantailor.search.spaces.config import SpaceConfig
from gantailor.search.spaces.space import Space
from gantailor.search.spaces.space import space as make_space
from gantailor.search.storage import check_storage, open_study, reaching
from gantailor.search.strategies import check_strategy
from gantailor.search.strategies.common import Strategy
from gantailor.search.study import Search
from gantailor.supernet.errors import ConfigError, check_whole
from gantailor.supernet.files import state_digest
from gantailor.supernet.graph import SubnetConfig
from gantailor.supernet.supernet import Supernet, check_supernet

if TYPE_CHECKING:
    import pandas as pd

SCORE = "score"


@dataclass(frozen=True)
class Candidate:
    """A subnet that was scored.

    Attributes:
        config: its widths, for ``supernet.extract``, ``supernet(x, config=...)`` and ``gantailor.narrow``.
        score: what the caller's function said of it.
        macs: multiply-accumulates for one picture, in the budget's convention.
        parameters: its weights, biases included.
    """

    config: SubnetConfig
    score: float
    macs: int
    parameters: int


@dataclass(frozen=True, eq=False)
class Found:
    """What a search found.

    Attributes:
        study: Optuna's; its tools open it.
        budget: what candidates may cost, over the space that was searched.
        provenance: of the trials that count: those of these weights.
    """

    study: optuna.Study
    budget: Budget
    provenance: str

    @property
    def best(self) -> Candidate:
        """The best subnet within the budget.

        Raises:
            SearchError: none was scored.
        """
        number, indices = best_trial(self.study, self.budget, provenance=self.provenance)
        space, trial = self.budget.space, self.study.get_trials(deepcopy=False)[number]
        config = space.to_config(indices)
        macs = int(self.budget.cost(indices)[0])
        return Candidate(config, float(trial.values[0]), macs, space.supernet.parameter_count(config))

    @property
    def table(self) -> pd.DataFrame:
        """Every scored subnet: a row each, with costs, score and widths."""
        return table(self.study, self.budget.space, provenance=self.provenance)


def search(
    supernet: Supernet,
    *,
    score: Callable[[nn.Module], float],
    budget: str | int | Budget = "0.1x",
    trials: int = 60,
    space: str | Mapping[str, Any] | SpaceConfig | Space = "default",
    minimize: bool = True,
    strategy: str | Strategy = "predictor",
    storage: str | Path | None = None,
    study: str = "gantailor",
    seed: int = 0,
    on_trial: Callable[[int, float], None] | None = None,
) -> Found:
    """Search for the widths within a budget whose subnet has the best score, with the supernet's weights as they are.

    It begins with the same share of every width, the baseline; the same seed proposes the same. With a ``storage`` it
    goes on where it was, also in several processes at once; trials count for the weights that they were scored with.

    Args:
        supernet: trained, or with its channels in the order of their importance (``gantailor.rank_channels``).
        score: from a narrow generator, a plain module in eval mode with weights of its own, to a number; without
            gradients. Batch norms have the whole net's statistics in it: ``gantailor.recalibrate(narrow, batches)``
            gives it its own. What it raises fails the trial; ten in a row end the search.
        budget: a share of the whole generator's MACs (``0.1x``), a number (``2.6G``), or limits
            (``macs<=2.6G, params<=1M``); or a ``Budget``, which may count MACs in another convention.
        trials: subnets that are scored in all.
        space: which widths there are: a name, its settings, or what ``gantailor.space`` makes of this supernet.
        minimize: whether the lower score is the better one.
        strategy: who proposes: a name (``predictor``, ``evolution``, ``random``, ...), ``module:name``, or a function.
        storage: a journal's file, or a database's URL; None: in memory, forgotten with what is returned.
        study: its name there.
        on_trial: told after each how many subnets have scores, and the score.

    Raises:
        ConfigError: no supernet, no trial, an unknown space or strategy, or a storage that cannot be used.
        BudgetError: the budget cannot be read or reached; the message says what can.
        SearchError: ten scores in a row failed, or all.
    """
    _check(supernet, trials, seed, strategy)
    spaces = space if isinstance(space, Space) else make_space(space, supernet)
    if not spaces.variables:
        raise ConfigError(
            f"space {spaces.name!r} has no width to search: the generator has none that can shrink "
            "(print(supernet.graph) says why), or all are frozen"
        )
    limits = budget if isinstance(budget, Budget) else Budget.of(spaces, budget)
    if storage is not None:
        check_storage(storage)
    objectives = (Objective(SCORE, minimize),)
    provenance = hashlib.sha256(state_digest(supernet.generator).encode()).hexdigest()[:12]

    def scored(config: SubnetConfig) -> dict[str, float]:
        with torch.no_grad():
            return {SCORE: float(score(supernet.extract(config).eval()))}

    def listener(done: int, values: Sequence[float]) -> None:
        if on_trial is not None:
            on_trial(done, values[0])

    with nullcontext() if storage is None else reaching(storage):
        opened = open_study(storage, name=study, objectives=objectives, space=limits.space)
        searcher = Search(
            opened,
            limits,
            scored,
            objectives=objectives,
            strategy=strategy,
            seed=seed,
            provenance=provenance,
            lock=_lock(storage),
        )
        searcher.run(trials, on_trial=listener)
        history = searcher.history()
    if not len(history.values):
        raise SearchError(f"no subnet has a score, the last for: {history.failed[-1] if history.failed else 'nothing'}")
    return Found(opened, limits, provenance)


def _check(supernet: Supernet, trials: int, seed: int, strategy: str | Strategy) -> None:
    check_supernet(supernet)
    check_whole("trials", trials, least=1)
    check_whole("seed", seed, least=0)
    check_strategy(strategy)


def _lock(storage: Any) -> Path | None:
    """What keeps the processes of one machine from choosing at the same moment: a file beside the journal."""
    if storage is None or "://" in str(storage):
        return None
    return Path(storage).with_name(f".{Path(storage).name}.search.lock")
