"""Whether data, generator, teacher, discriminators and scores fit each other: two pictures go through all of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gantailor.run.run import Run
from gantailor.run.shapes import output_of
from gantailor.supernet.calling import Inputs, first, input_names, shape_of
from gantailor.supernet.errors import ConfigError, first_line, nearest
from gantailor.supernet.training import distributed
from gantailor.supernet.training.batches import Move
from gantailor.supernet.training.recipe import Recipe
from gantailor.supernet.training.teaching.distillation import capture
from gantailor.supernet.training.teaching.teacher_cache import check_cache
from gantailor.zoo.checkpoints import load_state, read_state
from gantailor.zoo.data.vectors import WithVectors
from gantailor.zoo.generators.record import find_generator

LOOKED_AT = 2  # pictures
OTHER_LAYERS = "say teacher.layers {the generator's: the teacher's}"
MAPPED = ("mse", "l1")  # losses of features behind 1x1 maps
UNTUNED = ("check", "train", "search")  # stages whose job ends before fine-tuning
FAR = 2.0  # absolute values from which outputs are said to leave [-1, 1]


class AsTrained:
    """A data set whose batches are what training sees, parts of pictures where it has a ``crop``, unmoved."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def __getattr__(self, name: str) -> Any:
        return getattr(self.data, name)

    def __len__(self) -> int:
        return len(self.data)

    def batch(self, indices: np.ndarray, *, moves: Sequence[Move] | None = None) -> tuple[Inputs, Tensor | None]:
        """Inputs and targets in [-1, 1]."""
        found: tuple[Inputs, Tensor | None] = self.data.batch(indices, moves=[Move(False, 0, 0)] * len(indices))
        return found


@dataclass(frozen=True)
class Looked:
    """A few training pictures, and what the generator makes of them."""

    inputs: Inputs
    targets: Tensor | None
    outputs: Tensor


def look(run: Run) -> Looked:
    """A few training pictures through the generator, before it is traced: it makes what the targets are of them.

    Raises:
        ConfigError: it does not; the message has both shapes.
    """
    data, config = run.setup.data("train"), run.config
    for _, recipe in trainings(run):
        check_cache(recipe, data)
    if isinstance(data, WithVectors):
        run.report.note(data.told(input_names(run.setup.generator, len(data.order))))
    inputs, targets = AsTrained(data).batch(np.arange(min(LOOKED_AT, len(data))))
    outputs = output_of(run.setup.generator, inputs, f"generator {config.generator!r}")
    _check_finite(outputs, f"generator {config.generator!r}")
    check_targets(inputs, targets, outputs, config.generator)
    return Looked(inputs, targets, outputs)


def trainings(run: Run) -> Iterator[tuple[str, Recipe]]:
    """The sections of the trainings that the run has, and their recipes."""
    for section, recipe in (("train", run.config.train), ("finetune", run.config.finetune)):
        if recipe.kimg:
            yield section, recipe


def check_batch(recipe: Recipe, count: int, section: str) -> None:
    """That a step has no picture twice.

    Raises:
        ConfigError: a batch is larger than the data set.
    """
    if recipe.batch > count:
        parts = recipe.accumulate * distributed.world()
        raise ConfigError(
            f"{section}.batch {recipe.batch} is more than the {count} training pictures, which would come several "
            f"times in a step; set {section}.batch {max(parts, count // parts * parts)} or less"
        )


def check_targets(inputs: Inputs, targets: Tensor | None, outputs: Tensor, name: str) -> None:
    """That outputs and targets are pictures of one shape.

    Raises:
        ConfigError: they are not.
    """
    if targets is None or targets.shape == outputs.shape:
        return
    mend = "give targets of the output's size"
    if targets.shape[1] != outputs.shape[1]:
        mend = f"set data.channels [{first(inputs).shape[1]}, {outputs.shape[1]}], or give such targets"
    elif first(inputs).ndim == 4:
        factor, rest = divmod(outputs.shape[2], first(inputs).shape[2])
        mend = f"set data.scale {factor}, or {mend}" if factor and not rest else mend
    raise ConfigError(
        f"generator {name!r} makes {shape_of(outputs)} of {shape_of(inputs)}, the targets are "
        f"{shape_of(targets)}: {mend}"
    )


def _check_finite(outputs: Tensor, whose: str) -> None:
    if not bool(torch.isfinite(outputs).all()):
        raise ConfigError(f"{whose} makes NaN or infinity of training pictures; look at its weights and options")


def check_networks(run: Run, looked: Looked) -> None:
    """That discriminators and the networks of scores take these pictures, and that there are enough of them.

    A note says where the teacher's are of another range.

    Raises:
        GantailorError: one does not; the message has its name and the shape.
    """
    setup = run.setup
    if setup.traits.takes != "latents":  # of which each step has others
        for section, recipe in trainings(run):
            if section == "train" or run.until not in UNTUNED:
                check_batch(recipe, len(setup.data("train")), section)
    if setup.taught:
        same = setup.teacher is setup.generator
        taught = looked.outputs if same else output_of(setup.teacher, looked.inputs, "the teacher")
        _look_at_range(run, looked, taught)
    for section, recipe in trainings(run):
        check_discriminator(run, section, recipe)
    aim = looked.targets if looked.targets is not None else looked.outputs
    setup.scoring.check(looked.outputs[:1], aim[:1])


def _look_at_range(run: Run, looked: Looked, taught: Tensor) -> None:
    """A note where a trained generator's pictures are not those of [-1, 1]."""
    _check_finite(taught, "the teacher")
    low, high = float(taught.min()), float(taught.max())
    real = looked.targets if looked.targets is not None else first(looked.inputs)
    halved = low >= 0 and high <= 1 and real.ndim == 4 and float(real.min()) < -0.5
    if max(-low, high) > FAR or halved:
        run.report.note(
            f"the teacher's pictures lie in {low:.3g} to {high:.3g}, those of the data in -1 to 1; if it was trained "
            "on another range, let its forward scale input and output"
        )


def check_features(run: Run, inputs: Inputs) -> None:
    """That the layers whose features are distilled are in generator and teacher, and give what the loss compares.

    Raises:
        ConfigError: they do not; the layer is named.
    """
    setup, config, pairs = run.setup, run.config, run.setup.layers
    if not setup.taught or not any(recipe.feature_weight for recipe in (config.train, config.finetune)):
        return
    if setup.proposed_layers:
        named = ", ".join(setup.proposed_layers)
        run.report.note(f"features are compared behind {named}, proposed from the graph; teacher.layers sets others")
    record = setup.teacher_record
    _check_layers(setup.generator, pairs, f"generator {config.generator!r}", config.generator)
    teacher = f"teacher {record.generator if record else ''!r}"
    _check_layers(setup.teacher, pairs.values(), teacher, config.generator)
    distilled = [(section, recipe) for section, recipe in trainings(run) if recipe.feature_weight]
    if not distilled:
        return
    mine = _features(setup.generator, {name: name for name in pairs}, inputs, f"generator {config.generator!r}")
    alike = setup.teacher is setup.generator and all(name == other for name, other in pairs.items())
    theirs = mine if alike else _features(setup.teacher, pairs, inputs, teacher)
    for section, recipe in distilled:
        for name in pairs:
            if why := _unlike(recipe.feature_loss, mine.get(name), theirs.get(name)):
                raise ConfigError(
                    f"features of {name!r} {why}; set {section}.feature_weight 0 or another {section}.feature_loss, or "
                    f"{OTHER_LAYERS}"
                )


def _check_layers(net: nn.Module, names: Iterable[str], whose: str, student: str) -> None:
    layers = [name for name, _ in net.named_modules() if name]
    if missing := [name for name in names if name not in layers]:
        raise ConfigError(
            f"{whose} has no {missing[0]!r}, whose features {student!r} is compared by "
            f"({nearest(missing[0], layers)}); set train.feature_weight and finetune.feature_weight to 0, or "
            f"{OTHER_LAYERS}"
        )


@torch.no_grad()
def _features(model: nn.Module, layers: Mapping[str, str], inputs: Inputs, whose: str) -> dict[str, Any]:
    """Of the named layers, by the generator's names for them."""
    with capture(model, layers) as found:
        output_of(model, inputs, whose)
    return found


def _unlike(loss: str, mine: Any, theirs: Any) -> str | None:
    """What is wrong with a layer's features in generator and teacher; ``None`` where nothing is."""
    for whose, feature in (("generator", mine), ("teacher", theirs)):
        if not isinstance(feature, Tensor):
            return (
                f"are {'not computed' if feature is None else f'a {type(feature).__name__}'} in the {whose}'s forward"
            )
        if loss in MAPPED and feature.ndim != 4:
            return f"are {shape_of(feature)} in the {whose}, feature_loss {loss} compares [N, C, H, W]"
    places = mine.shape[2:] == theirs.shape[2:] if loss in MAPPED else mine[:, 0].numel() == theirs[:, 0].numel()
    if loss != "relation" and not places:
        return f"are {shape_of(mine)} in the generator and {shape_of(theirs)} in the teacher, other places"
    return None


def continued(discriminator: nn.Module, weights: str | None) -> nn.Module:
    """The discriminator with the configured weights, if there are any."""
    if weights:
        load_state(discriminator, read_state(Path(weights)), weights)
    return discriminator


def check_discriminator(run: Run, section: str, recipe: Recipe) -> None:
    """That the recipe's discriminator judges what the generator makes, and takes the weights that are named for it.

    Raises:
        ConfigError: it does not; the message has its name and the shape.
    """
    setup, config = run.setup, run.config
    training = find_generator(config.generator).training(setup.generator)
    if recipe.gan == "none" or training.discriminator is None:
        return
    with torch.random.fork_rng(devices=[]):
        net, seen = training.discriminator_of(setup.generator, AsTrained(setup.data("train")), recipe)
    if net is None:
        return
    net = continued(net, config.discriminator)
    try:
        with torch.no_grad():
            net(seen)
    except Exception as error:  # a discriminator of one's own may raise anything
        joined = ", input and output joined" if recipe.conditional and seen.shape[1] > 4 else ""
        raise ConfigError(
            f"discriminator {recipe.discriminator!r} of {section} cannot judge {shape_of(seen)}{joined}: "
            f"{first_line(error)}; pictures may be too small for it: lower {section}.discriminator_layers (now "
            f"{recipe.discriminator_layers}), or raise data.size or data.crop"
        ) from error
