"""Pruning agents (after Ganjdanesh et al., AAAI 2024).

They open and close channels of the generator and of its discriminator, which are fine-tuned together; no search.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from gantailor.search.methods.agents.batches import Manifold
from gantailor.search.methods.agents.neighbourhoods import centred, nearest, neighbourhoods
from gantailor.search.methods.agents.task import Agents, AgentsOptions
from gantailor.search.methods.control import Usage, check_reachable
from gantailor.search.methods.gated import LEAST, Gated
from gantailor.search.methods.method import DISCRIMINATOR, Context, Method, Nets, Trained
from gantailor.search.methods.single_channels import (
    EVERY_CHANNEL,
    check_budget,
    check_settings,
    free_widths,
    kept,
    kept_so_far,
)
from gantailor.supernet.errors import ConfigError, DataError
from gantailor.supernet.gates import Gates
from gantailor.supernet.subnets.copying import copied
from gantailor.supernet.supernet import Supernet
from gantailor.supernet.training.task import Task
from gantailor.zoo.initialisation import init_weights
from gantailor.zoo.tasks.cyclegan import CycleGan


def _defaults(own: Mapping[str, Any]) -> Mapping[str, Any]:
    untaught = {"output_weight": 0.0, "feature_weight": 0.0}
    data = own.get("data")
    data = data if isinstance(data, Mapping) else {}
    without_targets = data.get("direction") == "unpaired" or data.get("kind") == "domains"  # the teacher's outputs are
    return {
        **EVERY_CHANNEL,
        "train": {"kimg": 8.0, **untaught, "ema_kimg": 0.0, "decay_from": 0.8},
        "finetune": {} if without_targets else untaught,
    }


def _options(context: Context) -> AgentsOptions:
    return context.config.train.options_of(AgentsOptions, method=True)


def _check(context: Context) -> None:
    check_settings(context, least=LEAST, cycle="finetune")
    options = _options(context)
    _check_discriminator(context, options)
    _check_neighbours(context, options)
    judge = context.discriminator()
    check_reachable(Gates(judge.graph, least=LEAST), _usages(context, judge, options)[1], "discriminator")
    check_budget(context, least=LEAST, free=free_widths(context))


def _check_discriminator(context: Context, options: AgentsOptions) -> None:
    """That there is one, trained or to be trained, and the same in both trainings."""
    config, recipe = context.config, context.config.train
    trained = bool(config.discriminator)
    if not context.taught or recipe.gan == "none":
        raise ConfigError(
            "method 'agents' prunes a trained generator beside a discriminator: give a teacher, and a gan"
        )
    if config.finetune.task == "cyclegan":
        context.domains()
    unseen = None if trained or context.data().paired else _domain_b(context)
    if not trained and not context.data().paired and (unseen is None or recipe.conditional):
        raise ConfigError(
            "without targets to train one on, agents need the teacher's discriminator: set discriminator; or, with "
            "data.kind domains, train.conditional and finetune.conditional to false, to train one on pictures of B"
        )
    if not trained and recipe.steps <= round(options.discriminator_kimg * 1000 / recipe.batch):
        raise ConfigError(
            f"train.kimg {recipe.kimg} leaves nothing for the search after {options.discriminator_kimg} of the "
            "discriminator's training; raise it, or set discriminator, or lower train.method_options.discriminator_kimg"
        )
    if other := recipe.unlike_discriminators(config.finetune):
        raise ConfigError(
            f"the pruned discriminator is fine-tuned: make {', '.join(other)} the same in train and finetune"
        )


def _check_neighbours(context: Context, options: AgentsOptions) -> None:
    count = len(context.data())
    if not 0 <= options.neighbours < count:
        raise ConfigError(
            f"train.method_options.neighbours cannot be {options.neighbours}: allowed are 1 to {count - 1} with {count}"
            " pictures, or 0 for global matching"
        )


def _usages(context: Context, judge: Supernet, options: AgentsOptions) -> tuple[Usage, Usage]:
    """Costs of generator and discriminator, each as a share of its budget."""
    usage, graph = context.budget.usage, context.space.supernet.graph
    whole = float(usage(np.array([[width.size for width in graph.widths]]))[0])
    allowed = (options.discriminator_share or min(1.0, 1 / whole)) * judge.macs(judge.full_config())
    return usage, lambda sizes: judge.macs_many(sizes) / allowed


def _domain_b(context: Context) -> Any:
    """Pictures of the domain that unpaired ones are translated to; None where the data has none."""
    if context.data().paired:
        return None
    try:
        return context.domains().b
    except DataError:
        return None


def _manifold(context: Context, options: AgentsOptions) -> Manifold | None:
    """The neighbourhoods of the teacher's pictures, and of real ones where they belong to no input."""
    recipe, real = context.config.train, _domain_b(context)
    if not options.neighbours:  # each picture alone, beside any real one where none belongs to it
        return None if real is None else Manifold(np.arange(len(context.data()))[:, None], real=real)
    features = context.embeddings()
    near = neighbourhoods(features, options.neighbours)
    real_near = None if real is None else nearest(features, context.embeddings(real), options.neighbours + 1)
    return Manifold(near, None if recipe.conditional else centred(features), real, real_near)


def _task(context: Context) -> Agents:
    """The agents of the run's generator and of its discriminator."""
    recipe, supernet, options = context.config.train, context.supernet(), _options(context)
    judge = context.discriminator()
    counts = [sum(width.size for width in net.graph.widths) for net in (supernet, judge)]
    return Agents(
        Gated(supernet, free_widths(context), peer=counts[1], seed=recipe.seed),
        Gated(judge, peer=counts[0], seed=recipe.seed + 1),
        context.data(),
        recipe,
        teacher=context.teacher(),
        near=_manifold(context, options),
        usage=_usages(context, judge, options),
        trained=bool(context.config.discriminator),
        device=context.device,
    )


def _select(context: Context, task: Agents, model: nn.Module) -> Trained:
    assert isinstance(model, Gated)
    found = kept(model, task.selection())
    partners = {DISCRIMINATOR: kept(task.judge, task.judge_selection())}
    return Trained(
        weights=found.weights, config=found.config, partners=partners, notes=(task.outcome(), task.learned())
    )


def _partner(context: Context, name: str) -> Supernet:
    return context.discriminator()


def _finetune(context: Context, narrow: nn.Module, partners: Nets) -> Task:
    config, judge = context.config, partners.get(DISCRIMINATOR)
    if config.finetune.task != "cyclegan":
        return context.training(narrow, config.finetune, discriminator=judge)
    back = copied(context.teacher()).requires_grad_(True)
    if (found := context.left_by_teacher("BtoA")) is None:
        torch.manual_seed(config.finetune.seed)
        init_weights(back)
    else:
        back.load_state_dict(dict(found))
    cycle = CycleGan(narrow, context.domains(), config.finetune, back=back, judge_b=judge, device=context.device)
    if (found := context.left_by_teacher("discriminator_A")) is not None:
        cycle.judges["a"].load_state_dict(dict(found))
    return cycle


AGENTS = Method(
    name="agents",
    narrows=True,
    defaults=_defaults,
    options=AgentsOptions,
    searches=False,
    least=LEAST,
    check=_check,
    task=_task,
    watch=kept_so_far,
    select=_select,
    partners=(DISCRIMINATOR,),
    partner=_partner,
    finetune=_finetune,
)
