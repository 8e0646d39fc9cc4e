"""How a kind of generator is trained: one record for each way, found by its name or, one's own, as ``module:name``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor, nn

from gantailor.supernet.device import HOST, Device
from gantailor.supernet.errors import ConfigError
from gantailor.supernet.plugins import find_record
from gantailor.supernet.training.image_to_image import Sampler
from gantailor.supernet.training.recipe import Recipe
from gantailor.supernet.training.task import Task
from gantailor.zoo.data.config import DataConfig
from gantailor.zoo.data.record import DataSet
from gantailor.zoo.tasks import TASKS

Weights = dict[str, Mapping[str, Tensor]]


@dataclass(frozen=True, kw_only=True)
class StudentContext:
    """What a supernet or a narrow generator is trained beside.

    Attributes:
        whole: the generator in full width, which tells sizes and feature layers.
        teacher: frozen generator whose outputs and features are distilled; None to train without.
        layers: modules whose outputs are compared, those of the student and what they are called in the teacher; None:
            the student's ``feature_layers``, called the same.
        discriminator: one to go on with; a new one by the recipe otherwise.
        sample: for a supernet, the subnet of (random generator, step, position in the step).
        perceptual: distance ``[N]`` of two batches of pictures, for ``recipe.perceptual_weight``.
        region: from the teacher's pictures to the part that distillation looks at, ``[N, 1, H, W]`` in [0, 1].
        cache_folder: where ``teacher_cache: disk`` keeps its files.
        device: where it computes.
    """

    whole: nn.Module
    teacher: nn.Module | None = None
    layers: Mapping[str, str] | None = None
    discriminator: nn.Module | None = None
    sample: Sampler | None = None
    perceptual: Callable[[Tensor, Tensor], Tensor] | None = None
    region: Callable[[Tensor], Tensor] | None = None
    cache_folder: Path | None = None
    device: Device = HOST


class MakeStudent(Protocol):
    """Makes the training of a supernet or a narrow generator."""

    def __call__(self, model: nn.Module, data: DataSet, recipe: Recipe, context: StudentContext) -> Task:
        """The task.

        Args:
            model: what is trained: a supernet, a plain net, or a module of a method around one.
            data: the training split, as ``read_split`` gives it.

        Raises:
            ConfigError: recipe, data or generator do not suit this training.
        """
        ...


class MakeTeacher(Protocol):
    """Makes the training of a teacher from pictures alone, from fresh weights."""

    def __call__(self, generator: nn.Module, data: DataConfig, recipe: Recipe, *, device: Device = HOST) -> Task:
        """The task; it reads what it needs of the data.

        Raises:
            ConfigError: recipe, data or generator do not suit this training.
        """
        ...


class MakeDiscriminator(Protocol):
    """Makes the discriminator of a recipe, with fresh weights."""

    def __call__(self, whole: nn.Module, data: DataSet, recipe: Recipe) -> tuple[nn.Module | None, Tensor]:
        """The discriminator (None where the recipe trains without), and an example ``[1, C, H, W]`` of what it sees."""
        ...


def judge_of(task: Task) -> nn.Module | None:
    """What judges pictures in a training: its discriminator, of a CycleGAN both; None where there is none."""
    parts = task.parts()
    return parts.get("discriminator", parts.get("judges"))


def with_discriminator(task: Task, trained: nn.Module) -> Weights:
    """A teacher's training leaves the generator, and the discriminator, if any, that a student's can go on with."""
    judge = task.parts().get("discriminator")
    return {"teacher": trained.state_dict()} | ({} if judge is None else {"teacher_discriminator": judge.state_dict()})


@dataclass(frozen=True, kw_only=True)
class Training:
    """A way of training.

    Attributes:
        name: as a recipe's ``task`` names it.
        student: training of a supernet or a narrow generator beside its teacher. None: teachers only.
        teacher: training of a teacher. None: students only.
        discriminator: the discriminator of a student's training. None: it has none of its own to go on with.
        weights: what a teacher's training leaves, (the task, the trained generator) to file names (without
            ``.safetensors``) and state dicts; the first is the teacher.
    """

    name: str
    student: MakeStudent | None = None
    teacher: MakeTeacher | None = None
    discriminator: MakeDiscriminator | None = None
    weights: Callable[[Task, nn.Module], Weights] = with_discriminator

    def student_task(self) -> MakeStudent:
        """The maker of a student's training.

        Raises:
            ConfigError: it is for teachers only.
        """
        if self.student is None:
            raise ConfigError(f"task {self.name!r} trains teachers only; choose another preset")
        return self.student

    def teacher_task(self) -> MakeTeacher:
        """The maker of a teacher's training.

        Raises:
            ConfigError: it is for students only.
        """
        if self.teacher is None:
            raise ConfigError(f"task {self.name!r} trains no teachers; choose another preset")
        return self.teacher

    def discriminator_of(self, whole: nn.Module, data: DataSet, recipe: Recipe) -> tuple[nn.Module | None, Tensor]:
        """The discriminator of a student's training, fresh, and an example of what it sees.

        Raises:
            ConfigError: it has none.
        """
        if self.discriminator is None:
            raise ConfigError(f"task {self.name!r} has no discriminator to go on with; leave out discriminator")
        return self.discriminator(whole, data, recipe)


def find_training(name: str) -> Training:
    """The record of a built-in, or one's own as ``module:name``.

    Raises:
        ConfigError: an unknown name (the nearest are shown), or what it names is no ``Training``.
    """
    return find_record(name, TASKS, "training task", Training)
