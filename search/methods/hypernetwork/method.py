"""CoroNet-GAN (ICCV workshops 2023): weights made by a hypernetwork whose latents are sparsified.

No teacher, no search. Of a CycleGAN both generators are compressed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from gantailor.search.methods.hypernetwork.task import LEAST, Hypernetwork, HypernetworkOptions, hypernetwork_task
from gantailor.search.methods.l1_sparsity import L1Sparsity
from gantailor.search.methods.method import Context, Method, Nets, Trained, beside_teacher
from gantailor.search.methods.single_channels import (
    EVERY_CHANNEL,
    check_budget,
    check_settings,
    free_widths,
    kept,
    kept_so_far,
)
from gantailor.supernet.errors import RunError
from gantailor.supernet.subnets.copying import copied
from gantailor.supernet.supernet import Supernet
from gantailor.supernet.training.task import Task
from gantailor.zoo.tasks.cyclegan import CycleGan

BACK = "BtoA"  # the partner that translates back


def _defaults(own: Mapping[str, Any]) -> Mapping[str, Any]:
    return {
        "teacher": "none",
        **EVERY_CHANNEL,
        "train": {"kimg": 24.0, "lr": 2e-4, "output_weight": 0.0, "feature_weight": 0.0, "ema_kimg": 0.0},
        "finetune": {"kimg": 24.0, "lr": 2e-4, "output_weight": 0.0, "feature_weight": 0.0},
    }


def _check(context: Context) -> None:
    check_settings(context, least=LEAST)
    context.config.train.options_of(HypernetworkOptions, method=True)
    check_budget(context, least=LEAST, free=free_widths(context))


def _task(context: Context) -> L1Sparsity:
    recipe, supernet, usage = context.config.train, context.supernet(), context.budget.usage
    free = free_widths(context)
    made = Hypernetwork(supernet, free, seed=recipe.seed)
    if recipe.task != "cyclegan":
        return hypernetwork_task(context.training(made, recipe), made, recipe, usage=usage)
    back = Hypernetwork(copied(supernet), free, seed=recipe.seed + 1)
    cycle = CycleGan(made, context.domains(), recipe, back=back, device=context.device)
    inner = hypernetwork_task(cycle, back, recipe, usage=usage, name="latents back")
    return hypernetwork_task(inner, made, recipe, usage=usage)


def _select(context: Context, task: L1Sparsity, model: nn.Module) -> Trained:
    assert isinstance(model, Hypernetwork)
    found, partners = kept(model, task.selection()), {}
    notes = [task.outcome(), task.learned()]
    if isinstance(task.task, L1Sparsity):
        cycle: Any = task.task.task
        notes += [task.task.outcome(), task.task.learned()]
        partners[BACK] = kept(cycle.back, task.task.selection())
    return Trained(
        weights=found.weights, config=found.config, orders=found.orders, partners=partners, notes=tuple(notes)
    )


def _partner(context: Context, name: str) -> Supernet:
    return context.supernet()


def _finetune(context: Context, narrow: nn.Module, partners: Nets) -> Task:
    config = context.config
    if config.finetune.task != "cyclegan":
        return beside_teacher(context, narrow, partners)
    if BACK not in partners:
        raise RunError(
            f"the run has no {BACK}.json and {BACK}.safetensors, its generator that translates back; earlier versions "
            "called them back.json and back.safetensors: rename these, or choose another --out"
        )
    return CycleGan(narrow, context.domains(), config.finetune, back=partners[BACK], device=context.device)


HYPERNETWORK = Method(
    name="hypernetwork",
    defaults=_defaults,
    options=HypernetworkOptions,
    searches=False,
    least=LEAST,
    check=_check,
    task=_task,
    watch=kept_so_far,
    select=_select,
    partners=(BACK,),
    partner=_partner,
    finetune=_finetune,
)
