"""Sparsification to a budget: the part that slimming and hypernetworks share."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from supernet.errors import BudgetError
from supernet.gates import Gates
from supernet.graph import Selection
from supernet.recipe import Recipe
from supernet.trainer import Task

Usage = Callable[[np.ndarray], np.ndarray]  # sizes [N, widths] to cost as a share of the budget, [N]


def strongest(gates: Gates, magnitudes: np.ndarray, usage: Usage) -> np.ndarray:
    """The gates to keep, a boolean vector: by magnitude, as many as fit; each width keeps its ``least``.

    Candidates are nested, so that bisection finds the last one that fits (CAT's global threshold, arXiv 2103.03467).
    What fits below the threshold is then added, so that the budget is used.

    Args:
        magnitudes: ``[units]``, not negative; gates that are not trained always stay.

    Raises:
        BudgetError: not even these fit.
    """
    places, free = gates.places, gates.free.cpu().numpy()
    always = ~free
    for number in range(len(places.starts) - 1):
        part = slice(places.starts[number], places.starts[number + 1])
        if free[part].any():
            always[places.starts[number] + np.argsort(-magnitudes[part], kind="stable")[: gates.least]] = True
    others = np.flatnonzero(~always)
    order = others[np.argsort(-magnitudes[others], kind="stable")]

    def kept(count: int) -> np.ndarray:
        chosen = always.copy()
        chosen[order[:count]] = True
        return chosen

    low, high = 0, int((magnitudes[order] > 0).sum())
    if not usage(places.sizes(kept(0))[None])[0] <= 1:
        raise BudgetError(
            f"the budget cannot be reached: {gates.least} channel(s) of every width cost more already; raise it"
        )
    alive = order[:high]
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if usage(places.sizes(kept(middle))[None])[0] <= 1 else (low, middle - 1)
    return _filled(gates, kept(low), alive[low:], usage)


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


class Sparsifying:
    """Any training task of a model with ``gates``, whose L1 penalty is a soft threshold after each step.

    Training follows a straight line in the logarithm of the cost, from the full generator's to the budget, by adapting
    the penalty's strength; then the largest gates that fit are kept for good.

    Args:
        task: trains a model that holds ``gates`` with its own losses.
        optimizer: of the gates alone; they are taken out of the task's.
        usage: cost of sizes ``[N, widths]`` as a share of the budget.
        strength: first weight of the penalty; 0: such that the mean gate would vanish in the time there is.
        reach: share of the training after which the budget is met.
        name: of these gates, where a task has several: wrap it once for each.
    """

    def __init__(
        self,
        task: Task,
        gates: Gates,
        recipe: Recipe,
        *,
        optimizer: torch.optim.Optimizer,
        usage: Usage,
        strength: float = 0.0,
        reach: float = 0.7,
        name: str = "gates",
    ) -> None:
        self.name = name
        self.task, self.gates, self.recipe, self.usage, self.reach = task, gates, recipe, usage, reach
        for group in task.optimizers["generator"].param_groups:
            group["params"] = [p for p in group["params"] if p is not gates.values]
        self.optimizers = {**task.optimizers, name: optimizer}
        rate, steps = optimizer.param_groups[0]["lr"], max(1.0, reach * recipe.steps)
        self.state = _Strength(strength or float(gates.values.detach().abs().mean()) / (rate * steps))
        self.state.to(gates.values.device)
        self._full = self._used(np.ones(len(gates.values), bool))

    def _used(self, kept: np.ndarray) -> float:
        return float(self.usage(self.gates.places.sizes(kept)[None])[0])

    @property
    def generator(self) -> nn.Module:
        """What the task trains."""
        return self.task.generator

    def parts(self) -> dict[str, nn.Module]:
        """Everything with state."""
        return {**self.task.parts(), f"{self.name} strength": self.state}

    def draw(self, step: int) -> Any:
        """The task's batch."""
        return self.task.draw(step)

    def backward(self, step: int, batch: Any, share: float) -> dict[str, Tensor]:
        """The task's losses, the gates' mean magnitude, and what is left of the full cost, beside its target."""
        losses = self.task.backward(step, batch, share)
        values = self.gates.values.detach()
        left = values.new_tensor(self._used(self.gates.kept()) / self._full)
        return {**losses, self.name: values.abs().mean(), f"{self.name} cost (target {1 / self._full:.3g})": left}

    def planned(self, step: int) -> float:
        """Cost that the training should be down to after a step."""
        done = min(1.0, (step + 1) / max(1, round(self.reach * self.recipe.steps)))
        return float(self._full ** (1 - done))

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Soft threshold of the gates; then the strength is raised where the cost is behind its plan, else lowered."""
        self.task.after_step(step)
        gates = self.gates
        before = gates.values.clone()
        if not bool(self.state.reached):
            rate = self.optimizers[self.name].param_groups[0]["lr"]
            shrunk = soft_threshold(gates.values, float(self.state.strength) * rate)
            gates.values.copy_(torch.where(gates.free & gates.open, shrunk, gates.values))
            self._keep_least(before)
            now = self._used(gates.kept())
            self.state.strength.mul_(1.03 if now > self.planned(step) else 0.97)
            if now <= 1 or step + 1 >= self.reach * self.recipe.steps:
                self.state.ended.fill_(now / self._full)
                self._close(before)
        gates.values.mul_(gates.open)

    def _keep_least(self, before: Tensor) -> None:
        """A width's last gates do not vanish."""
        gates = self.gates
        for low, high in itertools.pairwise(gates.places.starts.tolist()):
            least = min(gates.least, high - low)
            if int((gates.values[low:high].abs() > gates.threshold).sum()) < least:
                best = low + before[low:high].abs().topk(least).indices
                gates.values[best] = before[best]

    def _close(self, before: Tensor) -> None:
        """The budget is met: what is kept now is kept for good, at the value it had before the last threshold."""
        gates = self.gates
        kept = torch.from_numpy(strongest(gates, before.abs().double().cpu().numpy(), self.usage)).to(before.device)
        gates.open.copy_(kept)
        gates.values.copy_(torch.where(kept, before, torch.zeros_like(before)))
        self.state.reached.fill_(True)

    def outcome(self) -> str:
        """How the sparsification ended, in a line: met by the penalty, or cut to the budget when its time was over."""
        target, ended = 1 / self._full, float(self.state.ended)
        if not bool(self.state.reached):
            return f"{self.name}: not at its end yet, target {target:.3g}"
        now = self._used(self.gates.kept()) / self._full
        if ended <= 1.02 * target:
            return f"{self.name}: {now:.3g} of the cost is left, target {target:.3g}"
        return (
            f"{self.name}: the penalty stopped at {ended:.3g} of the cost, target {target:.3g}, when its share of the "
            f"training was over; the strongest that fit were kept, {now:.3g}. A larger train.kimg, "
            "train.method_options.strength or reach lets it arrive by itself"
        )

    def selection(self) -> Selection:
        """What is kept: at the end of training, or what would be kept if it ended now."""
        gates = self.gates
        if bool(self.state.reached):
            return gates.places.selection(gates.open.cpu().numpy())
        magnitudes = gates.values.detach().abs().double().cpu().numpy()
        return gates.places.selection(strongest(gates, magnitudes, self.usage))


class _Strength(nn.Module):
    """What the control remembers."""

    strength: Tensor
    reached: Tensor
    ended: Tensor  # share of the full cost that the penalty had come to when the budget was closed

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.register_buffer("strength", torch.tensor(strength))
        self.register_buffer("reached", torch.tensor(False))
        self.register_buffer("ended", torch.tensor(1.0))


def soft_threshold(values: Tensor, amount: float) -> Tensor:
    """The proximal step of ``amount * |x|_1``: ``sign(x) max(|x| - amount, 0)``."""
    return values.sign() * (values.abs() - amount).clamp(min=0)
