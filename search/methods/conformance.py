"""The tests that every method passes, a user's own too.

Inherit the class in a test file and say which method::

    class TestMine(MethodConformance):
        name = "mymodule:MINE"

``settings`` are those of the small run that the tests make, above the method's own defaults.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gantailor.search.budget import Budget
from gantailor.search.methods.method import Context, Method, Trained, method
from gantailor.search.spaces.config import SpaceConfig
from gantailor.search.spaces.space import Space, space
from gantailor.supernet.device import HOST
from gantailor.supernet.importance.ranking import l1_scores
from gantailor.supernet.supernet import Supernet
from gantailor.supernet.training.image_to_image import Sampler
from gantailor.supernet.training.recipe import Recipe
from gantailor.supernet.training.task import Task
from gantailor.supernet.training.trainer import Trainer
from gantailor.zoo.data.domains import Domains
from gantailor.zoo.data.pairs import Pairs
from gantailor.zoo.generators.record import build
from gantailor.zoo.tasks.image_to_image import IMAGE_TO_IMAGE
from gantailor.zoo.tasks.training import StudentContext

SIZE, PICTURES, STEPS = 32, 8, 6
SMALL: Mapping[str, Any] = {"batch": 4, "ndf": 4, "shift": 0, "precision": "float32", "kimg": 0.004 * STEPS}


@dataclass(frozen=True)
class SmallSettings:
    """The part of a configuration that methods look at."""

    method: str
    train: Recipe
    finetune: Recipe
    space: SpaceConfig
    generator: str = "resnet_6blocks"
    budget: str = "0.4x"
    ranking: str = "l1"
    round_to_device: bool = False
    discriminator: str | None = None
    embedding: str | None = None


@dataclass
class SmallContext:
    """A run in memory: a ResNet with few channels, random pairs of pictures."""

    config: SmallSettings
    taught: bool = True
    device: torch.device = HOST

    @cached_property
    def _whole(self) -> nn.Module:
        torch.manual_seed(0)
        return build("resnet_6blocks", ngf=8).eval().requires_grad_(False)

    @cached_property
    def _supernet(self) -> Supernet:
        supernet = Supernet(self._whole, (torch.zeros(1, 3, SIZE, SIZE),))
        supernet.generator.requires_grad_(True)
        return supernet

    @cached_property
    def space(self) -> Space:
        """The widths that may be chosen."""
        return space(self.config.space, self._supernet)

    @cached_property
    def budget(self) -> Budget:
        """A share of the generator's MACs."""
        whole = self._supernet.macs(self._supernet.full_config())
        return Budget(self.space, int(float(self.config.budget.removesuffix("x")) * whole))

    def supernet(self) -> Supernet:
        """A copy of the whole generator's supernet."""
        return copy.deepcopy(self._supernet)

    def scores(self) -> Mapping[str, np.ndarray]:
        """L1 norms, of channels as they lie."""
        return l1_scores(self._supernet)

    def teacher(self) -> nn.Module:
        """A frozen copy of the whole generator."""
        return copy.deepcopy(self._whole)

    def data(self, split: str = "train") -> Pairs:
        """Random pairs, the same for every split."""
        pictures = np.random.default_rng(0).integers(0, 256, (2, PICTURES, SIZE, SIZE, 3), dtype=np.uint8)
        return Pairs(pictures[0], pictures[1], tuple(map(str, range(PICTURES))), "random")

    def domains(self) -> Domains:
        """Both sides of the pairs."""
        pairs = self.data()
        assert pairs.targets is not None
        return Domains(pairs.inputs, pairs.targets)

    def discriminator(self) -> Supernet:
        """The traced discriminator of ``config.train``."""
        plain, seen = IMAGE_TO_IMAGE.discriminator_of(self._whole, self.data(), self.config.train)
        assert plain is not None
        return Supernet(plain, (seen,))

    def embeddings(self, pictures: Any = None) -> np.ndarray:
        """Random features ``[N, 4]``."""
        count = PICTURES if pictures is None else len(pictures)
        return np.random.default_rng(1 if pictures is None else 2).normal(size=(count, 4))

    def left_by_teacher(self, what: str) -> None:
        """Nothing was left."""

    def calibrated(self, narrow: nn.Module) -> nn.Module:
        """In eval mode; the generator has instance norms only."""
        return narrow.to(self.device).eval()

    def training(
        self,
        model: nn.Module,
        recipe: Recipe,
        *,
        sample: Sampler | None = None,
        discriminator: nn.Module | None = None,
    ) -> Task:
        """Training from pictures to pictures."""
        teacher = self.teacher() if recipe.distils and self.taught else None
        context = StudentContext(
            whole=self._whole, teacher=teacher, discriminator=discriminator, sample=sample, device=self.device
        )
        return IMAGE_TO_IMAGE.student_task()(model, self.data(), recipe, context)


class MethodConformance:
    """Inherit, and set ``name``."""

    name: ClassVar[str]
    settings: ClassVar[Mapping[str, Any]] = {}

    @pytest.fixture
    def method(self) -> Method:
        """The record."""
        return method(self.name)

    def context(self, method: Method) -> SmallContext:
        """A small run with the method's defaults, and ``settings`` above them."""
        defaults = dict(method.defaults({"method": self.name}))
        own = {"train": dict(self.settings.get("train", {})), "finetune": dict(self.settings.get("finetune", {}))}
        train, finetune = (Recipe(**{**defaults.get(part, {}), **SMALL, **own[part]}) for part in ("train", "finetune"))
        chosen = {**defaults.get("space", {}), **self.settings.get("space", {})}
        return SmallContext(SmallSettings(self.name, train, finetune, space=SpaceConfig(**chosen)))

    def train(self, method: Method, context: Context, folder: Path) -> tuple[Task, nn.Module, Trained]:
        """A whole training of a few steps."""
        task = method.task(context)
        model = Trainer(task, context.config.train).run(folder / "checkpoint.safetensors")
        return task, model, method.select(context, task, model)

    def test_defaults_are_settings(self, method: Method) -> None:
        """Nested, and not a mapping that is shared: who changes it changes nothing."""
        first = method.defaults({"method": self.name})
        assert isinstance(first, Mapping) and first == method.defaults({"method": self.name})

    def test_suitable_settings_pass(self, method: Method) -> None:
        """``check`` trains nothing and says nothing where all is well."""
        method.check(self.context(method))

    def test_what_training_leaves(self, method: Method, tmp_path: Path) -> None:
        """Weights of the whole generator; where it does not search, widths within the budget that lead there."""
        context = self.context(method)
        task, model, trained = self.train(method, context, tmp_path)
        supernet = context.supernet().with_weights(trained.weights)
        assert (trained.config is None) == method.searches
        nets = method.watch(context, task, model)
        inputs = torch.rand(2, 3, SIZE, SIZE) * 2 - 1
        for net in nets.values():
            assert isinstance(net(inputs), Tensor) and not net.training
        if trained.config is None:
            return
        assert supernet.macs(trained.config) <= context.budget.macs
        assert min(trained.config.values()) >= min(method.least, 8)
        narrow = supernet.extract(trained.config).eval()
        expected = next(iter(nets.values()))(inputs)
        assert torch.allclose(narrow(inputs), expected, atol=1e-4), "the kept channels lead in the stored weights"

    def test_the_run_is_left_as_it_was(self, method: Method, tmp_path: Path) -> None:
        """What the context shares stays as it is."""
        context = self.context(method)
        before = {name: value.clone() for name, value in context.space.supernet.generator.state_dict().items()}
        self.train(method, context, tmp_path)
        after = context.space.supernet.generator.state_dict()
        assert all(torch.equal(before[name], value) for name, value in after.items())

    def test_training_goes_on_where_it_was(self, method: Method, tmp_path: Path) -> None:
        """Interrupted and continued it gives the same, bit for bit."""
        context = self.context(method)
        recipe, file = context.config.train, tmp_path / "half.safetensors"
        Trainer(method.task(context), recipe).run(file, stop_after=STEPS // 2)
        task = method.task(context)
        model = Trainer(task, recipe).run(file)
        continued = method.select(context, task, model)
        _, _, whole = self.train(method, context, tmp_path)
        assert continued.config == whole.config
        assert all(torch.equal(continued.weights[name], value) for name, value in whole.weights.items())

    def test_what_was_found_is_finetuned(self, method: Method, tmp_path: Path) -> None:
        """Its partners are rebuilt from what was stored, and one step of the fine-tuning runs."""
        context = self.context(method)
        _, _, trained = self.train(method, context, tmp_path)
        assert set(trained.partners) <= set(method.partners)
        config = trained.config or context.space.to_config(context.space.smallest)
        narrow = context.supernet().with_weights(trained.weights).extract(config)
        partners = {
            name: method.partner(context, name).with_weights(kept.weights).extract(kept.config)
            for name, kept in trained.partners.items()
        }
        task = method.finetune(context, narrow, partners)
        Trainer(task, context.config.finetune).run(stop_after=1)
        assert task.generator is narrow
