"""The training stages of a run: the supernet, and fine-tuning of the subnet."""

from __future__ import annotations

import copy
import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gantailor.pipeline.scoring import Subset
from gantailor.run.run import Run, load_supernet
from gantailor.supernet.errors import ConfigError
from gantailor.supernet.files import load_tensors, save_tensors, write_bytes
from gantailor.supernet.graph import SubnetConfig
from gantailor.supernet.quantization.activation_ranges import (
    make_quantisers,
    save_activation_ranges,
    set_activation_ranges,
)
from gantailor.supernet.quantization.quantisers import Quantised
from gantailor.supernet.supernet import Supernet
from gantailor.supernet.training import distributed as workers
from gantailor.supernet.training.image_to_image import Sampler, Translation
from gantailor.supernet.training.recipe import Recipe
from gantailor.supernet.training.sampling import draw_choices
from gantailor.supernet.training.trainer import Task, Trainer
from gantailor.zoo.builders import build_function, make_discriminator
from gantailor.zoo.checkpoints import load_state, read_state
from gantailor.zoo.data.latents import Latents
from gantailor.zoo.data.pairs import cache_folder, is_picture, picture_grid, to_uint8
from gantailor.zoo.discriminators.stylegan2 import StyleGan2Discriminator
from gantailor.zoo.generators.stylegan2.generator import StyleGan2Generator, generator_widths
from gantailor.zoo.tasks.cyclegan import CycleGan
from gantailor.zoo.tasks.stylegan2 import StyleGan2

Forms = Callable[[nn.Module], dict[str, nn.Module]]


def fit(
    run: Run,
    model: nn.Module,
    recipe: Recipe,
    *,
    file: str,
    title: str,
    sample: Sampler | None = None,
    on_watch: Callable[[nn.Module, int], None] | None = None,
) -> nn.Module:
    """Train a supernet or a plain net with the run's data, teacher and progress; ``file`` is its checkpoint."""
    task = distillation_task(run, model, recipe, sample)
    return run_task(run, task, recipe, file=file, title=title, on_watch=on_watch)


def run_task(
    run: Run,
    task: Task,
    recipe: Recipe,
    *,
    file: str,
    title: str,
    on_watch: Callable[[nn.Module, int], None] | None = None,
) -> nn.Module:
    """Train a task with the run's progress; ``file`` is its checkpoint. The trained generator."""
    started = time.monotonic()
    with run.report.training(title, run.path("tensorboard") if run.config.tensorboard else None) as listener:
        trained = Trainer(task, recipe).run(run.path(file), on_progress=listener, on_watch=on_watch)
    if workers.rank() == 0:
        spent = time.monotonic() - started
        run.report.note(f"{title}: {spent / 60:.1f} minutes, at most {peak_memory(run.config.device) / 2**30:.2f} GiB")
    return trained


def peak_memory(device: str) -> int:
    """The most memory so far, in bytes: of the device, or of this process on a CPU."""
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else 1024 * used


def distillation_task(run: Run, model: nn.Module, recipe: Recipe, sample: Sampler | None) -> Task:
    """Training of a supernet or a narrow generator beside its teacher, by what the generator takes.

    Raises:
        ConfigError: a generator from latents that is no StyleGAN2.
    """
    data, teacher = run.data("train"), run.teacher()
    discriminator: nn.Module | None
    common: dict[str, Any] = {
        "teacher": teacher if run.taught and (recipe.distils or not data.paired) else None,
        "sample": sample,
        "perceptual": run.scoring().lpips().to(run.config.device) if recipe.perceptual_weight else None,
        "device": run.config.device,
    }
    if isinstance(data, Latents):
        if not isinstance(teacher, StyleGan2Generator):
            raise ConfigError(
                f"generators from latents are trained if they are a stylegan2, not {run.config.generator!r}"
            )
        discriminator = None
        if run.config.discriminator:
            discriminator = StyleGan2Discriminator(size=teacher.size, channels=generator_widths(teacher))
        region = build_function(run.config.region, "region") if run.config.region else None
        return StyleGan2(
            model, data.pictures, recipe, discriminator=_continued(run, discriminator), region=region, **common
        )
    narrow = narrow_discriminator(run)
    return Translation(
        model,
        data,
        recipe,
        discriminator=narrow if narrow is not None else _whole_discriminator(run, recipe)[0],
        feature_layers=run.feature_layers(),
        cache_folder=cache_folder(),
        **common,
    )


def discriminator_supernet(run: Run, recipe: Recipe) -> Supernet:
    """The traced discriminator of a recipe, with the configured weights if there are any.

    Raises:
        ConfigError: it cannot be narrowed.
    """
    plain, seen = _whole_discriminator(run, recipe)
    assert plain is not None, "checked before: agents need a gan"
    found = Supernet(plain, (seen,))
    if not found.graph.widths:  # every layer of a multiscale one is compared, so every layer is an output
        raise ConfigError(f"discriminator {recipe.discriminator!r} cannot be pruned; agents work beside patch")
    return found


@torch.no_grad()
def _whole_discriminator(run: Run, recipe: Recipe) -> tuple[nn.Module | None, Tensor]:
    """The recipe's discriminator, with the configured weights if there are any, and an example of what it sees."""
    inputs, targets = run.data("train").batch(np.arange(1))
    outputs = targets if targets is not None else run.teacher()(inputs)
    fresh = make_discriminator(recipe, input_nc=inputs.shape[1], output_nc=outputs.shape[1])
    return _continued(run, fresh), torch.cat([inputs, outputs], 1) if recipe.conditional else outputs


def narrow_discriminator(run: Run) -> nn.Module | None:
    """The discriminator that was pruned beside the generator; None where there was none."""
    if not run.path("discriminator.json").exists():
        return None
    full = discriminator_supernet(run, run.config.train)
    load_supernet(full, run.path("discriminator.safetensors"))
    return full.extract(SubnetConfig.from_json(run.path("discriminator.json").read_text()))


def _continued(run: Run, discriminator: nn.Module | None) -> nn.Module | None:
    """The discriminator with the configured weights, if there are any."""
    if discriminator is not None and run.config.discriminator:
        load_state(discriminator, read_state(Path(run.config.discriminator)), run.config.discriminator)
    return discriminator


class Watcher:
    """Looks at a training as it goes: pictures, and the search's score on the search split; keeps the best weights.

    Writes ``samples/<name>-<step>.png`` and a line of ``<name>.watch.jsonl`` each time.

    Args:
        forms: the nets to look at, by name, from the model in training.
        best: file for the weights of the best score so far; none are kept without it.
    """

    def __init__(self, run: Run, name: str, forms: Forms, *, best: str | None = None) -> None:
        self.run, self.name, self.forms, self.best = run, name, forms, best
        self.pairs = Subset(run.data("search"), run.config.evaluation.search_images)
        self.evaluator = run.scoring().evaluator([run.search_metric()])
        self.log = run.path(f"{name}.watch.jsonl")

    def rows(self) -> list[dict[str, float]]:
        """What was written so far, the runs before an interruption included."""
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []

    def __call__(self, model: nn.Module, step: int) -> None:
        forms = {name: copy.deepcopy(form).to("cpu") for name, form in self.forms(model).items()}
        self._draw(forms, step)
        row: dict[str, float] = {"step": step}
        for name, form in forms.items():
            score = next(iter(self.evaluator(form, self.pairs).values()))
            row[name] = score.value
        (main,) = list(row)[1:2]
        sign = 1 if score.lower_is_better else -1
        known = [sign * earlier[main] for earlier in self.rows() if earlier["step"] < step]
        if self.best is not None and (not known or sign * row[main] < min(known)):
            save_tensors(self.run.path(self.best), forms[main].state_dict(), {"stage": self.name, "step": step})
        with self.log.open("a") as file:
            file.write(json.dumps(row) + "\n")

    @torch.no_grad()
    def _draw(self, forms: dict[str, nn.Module], step: int) -> None:
        chosen = np.linspace(0, len(self.pairs) - 1, min(6, len(self.pairs))).astype(int)
        inputs, targets = self.pairs.batch(chosen)
        taught = self.run.teacher()(inputs) if self.run.taught else None
        columns = [inputs, taught, *(form.eval()(inputs) for form in forms.values()), targets]
        drawn = [to_uint8(images) for images in columns if is_picture(images)]
        write_bytes(self.run.path("samples") / f"{self.name}-{step:07d}.png", picture_grid(drawn))


def train(run: Run) -> None:
    """Train the supernet with distillation; writes ``supernet.safetensors``."""
    if run.path("supernet.safetensors").exists():
        return
    recipe, supernet, variables = run.config.train, run.supernet(), run.space()
    if run.config.supernet:
        load_supernet(supernet, Path(run.config.supernet))
    if not recipe.kimg:
        save_tensors(run.path("supernet.safetensors"), supernet.generator.state_dict(), {"stage": "untrained"})
        return
    counts = [len(variable.choices) for variable in variables.variables]

    def sample(rng: np.random.Generator, step: int, position: int) -> SubnetConfig:
        return variables.to_config(draw_choices(recipe, counts, rng, step, position))

    def forms(model: nn.Module) -> dict[str, nn.Module]:
        assert isinstance(model, Supernet)
        middle = (variables.smallest + variables.largest) // 2
        chosen = {"smallest": variables.smallest, "middle": middle, "largest": variables.largest}
        return {name: run.calibrated(model.extract(variables.to_config(c))) for name, c in chosen.items()}

    watcher = Watcher(run, "supernet", forms) if workers.rank() == 0 else None
    file = "supernet.ckpt.safetensors"
    trained = fit(run, supernet, recipe, file=file, title="supernet", sample=sample, on_watch=watcher)
    assert isinstance(trained, Supernet)
    supernet.to("cpu")
    if workers.rank() == 0:
        save_tensors(run.path("supernet.safetensors"), trained.generator.state_dict(), {"stage": "supernet"})


def finetune(run: Run) -> None:
    """Fine-tune the extracted subnet; writes ``subnet.safetensors`` (the best by the search's score) and, where that
    is another, ``subnet.last.safetensors``.
    """
    if run.path("subnet.safetensors").exists():
        return
    _, narrow = run.subnet()
    recipe = run.config.finetune
    quantisers, trained = make_quantisers(narrow, recipe), narrow
    if quantisers is not None:  # the forward rounds, what is stored are the plain weights, and beside them the ranges
        set_activation_ranges(quantisers, run.path("slimming.ranges.json"))
        trained = Quantised(narrow, quantisers)
    best = "subnet.best.safetensors"
    watcher = Watcher(run, "finetune", lambda model: {"subnet": model}, best=best) if workers.rank() == 0 else None
    back = narrow_back(run)
    if back is None:
        task = distillation_task(run, trained, recipe, None)
    else:
        task = CycleGan(trained, run.domains(), recipe, back=back, device=run.config.device)
    file = "subnet.ckpt.safetensors"
    tuned = run_task(run, task, recipe, file=file, title="fine-tune", on_watch=watcher)
    if watcher is None:
        return
    if back is not None:
        save_tensors(run.path("subnet_BtoA.safetensors"), back.state_dict(), {"stage": "finetune"})
    step = recipe.steps
    if run.path(best).exists() and watcher.rows():
        state, info = load_tensors(run.path(best))
        if info["step"] != max(int(row["step"]) for row in watcher.rows()):
            last = {"stage": "finetune", "step": step}
            save_tensors(run.path("subnet.last.safetensors"), _plain(tuned).state_dict(), last)
        tuned.load_state_dict(state)
        step = info["step"]
    if isinstance(tuned, Quantised):
        save_activation_ranges(run.path("subnet.ranges.json"), tuned.quantisers)
    save_tensors(run.path("subnet.safetensors"), _plain(tuned).state_dict(), {"stage": "finetune", "step": step})


def narrow_back(run: Run) -> nn.Module | None:
    """The other generator of a CycleGAN that was compressed with this one; None where there was none."""
    if not run.path("back.json").exists():
        return None
    full = Supernet(run.teacher().requires_grad_(True), run.supernet().example_inputs)
    load_supernet(full, run.path("back.safetensors"))
    return full.extract(SubnetConfig.from_json(run.path("back.json").read_text()))


def _plain(model: nn.Module) -> nn.Module:
    return model.generator if isinstance(model, Quantised) else model
