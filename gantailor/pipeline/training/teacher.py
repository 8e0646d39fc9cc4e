"""Training a teacher from pictures alone: the task by ``train.task``, and what is left of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from gantailor.evaluators.metric import find_metric
from gantailor.evaluators.scores import Pairs, Subset, against_teacher, has_real
from gantailor.evaluators.scoring import EvaluatorCollection, Scoring
from gantailor.pipeline.shapes import AsTrained, check_batch, check_targets
from gantailor.pipeline.training.fit import fit, sheet
from gantailor.run.data import enough
from gantailor.run.run import Run
from gantailor.run.shapes import as_generator_has, output_of
from gantailor.supernet.device import HOST, computed, find_device, find_precision
from gantailor.supernet.errors import ConfigError, GantailorError
from gantailor.supernet.files import cut_rows, save_tensors, write_bytes
from gantailor.supernet.subnets.copying import copied
from gantailor.supernet.training import distributed
from gantailor.supernet.training.image_to_image import ImageToImage
from gantailor.supernet.traits import Traits, traits_of, with_signed_pictures
from gantailor.zoo.data.config import DataConfig
from gantailor.zoo.data.index import telling
from gantailor.zoo.data.pictures import picture_grid, to_rgb
from gantailor.zoo.data.read import read_split
from gantailor.zoo.generators.record import build
from gantailor.zoo.tasks.training import find_training

HALF_STEP = 2.0**-11  # relative rounding of a number that half precision holds
WATCHED = 2000  # pictures that it is scored on as it trains


def train_teacher(run: Run) -> Path:
    """Train a teacher; writes ``teacher.safetensors``, in half precision where it fits, and returns its path.

    What else a training leaves (the other generator of a CycleGAN, a StyleGAN2's discriminator) lies beside it.
    """
    config, recipe = run.config, run.config.train
    device = find_device(config.device)
    find_precision(recipe.precision, device)
    if recipe.lr == "auto":
        raise ConfigError("train.lr auto is judged by the search's score, which a teacher has not; give a number")
    training = find_training(recipe.task)
    torch.manual_seed(recipe.seed)
    generator = with_signed_pictures(build(config.generator, **config.options))
    traits = traits_of(generator)
    data = as_generator_has(config.data, generator, traits, name=config.generator)
    with telling(run.report.pictures("reading train")):
        task = training.teacher_task()(generator, data, recipe, device=device)
    if isinstance(task, ImageToImage):
        check_batch(recipe, len(task.data), "train")
        inputs, targets = AsTrained(task.data).batch(np.arange(1))
        made = output_of(copied(generator).to(HOST), inputs, f"generator {config.generator!r}")
        check_targets(inputs, targets, made, config.generator)
    if distributed.rank() == 0:  # for all of the processes under torchrun
        run.claim()
    distributed.wait()
    watcher = _watcher(run, data, traits) if recipe.watch_kimg and distributed.rank() == 0 else None
    checkpoint = run.folder.file("teacher.ckpt.safetensors")
    trained = fit(run, task, recipe, checkpoint=checkpoint, title="teacher", on_watch=watcher)
    weights = training.weights(task, trained)
    if distributed.rank() == 0:
        for name, state in weights.items():
            _save(run, f"{name}.safetensors", state)
    run.release()
    return run.folder.file(f"{next(iter(weights))}.safetensors")


def _watcher(run: Run, config: DataConfig, traits: Traits) -> Callable[[nn.Module, int], None]:
    """Every so often a sheet of pictures, and the scores on the search split: does it still improve?

    A generator from latents has none but its training pictures to be compared with.
    """
    with telling(run.report.pictures("reading search")):
        data = read_split(config, "search", traits)
    shown, evaluator = Subset(data, WATCHED), _watching(run, data, traits)

    def watch(model: nn.Module, step: int) -> None:
        model = copied(model).eval()
        write_bytes(run.folder.file("samples") / f"teacher-{step:07d}.png", _sheet(model, data, config, traits))
        row = {"step": step, **{name: score.value for name, score in evaluator(model, shown).items()}}
        cut_rows(run.folder.log_of("teacher"), step - 1)
        with run.folder.log_of("teacher").open("a") as file:
            file.write(json.dumps(row) + "\n")

    return watch


def _watching(run: Run, data: Pairs, traits: Traits) -> EvaluatorCollection:
    """Those of the final scores that such data have; none, which is told, where what they need is missing."""
    kinds = {"sets"} if data.batch(np.arange(1))[1] is None or traits.takes == "latents" else {"sets", "pictures"}
    names = [name for name in run.config.evaluation.final if find_metric(name).compares in kinds]
    if traits.takes == "latents" and len(data) < 100:  # too few neighbours for precision and recall
        names = ["fid"]
    wanted = [name for name in names if enough(find_metric(name), data) and not against_teacher(name)]
    scoring = Scoring(run.config.evaluation)
    try:
        return scoring.evaluator(wanted if has_real(data) else [])
    except GantailorError as error:
        run.report.note(f"teacher: it is shown as it trains, but not scored: {error}")
        return scoring.evaluator([])


def _sheet(model: nn.Module, data: Pairs, config: DataConfig, traits: Traits) -> bytes:
    """64 pictures from latents; of others a sheet as every training has."""
    if traits.takes != "latents":
        return sheet([model], data, config.background)
    drawn = to_rgb(computed(model, data.batch(np.arange(min(64, len(data))))[0]), config.background)
    return picture_grid([drawn[i::8] for i in range(8)])


def _save(run: Run, name: str, state: Mapping[str, Tensor]) -> None:
    config = run.config
    half = {key: _halved(tensor) for key, tensor in state.items()}
    info = {"generator": config.generator, "options": config.options, "recipe": config.train.model_dump()}
    save_tensors(run.folder.file(name), half, info)


def _halved(tensor: Tensor) -> Tensor:
    """In half precision where that holds it: nothing becomes infinite, and nothing that counts becomes zero."""
    if not tensor.is_floating_point():
        return tensor
    half = tensor.half()
    largest = tensor.abs().max() if tensor.numel() else tensor.new_zeros(())
    lost = (half.float() - tensor).abs().max() if tensor.numel() else largest
    return half if bool(torch.isfinite(half).all()) and bool(lost <= HALF_STEP * largest) else tensor
