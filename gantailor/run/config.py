"""One typed configuration: YAML files and command-line flags both fill it, and all mistakes are reported together."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from gantailor.pipeline.scoring import EvaluationConfig
from gantailor.run.defaults import METHODS, beneath
from gantailor.search.config import SearchConfig
from gantailor.search.spaces.config import SpaceConfig
from gantailor.supernet.errors import ConfigError, nearest
from gantailor.supernet.importance.ranking import RANKINGS
from gantailor.supernet.training.recipe import Recipe

_STRICT = ConfigDict(frozen=True, extra="forbid")


class DataConfig(BaseModel):
    """Where the pictures come from."""

    model_config = _STRICT
    kind: Literal["openmoji", "folder", "domains", "labels"] = Field(
        "openmoji", description="the embedded pictures; a folder; trainA and trainB of CycleGAN; SPADE's label maps"
    )
    path: str | None = Field(None, description="folder with train/ and test/ (and val/ or search/) inside")
    classes: int = Field(35, gt=0, description="label maps: number of classes")
    size: int = Field(64, ge=16, le=2048, description="height and width in pixels")
    direction: Literal["AtoB", "BtoA", "unpaired"] = Field("AtoB", description="which half of a picture is the input")


class Config(BaseModel):
    """A whole run: teacher, supernet, search, fine-tuning, export."""

    model_config = _STRICT
    generator: str = Field("resnet_6blocks", description="a zoo generator, or module:function")
    options: dict[str, Any] = Field({"ngf": 48}, description="the generator's options")
    method: str = Field("supernet", description="compression system: " + ", ".join(METHODS))
    teacher: str | None = Field(
        None, description="checkpoint of the trained generator; the shipped one if missing; none: untrained"
    )
    supernet: str | None = Field(None, description="weights of a supernet to start from instead of the teacher's")
    data: DataConfig = DataConfig()
    budget: str = Field("0.1x", description="MACs: 2.6G, 800M, or 0.1x of the generator")
    convention: Literal["true", "published", "published_convs"] = Field("true", description="how MACs are counted")
    space: SpaceConfig = SpaceConfig()
    ranking: str = Field(
        "l1", description="which channels stay first: " + ", ".join(RANKINGS) + ", or a file of gantailor rank"
    )
    embedding: str | None = Field(
        None,
        description="what agents find neighbours by, module:function (pictures to [N, d]); the extractor if missing",
    )
    region: str | None = Field(
        None, description="part of the teacher's picture that distillation looks at, module:function (latents only)"
    )
    train: Recipe = Recipe(kimg=6, output_weight=10, feature_weight=1)
    search: SearchConfig = SearchConfig()
    discriminator: str | None = Field(None, description="weights of a discriminator to start from, the teacher's own")
    devices: tuple[str, ...] = Field(("onnxruntime-cpu",), description="what is exported for: names, or FILE.yaml:NAME")
    round_to_device: bool = Field(False, description="widths are multiples of what the first device likes")
    tensorboard: bool = Field(False, description="write losses for TensorBoard into the run folder")
    evaluation: EvaluationConfig = EvaluationConfig()
    finetune: Recipe = Recipe(kimg=12, output_weight=10, feature_weight=1)
    device: str = Field("cpu", description="cpu or cuda")
    seed: int = Field(0, ge=0, description="of the search, and of trainings that name no seed of their own")

    @field_validator("budget", mode="before")
    @classmethod
    def _text(cls, value: Any) -> Any:
        """A number is a text too; what it lacks is then said by whoever reads the text."""
        return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value

    @field_validator("devices", mode="before")
    @classmethod
    def _names(cls, value: Any) -> Any:
        """``onnxruntime-cpu, openvino`` is a list too."""
        return [name.strip() for name in value.split(",")] if isinstance(value, str) else value

    @field_validator("device")
    @classmethod
    def _device(cls, value: str) -> str:
        if not re.fullmatch(r"cpu|cuda(:\d+)?|mps", value):
            raise ValueError("allowed are cpu, cuda, cuda:N and mps; runtimes to export for go into devices")
        return value

    @field_validator("ranking")
    @classmethod
    def _ranking(cls, value: str) -> str:
        if value not in RANKINGS and not value.endswith(".json"):
            raise ValueError(f"{nearest(value, RANKINGS)}, or a file of gantailor rank (.json)")
        return value

    @field_validator("space", mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        """``space: NAME`` is short for ``space: {name: NAME}``."""
        return {"name": value} if isinstance(value, str) else value


def read_yaml(path: str) -> dict[str, Any]:
    """The settings of a YAML file.

    Raises:
        ConfigError: it cannot be read, or holds no settings.
    """
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf8")) or {}
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"config {path!r} cannot be read: {error}; give a YAML file, as in examples/") from None
    if not isinstance(values, dict):
        raise ConfigError(f"config {path!r} must hold 'name: value' lines")
    return values


def load_config(path: str | None, flags: dict[str, Any]) -> Config:
    """The configuration of a YAML file with flags (dotted names) on top.

    Raises:
        ConfigError: every mistake at once.
    """
    values = read_yaml(path) if path is not None else {}
    for name, value in flags.items():
        *sections, leaf = name.split(".")
        target = values
        for section in sections:
            if isinstance(target.get(section), str):
                target[section] = {"name": target[section]}
            target = target.setdefault(section, {})
            if not isinstance(target, dict):
                raise ConfigError(f"{section} must hold 'name: value' lines, not {target!r}")
        target[leaf] = value
    values = beneath(values)
    defaults = Config().model_dump()
    for section in ("train", "finetune"):
        if isinstance(values.get("seed"), int) and isinstance(values.get(section, {}), dict):
            values[section] = {"seed": values["seed"], **values.get(section, {})}
        if isinstance(values.get(section), dict) and not values[section].get("preset"):
            values[section] = {**defaults[section], **values[section]}
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError("\n".join(explain(e) for e in error.errors())) from None


def explain(error: Any) -> str:
    """A mistake that pydantic found, with setting, value and what is allowed."""
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        model: Any = Config
        for part in error["loc"][:-1]:
            model = model.model_fields[part].annotation
        return f"{where} is no setting; {nearest(str(error['loc'][-1]), model.model_fields)}"
    return f"{where} cannot be {error['input']!r}: {error['msg'].removeprefix('Value error, ')}"
