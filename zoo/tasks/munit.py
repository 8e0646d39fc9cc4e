"""Training MUNIT: an auto-encoder for each domain, content shared, styles random (Huang et al. 2018, 1804.04732)."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gantailor.supernet.device import HOST, Device, autocast
from gantailor.supernet.errors import ConfigError
from gantailor.supernet.training.batches import Batch, rows_of
from gantailor.supernet.training.image_to_image import ImageToImage
from gantailor.supernet.training.losses import fake_loss, generator_loss, l1_loss, real_loss
from gantailor.supernet.training.recipe import Recipe, require
from gantailor.supernet.training.task import Task, adam
from gantailor.zoo.data.config import DataConfig
from gantailor.zoo.data.domains import DomainBatch, DomainBatches, Domains
from gantailor.zoo.data.read import read_domains
from gantailor.zoo.generators.munit.checkpoint import read_munit
from gantailor.zoo.generators.munit.generator import MunitGenerator
from gantailor.zoo.tasks.image_to_image import discriminator_of, student_of
from gantailor.zoo.tasks.training import Training, Weights
from gantailor.zoo.tasks.unpaired import backward_both, judges_of


@dataclass(frozen=True)
class MunitOptions:
    """Weights of the losses, as published; ``cycle`` is off there except for some tasks."""

    image: float = 10.0
    style: float = 1.0
    content: float = 1.0
    cycle: float = 0.0

    def __post_init__(self) -> None:
        for name in ("image", "style", "content", "cycle"):
            require(name, getattr(self, name), least=0)


@dataclass(frozen=True)
class StyledBatch:
    """A picture batch of each domain, and for each picture the random style ``[n, style_dim, 1, 1]`` that it gets."""

    pictures: DomainBatch
    styles: tuple[Tensor, Tensor]

    @property
    def inputs(self) -> Tensor:
        """Those of A."""
        return self.pictures.a

    @property
    def counterpart_inputs(self) -> Tensor:
        """Those of B."""
        return self.pictures.b


@dataclass(frozen=True, eq=False)
class StyledBatches:
    """A batch of each domain with its styles, of ``width`` numbers."""

    pictures: DomainBatches
    width: int

    def __call__(self, step: int, part: int = 0, of: int = 1) -> StyledBatch:
        """One of ``of`` equal parts of a step's batch."""
        recipe = self.pictures.recipe
        random = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
        first, second = (torch.randn(recipe.batch, self.width, 1, 1, generator=random) for _ in range(2))
        rows = rows_of(recipe.batch, part, of)
        return StyledBatch(self.pictures(step, part, of), (first[rows], second[rows]))


class Munit:
    """``generator`` is domain A's auto-encoder, ``other`` domain B's."""

    def __init__(self, generator: MunitGenerator, data: Domains, recipe: Recipe, *, device: Device = HOST) -> None:
        self.recipe, self.device = recipe, torch.device(device)
        self.batches = StyledBatches(DomainBatches(data, recipe), generator.style_dim)
        self.options = recipe.options_of(MunitOptions)
        torch.manual_seed(recipe.seed)
        _kaiming(generator)
        self.generator = generator.to(device).train()
        self.other = copy.deepcopy(generator)
        _kaiming(self.other)
        self.judges = nn.ModuleList(judges_of(recipe, (data.a.shape[3], data.b.shape[3]), device))
        self._trained = [*self.generator.parameters(), *self.other.parameters()]
        self.optimizers = {
            "generator": adam(self._trained, recipe),
            "discriminator": adam(self.judges.parameters(), recipe, recipe.lr_discriminator),
        }

    @property
    def counterparts(self) -> dict[str, nn.Module]:
        """What is kept beside the generator."""
        return {"other": self.other}

    def parts(self) -> dict[str, nn.Module]:
        """Everything with state."""
        return {"generator": self.generator, "other": self.other, "judges": self.judges}

    def backward(self, step: int, batch: StyledBatch, share: float) -> dict[str, Tensor]:
        """Reconstruction of pictures, contents and styles, and the adversarial losses, of both domains."""
        real = [images.to(self.device) for images in (batch.pictures.a, batch.pictures.b)]
        styles = [style.to(self.device) for style in batch.styles]
        nets, kind, how = [self.generator, self.other], self.recipe.gan, self.recipe.gan_reduction
        with autocast(self.device, self.recipe.precision):
            codes = [net.encode(x) for net, x in zip(nets, real, strict=True)]
            losses: dict[str, Tensor] = {}
            judged = []
            for k, (net, name) in enumerate(zip(nets, "ab", strict=True)):
                content = codes[1 - k][0]
                fake = net.decode(content, styles[k])
                seen_content, seen_style = net.encode(fake)
                losses[f"image_{name}"] = self.options.image * l1_loss(net.decode(*codes[k]).float(), real[k])
                losses[f"style_{name}"] = self.options.style * l1_loss(seen_style.float(), styles[k])
                losses[f"content_{name}"] = self.options.content * l1_loss(seen_content.float(), content.float())
                if self.options.cycle:
                    again = nets[1 - k].decode(seen_content, codes[1 - k][1]).float()
                    losses[f"cycle_{name}"] = self.options.cycle * l1_loss(again, real[1 - k])
                judge = self.judges[k]
                seen = judge(fake)
                losses[f"gan_{name}"] = self.recipe.gan_weight * generator_loss(kind, seen, how)
                judged.append(real_loss(kind, judge(real[k]), how) + fake_loss(kind, judge(fake.detach()), how))
        return backward_both(losses, judged, share, trained=self._trained, judges=self.judges)

    def after_step(self, step: int) -> None:
        """Nothing."""


class MunitStudent(ImageToImage):
    """A student translates as its teacher does (Li et al. 2020, arXiv 2003.08936, and its code).

    On even steps both get the styles of the batch, which are drawn at random; on odd ones each that of real pictures of
    B, by its own style encoder, and the codes are compared too. Where there are no such pictures all steps are even.
    """

    beside = ("enc_style",)

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.style_weight = self.recipe.options_of(MunitOptions).style

    def _options(self, step: int, batch: Batch) -> dict[str, Tensor]:
        reference = batch.targets if batch.others is None else batch.others
        if step % 2 == 0 or reference is None or not isinstance(batch.inputs, tuple):
            return {}
        return {"reference": reference}

    def _features(self, mine: dict[str, Tensor], taught: dict[str, Tensor], config: Any) -> dict[str, Tensor]:
        contents = [{name: codes[name] for name in self.feature_layers} for codes in (mine, taught)]
        losses = super()._features(contents[0], contents[1], config)
        if "enc_style" in taught:
            losses["style"] = self.style_weight * l1_loss(mine["enc_style"].float(), taught["enc_style"].float())
        return losses


def _kaiming(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, a=0, mode="fan_in")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _teacher(generator: nn.Module, data: DataConfig, recipe: Recipe, *, device: Device = HOST) -> Munit:
    if not isinstance(generator, MunitGenerator):
        raise ConfigError(f"task 'munit' trains munit and mobile_munit, not a {type(generator).__name__}")
    return Munit(generator, read_domains(data), recipe, device=device)


def _weights(task: Task, trained: nn.Module) -> Weights:
    """The translator from A to B."""
    assert isinstance(task, Munit)
    return {"teacher": read_munit({"a": trained.state_dict(), "b": task.other.state_dict()}, side="a2b")}


MUNIT = Training(
    name="munit",
    student=student_of(MunitStudent),
    teacher=_teacher,
    discriminator=discriminator_of,
    weights=_weights,
)
