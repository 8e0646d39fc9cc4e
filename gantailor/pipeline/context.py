"""What a run offers its method (``search.methods.method.Context``)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gantailor.evaluators.scoring import Scoring
from gantailor.pipeline.shapes import check_discriminator, continued
from gantailor.run.config import Config
from gantailor.run.run import Run, with_file
from gantailor.search.budget import Budget
from gantailor.search.spaces.space import Space
from gantailor.supernet.calling import each, forward
from gantailor.supernet.errors import ConfigError
from gantailor.supernet.files import cache_folder, state_digest, write_array
from gantailor.supernet.plugins import own_function
from gantailor.supernet.subnets.copying import copied
from gantailor.supernet.supernet import Supernet
from gantailor.supernet.training.image_to_image import Sampler
from gantailor.supernet.training.recipe import Recipe
from gantailor.supernet.training.task import Task
from gantailor.zoo.checkpoints import read_state
from gantailor.zoo.data.pictures import to_float
from gantailor.zoo.generators.record import find_generator
from gantailor.zoo.tasks.training import StudentContext

BATCH = 32


class RunContext:
    """A run as its method sees it; ``setup`` stays as it is, what the method may change are copies."""

    def __init__(self, run: Run) -> None:
        self.run, self.setup, self.device = run, run.setup, run.setup.device

    @property
    def config(self) -> Config:
        """The run's settings."""
        return self.run.config

    @property
    def taught(self) -> bool:
        """Whether there is a trained teacher."""
        return self.setup.taught

    @property
    def space(self) -> Space:
        """The widths that may be chosen."""
        return self.setup.space

    @property
    def budget(self) -> Budget:
        """What the result may cost."""
        return self.setup.budget

    def supernet(self) -> Supernet:
        """A copy in the order of the ranking, with the weights that the run starts from."""
        if self.config.supernet:
            return with_file(self.setup.supernet, self.config.supernet)
        return copied(self.setup.supernet)

    def scores(self) -> Mapping[str, np.ndarray]:
        """Of each width's channels by the run's ranking, as they lie in ``supernet()``."""
        return {name: -np.sort(-np.asarray(values)) for name, values in self.setup.scores.items()}

    def teacher(self) -> nn.Module:
        """A frozen copy of the teacher."""
        return copied(self.setup.teacher)

    def data(self, split: str = "train") -> Any:
        """A data set: ``train``, ``search`` or ``test``."""
        return self.setup.data(split)

    def domains(self) -> Any:
        """Two sets of unpaired pictures."""
        return self.setup.domains()

    def calibrated(self, narrow: nn.Module) -> nn.Module:
        """An extracted subnet with batch norm statistics of its own; in eval mode."""
        return self.setup.calibrated(narrow)

    def discriminator(self) -> Supernet:
        """The traced discriminator of ``config.train``, with the configured weights if there are any.

        Raises:
            ConfigError: it cannot be narrowed.
        """
        recipe, whole = self.config.train, self.setup.generator
        check_discriminator(self.run, "train", recipe)
        training = find_generator(self.config.generator).training(whole)
        plain, seen = training.discriminator_of(whole, self.data("train"), recipe)
        assert plain is not None, "checked before: it needs a gan"
        found = Supernet(continued(plain, self.config.discriminator), (seen,))
        if not found.graph.widths:  # every layer of a multiscale one is compared, so every layer is an output
            raise ConfigError(f"discriminator {recipe.discriminator!r} cannot be pruned; agents work beside patch")
        return found

    def training(
        self,
        model: nn.Module,
        recipe: Recipe,
        *,
        sample: Sampler | None = None,
        discriminator: nn.Module | None = None,
    ) -> Task:
        """The generator's own training by a recipe, beside the teacher where there is one."""
        setup, config, data = self.setup, self.config, self.data("train")
        distils = setup.taught and (recipe.distils or not data.paired)
        training = find_generator(config.generator).training(setup.generator)
        if discriminator is None and config.discriminator:
            fresh = training.discriminator_of(setup.generator, data, recipe)[0]
            discriminator = None if fresh is None else continued(fresh, config.discriminator)
        beside = StudentContext(
            whole=setup.generator,
            teacher=self.teacher() if distils else None,
            layers=setup.layers,
            discriminator=discriminator,
            sample=sample,
            perceptual=_perceptual(setup.scoring, recipe, self.device),
            region=own_function(config.region, "region") if config.region else None,
            cache_folder=cache_folder() if recipe.teacher_cache == "disk" else None,
            device=self.device,
        )
        return training.student_task()(model, data, recipe, beside)

    @torch.no_grad()
    def embeddings(self, pictures: Any = None) -> np.ndarray:
        """Features ``[N, d]`` of the teacher's outputs over the training inputs, or of these uint8 pictures.

        Those of outputs by the extractor are cached.
        """
        data, teacher, name = self.data("train"), self.setup.teacher, self.config.embedding
        if name is not None:
            return _embedded(self, own_function(name, "embedding"), pictures)
        extractor = self.setup.scoring.extractor()
        if pictures is not None:
            return _embedded(self, extractor, pictures)
        what = f"{data.digest()}|{extractor.weights_hash}|{extractor.resize}"
        file = cache_folder() / f"embedded-{state_digest(teacher, what)[:16]}.npy"
        if not file.exists():
            write_array(file, _embedded(self, extractor))
        found: np.ndarray = np.load(file)
        return found

    def left_by_teacher(self, what: str) -> Mapping[str, Tensor] | None:
        """Weights in a file beside the teacher's, under our names or pytorch-CycleGAN-and-pix2pix's."""
        record = self.setup.teacher_record
        if record is None:
            return None
        teacher = Path(record.weights)
        theirs = {"BtoA": "_G_B", "discriminator_A": "_D_B"}  # there D_B judges pictures of A
        ours = {"BtoA": f"{teacher.stem}_BtoA{teacher.suffix}"}.get(what, f"{what}{teacher.suffix}")
        names = [ours, *([teacher.name.replace("_G_A", theirs[what])] if "_G_A" in teacher.name else [])]
        file = next((teacher.with_name(name) for name in names if teacher.with_name(name).exists()), None)
        self.run.report.note(f"{what}: {'starts anew, no file beside the teacher' if file is None else f'from {file}'}")
        if file is None:
            return None
        if what == "BtoA":
            return replace(record, weights=str(file)).load().module.state_dict()
        return read_state(file)


def _embedded(context: RunContext, embed: Any, pictures: Any = None) -> np.ndarray:
    data, rows, where = context.data("train"), [], context.device
    teacher, count = context.teacher().to(where), len(data if pictures is None else pictures)
    listener = context.run.report.pictures("neighbourhoods")
    for chosen in np.array_split(np.arange(count), -(-count // BATCH)):
        if pictures is None:
            seen = forward(teacher, each(data.batch(chosen)[0], lambda one: one.to(where)))
        else:
            seen = to_float(pictures[chosen]).to(where)
        rows.append(torch.as_tensor(embed(seen)).float().flatten(1).cpu().numpy())
        listener(int(chosen[-1]) + 1, count)
    return np.concatenate(rows)


def _perceptual(scoring: Scoring, recipe: Recipe, device: torch.device) -> Callable[[Tensor, Tensor], Tensor] | None:
    if not recipe.perceptual_weight:
        return None
    return copy.deepcopy(scoring.perceptual(recipe.perceptual_loss)).to(device)
