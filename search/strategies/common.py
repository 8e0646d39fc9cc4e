"""What every strategy is given, and what several of them do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from gantailor.search.budget import Budget


@dataclass(frozen=True, eq=False)
class History:
    """What was evaluated: choice indices ``[N, n_variables]`` and objectives ``[N, n_objectives]``, all minimised.

    ``taken`` are the candidates that need no proposal any more: evaluated, running or failed; ``counted`` of them count
    as trials of this budget. ``given`` are those of the rows that the strategy did not choose for this budget: a
    search's beginning, what a method kept, trials of other strategies and budgets. ``probes`` are the rows and values
    of what a strategy with ``probes`` asked for, within the budget or not; they are among nothing else here. ``failed``
    says why subnets of this budget have no score.
    """

    indices: np.ndarray
    values: np.ndarray
    taken: frozenset[tuple[int, ...]]
    counted: int = 0
    given: frozenset[tuple[int, ...]] = frozenset()
    probes: tuple[np.ndarray, np.ndarray] = field(
        default_factory=lambda: (np.empty((0, 0), np.int64), np.empty((0, 1)))
    )
    failed: tuple[str, ...] = ()


Strategy = Callable[[History, Budget, np.random.Generator], np.ndarray | None]


def key(indices: np.ndarray) -> tuple[int, ...]:
    """A candidate as a hashable."""
    return tuple(int(i) for i in indices)


def listed(rows: np.ndarray) -> Strategy:
    """These candidates, one after the other."""

    def proposed(history: History, budget: Budget, rng: np.random.Generator) -> np.ndarray | None:
        return next((row for row in rows if key(row) not in history.taken), None)

    return proposed


def untaken(
    history: History, draw: Callable[[], np.ndarray], budget: Budget, rng: np.random.Generator, *, draws: int = 50
) -> np.ndarray | None:
    """The first draw that is not taken; where they repeat, a random candidate; ``None`` when none seems left."""
    for number in range(draws + 50):
        drawn = draw() if number < draws else budget.sample(rng)
        if key(drawn) not in history.taken:
            return drawn
    if budget.feasible is not None:
        left = [row for row in budget.feasible if key(row) not in history.taken]
        return left[rng.integers(len(left))] if left else None
    return None
