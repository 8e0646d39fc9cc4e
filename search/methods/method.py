"""What a compression method is: one record, which the pipeline asks at every stage.

A method of one's own is a ``Method`` in any module, named ``module:NAME`` in a configuration; ``MethodConformance``
(``search/methods/conformance.py``) checks it like ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from gantailor.search.budget import Budget
from gantailor.search.methods import METHODS
from gantailor.search.spaces.config import SpaceConfig
from gantailor.search.spaces.path import WidthPath
from gantailor.search.spaces.space import Space
from gantailor.supernet.graph import SubnetConfig
from gantailor.supernet.plugins import find_record
from gantailor.supernet.quantization.quantisers import Quantisers
from gantailor.supernet.supernet import Supernet
from gantailor.supernet.training.image_to_image import Sampler
from gantailor.supernet.training.recipe import Recipe
from gantailor.supernet.training.task import Task

Nets = dict[str, nn.Module]
DISCRIMINATOR = "discriminator"  # the name of the partner that judges: narrowed along, it goes on in fine-tuning anyway


class Settings(Protocol):
    """The part of a run's configuration that methods look at."""

    @property
    def method(self) -> str: ...
    @property
    def generator(self) -> str: ...
    @property
    def budget(self) -> str: ...
    @property
    def space(self) -> SpaceConfig: ...
    @property
    def ranking(self) -> str: ...
    @property
    def round_to_device(self) -> bool: ...
    @property
    def train(self) -> Recipe: ...
    @property
    def finetune(self) -> Recipe: ...
    @property
    def discriminator(self) -> str | None: ...
    @property
    def embedding(self) -> str | None: ...


class Context(Protocol):
    """What a run offers its method. What is returned as a copy may be changed; everything else is shared."""

    device: torch.device  # where trainings compute

    @property
    def config(self) -> Settings:
        """The run's settings."""

    @property
    def taught(self) -> bool:
        """Whether there is a trained teacher."""

    @property
    def space(self) -> Space:
        """The widths that may be chosen; its ``supernet`` is shared."""

    @property
    def budget(self) -> Budget:
        """What the result may cost."""

    def supernet(self) -> Supernet:
        """A copy whose channels lie in the order of the run's ranking."""

    def scores(self) -> Mapping[str, np.ndarray]:
        """Of each width's channels by the run's ranking, as they lie in ``supernet()``; the larger stays."""

    def teacher(self) -> nn.Module:
        """A frozen copy of the teacher; of the untrained generator where there is none."""

    def data(self, split: str = "train") -> Any:
        """A data set: ``train``, ``search`` or ``test``."""

    def domains(self) -> Any:
        """Two sets of unpaired pictures.

        Raises:
            DataError: the data has none.
        """

    def discriminator(self) -> Supernet:
        """The traced discriminator of ``config.train``, with the configured weights if there are any: a copy.

        Raises:
            ConfigError: it cannot be narrowed.
        """

    def embeddings(self, pictures: Any = None) -> np.ndarray:
        """Features ``[N, d]`` of the teacher's outputs over the training inputs, or of these uint8 pictures."""

    def left_by_teacher(self, what: str) -> Mapping[str, Tensor] | None:
        """Weights in a file beside the teacher's, None where there is none; the run says which.

        Args:
            what: of a CycleGAN: ``BtoA``, the generator that translates back, or ``discriminator_A``.
        """

    def calibrated(self, narrow: nn.Module) -> nn.Module:
        """An extracted subnet where the run computes, with batch norm statistics of its own; in eval mode."""

    def training(
        self,
        model: nn.Module,
        recipe: Recipe,
        *,
        sample: Sampler | None = None,
        discriminator: nn.Module | None = None,
    ) -> Task:
        """The generator's own training by a recipe, beside the teacher where there is one.

        Args:
            sample: for a supernet, the subnet of each step.
            discriminator: in the place of the recipe's.
        """


@dataclass(frozen=True)
class Kept:
    """A whole net's weights, the kept channels of every width first, and how many are kept.

    Attributes:
        orders: for each width the numbers that its channels had in the training, as they lie now.
    """

    weights: Mapping[str, Tensor]
    config: SubnetConfig
    orders: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What a method's training leaves behind.

    Attributes:
        weights: of the whole generator; where channels were chosen, the kept ones come first.
        config: the widths that it chose; None leaves them to the search.
        path: the order in which a supernet's channels go, where it was trained along one.
        orders: of channels that lie otherwise than in the training, as in ``Kept``.
        partners: other nets that were narrowed along, by the names in ``Method.partners``.
        quantisers: those of a training in few bits.
        notes: what there is to say, a line each.
    """

    weights: Mapping[str, Tensor]
    config: SubnetConfig | None = None
    path: WidthPath | None = None
    orders: Mapping[str, np.ndarray] = field(default_factory=dict)
    partners: Mapping[str, Kept] = field(default_factory=dict)
    quantisers: Quantisers | None = None
    notes: tuple[str, ...] = ()


def _no_defaults(own: Mapping[str, Any]) -> Mapping[str, Any]:
    return {}


def _nothing_to_check(context: Context) -> None:
    return None


def sampled_training(context: Context) -> Task:
    """Training of the supernet at widths drawn anew in every step (Li et al. 2020, arXiv 2003.08936)."""
    recipe, space = context.config.train, context.space

    def sample(rng: np.random.Generator, step: int, position: int) -> SubnetConfig:
        return space.sample(rng, step=step, position=position, recipe=recipe)

    return context.training(context.supernet(), recipe, sample=sample)


def three_widths(context: Context, task: Task, model: nn.Module) -> Nets:
    """Of a supernet in training the smallest, the middle and the largest subnet."""
    assert isinstance(model, Supernet)
    space = context.space
    chosen = {
        "smallest": space.smallest,
        "middle": (space.smallest + space.largest) // 2,
        "largest": space.largest,
    }
    return {name: context.calibrated(model.extract(space.to_config(c))) for name, c in chosen.items()}


def all_widths(context: Context, task: Task, model: nn.Module) -> Trained:
    """A trained supernet, whose widths are searched."""
    assert isinstance(model, Supernet)
    return Trained(weights=model.generator.state_dict())


def beside_teacher(context: Context, narrow: nn.Module, partners: Nets) -> Task:
    """Fine-tuning of what was found by ``config.finetune``."""
    return context.training(narrow, context.config.finetune)


def _no_partner(context: Context, name: str) -> Supernet:
    raise KeyError(name)


@dataclass(frozen=True, kw_only=True)
class Method:
    """A compression system.

    Attributes:
        name: as in a configuration; a training's log is called so too.
        defaults: settings beneath the user's own, which it is given; a mapping of settings as in YAML.
        options: dataclass of ``train.method_options``, which checks its values; None where there are none.
        searches: whether widths are searched after the training; False where the training itself ends at the budget.
        least: channels that every width keeps at least, where it does not search.
        check: raises a ``GantailorError`` where the run's settings do not suit it; trains nothing.
        task: what is trained, by ``config.train``.
        watch: of a training, the nets whose pictures and scores are looked at as it goes, by name.
        select: what a finished training leaves behind.
        narrows: whether its training leaves the whole net as it was, so that fine-tuning leads it down to its widths.
        partners: names of the nets that may be narrowed along; ``partner`` gives for each the whole net, a copy.
        finetune: the training of the narrow generator, with its narrowed partners.
    """

    name: str
    defaults: Callable[[Mapping[str, Any]], Mapping[str, Any]] = _no_defaults
    options: type[Any] | None = None
    searches: bool = True
    least: int = 1
    check: Callable[[Context], None] = _nothing_to_check
    task: Callable[[Context], Task] = sampled_training
    watch: Callable[[Context, Any, nn.Module], Nets] = three_widths
    select: Callable[[Context, Any, nn.Module], Trained] = all_widths
    narrows: bool = False
    partners: tuple[str, ...] = ()
    partner: Callable[[Context, str], Supernet] = _no_partner
    finetune: Callable[[Context, nn.Module, Nets], Task] = beside_teacher


def method(name: str) -> Method:
    """A method by its name, or one's own by ``module:NAME``.

    Raises:
        ConfigError: there is none, or it is no ``Method``.
    """
    return find_record(name, METHODS, "method", Method)
