"""GAN Slimming (Wang et al. 2020, arXiv 2008.11062): scales, distillation and 8 bits trained together; no search."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from gantailor.search.methods.l1_sparsity import L1Sparsity
from gantailor.search.methods.method import Context, Method, Trained
from gantailor.search.methods.single_channels import (
    EVERY_CHANNEL,
    branches,
    check_budget,
    check_settings,
    free_widths,
    kept,
    kept_so_far,
)
from gantailor.search.methods.slimming.task import Slimmed, SlimmingOptions, prunable, slimming
from gantailor.supernet.quantization.activation_ranges import make_quantisers

LEAST = 1


def _defaults(own: Mapping[str, Any]) -> Mapping[str, Any]:
    return {
        **EVERY_CHANNEL,
        "train": {"kimg": 24.0, "bits": 8, "ema_kimg": 0.0},
        "finetune": {"bits": 8},
        "devices": ("onnxruntime-cpu", "onnxruntime-cpu-int8"),
    }


def _options(context: Context) -> SlimmingOptions:
    return context.config.train.options_of(SlimmingOptions, method=True)


def _check(context: Context) -> None:
    check_settings(context, least=LEAST, branches_may_go=True, cycle="no")
    free = prunable(context.space.supernet, free_widths(context), trunk=bool(_options(context).trunk))
    check_budget(context, least=LEAST, free=free, may_go=branches(context))


def _task(context: Context) -> L1Sparsity:
    supernet, recipe = context.supernet(), context.config.train
    quantisers = make_quantisers(supernet.generator, recipe)
    slimmed = Slimmed(
        supernet,
        free_widths(context),
        trunk=bool(_options(context).trunk),
        branches=branches(context),
        quantisers=quantisers,
    )
    return slimming(context.training(slimmed, recipe), slimmed, recipe, usage=context.budget.usage)


def _select(context: Context, task: L1Sparsity, model: nn.Module) -> Trained:
    assert isinstance(model, Slimmed)
    found = kept(model, task.selection())
    notes = (task.outcome(), task.learned())
    return Trained(weights=found.weights, config=found.config, quantisers=model.quantisers, notes=notes)


SLIMMING = Method(
    name="slimming",
    defaults=_defaults,
    options=SlimmingOptions,
    searches=False,
    least=LEAST,
    check=_check,
    task=_task,
    watch=kept_so_far,
    select=_select,
)
