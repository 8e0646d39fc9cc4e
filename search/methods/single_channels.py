"""What the methods share that choose single channels while they train: checks, and what is kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Protocol

import numpy as np
from torch import Tensor, nn

from gantailor.search.methods.control import check_reachable
from gantailor.search.methods.method import Context, Kept, Nets
from gantailor.search.spaces.space import droppable
from gantailor.supernet.device import HOST
from gantailor.supernet.errors import ConfigError
from gantailor.supernet.gates import Gates
from gantailor.supernet.graph import Selection
from gantailor.supernet.subnets.copying import copied
from gantailor.supernet.supernet import Supernet
from gantailor.supernet.traits import traits_of


class SingleChannels(Protocol):
    """A model that opens and closes single channels of a supernet."""

    supernet: Supernet
    gates: Gates

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor of the generator, as it computes now."""


EVERY_CHANNEL: Mapping[str, Any] = {"ranking": "none", "space": {"name": "every"}}  # settings that all of them share


def free_widths(context: Context) -> list[int]:
    """The widths that may lose channels, by number."""
    index = context.space.supernet.graph.index
    return [index[variable.name] for variable in context.space.variables]


def branches(context: Context) -> list[int]:
    """Widths, by number, that may lose all their channels."""
    supernet = context.space.supernet
    return [supernet.graph.index[name] for name in droppable(supernet, context.config.space)]


def check_settings(
    context: Context, *, least: int, branches_may_go: bool = False, cycle: Literal["no", "both", "finetune"] = "both"
) -> None:
    """That the run's settings suit a choice of single channels.

    Args:
        least: channels that every width keeps.
        branches_may_go: whether ``space.drop_branches`` is allowed.
        cycle: whether a CycleGAN can be trained: in no training, in both of them, or in fine-tuning alone.

    Raises:
        ConfigError: they do not.
    """
    config, name = context.config, context.config.method
    if traits_of(context.space.supernet.generator).takes == "latents":
        raise ConfigError(
            f"method {name!r} works on convolutions and linear layers; {config.generator!r} has its own. Use "
            "diversity or supernet"
        )
    if config.space.drop_branches and not branches_may_go:
        raise ConfigError(f"method {name!r} keeps {least} channels of every width: leave out space.drop_branches")
    if config.space.name != "every" or config.space.rounding != 1 or config.space.fractions or config.round_to_device:
        raise ConfigError(
            f"method {name!r} keeps any number of channels: leave out round_to_device, and of space all but "
            "freeze and drop_branches"
        )
    if ">=" in config.budget:
        raise ConfigError(f"method {name!r} takes upper limits only, not budget {config.budget!r}")
    _check_tasks(context, cycle)


def _check_tasks(context: Context, cycle: str) -> None:
    config, allowed = context.config, {"no": (), "both": ("train", "finetune"), "finetune": ("finetune",)}[cycle]
    for part, recipe in (("train", config.train), ("finetune", config.finetune)):
        if recipe.task != "image_to_image" and not (recipe.task == "cyclegan" and part in allowed):
            raise ConfigError(f"method {config.method!r} has no {part}.task {recipe.task!r}; choose another preset")
    trains_cycle = config.train.task == "cyclegan"
    if not context.taught and not context.data().paired and not trains_cycle:
        raise ConfigError(
            "pictures without targets and without a teacher need two domains and a cycle: data.kind domains, "
            "train.preset and finetune.preset teacher-cyclegan"
        )
    if cycle == "both" and trains_cycle != (config.finetune.task == "cyclegan"):
        raise ConfigError("train and finetune must both be a cyclegan, or neither; name the preset in both")


def check_budget(context: Context, *, least: int, free: list[int], may_go: list[int] | None = None) -> None:
    """That the least of every width fits the budget.

    Raises:
        BudgetError: it does not.
    """
    gates = Gates(context.space.supernet.graph, free, least=least, branches=may_go or ())
    check_reachable(gates, context.budget.usage, "generator")


def kept_so_far(context: Context, task: Any, model: nn.Module) -> Nets:
    """The generator that would stay if the training ended now."""
    narrow = model.supernet.extract(task.selection(), model.tensors()).cpu()  # type: ignore[operator, union-attr]
    return {"kept so far": context.calibrated(narrow)}


def kept(model: SingleChannels, selection: Selection) -> Kept:
    """The whole net's weights as the model computes, of every width the kept channels first, strongest first."""
    ordered, orders = as_computed(model), _orders(model, selection, model.gates.magnitudes())
    ordered.permute_(orders)
    return Kept(ordered.generator.state_dict(), selection.config, orders)


def as_computed(model: SingleChannels) -> Supernet:
    """A copy of the model's supernet, on the CPU, whose own weights are those that the model computes with."""
    supernet = model.supernet
    full = supernet.extract(supernet.full_config(), model.tensors()).cpu()
    found = copied(supernet).to(HOST).requires_grad_(True)
    found.generator.load_state_dict(full.state_dict())
    return found


def _orders(model: SingleChannels, selection: Selection, magnitudes: np.ndarray) -> dict[str, np.ndarray]:
    """For each width its kept units, strongest first, and then the others."""
    orders = {}
    for name, part in model.gates.places.by_width(magnitudes).items():
        chosen = np.zeros(len(part), bool)
        chosen[list(selection[name])] = True
        orders[name] = np.lexsort((-part, ~chosen))
    return orders
