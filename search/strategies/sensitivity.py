"""Widths scored one at a time, their losses added up: no model, and no supernet that has to be trained for it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from gantailor.search.budget import Budget
from gantailor.search.spaces.space import Space
from gantailor.search.strategies.common import History, key
from gantailor.search.strategies.random import random

CALLS = 35  # of a score, for the sensitivities; more only where there are as many variables
NEAR = 100  # candidates next to the best of a space that cannot be listed, and as many that are mutated from it
JUMPS = (1, 2, 4, 8, 16, 32)  # choices that a variable goes up or down at once
EXCHANGED = 200  # of the steps up, and of those down, that are tried with each other
ROUNDS = 50  # of exchanges
HOPELESS = 1e3  # the loss of a choice below all that could be scored, in units of the largest known one

Losses = Sequence[np.ndarray]  # of each variable, of each of its choices


class Sensitivity:
    """Sensitivity of each variable alone, and the best sum under the budget (in the manner of FastNAS).

    First the whole net is scored, and each variable at its narrowest, all others whole; then, as far as 35 calls go,
    the choice in the middle of each variable's widest gap, again and again. What narrowing costs is known there and
    interpolated in between; it counts as no less than that of every wider choice, for the rest is noise. Then the
    candidates within the budget are proposed by the sum of their variables' losses, the least first: of all where the
    space can be listed, else of what greedy narrowing and exchanges between two variables find. Interactions between
    widths are not seen; the scores of the proposals decide.

    With a front each proposal is the best below another, random MAC limit.
    """

    start = 0  # no other candidates first: with one trial the best sum is the result, whatever is inherited there

    def __init__(self, *, seed: int = 0, calls: int = CALLS) -> None:
        self.seed, self.calls = seed, calls
        self._ordered: dict[tuple[Budget, int], np.ndarray] = {}

    def probes(self, space: Space) -> np.ndarray:
        """What is scored first, budget or not: the whole net, and nets with one narrow variable; ``[N, variables]``."""
        rows, known = [space.largest], [{int(last)} for last in space.largest]
        new: list[tuple[int, int]] = [(variable, 0) for variable, last in enumerate(space.largest) if last]
        while new:
            for variable, choice in new:
                row = space.largest
                row[variable] = choice
                rows.append(row)
                known[variable].add(choice)
            gaps = ((v, _middle(space.variables[v].choices, found)) for v, found in enumerate(known))
            left = max(0, self.calls - len(rows))
            new = [(v, choice) for v, choice in gaps if choice is not None][:left]
        return np.array(rows)

    def __call__(self, history: History, budget: Budget, rng: np.random.Generator) -> np.ndarray | None:
        losses = sensitivities(budget.space, *history.probes)
        if losses is None:
            return random(history, budget, rng)
        if not budget.fill:
            rows = in_order(losses, budget.capped(rng), rng)
        else:
            place = (budget, len(history.probes[0]))
            if place not in self._ordered:
                self._ordered[place] = in_order(losses, budget, np.random.default_rng(self.seed))
            rows = self._ordered[place]
        found = next((row for row in rows if key(row) not in history.taken), None)
        return random(history, budget, rng) if found is None else found

    def remark(self, budget: Budget, trials: int) -> str:
        """What is to be said before a search."""
        count = len(self.probes(budget.space))
        return f"sensitivity scores {count} nets first, each with one narrow width; the {trials} trials come after them"


def sensitivities(space: Space, rows: np.ndarray, values: np.ndarray) -> Losses | None:
    """By how much the first objective is worse with each variable at each choice, all others whole; None: not known.

    Args:
        rows: choice indices of what was scored, ``[N, variables]``; values: ``[N, objectives]``, minimised.
    """
    largest = space.largest
    whole = [value for row, value in zip(rows, values[:, 0], strict=True) if (row == largest).all()]
    if not whole:
        return None
    found: list[dict[int, float]] = [{int(last): 0.0} for last in largest]
    for row, value in zip(rows, values[:, 0], strict=True):
        narrow = np.flatnonzero(row != largest)
        if len(narrow) == 1:
            found[narrow[0]][int(row[narrow[0]])] = float(value - whole[0])
    most = HOPELESS * max((abs(loss) for known in found for loss in known.values()), default=0.0) + 1e-12
    losses = []
    for variable, known in zip(space.variables, found, strict=True):
        places = sorted(known)
        wide_first = np.array([known[place] for place in places])[::-1]
        least = np.maximum.accumulate(np.maximum(wide_first, 0))[::-1]  # wider is never worse; what says so is noise
        sizes = np.array(variable.choices, float)
        losses.append(np.interp(sizes, sizes[places], least, left=most))
    return losses


def in_order(losses: Losses, budget: Budget, rng: np.random.Generator) -> np.ndarray:
    """Candidates within the budget, the least sum of losses first, of equal ones the dearest; ``[N, variables]``."""
    if budget.feasible is not None:
        rows = budget.feasible
    else:
        best = _exchanged(losses, budget, _widened(losses, budget, _narrowed(losses, budget)))
        near = _neighbours(losses, budget, best)
        near = near[np.argsort(_total(losses, near), kind="stable")][:NEAR]
        others = [budget.mutate(best, rng) for _ in range(NEAR)]
        rows = np.unique([*(budget.settle(row, rng) for row in (best, *near)), *others], axis=0)
    ordered: np.ndarray = rows[np.lexsort((-budget.cost(rows), _total(losses, rows)))]
    return ordered


def _middle(choices: Sequence[int], known: set[int]) -> int | None:
    """The choice that halves the widest gap between known ones, in channels; None where all are known."""
    places = sorted(known)
    gaps = [(choices[high] - choices[low], low, high) for low, high in itertools.pairwise(places)]
    open_gaps = [gap for gap in gaps if gap[2] - gap[1] > 1]
    if not open_gaps:
        return None
    _, low, high = max(open_gaps)
    centre = (choices[low] + choices[high]) / 2
    return min(range(low + 1, high), key=lambda place: abs(choices[place] - centre))


def _total(losses: Losses, rows: np.ndarray) -> np.ndarray:
    total: np.ndarray = sum((losses[v][rows[:, v]] for v in range(len(losses))), np.zeros(len(rows)))
    return total


def _usage(budget: Budget, rows: np.ndarray) -> np.ndarray:
    return budget.usage(budget.space.sizes(rows))


def _moves(budget: Budget, current: np.ndarray, *, up: bool, every: bool) -> np.ndarray:
    """Changes of one variable up, or down: to every choice, or by some jumps; ``[N, variables]``."""
    found = []
    for variable, last in enumerate(budget.space.largest):
        reach = int(last - current[variable] if up else current[variable])
        for jump in range(1, reach + 1) if every else [jump for jump in JUMPS if jump <= reach]:
            move = np.zeros(len(current), np.int64)
            move[variable] = jump if up else -jump
            found.append(move)
    return np.array(found, np.int64).reshape(-1, len(current))


def _narrowed(losses: Losses, budget: Budget) -> np.ndarray:
    """From the whole net, the step with the least loss for the cost that it saves, until the budget is met."""
    current = budget.space.largest
    while not budget.under(current)[0]:
        rows = current + _moves(budget, current, up=False, every=True)
        saved = _usage(budget, current[None]) - _usage(budget, rows)
        added = _total(losses, rows) - _total(losses, current[None])
        ratio = np.where(saved > 0, added / np.maximum(saved, 1e-15), np.inf)
        current = rows[np.lexsort((-saved, ratio))[0]]
    return current


def _widened(losses: Losses, budget: Budget, current: np.ndarray) -> np.ndarray:
    """The step that wins most for its cost, until none fits or wins."""
    while True:
        rows = current + _moves(budget, current, up=True, every=True)
        rows = rows[budget.under(rows)] if len(rows) else rows
        won = _total(losses, current[None]) - _total(losses, rows)
        if not len(rows) or won.max() <= 0:
            return current
        cost = np.maximum(_usage(budget, rows) - _usage(budget, current[None]), 1e-15)
        current = rows[int(np.argmax(won / cost))]


def _neighbours(losses: Losses, budget: Budget, current: np.ndarray) -> np.ndarray:
    """What one step up and one down leads to, or one step down alone, within the budget."""
    ups, downs = (_moves(budget, current, up=up, every=False) for up in (True, False))
    before, used = _total(losses, current[None]), _usage(budget, current[None])

    def best(moves: np.ndarray) -> np.ndarray:
        rows = current + moves
        gain = (before - _total(losses, rows)) / np.maximum(np.abs(_usage(budget, rows) - used), 1e-15)
        return moves[np.argsort(-gain, kind="stable")[:EXCHANGED]]

    ups, downs = (best(moves) if len(moves) else moves for moves in (ups, downs))
    both = (ups[:, None] + downs[None]).reshape(-1, len(current))
    rows = current + np.concatenate([both, downs])
    fitting: np.ndarray = rows[budget.under(rows)] if len(rows) else rows
    return fitting


def _exchanged(losses: Losses, budget: Budget, current: np.ndarray) -> np.ndarray:
    """The best neighbour, again and again, until none is better."""
    for _ in range(ROUNDS):
        rows = _neighbours(losses, budget, current)
        totals = _total(losses, rows)
        if not len(rows) or totals.min() >= _total(losses, current[None])[0] - 1e-12:
            break
        current = _widened(losses, budget, rows[int(np.argmin(totals))])
    return current
