"""Stages of the methods whose one training ends at the budget, channel by channel: slimming, hypernetworks, agents."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from torch import nn

from gantailor.pipeline import agents
from gantailor.pipeline.agents import free_widths
from gantailor.pipeline.search import make_search
from gantailor.pipeline.training import Watcher, distillation_task, run_task
from gantailor.run.defaults import SPARSIFYING
from gantailor.run.run import Run
from gantailor.search.methods import gated
from gantailor.search.methods.agents.agents import Agents, AgentsOptions
from gantailor.search.methods.control import check_reachable
from gantailor.search.methods.gated import Gated
from gantailor.search.methods.hypernetwork import hypernetwork
from gantailor.search.methods.hypernetwork.hypernetwork import Hypernetwork, HypernetworkOptions, hypernetwork_task
from gantailor.search.methods.slimming.slimming import Slimmed, SlimmingOptions, prunable, slimming
from gantailor.search.methods.sparsify import Sparsifying
from gantailor.search.spaces.space import droppable
from gantailor.search.study import best_config, table
from gantailor.supernet.errors import ConfigError
from gantailor.supernet.files import save_tensors, write_bytes
from gantailor.supernet.gates import Gates
from gantailor.supernet.graph import Selection, SubnetConfig
from gantailor.supernet.quantization.activation_ranges import make_quantisers, save_activation_ranges
from gantailor.supernet.training import distributed as workers
from gantailor.zoo.data.latents import Latents
from gantailor.zoo.tasks.cyclegan import CycleGan

Sparse = Slimmed | Hypernetwork | Gated
OPTIONS: dict[str, tuple[type, int]] = {  # of each method, and the channels that every width keeps
    "slimming": (SlimmingOptions, 1),
    "hypernetwork": (HypernetworkOptions, hypernetwork.LEAST),
    "agents": (AgentsOptions, gated.LEAST),
}


def check(run: Run) -> None:
    """That the run's settings suit a method that chooses single channels.

    Raises:
        ConfigError: they do not.
        BudgetError: the least of every width costs more than the budget.
    """
    config = run.config
    if config.method not in SPARSIFYING:
        return
    if isinstance(run.data("train"), Latents):
        raise ConfigError(
            f"method {config.method!r} works on convolutions and linear layers; {config.generator!r} has its own. Use "
            "diversity or supernet"
        )
    if config.space.drop_branches and config.method != "slimming":
        raise ConfigError(
            f"method {config.method!r} keeps {OPTIONS[config.method][1]} channels of every width: leave out "
            "space.drop_branches"
        )
    if config.space.name != "every" or config.space.rounding != 1 or config.space.fractions or config.round_to_device:
        raise ConfigError(
            f"method {config.method!r} keeps any number of channels: leave out round_to_device, and of space all but "
            "freeze and drop_branches"
        )
    cycle = config.train.task == "cyclegan"
    for part, recipe in (("train", config.train), ("finetune", config.finetune)):
        if recipe.task not in ("translation", "cyclegan") or (
            recipe.task == "cyclegan" and config.method == "slimming"
        ):
            raise ConfigError(f"method {config.method!r} has no {part}.task {recipe.task!r}; choose another preset")
    if not run.taught and not run.data("train").paired and not cycle:
        raise ConfigError(
            "pictures without targets and without a teacher need two domains and a cycle: data.kind domains, "
            "train.preset and finetune.preset teacher-cyclegan"
        )
    if cycle != (config.finetune.task == "cyclegan"):
        raise ConfigError("train and finetune must both be a cyclegan, or neither; name the preset in both")
    kind, least = OPTIONS[config.method]
    options: Any = config.train.options_of(kind, method=True)
    if isinstance(options, AgentsOptions):
        agents.check(run, options)
    free = free_widths(run)
    if isinstance(options, SlimmingOptions):
        free = prunable(run.traced(), free, trunk=bool(options.trunk))
    gates = Gates(run.traced().graph, free, least=least, branches=_branches(run))
    check_reachable(gates, run.budget().usage, "generator")
    if ">=" in config.budget:
        raise ConfigError(f"method {config.method!r} takes upper limits only, not budget {config.budget!r}")


def _branches(run: Run) -> list[int]:
    """Widths, by number, that may lose all their channels."""
    supernet = run.traced()
    return [supernet.graph.index[name] for name in droppable(supernet, run.config.space)]


def make_task(run: Run) -> Sparsifying | Agents:
    """The run's method as a training task; what it trains is ``generator``."""
    if run.config.method == "agents":
        return agents.make_task(run)
    recipe, supernet, usage = run.config.train, run.supernet(), run.budget().usage
    free = free_widths(run)
    if run.config.method == "hypernetwork":
        made = Hypernetwork(supernet, free, seed=recipe.seed)
        if recipe.task != "cyclegan":
            return hypernetwork_task(distillation_task(run, made, recipe, None), made, recipe, usage=usage)
        back = Hypernetwork(copy.deepcopy(supernet), free, seed=recipe.seed + 1)
        cycle = CycleGan(made, run.domains(), recipe, back=back, device=run.config.device)
        inner = hypernetwork_task(cycle, back, recipe, usage=usage, name="latents back")
        return hypernetwork_task(inner, made, recipe, usage=usage)
    quantisers = make_quantisers(supernet.generator, recipe)
    trunk = bool(recipe.options_of(SlimmingOptions, method=True).trunk)
    slimmed = Slimmed(supernet, free, trunk=trunk, branches=_branches(run), quantisers=quantisers)
    return slimming(distillation_task(run, slimmed, recipe, None), slimmed, recipe, usage=usage)


def train(run: Run) -> None:
    """Train to the budget; writes ``supernet.safetensors`` (the kept channels lead) and ``selected.json``, of a
    CycleGAN also ``back.safetensors`` and ``back.json``, with agents ``discriminator.safetensors`` and its ``.json``.
    """
    if run.path("selected.json").exists():
        return
    task, recipe, method = make_task(run), run.config.train, run.config.method

    def forms(model: nn.Module) -> dict[str, nn.Module]:
        assert isinstance(model, Sparse)
        return {"kept so far": run.calibrated(model.supernet.extract(task.selection(), model.tensors()).cpu())}

    watcher = Watcher(run, method, forms) if workers.rank() == 0 else None
    model = run_task(run, task, recipe, file="supernet.ckpt.safetensors", title=method, on_watch=watcher)
    assert isinstance(model, Sparse)
    run.supernet().to("cpu").requires_grad_(True)  # a hypernetwork froze its weights, in every process
    if workers.rank() != 0:
        return
    run.report.note(task.outcome())
    if isinstance(model, Slimmed) and model.quantisers is not None:
        save_activation_ranges(run.path("slimming.ranges.json"), model.quantisers)
    if isinstance(task, Agents):
        _save(run, task.judge, task.judge_selection(), "discriminator.safetensors", "discriminator.json")
    elif isinstance(task.task, Sparsifying):
        inner: Any = task.task.task
        run.report.note(task.task.outcome())
        _save(run, inner.back, task.task.selection(), "back.safetensors", "back.json")
    _save(run, model, task.selection(), "supernet.safetensors", "selected.json")


def _save(run: Run, model: Sparse, selection: Selection, weights: str, sizes: str) -> None:
    """The whole generator's weights, kept channels first, and how many are kept; the latter is written last."""
    supernet = model.supernet
    magnitudes = model.gates.magnitudes()
    full = supernet.extract(supernet.full_config(), model.tensors()).cpu()
    supernet.to("cpu").requires_grad_(True).generator.load_state_dict(full.state_dict())
    supernet.permute_(_orders(model, selection, magnitudes))
    save_tensors(run.path(weights), supernet.generator.state_dict(), {"stage": run.config.method})
    write_bytes(run.path(sizes), (selection.config.to_json() + "\n").encode())


def _orders(model: Sparse, selection: Selection, magnitudes: np.ndarray) -> dict[str, np.ndarray]:
    """For each width its kept units, strongest first, and then the others."""
    orders = {}
    for name, part in model.gates.places.by_width(magnitudes).items():
        chosen = np.zeros(len(part), bool)
        chosen[list(selection[name])] = True
        orders[name] = np.lexsort((-part, ~chosen))
    return orders


def select(run: Run) -> SubnetConfig:
    """Score what was kept and note it as the study's only subnet; writes ``subnet.json`` and ``front.csv``."""
    config = SubnetConfig.from_json(run.path("selected.json").read_text())
    searcher = make_search(run)
    variables = searcher.budget.space.variables
    indices = np.array([v.choices.index(config[v.name]) for v in variables])
    searcher.take(indices, run.config.method)
    write_bytes(run.path("front.csv"), table(searcher.study).to_csv(index=False).encode())
    best = best_config(searcher.study, searcher.budget, provenance=searcher.provenance)
    write_bytes(run.path("subnet.json"), (best.to_json() + "\n").encode())
    return best
