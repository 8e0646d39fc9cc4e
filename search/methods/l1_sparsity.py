"""Sparsification by an L1 penalty: the part that slimming and hypernetworks share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gantailor.search.methods.control import Control, Usage
from gantailor.supernet.gates import Gates
from gantailor.supernet.graph import Selection
from gantailor.supernet.training.recipe import Recipe
from gantailor.supernet.training.trainer import Task


class L1Sparsity:
    """Any training task of a model with ``gates``, whose L1 penalty is a soft threshold after each step.

    A ``Control`` plans the cost of each step: the smallest gates beyond it close for good (as weights do in Zhu and
    Gupta 2017, arXiv 1710.01878), so the rest has time to take over.

    Args:
        task: trains a model that holds ``gates`` with its own losses.
        optimizer: of the gates alone; they are taken out of the task's.
        usage: cost of sizes ``[N, widths]`` as a share of the budget.
        strength: weight of the penalty; 0: such that the mean gate would halve until the budget is due.
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
        self.task, self.gates, self.name = task, gates, name
        self.batches = task.batches
        for group in task.optimizers["generator"].param_groups:
            group["params"] = [p for p in group["params"] if p is not gates.values]
        self.optimizers = {**task.optimizers, name: optimizer}
        rate, steps = optimizer.param_groups[0]["lr"], max(1.0, reach * recipe.steps)
        strength = strength or 0.5 * float(gates.values.detach().abs().mean()) / (rate * steps)
        self.control = Control(gates, usage, steps, strength=strength, name=name)

    @property
    def generator(self) -> nn.Module:
        """What the task trains."""
        return self.task.generator

    def parts(self) -> dict[str, nn.Module]:
        """Everything with state."""
        return {**self.task.parts(), f"{self.name} strength": self.control.state}

    def backward(self, step: int, batch: Any, share: float) -> dict[str, Tensor]:
        """The task's losses, the gates' mean magnitude, and what is left of the full cost, beside its target."""
        losses = self.task.backward(step, batch, share)
        values = self.gates.values.detach()
        left = values.new_tensor(self.control.left)
        return {**losses, self.name: values.abs().mean(), f"{self.name} cost (target {self.control.target:.3g})": left}

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Soft threshold of the gates; then those beyond the plan close."""
        self.task.after_step(step)
        gates, control = self.gates, self.control
        if not control.closed:
            before = gates.values.clone()
            rate = self.optimizers[self.name].param_groups[0]["lr"]
            shrunk = soft_threshold(gates.values, control.strength * rate)
            gates.values.copy_(torch.where(gates.free & gates.open, shrunk, gates.values))
            kept = (gates.values.abs() > gates.threshold) & gates.open
            best = gates.short(kept, before.abs() * gates.open)  # a width's last gates do not vanish
            gates.values[best] = before[best]
            gates.open &= control.planned_gates(step)
            self._stop_closed()
            if step + 1 >= control.steps:
                control.close(before)
                gates.values.copy_(before)  # what is kept has the value from before the last threshold
        if control.closed:
            gates.values.mul_(gates.open)

    def _stop_closed(self) -> None:
        """Closed gates keep their last value, in case there is room for them at the end: nothing moves them."""
        for slot in self.optimizers[self.name].state[self.gates.values].values():
            if isinstance(slot, Tensor) and slot.shape == self.gates.values.shape:
                slot.mul_(self.gates.open)

    def selection(self) -> Selection:
        """What is kept: at the end of training, or what would be kept if it ended now."""
        return self.control.selection()

    def outcome(self) -> str:
        """How the sparsification ended, in a line."""
        return self.control.outcome()

    def learned(self) -> str:
        """How much of what is kept was learned, in a line."""
        return self.control.learned()


def soft_threshold(values: Tensor, amount: float) -> Tensor:
    """The proximal step of ``amount * |x|_1``: ``sign(x) max(|x| - amount, 0)``."""
    return values.sign() * (values.abs() - amount).clamp(min=0)
