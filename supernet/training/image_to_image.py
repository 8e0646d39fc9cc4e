"""The task of image-to-image generators: losses against ground truth, teacher and discriminator."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gantailor.supernet.errors import ConfigError
from gantailor.supernet.subnets.slicing import kept_channels
from gantailor.supernet.training.batches import Batch, Batches, PairBatches, PairSource
from gantailor.supernet.training.distillation import FeatureMaps, alignment_loss, capture, relation_loss
from gantailor.supernet.training.losses import fake_loss, generator_loss, matching_loss, real_loss
from gantailor.supernet.training.recipe import Recipe
from gantailor.supernet.training.teacher_cache import Teacher
from gantailor.supernet.training.trainer import adam
from gantailor.supernet.traits import ClosesChannels, plain_generator

Sampler = Callable[[np.random.Generator, int, int], Any]


class ImageToImage:
    """Everything one step of training needs but the loop.

    Discriminator and generator gradients are computed at the same weights, then both are stepped, as GAN Compression
    does; the discriminator therefore judges each output once.

    Args:
        generator: a plain module, or a ``Supernet`` together with ``sample``.
        data: aligned pairs; targets may be missing when there is a teacher.
        discriminator: needed unless ``recipe.gan`` is ``none``; sees inputs and outputs joined along channels if
            ``recipe.conditional``, else the outputs.
        teacher: frozen generator whose outputs and features are distilled.
        feature_layers: module names, the same in generator and teacher, whose outputs are compared.
        sample: for a supernet, the subnet of (random generator, step, position in the step).
        perceptual: distance ``[N]`` of two batches of pictures, for ``recipe.perceptual_weight``.
        cache_folder: where ``teacher_cache: disk`` keeps its files.
    """

    def __init__(
        self,
        generator: nn.Module,
        data: PairSource,
        recipe: Recipe,
        *,
        discriminator: nn.Module | None = None,
        teacher: nn.Module | None = None,
        feature_layers: Iterable[str] = (),
        sample: Sampler | None = None,
        perceptual: Callable[[Tensor, Tensor], Tensor] | None = None,
        cache_folder: Path | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        self.recipe, self.data, self.sample, self.device = recipe, data, sample, torch.device(device)
        self.layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
        self.batches: Batches = PairBatches(data, recipe)
        self.generator = generator.to(device).train()
        wanted = discriminator if recipe.gan != "none" else None
        self.discriminator = None if wanted is None else wanted.to(device).to(memory_format=self.layout)  # type: ignore[call-overload]
        layers = tuple(feature_layers) if teacher is not None and recipe.feature_weight else ()
        self.teacher = None if teacher is None else self._make_teacher(teacher, layers, cache_folder)
        self.feature_layers, self.perceptual = layers, perceptual
        if recipe.perceptual_weight and perceptual is None:
            raise ConfigError("perceptual_weight needs LPIPS's weights: set evaluation.lpips_features and .lpips_heads")
        self.maps = self._feature_maps() if layers and recipe.feature_loss == "mse" else None
        self._judge_with: Any = self.discriminator
        if recipe.compile and self.discriminator is not None:
            self._judge_with = torch.compile(self.discriminator)
        every = [*self.generator.parameters(), *(self.maps.parameters() if self.maps else ())]
        self.trained = [parameter for parameter in every if parameter.requires_grad]
        self.optimizers = {"generator": adam(self.trained, recipe)}
        if self.discriminator is not None:
            own = recipe.lr_discriminator
            self.optimizers["discriminator"] = adam(self.discriminator.parameters(), recipe, own)

    def _make_teacher(self, model: nn.Module, layers: tuple[str, ...], folder: Path | None) -> Teacher:
        model = model.to(self.device).to(memory_format=self.layout)  # type: ignore[call-overload]
        if self.recipe.compile:
            model.compile()
        cache = self.recipe.teacher_cache
        if cache != "none" and getattr(self.data, "crop", None) is not None:
            raise ConfigError(f"teacher_cache {cache!r} cannot be with data.crop: parts of pictures never come again")
        content = f"{self.data.digest()}|{self.recipe.precision}" if cache == "disk" else ""
        return Teacher(model, layers, cache=cache, folder=folder, content=content, context=self._autocast)

    def _feature_maps(self) -> FeatureMaps:
        assert self.teacher is not None
        inputs = self.data.batch(np.arange(1))[0].to(self.device)
        widths = []
        for model in (self.generator, self.teacher.model):
            with torch.no_grad(), capture(plain_generator(model), self.feature_layers) as features:
                model(inputs)
            widths.append({name: features[name].shape[1] for name in self.feature_layers})
        torch.manual_seed(self.recipe.seed)
        return FeatureMaps(widths[0], widths[1]).to(self.device)

    def parts(self) -> dict[str, nn.Module]:
        """Everything with weights."""
        parts = {"generator": self.generator, "discriminator": self.discriminator, "maps": self.maps}
        return {name: part for name, part in parts.items() if part is not None}

    def _subnets(self, step: int) -> list[Any]:
        if self.sample is None:
            return [None]
        rng = np.random.default_rng((self.recipe.seed, 2, step))
        return [self.sample(rng, step, position) for position in range(self.recipe.subnets)]

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.precision == "bfloat16")

    def _place(self, images: Tensor | None) -> Tensor | None:
        return None if images is None else images.to(self.device, memory_format=self.layout, non_blocking=True)

    def backward(self, step: int, batch: Batch, share: float) -> dict[str, Tensor]:
        """Add ``share`` of the batch's gradients to every parameter's; the loss terms, weighted, detached."""
        inputs, targets = self._place(batch.inputs), self._place(batch.targets)
        assert inputs is not None
        taught, taught_features = self.teacher(inputs, batch.keys) if self.teacher is not None else (None, {})
        real = targets if targets is not None else taught
        if real is None:
            raise ConfigError("the data has inputs only; give a teacher, whose outputs are then the targets")
        terms: dict[str, list[Tensor]] = {}
        judged_real = None
        if self.discriminator is not None:
            judged_real = self._judge(inputs, real)
            loss = 0.5 * real_loss(self.recipe.gan, judged_real)
            torch.autograd.backward(share * loss, inputs=list(self.discriminator.parameters()))
            terms["discriminator"] = [loss.detach()]
        subnets, first = self._subnets(step), None
        for config in subnets:
            with capture(plain_generator(self.generator), self.feature_layers) as features, self._autocast():
                fake = self.generator(inputs) if config is None else self.generator(inputs, config=config)
            fake = fake.float()
            losses = self._adversarial(inputs, fake, judged_real, share / len(subnets))
            losses |= self._pixels(fake, targets, taught, real)
            losses |= self._features(features, taught_features, config)
            if self.recipe.in_place_weight and first is not None:
                losses["in_place"] = self.recipe.in_place_weight * F.l1_loss(fake, first)
            first = fake.detach() if first is None else first
            total = torch.stack([value for name, value in losses.items() if name != "discriminator"]).sum()
            torch.autograd.backward(share / len(subnets) * total, inputs=self.trained)
            for name, value in losses.items():
                terms.setdefault(name, []).append(value.detach())
        summed = {name: torch.stack(values).sum() / max(1, len(subnets)) for name, values in terms.items()}
        if judged_real is not None:  # the real half was counted once, the fake half for each subnet
            half = terms["discriminator"]
            summed["discriminator"] = half[0] + torch.stack(half[1:]).mean()
        return summed

    def _judge(self, inputs: Tensor, outputs: Tensor) -> Any:
        seen = torch.cat([inputs, outputs], 1) if self.recipe.conditional else outputs
        with self._autocast():
            return self._judge_with(seen)

    def _adversarial(self, inputs: Tensor, fake: Tensor, judged_real: Any, share: float) -> dict[str, Tensor]:
        if self.discriminator is None:
            return {}
        judged = self._judge(inputs, fake)
        loss = 0.5 * fake_loss(self.recipe.gan, judged)
        torch.autograd.backward(share * loss, inputs=list(self.discriminator.parameters()), retain_graph=True)
        losses = {"discriminator": loss, "gan": self.recipe.gan_weight * generator_loss(self.recipe.gan, judged)}
        if self.recipe.matching_weight:
            losses["matching"] = self.recipe.matching_weight * matching_loss(judged, judged_real)
        return losses

    def _pixels(self, fake: Tensor, targets: Tensor | None, taught: Tensor | None, real: Tensor) -> dict[str, Tensor]:
        recipe, losses = self.recipe, {}
        if targets is not None and recipe.target_weight:
            losses["target"] = recipe.target_weight * F.l1_loss(fake, targets)
        if taught is not None and recipe.output_weight:
            losses["output"] = recipe.output_weight * F.l1_loss(fake, taught)
        if self.perceptual is not None and recipe.perceptual_weight:
            losses["perceptual"] = recipe.perceptual_weight * self.perceptual(fake, real).mean()
        return losses

    def _features(self, mine: dict[str, Tensor], taught: dict[str, Tensor], config: Any) -> dict[str, Tensor]:
        if not self.feature_layers:
            return {}
        if self.maps is not None:
            kept = None
            if config is not None:
                kept = kept_channels(self.generator.graph, self.feature_layers, config)  # type: ignore[arg-type]
            elif isinstance(self.generator, ClosesChannels):  # what nothing reads any more must not carry it
                kept = self.generator.open_channels(self.feature_layers)
                mine = {name: feature[:, kept[name]] for name, feature in mine.items()}
            loss = self.maps(mine, taught, kept)
        else:
            loss = (alignment_loss if self.recipe.feature_loss == "alignment" else relation_loss)(mine, taught)
        return {"feature": self.recipe.feature_weight * loss}

    def after_step(self, step: int) -> None:
        """Nothing here; methods that shrink something after an update do it in their own task."""
