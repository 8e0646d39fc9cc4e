"""How a generator is trained: one set of typed, validated numbers for teacher, supernet and fine-tuning alike."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from gantailor.supernet.errors import ConfigError, nearest
from gantailor.supernet.training.presets import preset

GanLoss = Literal["hinge", "lsgan", "vanilla", "nonsaturating", "none"]
GanReduction = Literal["mean", "sum", "score"]
DiscriminatorKind = Literal["patch", "multiscale", "munit", "stylegan2", "unet"]
Precision = Literal["auto", "float32", "tf32", "bfloat16", "float16"]
RATE = 1e-3  # in the middle of those that ``lr: auto`` tries

Options = TypeVar("Options")


class Recipe(BaseModel):
    """Losses, optimiser and length of one training. Defaults are the demo task's; ``preset`` names a published one."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    preset: str | None = Field(None, description="published settings to start from; others given here win")
    task: str = Field(
        "image_to_image", description="what is trained: image_to_image, cyclegan, munit, stylegan2, or module:NAME"
    )
    task_options: dict[str, int | float] = Field({}, description="the task's own settings, {cycle: 10}")
    method_options: dict[str, int | float | str] = Field(
        {}, description="settings of slimming, a hypernetwork or agents, {strength: 0.01, control: penalty}"
    )
    kimg: float = Field(16.0, ge=0, le=1e9, description="training length in thousands of images; 0: train nothing")
    batch: int = Field(16, gt=0, le=2**20, description="images in a step, over all devices")
    accumulate: int = Field(1, gt=0, description="parts that a step's batch is worked through in, to save memory")
    lr: float | Literal["auto"] = Field(
        2e-4,
        description="Adam learning rate; auto: the best of a few, each tried for a tenth of the length and judged by "
        "the search's score on the search split",
    )
    lr_discriminator: float | None = Field(None, gt=0, description="the discriminator's own learning rate")
    beta1: float = Field(0.5, ge=0, lt=1, description="Adam beta1")
    beta2: float = Field(0.999, ge=0, lt=1, description="Adam beta2")
    weight_decay: float = Field(0.0, ge=0, description="Adam weight decay")
    decay_from: float = Field(0.5, ge=0, le=1, description="share of the length after which lr falls to zero")
    decay: Literal["linear", "cosine"] = Field("linear", description="along what it falls")
    halve_kimg: float = Field(0.0, ge=0, description="halve lr every so many kimg instead of the fall; 0: do not")
    gan: GanLoss = Field(
        "hinge",
        description="adversarial loss; vanilla, or nonsaturating, is the log loss; none trains without a discriminator",
    )
    gan_weight: float = Field(1.0, ge=0, description="weight of the adversarial loss")
    gan_reduction: GanReduction = Field(
        "mean", description="it is the mean over places and scales, the sum of the scales, or that of the mean score"
    )
    discriminator_weight: float = Field(
        0.5, gt=0, description="weight of the discriminator's own loss (image_to_image, cyclegan)"
    )
    pool: int = Field(
        0, ge=0, le=2**20, description="old outputs, of which the discriminator is shown one half of the time; 0: none"
    )
    discriminator: DiscriminatorKind = Field("patch", description="kind of discriminator")
    ndf: int = Field(64, gt=0, le=2**14, description="channels of the discriminator's first layer")
    discriminator_layers: int = Field(3, gt=0, le=32, description="its stride-2 convolutions")
    discriminator_norm: Literal["instance", "instance_affine", "batch"] = Field(
        "instance", description="norms of a patch discriminator; the last two have scales"
    )
    conditional: bool = Field(True, description="the discriminator sees input and output, not the output alone")
    matching_weight: float = Field(0.0, ge=0, description="weight of L1 between the discriminator's features")
    matching_to: Literal["real", "teacher"] = Field(
        "real", description="those of outputs are compared with the real pictures', or with the teacher's outputs'"
    )
    init: Literal["normal", "xavier"] = Field(
        "normal", description="first weights of discriminator, 1x1 maps and new teachers: N(0, 0.02) or Xavier x 0.02"
    )
    perceptual_weight: float = Field(0.0, ge=0, description="weight of the perceptual loss; needs its weights files")
    perceptual_loss: Literal["lpips", "gram"] = Field(
        "lpips",
        description="LPIPS to the target, or GAN Slimming's VGG16 content and Gram loss to the teacher",
    )
    perceptual_size: int = Field(
        0, ge=0, description="larger pictures are shrunk to so many pixels for the perceptual loss; 0: not"
    )
    target_weight: float = Field(50.0, ge=0, description="weight of L1 to the ground truth")
    output_weight: float = Field(0.0, ge=0, description="weight of L1 to the teacher's output")
    feature_weight: float = Field(0.0, ge=0, description="weight of the distance to the teacher's features")
    feature_loss: Literal["mse", "l1", "alignment", "relation"] = Field(
        "mse", description="MSE or L1 after 1x1 maps, kernel alignment (CAT), or relations between images (StyleKD)"
    )
    in_place_weight: float = Field(
        0.0, ge=0, description="weight of L1 to the step's largest subnet; needs subnets > 1"
    )
    ema_kimg: float = Field(2.0, ge=0, description="half-life of the weight average, in kimg; 0 switches it off")
    sampling: Literal["uniform", "sandwich", "spread", "progressive"] = Field(
        "spread",
        description="subnets: at random; largest, smallest and random in turn; evenly over cost; wide ones first",
    )
    subnets: int = Field(1, gt=0, le=2**10, description="subnets trained in each step")
    mirror: bool = Field(True, description="mirror pictures at random")
    shift: int = Field(4, ge=0, le=2**11, description="move pictures at random by up to so many pixels")
    teacher_cache: Literal["none", "memory", "disk"] = Field("none", description="keep teacher outputs; needs shift 0")
    precision: Precision = Field(
        "auto",
        description="of the networks' forward; auto: bfloat16 where the hardware has it, else float16 (losses are "
        "scaled), else float32",
    )
    coupled: Literal["whole", "parts"] = Field(
        "whole",
        description="what compares the pictures of a batch (relations, alignment, batch norm), with accumulate or in "
        "several processes: of the whole batch, or refused; or of each part alone",
    )
    channels_last: Literal["auto", True, False] = Field(
        "auto",
        description="compute on pictures with channels innermost; auto: where it is faster, measured on the first "
        "batch and kept for this machine (trainings of 500 steps or more; shorter ones: not)",
    )
    compile: bool = Field(False, description="torch.compile teacher and discriminator (needs a C++ compiler)")
    bits: int = Field(0, ge=0, le=8, description="weights and layer inputs are rounded to so many bits; 0: not")
    ranges: Literal["calibrated", "learned", "published"] = Field(
        "calibrated", description="with bits: ranges of inputs measured, trained, or GAN Slimming's fixed [0, 4]"
    )
    weights_per_channel: bool = Field(True, description="with bits: a step for each output channel of a weight")
    watch_kimg: float = Field(4.0, ge=0, description="every so often: sample pictures and the search's score; 0: never")
    seed: int = Field(0, ge=0, lt=2**32, description="seed of data order, subnets and initial weights")

    @model_validator(mode="before")
    @classmethod
    def _from_preset(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        if values.get("task") == "translation":  # as runs before this name wrote it
            values = {**values, "task": "image_to_image"}
        return {**preset(values["preset"]), **values} if values.get("preset") else values

    @field_validator("lr", mode="before")
    @classmethod
    def _rate(cls, value: Any) -> Any:
        """A number, also one that YAML takes for a text (``1e-3``), or ``auto``."""
        try:
            found = value if value == "auto" else float(value)
        except (TypeError, ValueError):
            found = 0.0
        if found != "auto" and not (0 < found <= 1e6 and not isinstance(value, bool)):
            raise ValueError("give a number above 0, at most 1e6, or auto")
        return found

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if self.teacher_cache != "none" and self.shift:
            raise ValueError(f"teacher_cache {self.teacher_cache!r} needs shift 0: moved pictures never come again")
        if self.in_place_weight and self.subnets < 2:
            raise ValueError("in_place_weight needs subnets of 2 or more: the first of a step teaches the others")
        if self.bits == 1:
            raise ValueError("bits of 1 leave no levels; allowed are 0 (off) and 2 to 8")
        if self.batch % self.accumulate:
            raise ValueError(f"batch {self.batch} cannot be worked through in {self.accumulate} equal parts")
        return self

    def options_of(self, kind: type[Options], *, method: bool = False) -> Options:
        """The settings of the task, or of the method around it, as the dataclass that keeps them.

        Raises:
            ConfigError: a name that it does not have.
        """
        types = {field.name: field.type for field in fields(kind)}  # type: ignore[arg-type]
        allowed = list(types)
        values: dict[str, Any] = dict(self.method_options if method else self.task_options)
        for name, value in values.items():
            if name not in allowed:
                whose = "the method" if method else f"task {self.task!r}"
                raise ConfigError(f"{whose} has no option {name!r}; {nearest(name, allowed)}")
            if types[name] in (str, "str"):
                continue
            if isinstance(value, str):
                raise ConfigError(f"option {name} cannot be {value!r}; give a number")
            if types[name] in (int, "int"):
                if not float(value).is_integer():
                    raise ConfigError(f"option {name} cannot be {value}; give a whole number")
                values[name] = int(value)
        try:
            return kind(**values)
        except ValueError as error:
            raise ConfigError(f"{'train.method_options' if method else 'task_options'}.{error}") from None

    @classmethod
    def stored(cls, values: Mapping[str, Any]) -> Recipe:
        """The recipe that a checkpoint holds; settings newer than it are as before there were any, not as its preset's.

        Raises:
            ValueError: no recipe of this version.
        """
        plain = cls.model_validate({**values, "preset": None})
        return plain.model_copy(update={"preset": values.get("preset")})

    @property
    def distils(self) -> bool:
        """Whether a teacher's outputs or features have a part in it."""
        gram = self.perceptual_loss == "gram" and self.perceptual_weight
        matched = self.matching_to == "teacher" and self.matching_weight
        return bool(self.output_weight or self.feature_weight or gram or matched)

    def unlike_discriminators(self, other: Recipe) -> list[str]:
        """Settings that make the discriminator of another recipe another network."""
        same = ("discriminator", "ndf", "discriminator_layers", "discriminator_norm", "conditional")
        return [name for name in same if getattr(self, name) != getattr(other, name)]

    @property
    def rate(self) -> float:
        """The learning rate; where it is ``auto`` and nothing was tried yet, the one that is tried first."""
        return RATE if isinstance(self.lr, str) else self.lr

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole training."""
        return max(1, round(self.kimg * 1000 / self.batch)) if self.kimg else 0

    def decay_at(self, step: int) -> float:
        """Factor on the learning rates at a step: constant, then falling to zero; or halved at equal distances."""
        if self.halve_kimg:
            return 0.5 ** (step * self.batch // round(self.halve_kimg * 1000))
        done = step / self.steps
        if done < self.decay_from:
            return 1.0
        left = max(0.0, 1 - done) / max(1 - self.decay_from, 1e-9)
        return left if self.decay == "linear" else (1 + math.cos(math.pi * (1 - left))) / 2


def require(
    name: str, value: float, *, least: float | None = None, above: float | None = None, most: float | None = None
) -> None:
    """That an option lies in its range.

    Raises:
        ValueError: it does not; with name, value and what is allowed.
    """
    bounds = {"at least": least, "above": above, "at most": most}
    low = least is None or value >= least
    if not (low and (above is None or value > above) and (most is None or value <= most)):
        allowed = " and ".join(f"{word} {bound:g}" for word, bound in bounds.items() if bound is not None)
        raise ValueError(f"{name} cannot be {value}; it must be {allowed}")


def require_one(name: str, value: str, allowed: Sequence[str]) -> None:
    """That an option is one of several words.

    Raises:
        ValueError: it is not; with name, value and what is allowed.
    """
    if value not in allowed:
        raise ValueError(f"{name} cannot be {value!r}; allowed are {', '.join(allowed)}")
