"""Control: how a training's gates come to a budget; the part that every method of single channels shares."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from gantailor.supernet.errors import BudgetError
from gantailor.supernet.gates import Gates
from gantailor.supernet.graph import Selection

Usage = Callable[[np.ndarray], np.ndarray]  # sizes [N, widths] to cost as a share of the budget, [N]


def strongest(gates: Gates, magnitudes: np.ndarray, usage: Usage) -> np.ndarray:
    """The gates to keep, a boolean vector: by magnitude, as many as fit; each width keeps its least.

    Candidates are nested, so that bisection finds the last one that fits (CAT's global threshold, arXiv 2103.03467).
    What fits below the threshold is then added, so that the budget is used.

    Args:
        magnitudes: ``[units]``, not negative; gates that are not trained always stay.

    Raises:
        BudgetError: not even these fit.
    """
    check_reachable(gates, usage)
    places, always = gates.places, _always(gates, magnitudes)
    others = np.flatnonzero(~always)
    order = others[np.argsort(-magnitudes[others], kind="stable")]

    def kept(count: int) -> np.ndarray:
        chosen = always.copy()
        chosen[order[:count]] = True
        return chosen

    low, high = 0, int((magnitudes[order] > 0).sum())
    alive = order[:high]
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if usage(places.sizes(kept(middle))[None])[0] <= 1 else (low, middle - 1)
    return _filled(gates, kept(low), alive[low:], usage)


def check_reachable(gates: Gates, usage: Usage, name: str = "") -> None:
    """That the least of every width fits the budget.

    Raises:
        BudgetError: it does not; ``name`` says whose budget it is.
    """
    used = float(usage(gates.places.sizes(_always(gates, np.ones(len(gates.values))))[None])[0])
    if not used <= 1:
        least = f"{max(gates.least)} channel(s) of every width"
        whole = " that may lose some, and all of the others," if not bool(gates.free.all()) else ""
        raise BudgetError(
            f"the budget{f' of the {name}' if name else ''} cannot be reached: {least}{whole} cost more already, "
            f"{used:.3g} of it; raise it"
        )


def _always(gates: Gates, magnitudes: np.ndarray) -> np.ndarray:
    """What stays at any budget: gates that are not trained, and the largest of every width."""
    starts, free = gates.places.starts, gates.free.cpu().numpy()
    always = ~free
    for least, (low, high) in zip(gates.least, itertools.pairwise(starts.tolist()), strict=True):
        if free[low:high].any():
            always[low + np.argsort(-magnitudes[low:high], kind="stable")[:least]] = True
    return always


def _filled(gates: Gates, kept: np.ndarray, left: np.ndarray, usage: Usage) -> np.ndarray:
    """Below the threshold too, in order, what still fits: a channel of a residual trunk may be a tenth of a budget."""
    owner = np.searchsorted(gates.places.starts, left, "right") - 1
    room = np.ones(len(gates.places.starts) - 1, bool)
    while len(left):
        sizes = gates.places.sizes(kept)
        room &= usage(sizes + np.eye(len(sizes), dtype=np.int64)) <= 1
        left, owner = left[room[owner]], owner[room[owner]]
        if len(left):
            kept[left[0]] = True
            left, owner = left[1:], owner[1:]
    return kept


def learned(kept_now: np.ndarray, kept_at_start: np.ndarray, free: np.ndarray) -> str:
    """How much of a decision was learned, in a clause: what it shares with the start's own, beside chance.

    Of 100 channels, 90 of which may go, say 40 of these are kept now and 45 would have been by the order at the start:
    with 36 of them in both the overlap is 36 / 40, where two random sets of these sizes share 45 / 90 on average.

    Args:
        kept_now, kept_at_start: ``[units]``, true for what is kept.
        free: ``[units]``, true for what a decision could take away; the others say nothing.
    """
    now, start = kept_now & free, kept_at_start & free
    if not now.any() or start.sum() == free.sum():
        return "no channel was to be chosen"
    overlap, chance = (now & start).sum() / now.sum(), start.sum() / free.sum()
    return f"{overlap:.1%} of the kept channels are those that the start's order would have kept (chance {chance:.1%})"


class Control:
    """Leads the cost of gates down a straight line in its logarithm, from the whole network's to the budget.

    Args:
        usage: cost of sizes ``[N, widths]`` as a share of the budget.
        steps: training steps until the budget is due.
        strength: of what pulls the gates towards zero, at first.
        name: of these gates, in losses and messages.

    Raises:
        BudgetError: the least of every width costs more.
    """

    def __init__(self, gates: Gates, usage: Usage, steps: float, *, strength: float, name: str) -> None:
        self.gates, self.usage, self.steps, self.name = gates, usage, max(1, round(steps)), name
        self.first, self.state = strength, _State(strength).to(gates.values.device)
        self.full = self.used(np.ones(len(gates.values), bool))
        self.limited = self.full > 1  # else there is no budget, and the penalty alone decides what is left
        check_reachable(gates, usage, name)
        self.start = gates.magnitudes()

    def used(self, kept: np.ndarray) -> float:
        """Cost as a share of the budget."""
        return float(self.usage(self.gates.places.sizes(kept)[None])[0])

    @property
    def target(self) -> float:
        """The budget as a share of the whole cost."""
        return 1 / self.full

    @property
    def left(self) -> float:
        """Cost of the gates that are open now, as a share of the whole cost."""
        return self.used(self.gates.kept()) / self.full

    @property
    def closed(self) -> bool:
        """Whether the budget is met for good."""
        return bool(self.state.reached)

    @property
    def strength(self) -> float:
        """How strongly gates are pulled towards zero now."""
        return float(self.state.strength)

    def planned(self, step: int) -> float:
        """Share of the whole cost that the training should be down to after a step."""
        return float(self.target ** min(1.0, (step + 1) / self.steps))

    def adapt(self, step: int) -> None:
        """Raise the strength where the cost is behind its plan, else lower it; by a thousand times in all at most."""
        factor = 1.03 if self.left > self.planned(step) else 0.97
        self.state.strength.mul_(factor).clamp_(self.first / 1000, self.first * 1000)

    def planned_gates(self, step: int, values: Tensor) -> Tensor:
        """The gates that the plan leaves after a step, the largest of ``values`` that fit, as a boolean vector."""
        allowed, magnitudes = self.planned(step) * self.full, self.gates.magnitudes(values * self.gates.open)
        kept = strongest(self.gates, magnitudes, lambda sizes: self.usage(sizes) / allowed)
        return torch.from_numpy(kept).to(self.gates.open.device)

    @torch.no_grad()
    def close(self, magnitudes: Tensor) -> None:
        """Keep for good the gates of the largest magnitudes ``[units]`` that fit the budget; without one, those left.

        Raises:
            BudgetError: not even the least of every width fits.
        """
        self.state.ended.fill_(self.left)
        gates = self.gates
        kept = strongest(gates, self._ranked(magnitudes), self.usage) if self.limited else gates.kept()
        self.gates.open.copy_(torch.from_numpy(kept))
        self.state.reached.fill_(True)

    def selection(self, values: Tensor | None = None) -> Selection:
        """What is kept: at the end of training, or what would be kept by these values (the gates') if it ended now."""
        return self.gates.places.selection(self._kept(values))

    def _kept(self, values: Tensor | None = None) -> np.ndarray:
        gates = self.gates
        if self.closed:
            return gates.open.cpu().numpy()
        return strongest(gates, self._ranked(gates.values if values is None else values), self.usage)

    def _ranked(self, values: Tensor) -> np.ndarray:
        """Magnitudes ``[units]``, of closed gates made smaller than those of all open ones."""
        found, opened = self.gates.magnitudes(values), self.gates.open.cpu().numpy()
        if not opened.all():
            found[~opened] *= 0.5 * found[opened & (found > 0)].min() / max(found[~opened].max(), 1e-12)
        return found

    def outcome(self) -> str:
        """How it ended, in a line: the budget met by training, or by a cut when the time was over."""
        ended = float(self.state.ended)
        if not self.closed:
            return f"{self.name}: not at its end yet, target {self.target:.3g}"
        now = self.used(self.gates.open.cpu().numpy()) / self.full
        if not self.limited:
            return f"{self.name}: {now:.3g} of the cost is left; no budget below it was asked for"
        if ended < 0.9 * self.target:
            opened = f"; the strongest opened again: {now:.3g}" if now > ended else ""
            return f"{self.name}: {ended:.3g} of the cost, target {self.target:.3g}{opened}"
        if ended <= 1.02 * self.target:
            pace = 1 - self.target ** (1 / self.steps)
            hurry = (
                f", in {self.steps} steps that each closed {pace:.0%} of what was left, so that the rest could hardly "
                "take over. A larger train.kimg gives it time"
            )
            return f"{self.name}: {now:.3g} of the cost is left, target {self.target:.3g}{hurry if pace > 0.1 else ''}"
        return (
            f"{self.name}: stopped at {ended:.3g} of the cost, target {self.target:.3g}, when its share of the training"
            f" was over; the strongest that fit were kept, {now:.3g}. A larger train.kimg or "
            "train.method_options.strength lets it arrive by itself"
        )

    def learned(self) -> str:
        """How much of what is kept was learned, in a line: beside what the first values would have kept."""
        kept = self._kept()
        cost = self.used(kept)
        begun = strongest(self.gates, self.start, lambda sizes: self.usage(sizes) / (1.0 if self.limited else cost))
        return f"{self.name}: {learned(kept, begun, self.gates.free.cpu().numpy())}"


class _State(nn.Module):
    """What a control remembers."""

    strength: Tensor
    reached: Tensor
    ended: Tensor  # share of the whole cost that the training itself had come to when the budget was closed

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.register_buffer("strength", torch.tensor(strength))
        self.register_buffer("reached", torch.tensor(False))
        self.register_buffer("ended", torch.tensor(1.0))
