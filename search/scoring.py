"""From a subnet to the values of the search's objectives; needs no study, so that any machine can do it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gantailor.search.budget import Budget
from gantailor.supernet.graph import SubnetConfig

Scorer = Callable[[SubnetConfig], Mapping[str, float]]


@dataclass(frozen=True)
class Objective:
    """A score that is minimised or maximised; ``macs`` is known without a forward."""

    name: str
    minimize: bool = True


def score_candidate(
    score: Scorer, budget: Budget, objectives: Sequence[Objective], indices: np.ndarray
) -> list[float] | str:
    """Objective values of a subnet, or why there are none."""
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
