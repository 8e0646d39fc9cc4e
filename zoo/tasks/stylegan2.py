"""Training a latent-to-image generator, and, with a teacher, distilling it.

The training is StyleGAN2's (Karras et al. 2020, arXiv 1912.04958: R1, path length, style mixing), the distillation
StyleKD's (Xu et al. 2022, arXiv 2208.14840).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gantailor.supernet.device import HOST, Device, autocast
from gantailor.supernet.errors import ConfigError
from gantailor.supernet.training import distributed
from gantailor.supernet.training.batches import rows_of
from gantailor.supernet.training.image_to_image import Sampler
from gantailor.supernet.training.losses import fake_loss, generator_loss, l1_loss, real_loss, shrunk
from gantailor.supernet.training.recipe import Recipe, require
from gantailor.supernet.training.task import Adam
from gantailor.supernet.training.teaching.distillation import capture, relation_loss
from gantailor.supernet.traits import plain_generator
from gantailor.zoo.data.config import DataConfig
from gantailor.zoo.data.latents import real_pictures
from gantailor.zoo.data.pictures import Pictures as RealPixels
from gantailor.zoo.data.pictures import mirror, to_float
from gantailor.zoo.data.read import read_split, whole
from gantailor.zoo.data.record import DataSet
from gantailor.zoo.discriminators.stylegan2 import StyleGan2Discriminator, deviation_group
from gantailor.zoo.generators.stylegan2.generator import (
    StyleGan2Generator,
    generator_widths,
    reset_synthesis,
    style_directions,
)
from gantailor.zoo.tasks.augment import augment
from gantailor.zoo.tasks.training import StudentContext, Training


@dataclass(frozen=True)
class StyleGan2Options:
    """Published regularisation: R1 of ``r1`` every ``r1_every`` steps, path length of ``path`` every ``path_every``.

    ``augment`` 1 shows the discriminator augmented pictures (for small data sets), ``shift`` is how far the relation
    loss moves in w, ``every_block`` 1 takes the directions of all resolutions for it instead of the published ones,
    ``mapping_only`` 1 starts the synthesis network anew, as StyleKD's published command does.
    """

    r1: float = 10.0
    r1_every: int = 16
    path: float = 2.0
    path_every: int = 4
    path_shrink: int = 2
    mixing: float = 0.9
    augment: int = 0
    shift: float = 5.0
    every_block: int = 0
    mapping_only: int = 0

    def __post_init__(self) -> None:
        for name in ("r1", "path", "shift"):
            require(name, getattr(self, name), least=0)
        for name in ("r1_every", "path_every", "path_shrink"):
            require(name, getattr(self, name), least=1)
        for name in ("mixing", "augment", "every_block", "mapping_only"):
            require(name, getattr(self, name), least=0, most=1)


@dataclass(frozen=True)
class Pictures:
    """Real pictures ``[n, 3, H, W]`` in [-1, 1].

    Attributes:
        number: which part of a batch they are; parts draw other latents.
    """

    images: Tensor
    number: int = 0


@dataclass(frozen=True, eq=False)
class PictureBatches:
    """Real pictures at random, of uint8 ``[N, size, size, 3]``; mirrored at random if the recipe says so."""

    pictures: RealPixels
    recipe: Recipe

    def __call__(self, step: int, part: int = 0, of: int = 1) -> Pictures:
        """One of ``of`` equal parts of a step's batch."""
        recipe, rows = self.recipe, rows_of(self.recipe.batch, part, of)
        rng = np.random.default_rng((recipe.seed, step))
        chosen = rng.integers(0, len(self.pictures), recipe.batch)
        mirrored = [recipe.mirror and rng.random() < 0.5 for _ in range(recipe.batch)]
        return Pictures(to_float(mirror(self.pictures[chosen[rows]], mirrored[rows])), part)


class _State(nn.Module):
    """What the path penalty remembers, in each process of its own pictures."""

    of_process = True
    mean_path: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean_path", torch.zeros(()))


class StyleGan2:
    """Trains on uint8 pictures ``[N, size, size, 3]``.

    Regularisation is lazy: done every few steps with as many times the weight, and the optimisers' rates are lowered to
    match. Latents, mixing points, noise and augmentation are functions of seed and step.

    With a ``teacher`` both render the same latents with the same noise, each from its own mapping network, and the
    recipe's weights count: ``output_weight`` (L1), ``perceptual_weight``, and ``feature_weight`` for the relations
    between the features of pictures and of their neighbours along the teacher's style directions.

    Args:
        generator: a plain generator, or a ``Supernet`` of one together with ``sample``.
        perceptual: distance ``[N]`` of two batches of pictures.
        region: from the teacher's pictures ``[N, 3, H, W]`` to the part that L1 and the perceptual distance look at,
            ``[N, 1, H, W]`` in [0, 1]; all of them without it.
        sample: for a supernet, the subnet of (random generator, step, position in the step).
        discriminator: one to go on with; a new one otherwise.
    """

    def __init__(
        self,
        generator: nn.Module,
        data: RealPixels,
        recipe: Recipe,
        *,
        teacher: StyleGan2Generator | None = None,
        perceptual: Callable[[Tensor, Tensor], Tensor] | None = None,
        region: Callable[[Tensor], Tensor] | None = None,
        sample: Sampler | None = None,
        discriminator: nn.Module | None = None,
        device: Device = HOST,
    ) -> None:
        self.recipe, self.device, self.batches = recipe, torch.device(device), PictureBatches(data, recipe)
        self.perceptual, self.region, self.sample = perceptual, region, sample
        self.options = options = recipe.options_of(StyleGan2Options)
        if recipe.perceptual_weight and perceptual is None:
            raise ConfigError("perceptual_weight needs LPIPS's weights: set evaluation.lpips_features and .lpips_heads")
        if recipe.gan == "none" or (recipe.feature_weight and recipe.feature_loss != "relation"):
            raise ConfigError("a StyleGAN2 trains with an adversarial loss and feature_loss relation; set these")
        torch.manual_seed(recipe.seed)
        self.generator = generator.to(device).train()
        self.plain: StyleGan2Generator = plain_generator(self.generator)  # type: ignore[assignment]
        if options.mapping_only:
            reset_synthesis(self.plain)
        self.teacher = None if teacher is None else teacher.to(device).eval().requires_grad_(False)
        self.directions = None if self.teacher is None else _directions(self.teacher, options)
        widths = generator_widths(self.teacher or self.plain)
        made = discriminator or StyleGan2Discriminator(size=self.plain.size, channels=widths)
        self.discriminator = made.to(device)
        self.state = _State().to(device)
        part = recipe.batch // (recipe.accumulate * distributed.world())
        if (now := deviation_group(part)) < (whole := deviation_group(recipe.batch)) and recipe.coupled == "whole":
            warnings.warn(
                f"the discriminator's minibatch deviation is of groups of {now} pictures in parts of {part}, in the "
                f"whole batch of {recipe.batch} of {whole}; raise batch, or set coupled to parts",
                stacklevel=2,
            )
        self.optimizers = {
            "generator": _lazy_adam(self.generator, recipe, every=options.path_every if options.path else 0),
            "discriminator": _lazy_adam(
                self.discriminator, recipe, every=options.r1_every if options.r1 else 0, lr=recipe.lr_discriminator
            ),
        }

    @property
    def coupled(self) -> list[str]:
        """What compares the pictures of a batch; each part of one draws latents of its own."""
        return ["the feature loss of relations"] if self.directions is not None and self.recipe.feature_weight else []

    def parts(self) -> dict[str, nn.Module]:
        """Everything with state."""
        return {"generator": self.generator, "discriminator": self.discriminator, "state": self.state}

    def _subnets(self, step: int) -> list[Any]:
        if self.sample is None:
            return [None]
        rng = np.random.default_rng((self.recipe.seed, 2, step))
        return [self.sample(rng, step, position) for position in range(self.recipe.subnets)]

    def _latents(self, count: int, random: torch.Generator) -> tuple[Tensor, int]:
        """Two latents for each picture, ``[2, count, style_dim]``, and the layer from which on the second one rules."""
        width = next(self.plain.style.parameters()).shape[1]
        z = torch.randn(2, count, width, generator=random).to(self.device)
        layers = self.plain.n_latent
        mixed = bool(torch.rand((), generator=random) < self.options.mixing)
        return z, int(torch.randint(1, layers, (), generator=random)) if mixed else layers

    def _styles(self, model: StyleGan2Generator, z: Tensor, cut: int) -> Tensor:
        """w for each layer, ``[count, n_latent, style_dim]``."""
        first, second = (model.mapping(one)[:, None] for one in z)
        return torch.cat([first.expand(-1, cut, -1), second.expand(-1, model.n_latent - cut, -1)], 1)

    def _noise(self, count: int, random: torch.Generator) -> list[Tensor]:
        shapes = [buffer.shape[1:] for buffer in self.plain.noises.buffers()]
        return [torch.randn(count, *shape, generator=random).to(self.device) for shape in shapes]

    def _render(self, w: Tensor, noise: Any, config: Any) -> Tensor:
        more = {} if config is None else {"config": config}
        out: Tensor = self.generator(w, noise=noise, input_is_latent=True, **more)
        return out

    def _autocast(self, enabled: bool = True) -> AbstractContextManager[Any]:
        return autocast(self.device, self.recipe.precision if enabled else "float32")

    def _judge(self, images: Tensor, random: torch.Generator, *, precise: bool = False) -> Tensor:
        seen = augment(images, random) if self.options.augment else images
        with self._autocast(not precise):
            out: Tensor = self.discriminator(seen).float()
            return out

    def backward(self, step: int, batch: Pictures, share: float) -> dict[str, Tensor]:
        """Logistic losses, distillation, and the regularisation that is due in this step."""
        options, recipe = self.options, self.recipe
        random = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step + 15_485_863 * batch.number)
        real = batch.images.to(self.device)
        generator, judged = list(self.generator.parameters()), list(self.discriminator.parameters())
        loss = real_loss(recipe.gan, self._judge(real, random), recipe.gan_reduction)
        torch.autograd.backward(share * loss, inputs=judged)
        terms = {"discriminator": [loss.detach()]}
        subnets = self._subnets(step)
        part = share / len(subnets)
        for config in subnets:
            losses = self._generator_losses(len(real), random, config, part, judged)
            mine = [value for name, value in losses.items() if name != "discriminator"]
            torch.autograd.backward(part * torch.stack(mine).sum(), inputs=generator)
            for name, value in losses.items():
                terms.setdefault(name, []).append(value.detach())
        judged_real = terms["discriminator"].pop(0)  # counted once, the fake half for each subnet
        summed = {name: torch.stack(values).mean() for name, values in terms.items()}
        summed["discriminator"] = summed["discriminator"] + judged_real
        if options.r1 and step % options.r1_every == 0:
            real = real.requires_grad_(True)
            (slope,) = torch.autograd.grad(self._judge(real, random, precise=True).sum(), real, create_graph=True)
            summed["r1"] = options.r1 / 2 * options.r1_every * slope.square().sum((1, 2, 3)).mean()
            torch.autograd.backward(share * summed["r1"], inputs=judged)
        if options.path and step % options.path_every == 0:
            count = max(1, len(real) // options.path_shrink)
            summed["path"] = options.path * options.path_every * self._path(count, random, subnets[-1])
            torch.autograd.backward(share * summed["path"], inputs=generator)
        return {name: value.detach() for name, value in summed.items()}

    def _generator_losses(
        self, count: int, random: torch.Generator, config: Any, share: float, judged: list[nn.Parameter]
    ) -> dict[str, Tensor]:
        """The generator's loss terms; the discriminator's half for the same pictures goes back at once."""
        recipe, teacher = self.recipe, self.teacher
        z, cut = self._latents(count, random)
        noise = self._noise(count, random)
        w = self._styles(self.plain, z, cut)
        shift = self._shifts(count, random)
        layers = self.plain.feature_layers if shift is not None else ()
        with capture(self.plain, layers) as mine, self._autocast():
            both = w if shift is None else torch.cat([w, w + shift])
            fake = self._render(both, _twice(noise, shift), config).float()[:count]
        seen = self._judge(fake, random)
        loss = fake_loss(recipe.gan, seen, recipe.gan_reduction)
        torch.autograd.backward(share * loss, inputs=judged, retain_graph=True)
        gan = recipe.gan_weight * generator_loss(recipe.gan, seen, recipe.gan_reduction)
        losses = {"discriminator": loss, "gan": gan}
        if teacher is None or not (shift is not None or recipe.output_weight or recipe.perceptual_weight):
            return losses
        with torch.no_grad(), capture(teacher, layers) as theirs, self._autocast():
            aim = self._styles(teacher, z, cut)
            both = aim if shift is None else torch.cat([aim, aim + shift])
            taught = teacher(both, noise=_twice(noise, shift), input_is_latent=True).float()[:count]
        if shift is not None:
            losses["feature"] = recipe.feature_weight * relation_loss(mine, theirs, views=2)
        region = self.region(taught) if self.region is not None else None
        fake, taught = (fake, taught) if region is None else (fake * region, taught * region)
        if recipe.output_weight:
            losses["output"] = recipe.output_weight * l1_loss(fake, taught)
        if recipe.perceptual_weight and self.perceptual is not None:
            pictures = (shrunk(images, recipe.perceptual_size) for images in (fake, taught))
            losses["perceptual"] = recipe.perceptual_weight * self.perceptual(*pictures).mean()
        return losses

    def _shifts(self, count: int, random: torch.Generator) -> Tensor | None:
        """A step along one of the style directions for each picture, ``[count, 1, style_dim]``, normal in length."""
        if self.directions is None or not self.recipe.feature_weight:
            return None
        chosen = self.directions[torch.randint(len(self.directions), (count,), generator=random)]
        length = self.options.shift * torch.randn(count, 1, generator=random).to(self.device)
        return (chosen * length)[:, None]

    def _path(self, count: int, random: torch.Generator, config: Any) -> Tensor:
        """How far a step in w moves the picture should always be the same: squared distance from the running mean."""
        w = self._styles(self.plain, *self._latents(count, random))
        image = self._render(w, self._noise(count, random), config)
        noise = torch.randn(image.shape, generator=random).to(self.device) / math.sqrt(image[0, 0].numel())
        (slope,) = torch.autograd.grad((image * noise).sum(), w, create_graph=True)
        lengths = slope.square().sum(2).mean(1).sqrt()
        mean = self.state.mean_path + 0.01 * (lengths.detach().mean() - self.state.mean_path)
        self.state.mean_path.copy_(mean)
        return (lengths - mean).square().mean()

    def after_step(self, step: int) -> None:
        """The mean latent follows, for truncation (half-life about 70 steps)."""
        with torch.no_grad():
            random = torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + step)
            width = next(self.plain.style.parameters()).shape[1]
            w = self.plain.mapping(torch.randn(64, width, generator=random).to(self.device))
            self.plain.latent_avg.lerp_(w.mean(0), 0.01)


def _directions(teacher: StyleGan2Generator, options: StyleGan2Options) -> Tensor:
    """Along which features are compared; published are the blocks from 8 px to the largest distilled one."""
    if options.every_block:
        return style_directions(teacher)
    largest = max(int(name.partition(".")[2]) for name in teacher.feature_layers)  # convs.1 is of 8 px, convs.3 of 16
    return style_directions(teacher, least=8, most=2 ** (largest // 2 + 3))


def _lazy_adam(model: nn.Module, recipe: Recipe, *, every: int, lr: float | None = None) -> torch.optim.Optimizer:
    """Adam with rates for a regularisation that is done every so many steps; 0: never."""
    share = every / (every + 1) if every else 1.0
    betas = (recipe.beta1**share, recipe.beta2**share)
    return Adam(model.parameters(), lr=(lr or recipe.rate) * share, betas=betas)


def _twice(noise: list[Tensor], shift: Tensor | None) -> list[Tensor]:
    return noise if shift is None else [torch.cat([one, one]) for one in noise]


def _checked(generator: nn.Module) -> StyleGan2Generator:
    if not isinstance(generator, StyleGan2Generator):
        raise ConfigError(f"task 'stylegan2' trains stylegan2, not a {type(generator).__name__}")
    return generator


def _student(model: nn.Module, data: DataSet, recipe: Recipe, context: StudentContext) -> StyleGan2:
    if not isinstance(context.whole, StyleGan2Generator):
        raise ConfigError(
            f"generators from latents are trained if they are a stylegan2, not a {type(context.whole).__name__}; a "
            "Generator record can name another task, its own too"
        )
    return StyleGan2(
        model,
        real_pictures(data),
        recipe,
        teacher=None if context.teacher is None else _checked(context.teacher),
        perceptual=context.perceptual,
        region=context.region,
        sample=context.sample,
        discriminator=context.discriminator,
        device=context.device,
    )


def _discriminator(whole: nn.Module, data: DataSet, recipe: Recipe) -> tuple[nn.Module, Tensor]:
    net = _checked(whole)
    torch.manual_seed(recipe.seed)
    return StyleGan2Discriminator(size=net.size, channels=generator_widths(net)), torch.zeros(1, 3, net.size, net.size)


def _teacher(generator: nn.Module, data: DataConfig, recipe: Recipe, *, device: Device = HOST) -> StyleGan2:
    net = _checked(generator)
    if data.size != net.size:
        raise ConfigError(f"options.size is {net.size}, data.size {data.size}; make them the same")
    return StyleGan2(net, real_pictures(read_split(whole(data), "train")), recipe, device=device)


STYLEGAN2 = Training(name="stylegan2", student=_student, teacher=_teacher, discriminator=_discriminator)
