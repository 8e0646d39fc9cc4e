"""What a study found: its best subnet within a budget, and all of it as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from gantailor.search.budget import Budget
from gantailor.search.errors import SearchError
from gantailor.search.pareto import front
from gantailor.search.spaces.space import Space
from gantailor.supernet.graph import SubnetConfig

if TYPE_CHECKING:
    import pandas as pd


def key_of(params: Mapping[str, Any], space: Space) -> tuple[int, ...] | None:
    """Choice indices of a trial's parameters; ``None`` for those of another space."""
    if len(params) != len(space.variables):
        return None
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
        candidate = key_of(trial.params, budget.space)
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


def table(study: optuna.Study, space: Space | None = None, *, provenance: str | None = None) -> pd.DataFrame:
    """Finished trials: a row each, with costs, scores, every width's choice and the provenance.

    ``convention`` says which column ``macs`` repeats: ``macs_true``, ``macs_published``, ...

    Args:
        space, provenance: only those of this space, and of these weights, data and score; all if missing.
    """
    import pandas as pd

    names = study.user_attrs.get("objectives", ["score"])
    found = [
        trial
        for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if (space is None or key_of(trial.params, space) is not None)
        and (provenance is None or trial.user_attrs.get("provenance", "") == provenance)
    ]
    return pd.DataFrame([_row(trial, names) for trial in found])


def _row(trial: FrozenTrial, names: Sequence[str]) -> dict[str, Any]:
    attributes = trial.user_attrs
    row: dict[str, Any] = {
        "trial": trial.number,
        "macs": attributes.get("macs"),
        "convention": f"macs_{attributes.get('convention', 'true')}",  # ``true`` alone would be read as a truth value
        **{name: attributes.get(name) for name in ("macs_true", "macs_published", "params")},
    }
    row |= {name: value for name, value in zip(names, trial.values, strict=True) if name not in row}
    stamps = ("origin", "budget", "provenance")
    return {**row, **trial.params, **{name: attributes.get(name, "") for name in stamps}}


def pareto_rows(frame: pd.DataFrame, *, macs: str = "macs", score: str = "score", minimize: bool = True) -> pd.Series:
    """True for the rows that no other row beats in both MACs and score (names of columns)."""
    import pandas as pd

    values = frame[[macs, score]].to_numpy(np.float64) * [1, 1 if minimize else -1]
    return pd.Series(front(values), index=frame.index)
