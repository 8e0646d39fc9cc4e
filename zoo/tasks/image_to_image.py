"""Training pictures to pictures: a teacher from aligned pairs, a supernet or a narrow generator beside its teacher."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from gantailor.supernet.calling import condition, forward
from gantailor.supernet.device import HOST, Device
from gantailor.supernet.errors import ConfigError
from gantailor.supernet.training.image_to_image import ImageToImage, judged_pictures
from gantailor.supernet.training.recipe import Recipe
from gantailor.supernet.training.task import Task
from gantailor.supernet.traits import traits_of
from gantailor.zoo.data.config import DataConfig
from gantailor.zoo.data.read import read_split
from gantailor.zoo.data.record import DataSet
from gantailor.zoo.discriminators.build import make_discriminator
from gantailor.zoo.initialisation import init_weights
from gantailor.zoo.tasks.training import MakeStudent, StudentContext, Training


def student_of(kind: type[ImageToImage]) -> MakeStudent:
    """What makes a student's task of a kind."""

    def student(model: nn.Module, data: DataSet, recipe: Recipe, context: StudentContext) -> Task:
        whole, traits = context.whole, traits_of(context.whole)
        if traits.takes == "latents":
            raise ConfigError(
                f"a {type(whole).__name__} takes latents, and is not trained from pictures to pictures; give its "
                "Generator record the task that trains it"
            )
        given = context.discriminator
        return kind(
            model,
            data,
            recipe,
            discriminator=discriminator_of(whole, data, recipe)[0] if given is None else given,
            feature_layers=traits.feature_layers if context.layers is None else context.layers,
            teacher=context.teacher,
            sample=context.sample,
            perceptual=context.perceptual,
            cache_folder=context.cache_folder,
            device=context.device,
        )

    return student


def _teacher(generator: nn.Module, data: DataConfig, recipe: Recipe, *, device: Device = HOST) -> Task:
    pairs = read_split(data, "train", traits_of(generator))
    inputs, targets = pairs.batch(np.arange(1))
    if targets is None:
        raise ConfigError("a teacher of pairs needs real pictures; for unpaired ones: --train.preset teacher-cyclegan")
    discriminator = make_discriminator(recipe, input_nc=condition(inputs).shape[1], output_nc=targets.shape[1])
    init_weights(generator, recipe.init)
    return ImageToImage(generator, pairs, recipe, discriminator=discriminator, device=device)


@torch.no_grad()
def discriminator_of(whole: nn.Module, data: DataSet, recipe: Recipe) -> tuple[nn.Module | None, Tensor]:
    """The discriminator of a student, as ``MakeDiscriminator`` says."""
    inputs, targets = data.batch(np.arange(1))
    outputs = targets if targets is not None else forward(whole, inputs)
    fresh = make_discriminator(recipe, input_nc=condition(inputs).shape[1], output_nc=outputs.shape[1])
    return fresh, judged_pictures(recipe, inputs, outputs)


IMAGE_TO_IMAGE = Training(
    name="image_to_image", student=student_of(ImageToImage), teacher=_teacher, discriminator=discriminator_of
)
