"""Once-for-all supernet and search (GAN Compression, Li et al. 2020, arXiv 2003.08936), and its training on a path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from gantailor.search.methods.method import Context, Method, Nets, Trained, all_widths, sampled_training, three_widths
from gantailor.search.methods.supernet.frontier import PathOptions
from gantailor.search.methods.supernet.path import (
    PathTask,
    along_path,
    check_path,
    path_nets,
    path_training,
)
from gantailor.supernet.errors import ConfigError
from gantailor.supernet.training.task import Task
from gantailor.zoo.generators.record import find_generator

# Who names one of these wants a search.
SEARCHES = {"strategy", "workers", "ray_address", "storage", "study", "tuning_kimg", "finalists"}
SMALLEST = 0.05  # share of the cost that a path goes down to where a whole front is asked for


def _on_path(context: Context) -> bool:
    return context.config.space.name == "path"


def _check(context: Context) -> None:
    if _on_path(context):
        check_path(context)
    elif context.config.train.method_options:
        raise ConfigError(
            "train.method_options of method 'supernet' are those of a path: set space path, or leave them out"
        )


def _task(context: Context) -> Task:
    return path_training(context) if _on_path(context) else sampled_training(context)


def _watch(context: Context, task: Any, model: nn.Module) -> Nets:
    return (path_nets if isinstance(task, PathTask) else three_widths)(context, task, model)


def _select(context: Context, task: Any, model: nn.Module) -> Trained:
    return (along_path if isinstance(task, PathTask) else all_widths)(context, task, model)


def _defaults(own: Mapping[str, Any]) -> Mapping[str, Any]:
    """A path, whose net is taken as it is, where a training is due and nothing asks for another space or sampling."""
    train, space, search = ({**(own.get(section) or {})} for section in ("train", "space", "search"))
    sampled = {"preset", "sampling", "subnets", "in_place_weight"} & set(train)
    if sampled or train.get("kimg") == 0 or own.get("supernet") or ">=" in str(own.get("budget", "")):
        return {"space": {"name": "default"}}
    if space.get("name", "path") != "path" or {"fractions", "ties"} & set(space):
        return {}
    found: dict[str, Any] = {"space": {"name": "path"}}
    options: dict[str, Any] = {}
    if _teacher_alone(own):
        found["ranking"], options["order"] = "taylor", "ranking"
    if search.get("front"):  # of every budget below the run's, that one may be the whole net
        options["smallest"] = SMALLEST
    elif not SEARCHES & set(search):  # around the path's net a search found no more than the seeds' spread
        found["search"] = {"trials": 0}
    if options:
        found["train"] = {"method_options": options}
    return found


def _teacher_alone(own: Mapping[str, Any]) -> bool:
    """Whether the training looks at nothing but the teacher's outputs, as super-resolution's does by default.

    The whole net then has no loss, so gradients say nothing about its channels when the first ones close: a ranking
    that asks how the outputs change was ahead of the measured order in every seed (``docs/results/realesrgan.md``).
    """
    usual = find_generator(str(own.get("generator", "resnet_6blocks"))).defaults(own).get("train", {})
    train = {**usual, **(own.get("train") or {})}
    named = "ranking" in own or "order" in (train.get("method_options") or {})
    return not named and train.get("gan") == "none" and train.get("target_weight") == 0


SUPERNET = Method(
    name="supernet", defaults=_defaults, options=PathOptions, check=_check, task=_task, watch=_watch, select=_select
)
