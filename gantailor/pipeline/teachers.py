"""Training a teacher: the task by ``train.task``, and what is left of it."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from gantailor.pipeline.scoring import FAMILIES, Scoring, Subset
from gantailor.pipeline.training import run_task
from gantailor.run.run import Run
from gantailor.supernet.files import save_tensors, write_bytes
from gantailor.supernet.training import distributed as workers
from gantailor.supernet.training.trainer import Task
from gantailor.supernet.traits import traits_of
from gantailor.zoo.data.pictures import picture_grid, to_uint8
from gantailor.zoo.data.read import read_split
from gantailor.zoo.generators.record import build
from gantailor.zoo.tasks.training import find_training

WATCHED = 2000  # pictures that a StyleGAN2 in training is scored on


def teacher_task(run: Run) -> Task:
    """The training task of a teacher, by ``train.task``, with fresh weights.

    Raises:
        ConfigError: the task does not fit the generator.
    """
    config, recipe = run.config, run.config.train
    torch.manual_seed(recipe.seed)
    generator = build(config.generator, **config.options)
    return find_training(recipe.task).teacher_task()(generator, config.data, recipe, device=config.device)


def train_teacher(run: Run) -> Path:
    """Train a teacher; writes ``teacher.safetensors`` in half precision and returns its path.

    A CycleGAN leaves ``teacher_BtoA.safetensors`` as well; of MUNIT's two auto-encoders the translator from A to B is
    kept. A StyleGAN2 leaves ``teacher_discriminator.safetensors``, which retraining can go on with.
    """
    run.claim()
    task, recipe = teacher_task(run), run.config.train
    watcher = _latent_watcher(run, task) if _from_latents(task) and workers.rank() == 0 else None
    trained = run_task(run, task, recipe, file="teacher.ckpt.safetensors", title="teacher", on_watch=watcher)
    for name, state in find_training(recipe.task).weights(task, trained).items():
        _save_teacher(run, f"{name}.safetensors", state)
    run.release()
    return run.path("teacher.safetensors")


def _from_latents(task: Task) -> bool:
    return traits_of(task.generator).takes == "latents"


def _latent_watcher(run: Run, task: Task) -> Callable[[nn.Module, int], None]:
    """Every so often a sheet of pictures, and the scores against the training pictures: does it still improve?"""
    data = read_split(run.config.data, "search", traits_of(task.generator))
    shown = Subset(data, WATCHED)
    names = [name for name in run.config.evaluation.final if FAMILIES.get(name) == "distribution"]
    evaluator = Scoring(run.config.evaluation).evaluator(names if len(data) >= 100 else ["fid"])  # too few neighbours

    def watch(model: nn.Module, step: int) -> None:
        model = copy.deepcopy(model).to("cpu").eval()
        with torch.no_grad():
            drawn = to_uint8(model(data.batch(np.arange(min(64, len(data))))[0]))
        write_bytes(run.path("samples") / f"teacher-{step:07d}.png", picture_grid([drawn[i::8] for i in range(8)]))
        row = {"step": step, **{name: score.value for name, score in evaluator(model, shown).items()}}
        with run.path("teacher.watch.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")

    return watch


def _save_teacher(run: Run, name: str, state: Mapping[str, Tensor]) -> None:
    config = run.config
    half = {key: tensor.half() if tensor.is_floating_point() else tensor for key, tensor in state.items()}
    info = {"generator": config.generator, "options": config.options, "recipe": config.train.model_dump()}
    save_tensors(run.path(name), half, info)
