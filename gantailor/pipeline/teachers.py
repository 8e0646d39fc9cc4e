"""Training a teacher: the task by ``train.task``, and what is left of it."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from gantailor.evaluators.metric import find_metric
from gantailor.evaluators.scores import Subset
from gantailor.evaluators.scoring import Scoring
from gantailor.pipeline.training import run_task
from gantailor.run.run import Run
from gantailor.supernet.errors import ConfigError
from gantailor.supernet.files import save_tensors, write_bytes
from gantailor.supernet.training import distributed as workers
from gantailor.supernet.training.image_to_image import Translation
from gantailor.supernet.training.trainer import Task
from gantailor.zoo.builders import build, init_weights, make_discriminator
from gantailor.zoo.data.latents import Latents
from gantailor.zoo.data.pairs import SPLITS, picture_grid, to_uint8
from gantailor.zoo.generators.munit.generator import MunitGenerator, read_munit
from gantailor.zoo.generators.stylegan2.generator import StyleGan2Generator
from gantailor.zoo.tasks.cyclegan import CycleGan
from gantailor.zoo.tasks.munit import Munit
from gantailor.zoo.tasks.stylegan2 import StyleGan2

WATCHED = 2000  # pictures that a StyleGAN2 in training is scored on


def teacher_task(run: Run) -> Task:
    """The training task of a teacher, by ``train.task``, with fresh weights.

    Raises:
        ConfigError: the task does not fit the generator.
    """
    config, recipe = run.config, run.config.train
    torch.manual_seed(recipe.seed)
    generator = build(config.generator, **config.options)
    if recipe.task == "cyclegan":
        return CycleGan(generator, run.domains(), recipe, device=config.device)
    if recipe.task == "munit":
        if not isinstance(generator, MunitGenerator):
            raise ConfigError(f"task 'munit' trains munit and mobile_munit, not {config.generator!r}")
        return Munit(generator, run.domains(), recipe, device=config.device)
    data = run.pictures("train")
    if recipe.task == "stylegan2":
        if not isinstance(generator, StyleGan2Generator):
            raise ConfigError(f"task 'stylegan2' trains stylegan2, not {config.generator!r}")
        pictures = data.inputs if data.targets is None else data.targets
        if pictures.shape[1] != generator.size:
            raise ConfigError(f"options.size is {generator.size}, data.size {config.data.size}; make them the same")
        return StyleGan2(generator, pictures, recipe, device=config.device)
    inputs, targets = data.batch(np.arange(1))
    if targets is None:
        raise ConfigError("a teacher of pairs needs real pictures; for unpaired ones: --train.preset teacher-cyclegan")
    discriminator = make_discriminator(recipe, input_nc=inputs.shape[1], output_nc=targets.shape[1])
    init_weights(generator)
    return Translation(generator, data, recipe, discriminator=discriminator, device=config.device)


def train_teacher(run: Run) -> Path:
    """Train a teacher; writes ``teacher.safetensors`` in half precision and returns its path.

    A CycleGAN leaves ``teacher_BtoA.safetensors`` as well; of MUNIT's two auto-encoders the translator from A to B is
    kept. A StyleGAN2 leaves ``teacher_discriminator.safetensors``, which retraining can go on with.
    """
    run.claim()
    task, recipe = teacher_task(run), run.config.train
    watcher = _latent_watcher(run, task) if isinstance(task, StyleGan2) and workers.rank() == 0 else None
    trained = run_task(run, task, recipe, file="teacher.ckpt.safetensors", title="teacher", on_watch=watcher)
    state = trained.state_dict()
    if isinstance(task, Munit):
        state = read_munit({"a": state, "b": task.other.state_dict()}, side="a2b")
    _save_teacher(run, "teacher.safetensors", state)
    if isinstance(task, CycleGan):
        _save_teacher(run, "teacher_BtoA.safetensors", task.back.state_dict())
    if isinstance(task, StyleGan2):
        _save_teacher(run, "teacher_discriminator.safetensors", task.discriminator.state_dict())
    run.release()
    return run.path("teacher.safetensors")


def _latent_watcher(run: Run, task: StyleGan2) -> Callable[[nn.Module, int], None]:
    """Every so often a sheet of pictures, and the scores against the training pictures: does it still improve?"""
    width = next(task.plain.style.parameters()).shape[1]
    data = Latents.of(run.pictures("train"), width, seed=SPLITS.index("search"), name="search")
    shown = Subset(data, WATCHED)
    names = [name for name in run.config.evaluation.final if find_metric(name).compares == "sets"]
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
