"""Pruning agents in a run: what they need, the two networks, and the neighbourhoods of the teacher's outputs."""

from __future__ import annotations

import importlib.util
import io
from typing import Any

import numpy as np
import torch

from gantailor.pipeline.training import discriminator_supernet
from gantailor.run.run import Run
from gantailor.search.methods.agents.agents import Agents, AgentsOptions
from gantailor.search.methods.agents.neighbourhoods import neighbourhoods
from gantailor.search.methods.control import Usage, check_reachable
from gantailor.search.methods.gated import LEAST, Gated
from gantailor.supernet.errors import ConfigError
from gantailor.supernet.files import cache_folder, state_digest, write_bytes
from gantailor.supernet.gates import Gates
from gantailor.supernet.plugins import import_name
from gantailor.supernet.supernet import Supernet

BATCH = 32


def free_widths(run: Run) -> list[int]:
    """The widths that may lose channels, by number."""
    index = run.traced().graph.index
    return [index[variable.name] for variable in run.space().variables]


def check(run: Run, options: AgentsOptions) -> None:
    """That the run has what agents need.

    Raises:
        ConfigError: it has not.
        BudgetError: the discriminator cannot come down to its target.
    """
    recipe, trained = run.config.train, bool(run.config.discriminator)
    if not run.taught or recipe.gan == "none" or recipe.task == "cyclegan":
        raise ConfigError(
            "method 'agents' prunes a trained generator beside a discriminator: give a teacher, and a gan"
        )
    if not trained and not run.data("train").paired:
        raise ConfigError("without targets to train one on, agents need the teacher's discriminator: set discriminator")
    if not trained and recipe.steps <= round(options.discriminator_kimg * 1000 / recipe.batch):
        raise ConfigError(
            f"train.kimg {recipe.kimg} leaves nothing for the search after {options.discriminator_kimg} of the "
            "discriminator's training; raise it, or set discriminator, or lower train.method_options.discriminator_kimg"
        )
    same = ("discriminator", "ndf", "discriminator_layers", "conditional")
    if other := [name for name in same if getattr(recipe, name) != getattr(run.config.finetune, name)]:
        raise ConfigError(
            f"the pruned discriminator is fine-tuned: make {', '.join(other)} the same in train and finetune"
        )
    count = len(run.data("train"))
    if not 0 <= options.neighbours < count:
        raise ConfigError(
            f"train.method_options.neighbours cannot be {options.neighbours}: allowed are 1 to {count - 1} with {count}"
            " pictures, or 0 for global matching"
        )
    if options.neighbours and importlib.util.find_spec("sklearn") is None:
        raise ConfigError("neighbourhoods need scikit-learn; run: pip install 'gantailor[agents]'")
    judge = discriminator_supernet(run, recipe)
    check_reachable(Gates(judge.graph, least=LEAST), _usages(run, judge, options)[1], "discriminator")


def _usages(run: Run, judge: Supernet, options: AgentsOptions) -> tuple[Usage, Usage]:
    """Costs of generator and discriminator, each as a share of its budget."""
    usage, graph = run.budget().usage, run.traced().graph
    whole = float(usage(np.array([[width.size for width in graph.widths]]))[0])
    allowed = (options.discriminator_share or min(1.0, 1 / whole)) * judge.macs(judge.full_config())
    return usage, lambda sizes: judge.macs_many(sizes) / allowed


def make_task(run: Run) -> Agents:
    """The agents of the run's generator and of its discriminator."""
    recipe, supernet = run.config.train, run.supernet()
    options = recipe.options_of(AgentsOptions, method=True)
    judge = discriminator_supernet(run, recipe)
    counts = [sum(width.size for width in net.graph.widths) for net in (supernet, judge)]
    return Agents(
        Gated(supernet, free_widths(run), peer=counts[1], seed=recipe.seed),
        Gated(judge, peer=counts[0], seed=recipe.seed + 1),
        run.data("train"),
        recipe,
        teacher=run.teacher(),
        near=neighbourhoods(_features(run), options.neighbours) if options.neighbours else None,
        usage=_usages(run, judge, options),
        trained=bool(run.config.discriminator),
        device=run.config.device,
    )


@torch.no_grad()
def _features(run: Run) -> np.ndarray:
    """Embedded teacher outputs over the training inputs ``[N, d]``; the extractor's are kept in the cache."""
    data, teacher, name = run.data("train"), run.teacher(), run.config.embedding
    if name is not None:
        return _embedded(run, import_name(name, "embedding"))
    extractor = run.scoring().extractor()
    what = f"{data.digest()}|{extractor.weights_hash}|{extractor.resize}"
    file = cache_folder() / f"embedded-{state_digest(teacher, what)[:16]}.npy"
    if not file.exists():
        buffer = io.BytesIO()
        np.save(buffer, _embedded(run, extractor))
        write_bytes(file, buffer.getvalue())
    return np.load(file)


def _embedded(run: Run, embed: Any) -> np.ndarray:
    data, rows, where = run.data("train"), [], run.config.device
    teacher = run.teacher().to(where)
    listener = run.report.pictures("neighbourhoods")
    for chosen in np.array_split(np.arange(len(data)), -(-len(data) // BATCH)):
        inputs, _ = data.batch(chosen)
        rows.append(torch.as_tensor(embed(teacher(inputs.to(where)).cpu())).float().flatten(1).cpu().numpy())
        listener(int(chosen[-1]) + 1, len(data))
    teacher.to("cpu")
    return np.concatenate(rows)
