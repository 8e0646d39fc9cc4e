"""GAN Slimming: distillation, channel pruning and 8 bits trained together (Wang et al. 2020, arXiv 2008.11062).

Scales multiply the weights that read a channel, on every width (``supernet.gates``). They pay an L1 penalty by a
proximal step after each update, while the generator distils its teacher and, if ``bits`` are set, computes in integers.
The paper has only the penalty's strength; here training follows a path of MACs to a budget by adapting it, and the
scales that fit, largest first, are kept.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from supernet.errors import BudgetError
from supernet.gates import Gates
from supernet.graph import Selection
from supernet.quantisers import Quantisers
from supernet.ranking import l1_scores
from supernet.recipe import Recipe
from supernet.supernet import Supernet
from supernet.trainer import Task

Usage = Callable[[np.ndarray], np.ndarray]  # sizes [N, widths] to cost as a share of the budget, [N]


@dataclass(frozen=True)
class SlimmingOptions:
    """Settings of the slimming, in ``train.task_options``.

    Attributes:
        strength: first weight of the penalty on the scales; published 0.01 (0.008 to 0.009 for horse2zebra, over 200
            epochs). 0: such that the mean scale would vanish in the time there is.
        scale_lr: SGD learning rate of the scales, with ``scale_momentum``.
        reach: share of the training after which the budget is met; the rest trains what is left.
        trunk: 0 leaves alone the widths that several layers write (residual trunks), as the paper does.
    """

    strength: float = 0.0
    scale_lr: float = 0.1
    scale_momentum: float = 0.5
    reach: float = 0.7
    trunk: int = 1


class Slimmed(nn.Module):
    """A supernet whose channels are scaled and whose layers may be rounded; ``generator`` is the plain one inside."""

    def __init__(self, supernet: Supernet, *, trunk: bool = True, quantisers: Quantisers | None = None) -> None:
        super().__init__()
        widths = [i for i in range(len(supernet.graph.widths)) if trunk or len(_writers(supernet, i)) < 2]
        self.supernet, self.quantisers = supernet, quantisers
        self.gates = Gates(supernet.graph, widths)
        self._move_norms_into_scales()

    @torch.no_grad()
    def _move_norms_into_scales(self) -> None:
        """Scales begin as the relative norms of the weights that they multiply, which are divided by them.

        The function stays. The paper's scales, those of trained norms, differ at the start too; equal ones would all
        vanish in the same few steps.
        """
        gates, scores = self.gates, l1_scores(self.supernet)
        relative = [values / max(values.mean(), 1e-12) for values in scores.values()]
        start = torch.from_numpy(np.concatenate(relative)).float().clamp(min=0.05)
        gates.values.copy_(torch.where(gates.free, start, gates.values))
        for name, tensor in gates.places.apply(self.supernet.tensors, 1 / gates.values).items():
            self.supernet.tensors[name].copy_(tensor)

    @property
    def generator(self) -> nn.Module:
        """The user's generator."""
        return self.supernet.generator

    def forward(self, *inputs: Any, **options: Any) -> Any:
        tensors = self.gates(self.supernet.tensors)
        if self.quantisers is None:
            return self.supernet.call_with(tensors, inputs, options)
        with self.quantisers.rounding(self.generator):
            return self.supernet.call_with(self.quantisers.weights(tensors), inputs, options)

    @torch.no_grad()
    def folded(self) -> nn.Module:
        """A copy of the whole generator with the scales multiplied into its weights."""
        full = self.supernet.extract(self.supernet.full_config())
        tensors = self.gates(self.supernet.tensors)
        full.load_state_dict({name: tensors[name] for name in full.state_dict() if name in tensors}, strict=False)
        return full


def _writers(supernet: Supernet, number: int) -> set[str]:
    """Layers with matrices that write a width (on an axis that they do not read)."""
    graph, read = supernet.graph, set(supernet.graph.consumers.get(number, ()))
    tensors = supernet.tensors
    return {
        name
        for name, axes in graph.axes.items()
        for d, axis in axes.items()
        if number in axis.counts and (name, d) not in read and tensors[name].dim() > 1
    }


def strongest(gates: Gates, magnitudes: np.ndarray, usage: Usage) -> np.ndarray:
    """The gates to keep, a boolean vector: by magnitude, as many as fit; one of each width always stays.

    Candidates are nested, so that bisection finds the last one that fits (CAT's global threshold, arXiv 2103.03467).
    What fits below the threshold is then added, so that the budget is used.

    Args:
        magnitudes: ``[units]``, not negative; gates that are not trained always stay.

    Raises:
        BudgetError: not even one channel of each width fits.
    """
    places, free = gates.places, gates.free.cpu().numpy()
    always = ~free
    for number in range(len(places.starts) - 1):
        part = slice(places.starts[number], places.starts[number + 1])
        if free[part].any():
            always[int(places.starts[number] + np.argmax(magnitudes[part]))] = True
    others = np.flatnonzero(~always)
    order = others[np.argsort(-magnitudes[others], kind="stable")]

    def kept(count: int) -> np.ndarray:
        chosen = always.copy()
        chosen[order[:count]] = True
        return chosen

    low, high = 0, int((magnitudes[order] > 0).sum())
    if not usage(places.sizes(kept(0))[None])[0] <= 1:
        raise BudgetError("the budget cannot be reached: one channel of every width is more already; raise it")
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


class Slimming:
    """Any training task of a ``Slimmed`` generator, with the scales' penalty after each step.

    Args:
        task: trains ``slimmed`` with its own losses.
        usage: cost of sizes ``[N, widths]`` as a share of the budget. Training follows a straight line in its logarithm
            from the full generator's to 1.
    """

    def __init__(self, task: Task, slimmed: Slimmed, recipe: Recipe, *, usage: Usage) -> None:
        self.task, self.slimmed, self.recipe, self.usage = task, slimmed, recipe, usage
        self.options = options = recipe.options_of(SlimmingOptions)
        gates = slimmed.gates
        for group in task.optimizers["generator"].param_groups:
            group["params"] = [p for p in group["params"] if p is not gates.values]
        scales = torch.optim.SGD([gates.values], lr=options.scale_lr, momentum=options.scale_momentum)
        self.optimizers = {**task.optimizers, "scales": scales}
        steps = max(1.0, options.reach * recipe.steps)
        strength = options.strength or float(gates.values.detach().mean()) / (options.scale_lr * steps)
        self.state = _Strength(strength).to(gates.values.device)
        self._full = self._used(np.ones(len(gates.values), bool))

    def _used(self, kept: np.ndarray) -> float:
        return float(self.usage(self.slimmed.gates.places.sizes(kept)[None])[0])

    @property
    def generator(self) -> nn.Module:
        """The slimmed generator."""
        return self.slimmed

    def parts(self) -> dict[str, nn.Module]:
        """Everything with state."""
        return {**self.task.parts(), "strength": self.state}

    def draw(self, step: int) -> Any:
        """The task's batch."""
        return self.task.draw(step)

    def backward(self, step: int, batch: Any, share: float) -> dict[str, Tensor]:
        """The task's losses; ``scales`` is their mean magnitude, ``share`` the cost that is left of the full one."""
        losses = self.task.backward(step, batch, share)
        values = self.slimmed.gates.values.detach()
        left = self._used(self.slimmed.gates.kept()) / self._full
        return {**losses, "scales": values.abs().mean(), "share": values.new_tensor(left)}

    def planned(self, step: int) -> float:
        """Cost that the training should be down to after a step."""
        done = min(1.0, (step + 1) / max(1, round(self.options.reach * self.recipe.steps)))
        return float(self._full ** (1 - done))

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Soft threshold of the scales; then the strength is raised where the cost is behind its plan, else lowered."""
        self.task.after_step(step)
        gates = self.slimmed.gates
        before = gates.values.clone()
        if not bool(self.state.reached):
            rate = self.optimizers["scales"].param_groups[0]["lr"]
            shrunk = soft_threshold(gates.values, float(self.state.strength) * rate)
            gates.values.copy_(torch.where(gates.free & gates.open, shrunk, gates.values))
            self._keep_one(before)
            now = self._used(gates.kept())
            self.state.strength.mul_(1.03 if now > self.planned(step) else 0.97)
            if now <= 1 or step + 1 >= self.options.reach * self.recipe.steps:
                self._close(before)
        gates.values.mul_(gates.open)

    def _keep_one(self, before: Tensor) -> None:
        """A width's last scale does not vanish."""
        gates, starts = self.slimmed.gates, self.slimmed.gates.places.starts.tolist()
        for low, high in itertools.pairwise(starts):
            if not bool(gates.values[low:high].any()):
                best = low + int(before[low:high].abs().argmax())
                gates.values[best] = before[best]

    def _close(self, before: Tensor) -> None:
        """The budget is met: what is kept now is kept for good, at the value it had before the last threshold."""
        gates = self.slimmed.gates
        kept = torch.from_numpy(strongest(gates, before.abs().double().cpu().numpy(), self.usage)).to(before.device)
        gates.open.copy_(kept)
        gates.values.copy_(torch.where(kept, before, torch.zeros_like(before)))
        self.state.reached.fill_(True)

    def selection(self) -> Selection:
        """What is kept: at the end of training, or what would be kept if it ended now."""
        gates = self.slimmed.gates
        if bool(self.state.reached):
            return gates.places.selection(gates.open.cpu().numpy())
        magnitudes = gates.values.detach().abs().double().cpu().numpy()
        return gates.places.selection(strongest(gates, magnitudes, self.usage))


class _Strength(nn.Module):
    """What the control remembers."""

    strength: Tensor
    reached: Tensor

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.register_buffer("strength", torch.tensor(strength))
        self.register_buffer("reached", torch.tensor(False))


def soft_threshold(values: Tensor, amount: float) -> Tensor:
    """The proximal step of ``amount * |x|_1``: ``sign(x) max(|x| - amount, 0)``."""
    return values.sign() * (values.abs() - amount).clamp(min=0)
