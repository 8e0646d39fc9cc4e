"""Sparsification while a generator trains: the part that slimming, hypernetworks and paths of gates share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gantailor.search.methods.control import Control, Usage
from gantailor.supernet.gates import Gates
from gantailor.supernet.graph import Selection
from gantailor.supernet.training.recipe import Recipe, require, require_one
from gantailor.supernet.training.task import Task, TaskAround

CONTROLS = ("plan", "penalty", "measured")
ABLATIONS = ("none", "no-penalty", "frozen")
LR, MOMENTUM = 0.1, 0.5  # of SGD on scales
SMALLEST = 1e-4  # magnitude of a scale that only shrinks


@dataclass(frozen=True)
class SparsityOptions:
    """Settings of a sparsification, in ``train.method_options``.

    Attributes:
        strength: weight of the L1 penalty on the gates. 0: chosen. Under a plan such that the mean gate would halve
            until the budget is due; under a penalty it then follows the cost; with ``budget: 1x`` none.
        reach: share of the training after which the budget is met; the rest trains what is left.
        control: what closes gates for good. ``plan``: the smallest, step by step, along a straight line in the
            logarithm of the cost (as weights in Zhu and Gupta 2017, arXiv 1710.01878). ``penalty``: nothing before the
            penalty alone has met the budget, as published. ``measured``: the plan, by what the losses say: the running
            mean of the squared product of channel and gradient (Taylor expansion, Molchanov et al. 2019, arXiv
            1906.10771); scales keep their values, nothing shrinks.
        ablation: what is taken away to see what it does. ``no-penalty``: gates are trained, but do not shrink;
            ``frozen``: gates keep their first values, which then decide.
    """

    strength: float = 0.0
    reach: float = 0.7
    control: str = "plan"
    ablation: str = "none"

    def __post_init__(self) -> None:
        require("strength", self.strength, least=0)
        require("reach", self.reach, above=0, most=1)
        require_one("control", self.control, CONTROLS)
        require_one("ablation", self.ablation, ABLATIONS)
        if self.control == "measured" and self.strength:
            raise ValueError(
                f"strength cannot be {self.strength} with control 'measured', which has no penalty: set control to "
                "plan or penalty"
            )
        if self.control == "penalty" and self.ablation != "none":
            raise ValueError(f"ablation cannot be {self.ablation!r} with control 'penalty': nothing would close a gate")

    @property
    def measures(self) -> bool:
        """Whether gates close by what is measured, not by their values."""
        return self.control == "measured" and self.ablation != "frozen"

    @property
    def moves(self) -> bool:
        """Whether the losses train the gates."""
        return self.control != "measured" and self.ablation != "frozen"

    @property
    def shrinks(self) -> bool:
        """Whether gates pay the penalty."""
        return self.control != "measured" and self.ablation == "none"


class L1Sparsity(TaskAround):
    """Any training task of a model with ``gates``, whose L1 penalty is a soft threshold after each step.

    A ``Control`` plans the cost of each step. Gates close along it, so that the rest has time to take over, or at its
    end: ``SparsityOptions.control`` says how.

    Args:
        task: trains a model that holds ``gates`` with its own losses.
        optimizer: of the gates alone; they are taken out of the task's.
        usage: cost of sizes ``[N, widths]`` as a share of the budget.
        options: the method's.
        slopes: the gradient at a factor of 1 on every channel, ``[units]``, from the gradients before an update; gates
            are such factors themselves unless it is given.
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
        options: SparsityOptions,
        slopes: Callable[[], Tensor] | None = None,
        name: str = "gates",
    ) -> None:
        super().__init__(task)
        self.gates, self.options, self.name, self.optimizer = gates, options, name, optimizer
        leave_out(gates, task.optimizers["generator"])
        steps = max(1.0, options.reach * recipe.steps)
        strength = options.strength or mild(gates, optimizer, steps)
        self.control = Control(gates, usage, steps, strength=strength, name=name)
        self.first, self.measured = gates.values.detach().clone(), _Measured(gates.values)
        self.slopes = slopes or self._of_gates
        if options.measures:  # after the update a weight has moved against its gradient, and their product with it
            task.optimizers["generator"].register_step_pre_hook(lambda *_: self._measure())

    @property
    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """The task's, and that of the gates."""
        return {**self.task.optimizers, self.name: self.optimizer}

    def parts(self) -> dict[str, nn.Module]:
        """Everything with state."""
        own = {f"{self.name} strength": self.control.state, f"{self.name} measured": self.measured}
        return {**super().parts(), **own}

    def backward(self, step: int, batch: Any, share: float) -> dict[str, Tensor]:
        """The task's losses, the gates' mean magnitude, and what is left of the full cost, beside its target."""
        losses = super().backward(step, batch, share)
        values = self.gates.values.detach()
        left = values.new_tensor(self.control.left)
        return {**losses, self.name: values.abs().mean(), f"{self.name} cost (target {self.control.target:.3g})": left}

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Soft threshold of the gates; then those beyond the plan close."""
        super().after_step(step)
        gates, control = self.gates, self.control
        if not self.options.moves:
            gates.values.copy_(self.first)
        if not control.closed:
            before = gates.values.clone()
            if self.options.shrinks and (control.limited or self.options.strength):
                self._shrink(before)
            met = self.options.control == "penalty" and control.limited and control.left <= control.target
            if self.options.control == "penalty":
                if not self.options.strength:
                    control.adapt(step)
            else:
                gates.open &= control.planned_gates(step, self._order(gates.values))
                self._stop_closed()
            if met or step + 1 >= control.steps:
                control.close(self._order(before))
                gates.values.copy_(before)  # what is kept has the value from before the last threshold
        if control.closed:
            gates.values.mul_(gates.open)

    @torch.no_grad()
    def _measure(self) -> None:
        if not self.control.closed:
            self.measured.see(self.slopes())

    def _of_gates(self) -> Tensor:
        gradient = self.gates.values.grad
        return torch.zeros_like(self.gates.values) if gradient is None else self.gates.values * gradient

    def _order(self, values: Tensor) -> Tensor:
        """What decides which gates stay: their values, or what was measured."""
        return self.measured.importance if self.options.measures else values

    def _shrink(self, before: Tensor) -> None:
        """The penalty's proximal step; a width's last gates do not vanish."""
        gates = self.gates
        rate = self.optimizer.param_groups[0]["lr"]
        shrunk = soft_threshold(gates.values, self.control.strength * rate)
        gates.values.copy_(torch.where(gates.free & gates.open, shrunk, gates.values))
        kept = (gates.values.abs() > gates.threshold) & gates.open
        best = gates.short(kept, before.abs() * gates.open)
        gates.values[best] = before[best]

    def _stop_closed(self) -> None:
        """Closed gates keep their last value, in case there is room for them at the end: nothing moves them."""
        for slot in self.optimizer.state[self.gates.values].values():
            if isinstance(slot, Tensor) and slot.shape == self.gates.values.shape:
                slot.mul_(self.gates.open)

    def selection(self) -> Selection:
        """What is kept: at the end of training, or what would be kept if it ended now."""
        return self.control.selection(self._order(self.gates.values))

    def outcome(self) -> str:
        """How the sparsification ended, in a line."""
        return self.control.outcome()

    def learned(self) -> str:
        """How much of what is kept was learned, in a line."""
        return self.control.learned()


class Pull:
    """Trains gates and pulls the open ones towards zero, so much that the mean one would halve in ``steps``."""

    def __init__(self, gates: Gates, steps: int) -> None:
        self.gates = gates
        self.optimizer = torch.optim.SGD([gates.values], lr=LR, momentum=MOMENTUM)
        self.strength = mild(gates, self.optimizer, steps)

    @torch.no_grad()
    def shrink(self, opened: Tensor) -> None:
        """The penalty's proximal step; no gate vanishes before it is closed, nor changes its sign."""
        values = self.gates.values
        shrunk = soft_threshold(values, self.strength * self.optimizer.param_groups[0]["lr"])
        shrunk = torch.where(shrunk == 0, SMALLEST * torch.where(values < 0, -1.0, 1.0), shrunk)
        values.copy_(torch.where(self.gates.free & opened, shrunk, values))


class _Measured(nn.Module):
    """How important each channel was to the losses while it was open."""

    importance: Tensor  # running mean of the squared slopes, [units]
    seen: Tensor

    def __init__(self, values: nn.Parameter) -> None:
        super().__init__()
        self.register_buffer("importance", torch.zeros_like(values))
        self.register_buffer("seen", torch.tensor(0))

    def see(self, slopes: Tensor) -> None:
        """The slopes ``[units]`` of a step."""
        self.seen += 1
        self.importance += (slopes.to(self.importance).square() - self.importance) / self.seen


def leave_out(gates: Gates, optimizer: torch.optim.Optimizer) -> None:
    """Take gates out of the optimiser of what they belong to: they have one of their own."""
    for group in optimizer.param_groups:
        group["params"] = [p for p in group["params"] if p is not gates.values]


def mild(gates: Gates, optimizer: torch.optim.Optimizer, steps: float) -> float:
    """The strength of a penalty under which the mean gate would halve in so many steps at the optimiser's rate."""
    return 0.5 * float(gates.values.detach().abs().mean()) / (float(optimizer.param_groups[0]["lr"]) * steps)


def soft_threshold(values: Tensor, amount: float) -> Tensor:
    """The proximal step of ``amount * |x|_1``: ``sign(x) max(|x| - amount, 0)``."""
    return values.sign() * (values.abs() - amount).clamp(min=0)
