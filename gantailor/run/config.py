"""One typed configuration, which YAML files and command-line flags both fill. Nothing heavy is imported here."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from gantailor.evaluators.config import EvaluationConfig
from gantailor.search.config import SearchConfig, shown
from gantailor.search.limits import parse_budget
from gantailor.search.methods import METHODS
from gantailor.search.spaces.config import SpaceConfig
from gantailor.supernet.importance import CRITERIA
from gantailor.supernet.plugins import check_name
from gantailor.supernet.received.options import NoOptions, Options
from gantailor.supernet.training.recipe import Recipe
from gantailor.zoo.data.config import DataConfig
from gantailor.zoo.shipped import Weights
from gantailor.zoo.tasks import TASKS

SHORT = {"space": "name", "teacher": "weights"}  # ``space: uniform`` is short for ``space: {name: uniform}``
# Settings that name what lies outside the run folder, a file but for the first.
PLACES = (
    "data.path",
    "data.labels",
    "teacher.weights",
    "supernet",
    "discriminator",
    "ranking",
    "evaluation.weights",
    "evaluation.lpips_features",
    "evaluation.lpips_heads",
    "evaluation.segmentation_weights",
    "evaluation.labels",
)


class TeacherConfig(BaseModel):
    """The trained generator that is learned from."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    weights: Weights = Field(
        None,
        description="checkpoint of the trained generator, FILE or FILE:netG inside it; the shipped one if missing; "
        "none: untrained",
    )
    generator: str | None = Field(None, description="its architecture, where that is another than the run's generator")
    options: NoOptions = Field(None, description="its options, where they are others")
    rename: dict[str, str] = Field(
        {},
        description="parts of the checkpoint's names and what they are here: {block: conv_block}, or block=conv_block",
    )
    layers: dict[str, str] | None = Field(
        None,
        description="layers whose features are compared, a list or {the generator's: the teacher's}; those that both "
        "declare, in their order, if missing, or where none are declared some that the graph proposes",
    )
    side: Literal["a", "b", "a2b", "b2a"] | None = Field(
        None,
        description="of a MUNIT's gen_*.pt: a2b or b2a, the translators (a2b if missing); a or b, auto-encoders",
    )
    example: tuple[str, ...] = Field(
        (),
        description="a known input and its output, which prove the weights and the matching of names that differ: "
        "FILE.npz or FILE.safetensors with input and output, or two pictures, [input.png, output.png]",
    )
    statistics: Literal["running", "batch"] = Field(
        "running",
        description="of its batch norms: the stored ones, or each picture's own, as pix2pix's test.py has them",
    )

    @field_validator("example", mode="before")
    @classmethod
    def _files(cls, value: Any) -> Any:
        """``input.png,output.png`` is a list too."""
        return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value

    @field_validator("layers", mode="before")
    @classmethod
    def _called_the_same(cls, value: Any) -> Any:
        """``[body.2, body.5]``, and ``body.2, body.5``, are called the same in the teacher."""
        named = [part.strip() for part in value.split(",")] if isinstance(value, str) and "=" not in value else value
        if not isinstance(named, list | tuple):
            return value
        if not all(isinstance(name, str) and name for name in named):
            raise ValueError("give a list of the names of modules, or a mapping {the generator's: the teacher's}")
        return {name: name for name in named}

    @field_validator("rename", mode="before")
    @classmethod
    def _pairs(cls, value: Any) -> Any:
        """``block=conv_block, net=model`` is a mapping too."""
        if not isinstance(value, str):
            return value
        pairs = [pair.partition("=") for pair in value.split(",")]
        if not all(old.strip() and equals for old, equals, _ in pairs):
            raise ValueError("write block=conv_block, or several with commas between them")
        return {old.strip(): new.strip() for old, _, new in pairs}


class Config(BaseModel):
    """A whole run: teacher, supernet, search, fine-tuning, export."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    generator: str = Field("resnet_6blocks", description="a zoo generator, or module:name")
    options: Options = Field({"ngf": 48}, description="the generator's options")
    method: str = Field("supernet", description="compression system: " + ", ".join(METHODS) + ", or module:NAME")
    teacher: TeacherConfig = TeacherConfig()
    supernet: Weights = Field(None, description="weights of a supernet to start from instead of the teacher's")
    data: DataConfig = DataConfig()
    budget: str = Field("0.1x", description="MACs: 2.6G, 800M, or 0.1x of the generator")
    convention: Literal["true", "layers", "published", "published_convs"] = Field(
        "true", description="how MACs are counted"
    )
    space: SpaceConfig = SpaceConfig()
    ranking: str = Field(
        "l1",
        description="which channels stay first: " + ", ".join(CRITERIA) + ", module:NAME, or a file of gantailor rank",
    )
    embedding: str | None = Field(
        None,
        description="what agents find neighbours by, module:function (pictures to [N, d]); the extractor if missing",
    )
    region: str | None = Field(
        None, description="part of the teacher's picture that distillation looks at, module:function (latents only)"
    )
    train: Recipe = Recipe(kimg=6, lr=1e-3, output_weight=10, feature_weight=1)
    search: SearchConfig = SearchConfig()
    discriminator: Weights = Field(
        None,
        description="weights of a discriminator to start from, the teacher's own; none: from scratch, the default but "
        "for the shipped StyleGAN2",
    )
    hand_on: Literal["none", "discriminator", "all"] = Field(
        "none",
        description="what fine-tuning goes on with of the training before it: nothing, its discriminator, or also its "
        "1x1 feature maps",
    )
    narrowing: float | None = Field(
        None,
        ge=0,
        le=1,
        description="share of fine-tuning over which the whole net is led down to its widths, channel by channel; 0 "
        "cuts it at once, as is best behind a trained supernet; half by default behind a teacher that was only ranked",
    )
    devices: tuple[str, ...] = Field(("onnxruntime-cpu",), description="what is exported for: names, or FILE.yaml:NAME")
    licence: str | None = Field(
        None, description="of the exported model, for its manifest and what is handed over: a name, or a sentence"
    )
    round_to_device: bool = Field(False, description="widths are multiples of what the first device likes")
    tensorboard: bool = Field(False, description="write losses for TensorBoard into the run folder")
    evaluation: EvaluationConfig = EvaluationConfig()
    finetune: Recipe = Recipe(kimg=12, lr=1e-3, output_weight=10, feature_weight=1)
    device: str = Field(
        "auto",
        description="where everything computes: cpu, cuda, cuda:N, mps, ...; auto: on the accelerator where there is "
        "one",
    )
    seed: int = Field(0, ge=0, lt=2**32, description="of the search, and of trainings that name no seed of their own")

    def shown(self) -> dict[str, Any]:
        """The settings as JSON values, for whoever may see them: a database's password is ``***``."""
        values: dict[str, Any] = self.model_dump(mode="json")
        if self.search.storage is not None:
            values["search"]["storage"] = shown(self.search.storage)
        return values

    @field_validator("budget", mode="before")
    @classmethod
    def _text(cls, value: Any) -> Any:
        """A number is a text too; what it lacks is then said by whoever reads the text."""
        return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value

    @field_validator("budget")
    @classmethod
    def _budget(cls, value: str) -> str:
        parse_budget(value, full={"macs": 10**9, "params": 10**9})  # that it can be read; reached is another thing
        return value

    @field_validator("devices", mode="before")
    @classmethod
    def _names(cls, value: Any) -> Any:
        """``onnxruntime-cpu, openvino`` is a list too."""
        return [name.strip() for name in value.split(",")] if isinstance(value, str) else value

    @field_validator("discriminator")
    @classmethod
    def _none(cls, value: str | None) -> str | None:
        """``discriminator: none`` also where one comes with the teacher."""
        return None if value == "none" else value

    @field_validator("device")
    @classmethod
    def _device(cls, value: str) -> str:
        if not re.fullmatch(r"auto|[a-z]+(:\d+)?", value):
            raise ValueError("allowed are auto, cpu, cuda, cuda:N, mps, ...; runtimes to export for go into devices")
        return value

    @field_validator("method")
    @classmethod
    def _method(cls, value: str) -> str:
        return check_name(value, METHODS, "method")

    @field_validator("train", "finetune")
    @classmethod
    def _task(cls, value: Recipe) -> Recipe:
        check_name(value.task, TASKS, "task")
        return value

    @field_validator("ranking")
    @classmethod
    def _ranking(cls, value: str) -> str:
        return value if is_file(value) else check_name(value, CRITERIA, "ranking")

    @field_validator("space", "teacher", mode="before")
    @classmethod
    def _short(cls, value: Any, info: Any) -> Any:
        """``space: NAME`` is short for ``space: {name: NAME}``, ``teacher: FILE`` for ``teacher: {weights: FILE}``."""
        return {SHORT[info.field_name]: value} if value is None or isinstance(value, str) else value


def is_file(ranking: str) -> bool:
    """Whether a ``ranking`` names a file instead of a criterion."""
    return ranking.endswith(".json")
