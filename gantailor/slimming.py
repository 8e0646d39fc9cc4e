"""The stages of a run by GAN Slimming: training scales (and 8 bits) to a budget, and what comes out of them."""

from __future__ import annotations

import numpy as np
from torch import nn

from gantailor.ranges import make_quantisers, save_ranges
from gantailor.run import Run
from gantailor.searching import make_search
from gantailor.training import Watcher, distillation_task, run_task
from search.methods.slimming import Slimmed, SlimmingOptions, slimming
from search.methods.sparsify import Sparsifying
from search.study import best_config, table
from supernet import workers
from supernet.files import save_tensors, write_bytes
from supernet.graph import Selection, SubnetConfig


def train(run: Run) -> None:
    """Train the scaled generator to the budget; writes ``supernet.safetensors`` (the kept channels lead) and
    ``selected.json``.
    """
    if run.path("selected.json").exists():
        return
    recipe, supernet, budget = run.config.train, run.supernet(), run.budget()
    options = recipe.options_of(SlimmingOptions)
    slimmed = Slimmed(supernet, trunk=bool(options.trunk), quantisers=make_quantisers(supernet.generator, recipe))
    task = slimming(distillation_task(run, slimmed, recipe, None), slimmed, recipe, usage=budget.usage)

    def forms(model: nn.Module) -> dict[str, nn.Module]:
        assert isinstance(model, Slimmed)
        return {"kept so far": run.calibrated(_extracted(model, task))}

    watcher = Watcher(run, "slimming", forms) if workers.rank() == 0 else None
    trained = run_task(run, task, recipe, file="supernet.ckpt.safetensors", title="slimming", on_watch=watcher)
    assert isinstance(trained, Slimmed)
    if workers.rank() != 0:
        return
    selection, magnitudes = task.selection(), trained.gates.values.detach().abs().double().cpu().numpy()
    supernet.generator.load_state_dict(trained.folded().cpu().state_dict())
    supernet.to("cpu").permute_(_orders(trained, selection, magnitudes))
    save_tensors(run.path("supernet.safetensors"), supernet.generator.state_dict(), {"stage": "slimming"})
    if trained.quantisers is not None:
        save_ranges(run.path("slimming.ranges.json"), trained.quantisers)
    write_bytes(run.path("selected.json"), (selection.config.to_json() + "\n").encode())


def _extracted(model: Slimmed, task: Sparsifying) -> nn.Module:
    """The narrow generator of the channels kept at this moment, on the CPU."""
    selection = task.selection()
    whole = model.supernet.generator.state_dict()
    before = {name: tensor.clone() for name, tensor in whole.items()}
    try:
        model.supernet.generator.load_state_dict(model.folded().state_dict())
        return model.supernet.extract(selection).cpu()
    finally:
        model.supernet.generator.load_state_dict(before)


def _orders(model: Slimmed, selection: Selection, magnitudes: np.ndarray) -> dict[str, np.ndarray]:
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
    searcher.take(indices, "slimming")
    write_bytes(run.path("front.csv"), table(searcher.study).to_csv(index=False).encode())
    best = best_config(searcher.study, searcher.budget, provenance=searcher.provenance)
    write_bytes(run.path("subnet.json"), (best.to_json() + "\n").encode())
    return best
