"""What a training trains and by which losses: the piece that differs between them, and the loop does not know.

And what a batch has to be for it: whole, where a loss or a norm compares its pictures.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from gantailor.supernet.errors import ConfigError
from gantailor.supernet.training import distributed
from gantailor.supernet.training.batches import Batches
from gantailor.supernet.training.recipe import Recipe


class Adam(torch.optim.Adam):
    """PyTorch's fused Adam, for weights in any memory format.

    Its CPU kernel goes through memory as if all tensors were contiguous: gradients with channels innermost it first
    copies, which takes as long as the update (PyTorch 2.13), and one that lies otherwise than its weight it would add
    to the wrong elements.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], **options: Any) -> None:
        super().__init__(parameters, fused=True, **options)

    def _init_group(self, group: dict[str, Any], *lists: list[Tensor]) -> bool:
        """Collect what an update needs: weights, gradients, moments, all as their memory lies."""
        found: bool = super()._init_group(group, *lists)  # type: ignore[no-untyped-call]
        weights, gradients, *moments = lists[:4]
        orders = [weight.dim_order() for weight in weights]
        gradients[:] = [one.permute(order).contiguous() for one, order in zip(gradients, orders, strict=True)]
        for tensors in (weights, *moments):
            tensors[:] = [one.permute(order) for one, order in zip(tensors, orders, strict=True)]
        return found


def adam(parameters: Iterable[nn.Parameter], recipe: Recipe, lr: float | None = None) -> torch.optim.Optimizer:
    """The recipe's optimiser; ``lr`` where it is not the generator's."""
    r = recipe
    return Adam(parameters, lr=lr or r.rate, betas=(r.beta1, r.beta2), weight_decay=r.weight_decay)


class Task(Protocol):
    """What is trained and by which losses; the loop calls it in this order."""

    @property
    def batches(self) -> Batches:
        """What a step reads; it is called in other processes and threads, and holds no networks."""

    @property
    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """By name; the ``lr`` they are made with is scaled by the recipe's schedule."""

    @property
    def generator(self) -> nn.Module:
        """What the training is for; its weights are averaged."""

    def parts(self) -> dict[str, nn.Module]:
        """Everything with state, the generator included."""

    def backward(self, step: int, batch: Any, share: float) -> dict[str, Tensor]:
        """Add ``share`` of the gradients of a part of the step's batch; the loss terms, detached scalars."""

    def after_step(self, step: int) -> None:
        """After the optimisers' update (a proximal step, a projection)."""


class TaskAround:
    """A training task with something around it: what a subclass does not say is the task's."""

    def __init__(self, task: Task) -> None:
        self.task = task

    @property
    def batches(self) -> Batches:
        """What a step reads."""
        return self.task.batches

    @property
    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """By name."""
        return self.task.optimizers

    @property
    def generator(self) -> nn.Module:
        """What the training is for."""
        return self.task.generator

    @property
    def counterparts(self) -> dict[str, nn.Module]:
        """Generators that are trained beside it."""
        return counterparts(self.task)

    def parts(self) -> dict[str, nn.Module]:
        """Everything with state."""
        return self.task.parts()

    def backward(self, step: int, batch: Any, share: float) -> dict[str, Tensor]:
        """The task's gradients and losses."""
        return self.task.backward(step, batch, share)

    def after_step(self, step: int) -> None:
        """After the optimisers' update."""
        self.task.after_step(step)


def inner(task: Task) -> Any:
    """The task itself, without what is around it."""
    return inner(task.task) if isinstance(task, TaskAround) else task


def counterparts(task: Task) -> dict[str, nn.Module]:
    """Generators that a task trains and keeps beside the one that it is for, by name: the way back of a CycleGAN."""
    found: dict[str, nn.Module] = getattr(task, "counterparts", {})
    return found


def check_parts(recipe: Recipe) -> None:
    """That a batch can be shared by the processes that train.

    Raises:
        ConfigError: it cannot.
    """
    processes = distributed.world()
    parts = recipe.accumulate * processes
    if recipe.batch % parts:
        raise ConfigError(
            f"batch {recipe.batch} cannot be shared by {processes} processes in {recipe.accumulate} parts; "
            f"make it a multiple of {parts}"
        )


def coupled_terms(parts: Mapping[str, nn.Module], terms: Iterable[str] = ()) -> list[str]:
    """What compares the pictures of a batch and cannot be had of its parts: batch norms that train, and ``terms``."""
    kinds = nn.modules.batchnorm._BatchNorm
    normed = [n for n, part in parts.items() if any(isinstance(m, kinds) and m.training for m in part.modules())]
    return [*(f"batch norm of the {name}" for name in normed), *terms]


def check_coupled(recipe: Recipe, found: Sequence[str]) -> None:
    """That a step's batch is not worked through in parts where something compares all of its pictures.

    Raises:
        ConfigError: it is, and the recipe does not say that parts may do.
    """
    parts = recipe.accumulate * distributed.world()
    if parts > 1 and found and recipe.coupled == "whole":
        raise ConfigError(f"{_coupled(found, parts)}; use one process and accumulate 1, or set coupled to parts")


def say_coupled(task: Task, recipe: Recipe, parts: int) -> None:
    """A warning where a task is used without a ``Trainer``, which would refuse."""
    if parts > 1 and recipe.coupled == "whole" and (found := coupled_terms(task.parts())):
        warnings.warn(_coupled(found, parts), stacklevel=3)


def _coupled(found: Sequence[str], parts: int) -> str:
    return (
        f"{' and '.join(found)}: takes the pictures of a batch together, which here is worked through in {parts} parts "
        "(accumulate times processes), so gradients are not those of the whole batch"
    )
