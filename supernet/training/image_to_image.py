"""The task of image-to-image generators: losses against ground truth, teacher and discriminator."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gantailor.supernet.calling import Inputs, condition, each, evaluating, first, forward
from gantailor.supernet.device import HOST, Device, autocast, computed, find_precision
from gantailor.supernet.errors import ConfigError
from gantailor.supernet.subnets.slicing import kept_channels
from gantailor.supernet.training.batches import Batch, Batches, PairBatches, PairSource
from gantailor.supernet.training.layout import innermost
from gantailor.supernet.training.losses import (
    by_scale,
    fake_loss,
    generator_loss,
    l1_loss,
    matching_loss,
    real_loss,
    shrunk,
)
from gantailor.supernet.training.pool import ImagePool
from gantailor.supernet.training.recipe import Recipe
from gantailor.supernet.training.task import adam, say_coupled
from gantailor.supernet.training.teaching.distillation import (
    COUPLED,
    FeatureMaps,
    Features,
    alignment_loss,
    capture,
    of_whole_batch,
    relation_loss,
)
from gantailor.supernet.training.teaching.teacher_cache import Teacher, check_cache
from gantailor.supernet.traits import ClosesChannels, plain_generator

ACTIVATION = nn.LeakyReLU  # of every discriminator here; what it gives are its features

Sampler = Callable[[np.random.Generator, int, int], Any]


def judged_pictures(recipe: Recipe, inputs: Inputs, outputs: Tensor) -> Tensor:
    """What a discriminator sees: the outputs; if the recipe says ``conditional``, inputs and outputs joined.

    They are joined along channels, ``[N, C_in + C_out, H, W]``. Inputs of another size than the outputs
    (super-resolution) are first brought to theirs, bilinearly. Of several inputs it sees the first and further pictures
    of its size, a mask say (``calling.condition``); no vectors.
    """
    if not recipe.conditional:
        return outputs
    beside = condition(inputs)
    if beside.shape[2:] != outputs.shape[2:]:
        beside = F.interpolate(beside, size=outputs.shape[2:], mode="bilinear", align_corners=False)
    return torch.cat([beside, outputs], 1)


class ImageToImage:
    """Everything one step of training needs but the loop.

    Discriminator and generator gradients are computed at the same weights, then both are stepped, as GAN Compression
    does; the discriminator therefore judges each output once.

    Args:
        generator: a plain module, or a ``Supernet`` together with ``sample``.
        data: aligned pairs; targets may be missing when there is a teacher. Where there are pictures of the other
            domain an unconditional discriminator takes these for real, else the targets, else the teacher's outputs.
        discriminator: needed unless ``recipe.gan`` is ``none``; sees ``judged_pictures``.
        teacher: frozen generator whose outputs and features are distilled.
        feature_layers: module names whose outputs are compared; a mapping where the teacher's are called otherwise.
        sample: for a supernet, the subnet of (random generator, step, position in the step).
        perceptual: distance ``[N]`` of two batches of pictures, for ``recipe.perceptual_weight``.
        cache_folder: where ``teacher_cache: disk`` keeps its files.

    Attributes:
        beside: further modules whose outputs a task of its own kind compares.
        repeatable: whether ``backward`` leaves nothing behind but gradients and buffers, so that it can be tried.
        layout: in which pictures are computed on.
    """

    beside: tuple[str, ...] = ()
    repeatable = True

    def __init__(
        self,
        generator: nn.Module,
        data: PairSource,
        recipe: Recipe,
        *,
        discriminator: nn.Module | None = None,
        teacher: nn.Module | None = None,
        feature_layers: Iterable[str] | Mapping[str, str] = (),
        sample: Sampler | None = None,
        perceptual: Callable[[Tensor, Tensor], Tensor] | None = None,
        cache_folder: Path | None = None,
        device: Device = HOST,
    ) -> None:
        self.recipe, self.data, self.sample, self.device = recipe, data, sample, torch.device(device)
        self.layout = torch.contiguous_format
        self.batches: Batches = PairBatches(data, recipe)
        self.generator = generator.to(device).train()
        wanted = discriminator if recipe.gan != "none" else None
        self.discriminator = None if wanted is None else wanted.to(device)
        pairs = feature_layers if isinstance(feature_layers, Mapping) else {name: name for name in feature_layers}
        layers = dict(pairs) if teacher is not None and recipe.feature_weight else {}
        self.feature_layers, self.perceptual = tuple(layers), perceptual
        beside = {name: name for name in (self.beside if teacher is not None else ())}
        self.captured = (*layers, *beside)
        self.teacher = None if teacher is None else self._make_teacher(teacher, {**layers, **beside}, cache_folder)
        if recipe.perceptual_weight and perceptual is None:
            raise ConfigError("perceptual_weight needs LPIPS's weights: set evaluation.lpips_features and .lpips_heads")
        self._parts_of, self._parts = -1, dict[int, list[tuple[Features, Features]]]()
        self.maps: FeatureMaps | None = None
        if self.teacher is not None and layers and recipe.feature_loss in ("mse", "l1"):
            inputs = self._placed(Batch(data.batch(np.arange(1))[0], None, ())).inputs
            self.maps = _maps(self.generator, self.teacher, self.feature_layers, inputs, recipe)
        self.pool = _pool(generator, self.batches, recipe).to(device) if recipe.pool and wanted is not None else None
        self._judge_with: Any = self.discriminator
        compared = () if wanted is None or not recipe.matching_weight else wanted.named_modules()
        self.judged_layers = tuple(name for name, part in compared if isinstance(part, ACTIVATION))
        if recipe.matching_weight and recipe.matching_to == "teacher" and teacher is None:
            raise ConfigError("matching_to is 'teacher', and there is none; give one, or set matching_to to real")
        if recipe.compile and self.discriminator is not None:
            self._judge_with = torch.compile(self.discriminator)
        every = [*self.generator.parameters(), *(self.maps.parameters() if self.maps else ())]
        self.trained = [parameter for parameter in every if parameter.requires_grad]
        if recipe.channels_last is True:
            self.lay_out(True)

    def lay_out(self, channels_last: bool) -> None:
        """Compute with channels innermost, or not, from now on: weights of teacher and discriminator, and pictures.

        The generator's weights stay as they are, for those of a subnet are parts of them.
        """
        before, self.layout = self.layout, torch.channels_last if channels_last else torch.contiguous_format
        if before is self.layout:
            return
        self._parts_of = -1
        for model in (None if self.teacher is None else self.teacher.model, self.discriminator):
            if model is not None:
                model.to(memory_format=self.layout)  # type: ignore[call-overload]

    @cached_property
    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Made when they are first asked for: PyTorch's load for a second, and an estimate takes no step."""
        found = {"generator": adam(self.trained, self.recipe)}
        if self.discriminator is not None:
            own = self.recipe.lr_discriminator
            found["discriminator"] = adam(self.discriminator.parameters(), self.recipe, own)
        return found

    def _make_teacher(self, model: nn.Module, layers: Mapping[str, str], folder: Path | None) -> Teacher:
        model = model.to(self.device)
        if self.recipe.compile:
            model.compile()
        cache = self.recipe.teacher_cache
        check_cache(self.recipe, self.data)
        content = (
            f"{self.data.digest()}|{find_precision(self.recipe.precision, self.device)}" if cache == "disk" else ""
        )
        return Teacher(model, layers, cache=cache, folder=folder, content=content, context=self._autocast)

    def parts(self) -> dict[str, nn.Module]:
        """Everything with weights."""
        parts: dict[str, nn.Module | None] = {"generator": self.generator, "discriminator": self.discriminator}
        parts |= {"maps": self.maps, "pool": self.pool}
        return {name: part for name, part in parts.items() if part is not None}

    def _subnets(self, step: int) -> list[Any]:
        if self.sample is None:
            return [None]
        rng = np.random.default_rng((self.recipe.seed, 2, step))
        return [self.sample(rng, step, position) for position in range(self.recipe.subnets)]

    @contextmanager
    def _autocast(self) -> Iterator[None]:
        keeping = innermost() if self.layout is torch.channels_last and not self.recipe.compile else nullcontext()
        with autocast(self.device, self.recipe.precision), keeping:
            yield

    def _placed(self, batch: Batch) -> Batch:
        """The batch on the device."""

        def place(one: Tensor) -> Tensor:
            layout = self.layout if one.ndim == 4 else torch.contiguous_format
            return one.to(self.device, memory_format=layout, non_blocking=True)

        targets, others = (None if one is None else place(one) for one in (batch.targets, batch.others))
        return replace(batch, inputs=each(batch.inputs, place), targets=targets, others=others)

    def backward(self, step: int, batch: Batch, share: float) -> dict[str, Tensor]:
        """Add ``share`` of the batch's gradients to every parameter's; the loss terms, weighted, detached."""
        say_coupled(self, self.recipe, batch.part[1])
        batch = self._placed(batch)
        inputs, targets, options = batch.inputs, batch.targets, self._options(step, batch)
        taught: Tensor | None = None
        taught_features: dict[str, Tensor] = {}
        if self.teacher is not None:
            taught, taught_features = self.teacher(inputs, batch.keys, **options)
        real = targets if targets is not None else taught
        if real is None:
            raise ConfigError("the data has inputs only; give a teacher, whose outputs are then the targets")
        terms: dict[str, list[Tensor]] = {}
        aims = None
        if self.discriminator is not None:
            judged_real, terms["discriminator"] = _real_half(self, batch, real, share)
            aims = judged_real if self.recipe.matching_to == "real" else _aims(self, inputs, taught)
        subnets, largest = self._subnets(step), None
        for place, config in enumerate(subnets):
            with capture(plain_generator(self.generator), self.captured) as features, self._autocast():
                fake = forward(self.generator, inputs, **options, **({} if config is None else {"config": config}))
            fake = fake.float()
            losses = self._adversarial(inputs, fake, aims, share / len(subnets), step)
            losses |= self._pixels(fake, targets, taught, real)
            seen, known = _of_whole_batch(self, step, batch, place, config, (features, taught_features))
            losses |= self._features(seen, known, config)
            if self.recipe.in_place_weight and largest is not None:
                losses["in_place"] = self.recipe.in_place_weight * l1_loss(fake, largest)
            largest = fake.detach() if largest is None else largest
            total = torch.stack([value for name, value in losses.items() if name != "discriminator"]).sum()
            torch.autograd.backward(share / len(subnets) * total, inputs=self.trained)
            for name, value in losses.items():
                terms.setdefault(name, []).append(value.detach())
        summed = {name: torch.stack(values).sum() / max(1, len(subnets)) for name, values in terms.items()}
        if self.discriminator is not None:  # the real half was counted once, the fake half for each subnet
            half = terms["discriminator"]
            summed["discriminator"] = half[0] + torch.stack(half[1:]).mean()
        return summed

    def _options(self, step: int, batch: Batch) -> dict[str, Tensor]:
        """Further arguments of the generators' forward in a step, the teacher's too."""
        return {}

    def _judge(self, inputs: Inputs, outputs: Tensor) -> Any:
        """Logits; with their features before them where these are compared."""
        assert self.discriminator is not None
        with capture(self.discriminator, self.judged_layers) as features, self._autocast():
            judged = self._judge_with(judged_pictures(self.recipe, inputs, outputs))
        return by_scale(judged, [*features.values()]) if features else judged

    def _adversarial(self, inputs: Inputs, fake: Tensor, aims: Any, share: float, step: int) -> dict[str, Tensor]:
        if self.discriminator is None:
            return {}
        recipe, judged = self.recipe, self._judge(inputs, fake)
        old = judged
        if self.pool is not None:
            shown = self.pool.swap(judged_pictures(recipe, inputs, fake), np.random.default_rng((recipe.seed, 3, step)))
            with self._autocast():
                old = self._judge_with(shown)
        loss = recipe.discriminator_weight * fake_loss(recipe.gan, old, recipe.gan_reduction)
        torch.autograd.backward(share * loss, inputs=list(self.discriminator.parameters()), retain_graph=True)
        gan = recipe.gan_weight * generator_loss(recipe.gan, judged, recipe.gan_reduction)
        losses = {"discriminator": loss, "gan": gan}
        if recipe.matching_weight:
            losses["matching"] = recipe.matching_weight * matching_loss(judged, aims)
        return losses

    def _pixels(self, fake: Tensor, targets: Tensor | None, taught: Tensor | None, real: Tensor) -> dict[str, Tensor]:
        recipe, losses = self.recipe, {}
        if targets is not None and recipe.target_weight:
            losses["target"] = recipe.target_weight * l1_loss(fake, targets)
        if taught is not None and recipe.output_weight:
            losses["output"] = recipe.output_weight * l1_loss(fake, taught)
        if self.perceptual is not None and recipe.perceptual_weight:
            aim = taught if recipe.perceptual_loss == "gram" and taught is not None else real
            pictures = (shrunk(images, recipe.perceptual_size) for images in (fake, aim))
            losses["perceptual"] = recipe.perceptual_weight * self.perceptual(*pictures).mean()
        return losses

    def _features(self, mine: dict[str, Tensor], taught: dict[str, Tensor], config: Any) -> dict[str, Tensor]:
        if not self.feature_layers:
            return {}
        if self.maps is not None:
            kept = None
            if config is not None:
                kept = kept_channels(self.generator.graph, self.feature_layers, config)  # type: ignore[arg-type]
            elif isinstance(self.generator, ClosesChannels):  # what nothing reads any more must not carry it
                mine, kept = self.generator.open_features({name: mine[name] for name in self.feature_layers})
            loss = self.maps(mine, taught, kept)
        else:
            loss = (alignment_loss if self.recipe.feature_loss == "alignment" else relation_loss)(mine, taught)
        return {"feature": self.recipe.feature_weight * loss}

    def after_step(self, step: int) -> None:
        """Nothing here; methods that shrink something after an update do it in their own task."""


def _real_half(task: ImageToImage, batch: Batch, real: Tensor, share: float) -> tuple[Any, list[Tensor]]:
    """What the discriminator says of real pictures, and the loss of that, whose gradients it adds."""
    assert task.discriminator is not None
    recipe, unpaired = task.recipe, None if task.recipe.conditional else batch.others
    judged = task._judge(batch.inputs, real if unpaired is None else unpaired)
    loss = recipe.discriminator_weight * real_loss(recipe.gan, judged, recipe.gan_reduction)
    torch.autograd.backward(share * loss, inputs=list(task.discriminator.parameters()))
    return judged, [loss.detach()]


@torch.no_grad()
def _aims(task: ImageToImage, inputs: Inputs, taught: Tensor | None) -> Any:
    """What the discriminator sees in the teacher's outputs, where its features of ours are compared with that."""
    return None if taught is None or not task.recipe.matching_weight else task._judge(inputs, taught)


def _of_whole_batch(
    task: ImageToImage, step: int, batch: Batch, place: int, config: Any, known: tuple[Features, Features]
) -> tuple[Features, Features]:
    """Where a loss compares the pictures of a batch: the features of all parts, this one's with its gradient.

    The others come from a forward before, in which nothing has a gradient: of each part, once in a step.
    """
    (number, of), (mine, taught) = batch.part, known
    if of == 1 or not mine or task.recipe.feature_loss not in COUPLED or task.recipe.coupled == "parts":
        return mine, taught
    if task._parts_of != step:
        task._parts_of, task._parts = step, {}
    if place not in task._parts:
        task._parts[place] = [_seen(task, step, task.batches(step, other, of), config) for other in range(of)]
    every = task._parts[place]
    return (
        of_whole_batch(mine, [seen for seen, _ in every], number, weight=of),
        of_whole_batch(taught, [aims for _, aims in every], number, weight=of),
    )


@torch.no_grad()
def _seen(task: ImageToImage, step: int, batch: Batch, config: Any) -> tuple[Features, Features]:
    """Features of a batch, the generator's and the teacher's."""
    batch = task._placed(batch)
    options = task._options(step, batch)
    assert task.teacher is not None
    _, aims = task.teacher(batch.inputs, batch.keys, **options)
    with capture(plain_generator(task.generator), task.captured) as features, task._autocast():
        forward(task.generator, batch.inputs, **options, **({} if config is None else {"config": config}))
    return dict(features), aims


@torch.no_grad()
def _maps(
    generator: nn.Module, teacher: Teacher, layers: tuple[str, ...], inputs: Inputs, recipe: Recipe
) -> FeatureMaps:
    """From the student's features to the teacher's, on the device of the inputs."""
    widths = []
    for model, names in ((generator, layers), (teacher.model, teacher.layers)):
        with evaluating(model), capture(plain_generator(model), names) as features:  # one picture is no batch
            forward(model, inputs)
        widths.append({name: features[name].shape[1] for name in layers})
    torch.manual_seed(recipe.seed)
    maps = FeatureMaps(widths[0], widths[1], init=recipe.init, absolute=recipe.feature_loss == "l1")
    return maps.to(first(inputs).device)


@torch.no_grad()
def _pool(generator: nn.Module, batches: Batches, recipe: Recipe) -> ImagePool:
    batch: Batch = batches(0, 0, recipe.batch)
    outputs = batch.targets
    if outputs is None:
        with evaluating(generator):
            outputs = computed(generator, batch.inputs)
    return ImagePool(recipe.pool, tuple(judged_pictures(recipe, batch.inputs, outputs).shape[1:]))
