"""Training a CycleGAN: two generators, two discriminators, no pairs (Zhu et al. 2017, arXiv 1703.10593)."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from gantailor.supernet.device import HOST, Device, autocast
from gantailor.supernet.errors import ConfigError
from gantailor.supernet.training.losses import fake_loss, generator_loss, l1_loss, real_loss
from gantailor.supernet.training.pool import ImagePool
from gantailor.supernet.training.recipe import Recipe, require
from gantailor.supernet.training.task import Task, adam
from gantailor.supernet.traits import plain_generator, traits_of
from gantailor.zoo.data.config import DataConfig
from gantailor.zoo.data.domains import DomainBatch, DomainBatches, Domains
from gantailor.zoo.data.read import read_domains
from gantailor.zoo.initialisation import init_weights
from gantailor.zoo.tasks.training import Training, Weights
from gantailor.zoo.tasks.unpaired import backward_both, judges_of


@dataclass(frozen=True)
class CycleOptions:
    """Weights of the losses: ``identity`` is a share of ``cycle``. ``pool``: old pictures shown to discriminators."""

    cycle: float = 10.0
    identity: float = 0.5
    pool: int = 50

    def __post_init__(self) -> None:
        require("cycle", self.cycle, least=0)
        require("identity", self.identity, least=0)
        require("pool", self.pool, least=1)


class CycleGan:
    """``generator`` translates A to B, ``back`` B to A: one of its kind, if none is given, and then both start anew.

    ``judge_b`` judges pictures of B in the place of a fresh discriminator.
    """

    def __init__(
        self,
        generator: nn.Module,
        data: Domains,
        recipe: Recipe,
        *,
        back: nn.Module | None = None,
        judge_b: nn.Module | None = None,
        device: Device = HOST,
    ) -> None:
        plain = plain_generator(generator)
        if len(traits_of(plain).input_shapes) > 1:
            raise ConfigError(
                f"a CycleGAN trains generators of one picture; a {type(plain).__name__} takes more inputs"
            )
        self.recipe, self.device, self.batches = recipe, torch.device(device), DomainBatches(data, recipe)
        self.options = recipe.options_of(CycleOptions)
        torch.manual_seed(recipe.seed)
        if back is None:
            back = init_weights(copy.deepcopy(init_weights(generator)))
        self.generator, self.back = generator.to(device).train(), back.to(device).train()
        channels = (data.a.shape[3], data.b.shape[3])
        self.judges = nn.ModuleDict(dict(zip("ab", judges_of(recipe, channels, device), strict=True)))
        if judge_b is not None:
            self.judges["b"] = judge_b.to(device)
        pools = [ImagePool(self.options.pool, (count, *(data.crop or data.size))) for count in channels]
        self.pools = nn.ModuleDict(dict(zip("ab", pools, strict=True))).to(device)
        self._trained = [p for net in (self.generator, self.back) for p in net.parameters() if p.requires_grad]
        self.optimizers = {
            "generator": adam(self._trained, recipe),
            "discriminator": adam(self.judges.parameters(), recipe, recipe.lr_discriminator),
        }

    @property
    def counterparts(self) -> dict[str, nn.Module]:
        """What is kept beside the generator."""
        return {"back": self.back}

    def parts(self) -> dict[str, nn.Module]:
        """Everything with state."""
        return {"generator": self.generator, "back": self.back, "judges": self.judges, "pools": self.pools}

    def backward(self, step: int, batch: DomainBatch, share: float) -> dict[str, Tensor]:
        """Adversarial, cycle and identity losses of both directions."""
        rng = np.random.default_rng((self.recipe.seed, 3, step))
        losses: dict[str, Tensor] = {}
        judged: list[Tensor] = []
        real = {"a": batch.a.to(self.device), "b": batch.b.to(self.device)}
        recipe, kind, how = self.recipe, self.recipe.gan, self.recipe.gan_reduction
        for name, make, undo in (("b", self.generator, self.back), ("a", self.back, self.generator)):
            source, target, judge = real["a" if name == "b" else "b"], real[name], self.judges[name]
            with autocast(self.device, recipe.precision):
                fake = make(source)
                same = make(target) if self.options.identity else None
                cycled = undo(fake)
                seen = judge(fake)
                old = judge(self.pools[name].swap(fake.float(), rng))  # type: ignore[operator]
                true = judge(target)
            judged.append(recipe.discriminator_weight * (real_loss(kind, true, how) + fake_loss(kind, old, how)))
            losses[f"gan_{name}"] = recipe.gan_weight * generator_loss(kind, seen, how)
            losses[f"cycle_{name}"] = self.options.cycle * l1_loss(cycled.float(), source)
            if same is not None:
                weight = self.options.cycle * self.options.identity
                losses[f"identity_{name}"] = weight * l1_loss(same.float(), target)
        return backward_both(losses, judged, share, trained=self._trained, judges=self.judges)

    def after_step(self, step: int) -> None:
        """Nothing."""


def _teacher(generator: nn.Module, data: DataConfig, recipe: Recipe, *, device: Device = HOST) -> CycleGan:
    return CycleGan(generator, read_domains(data), recipe, device=device)


def _weights(task: Task, trained: nn.Module) -> Weights:
    """Both translators, and the discriminators of both domains."""
    assert isinstance(task, CycleGan)
    judges = {f"discriminator_{name.upper()}": judge.state_dict() for name, judge in task.judges.items()}
    return {"teacher": trained.state_dict(), "teacher_BtoA": task.back.state_dict(), **judges}


CYCLEGAN = Training(name="cyclegan", teacher=_teacher, weights=_weights)
