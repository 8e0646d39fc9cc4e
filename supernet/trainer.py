"""The training loop: teacher, supernet and extracted subnet are all trained here.

It is decoupled from the search. Its whole state is the step number, the weights and the optimisers: data order,
augmentation, sampled subnets and dropout are functions of (seed, step), so a resumed training goes on exactly as if
it had never stopped.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from supernet.distillation import FeatureMaps, capture
from supernet.errors import CheckpointError, GantailorError
from supernet.files import load_optimizer_tensors, load_tensors, optimizer_tensors, save_tensors
from supernet.losses import discriminator_loss, generator_loss
from supernet.recipe import Recipe


class PairSource(Protocol):
    """What the trainer asks of a data set."""

    def __len__(self) -> int: ...

    def batch(
        self, indices: np.ndarray, *, rng: np.random.Generator | None = None, shift: int = 0
    ) -> tuple[Tensor, Tensor | None]: ...


@dataclass(frozen=True)
class Progress:
    """What a listener is told after a step: losses are means since the last report."""

    step: int
    steps: int
    kimg: float
    images_per_second: float
    losses: dict[str, float]


class TrainingError(GantailorError):
    """Training cannot go on; the message names the step, the loss and what is safe on disk."""


class Trainer:
    """Trains one generator by a recipe.

    Args:
        generator: a plain module, or a ``Supernet`` together with ``sample``.
        data: aligned pairs; targets may be missing when there is a teacher.
        recipe: losses and lengths.
        discriminator: judges inputs and outputs joined along channels; needed unless ``recipe.gan`` is ``none``.
        teacher: frozen generator whose outputs and features are distilled.
        feature_layers: module names, the same in generator and teacher, whose outputs are compared.
        sample: for a supernet, the subnet of a step, from a random generator.
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
        sample: Callable[[np.random.Generator, int], Any] | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        self.recipe, self.data, self.sample, self.device = recipe, data, sample, torch.device(device)
        self.generator = generator.to(device).train()
        self.average = copy.deepcopy(self.generator) if recipe.ema_kimg else None
        self.discriminator = discriminator.to(device) if discriminator and recipe.gan != "none" else None
        self.teacher = teacher.to(device).eval().requires_grad_(False) if teacher is not None else None
        self.feature_layers = tuple(feature_layers) if self.teacher and recipe.feature_weight else ()
        self.maps = self._feature_maps()
        trained = [*self.generator.parameters(), *(self.maps.parameters() if self.maps else ())]
        self.optimizers = {"generator": self._adam(trained)}
        if self.discriminator is not None:
            self.optimizers["discriminator"] = self._adam(self.discriminator.parameters())
        self.step = 0

    def _adam(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        betas = (self.recipe.beta1, self.recipe.beta2)
        return torch.optim.Adam(parameters, lr=self.recipe.lr, betas=betas, fused=True)

    def _feature_maps(self) -> FeatureMaps | None:
        if not self.feature_layers or self.teacher is None:
            return None
        inputs = self.data.batch(np.arange(1))[0].to(self.device)
        widths = []
        for model in (self.generator, self.teacher):
            with torch.no_grad(), capture(_plain(model), self.feature_layers) as features:
                model(inputs)
            widths.append({name: features[name].shape[1] for name in self.feature_layers})
        torch.manual_seed(self.recipe.seed)
        return FeatureMaps(widths[0], widths[1]).to(self.device)

    def run(
        self,
        checkpoint: Path | None = None,
        *,
        on_progress: Callable[[Progress], None] | None = None,
        save_every_s: float = 60.0,
        stop_after: int | None = None,
    ) -> nn.Module:
        """Train to the recipe's length and return the generator (its weight average where there is one).

        With ``checkpoint`` an existing file is continued, and the state is saved to it every ``save_every_s``
        seconds, on an interruption, and at the end. ``stop_after`` ends early, at a step (for tests and trials).
        """
        if checkpoint is not None and checkpoint.exists():
            self.load(checkpoint)
        last_save = last_report = time.monotonic()
        sums: dict[str, float] = {}
        counted, log = 0, None if checkpoint is None else checkpoint.with_suffix(".jsonl")
        end = min(self.recipe.steps, stop_after or self.recipe.steps)
        try:
            while self.step < end:
                losses = self.train_step()
                counted += 1
                sums = {name: sums.get(name, 0.0) + value for name, value in losses.items()}
                now = time.monotonic()
                if now - last_report > 1 or self.step == end:
                    report = self._report(sums, counted, now - last_report, log)
                    if on_progress:
                        on_progress(report)
                    sums, counted, last_report = {}, 0, now
                if checkpoint is not None and now - last_save > save_every_s:
                    self.save(checkpoint)
                    last_save = time.monotonic()
        finally:
            if checkpoint is not None:
                self.save(checkpoint)
        return self.result()

    def result(self) -> nn.Module:
        """The trained generator: the weight average, or the weights themselves without one; in eval mode."""
        return (self.average if self.average is not None else self.generator).eval()

    def _report(self, sums: dict[str, float], counted: int, seconds: float, log: Path | None) -> Progress:
        losses = {name: total / counted for name, total in sums.items()}
        kimg = self.step * self.recipe.batch / 1000
        speed = counted * self.recipe.batch / max(seconds, 1e-9)
        if log is not None:
            row = {"step": self.step, "kimg": kimg, "images_per_second": round(speed, 1)} | losses
            with log.open("a") as file:
                file.write(json.dumps(row) + "\n")
        return Progress(self.step, self.recipe.steps, kimg, speed, losses)

    def train_step(self) -> dict[str, float]:
        """One optimiser step of discriminator and generator; the loss terms, weighted, as floats."""
        recipe = self.recipe
        torch.manual_seed(recipe.seed * 1_000_003 + self.step)  # dropout only: the rest draws from `rng`
        rng = np.random.default_rng((recipe.seed, self.step))
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = recipe.lr_at(self.step)
        inputs, targets = self._batch(rng)
        config = self.sample(rng, self.step) if self.sample else None
        teacher_output, teacher_features = self._teach(inputs)
        real = targets if targets is not None else teacher_output
        assert real is not None, "unpaired data needs a teacher"
        with capture(_plain(self.generator), self.feature_layers) as features, self._autocast():
            fake = self.generator(inputs) if config is None else self.generator(inputs, config=config)
        fake = fake.float()
        losses: dict[str, Tensor] = {}
        if self.discriminator is not None:
            losses["discriminator"] = self._step_discriminator(inputs, real, fake.detach())
            losses["gan"] = recipe.gan_weight * generator_loss(recipe.gan, self._judge(inputs, fake))
        if targets is not None and recipe.target_weight:
            losses["target"] = recipe.target_weight * F.l1_loss(fake, targets)
        if teacher_output is not None and recipe.output_weight:
            losses["output"] = recipe.output_weight * F.l1_loss(fake, teacher_output)
        if self.maps is not None:
            kept = None if config is None else self.generator.kept_channels(self.feature_layers, config)  # type: ignore[operator]
            losses["feature"] = recipe.feature_weight * self.maps(features, teacher_features, kept)
        self._check(losses)
        optimizer = self.optimizers["generator"]
        optimizer.zero_grad(set_to_none=True)
        torch.stack([value for name, value in losses.items() if name != "discriminator"]).sum().backward()
        optimizer.step()
        self._update_average()
        self.step += 1
        return {name: float(value.detach()) for name, value in losses.items()}

    def _batch(self, rng: np.random.Generator) -> tuple[Tensor, Tensor | None]:
        recipe, count = self.recipe, len(self.data)
        positions = np.arange(self.step * recipe.batch, (self.step + 1) * recipe.batch)
        orders = {
            e: np.random.default_rng((recipe.seed, 1, e)).permutation(count) for e in set((positions // count).tolist())
        }
        indices = np.array([orders[p // count][p % count] for p in positions.tolist()])
        augment = rng if recipe.mirror else None
        inputs, targets = self.data.batch(indices, rng=augment, shift=recipe.shift)
        return inputs.to(self.device), None if targets is None else targets.to(self.device)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.precision == "bfloat16")

    @torch.no_grad()
    def _teach(self, inputs: Tensor) -> tuple[Tensor | None, dict[str, Tensor]]:
        if self.teacher is None:
            return None, {}
        with capture(self.teacher, self.feature_layers) as features, self._autocast():
            output = self.teacher(inputs)
        return output.float(), features

    def _judge(self, inputs: Tensor, outputs: Tensor) -> Tensor:
        assert self.discriminator is not None
        with self._autocast():
            return self.discriminator(torch.cat([inputs, outputs], 1)).float()

    def _step_discriminator(self, inputs: Tensor, real: Tensor, fake: Tensor) -> Tensor:
        assert self.discriminator is not None
        self.discriminator.requires_grad_(True)
        real_logits, fake_logits = self._judge(torch.cat([inputs, inputs]), torch.cat([real, fake])).chunk(2)
        loss = discriminator_loss(self.recipe.gan, real_logits, fake_logits)
        optimizer = self.optimizers["discriminator"]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        self.discriminator.requires_grad_(False)
        return loss.detach()

    def _update_average(self) -> None:
        if self.average is None:
            return
        decay = 0.5 ** (self.recipe.batch / (self.recipe.ema_kimg * 1000))
        decay = min(decay, (1 + self.step) / (10 + self.step))  # young averages follow quickly
        with torch.no_grad():
            for mean, value in zip(self.average.parameters(), self.generator.parameters(), strict=True):
                mean.lerp_(value, 1 - decay)
            for mine, held in zip(self.average.buffers(), self.generator.buffers(), strict=True):
                mine.copy_(held)

    def _check(self, losses: dict[str, Tensor]) -> None:
        for name, value in losses.items():
            if not torch.isfinite(value):
                raise TrainingError(
                    f"the {name} loss is {float(value)} at step {self.step}; the checkpoint holds the weights before "
                    f"this step. Lower lr (now {self.recipe.lr}) or use precision float32"
                )

    def _parts(self) -> dict[str, nn.Module]:
        parts = {"generator": self.generator, "average": self.average}
        parts |= {"discriminator": self.discriminator, "maps": self.maps}
        return {name: part for name, part in parts.items() if part is not None}

    def save(self, path: Path) -> None:
        """Write the whole state to ``path``, atomically."""
        tensors = {f"{name}.{k}": v for name, part in self._parts().items() for k, v in part.state_dict().items()}
        for name, optimizer in self.optimizers.items():
            tensors |= {f"optimizer-{name}.{k}": v for k, v in optimizer_tensors(optimizer).items()}
        save_tensors(path, tensors, {"step": self.step, "recipe": self.recipe.model_dump()})

    def load(self, path: Path) -> None:
        """Go on from what ``save`` wrote.

        Raises:
            CheckpointError: the file is damaged, or belongs to another recipe or architecture.
        """
        tensors, info = load_tensors(path)
        if info.get("recipe") != self.recipe.model_dump():
            raise CheckpointError(
                f"{str(path)!r} was made by another recipe; give another folder, or delete the file to start anew"
            )
        for name, part in self._parts().items():
            part.load_state_dict(_under(tensors, name))
        for name, optimizer in self.optimizers.items():
            load_optimizer_tensors(optimizer, _under(tensors, f"optimizer-{name}"))
        self.step = info["step"]


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key[len(prefix) + 1 :]: value for key, value in tensors.items() if key.startswith(prefix + ".")}


def _plain(model: nn.Module) -> nn.Module:
    """The user's generator inside a supernet, or the model itself: where layer names are looked up."""
    inner = getattr(model, "generator", None)
    return inner if isinstance(inner, nn.Module) else model
