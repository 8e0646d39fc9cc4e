"""How generators are scored, as settings; known without importing a metric or a network."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from gantailor.evaluators.features import check_extractor
from gantailor.evaluators.metrics import METRICS, TEACHER_MARK
from gantailor.supernet.plugins import check_name


class EvaluationConfig(BaseModel):
    """How generators are scored."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    search: str = Field(
        "features", description="score that the search follows: " + ", ".join(METRICS) + ", or module:name"
    )
    search_images: int = Field(128, gt=1, description="pictures of the search split that it is computed on")
    final: tuple[str, ...] = Field(("l1", "fid", "kid"), description="scores of the report, on the whole test split")
    extractor: str = Field(
        "efficientnet-lite0", description="features: efficientnet-lite0 or inception-2015-12-05[@768]"
    )
    weights: str | None = Field(None, description="weights file of the extractor")
    resize: Literal["bilinear", "tensorflow"] = Field("bilinear", description="how Inception's input is resized")
    lpips_features: str | None = Field(
        None, description="AlexNet's or VGG16's weights in torchvision's layout, for what looks through them"
    )
    lpips_network: Literal["alex", "vgg"] = Field("alex", description="whose they are")
    lpips_heads: str | None = Field(None, description="the official LPIPS heads, lin_v0.1_alex.pth or lin_v0.1_vgg.pth")
    path_samples: int = Field(1000, gt=0, description="paths of ppl_w and ppl_z; published are 50,000")
    path_crop: bool = Field(False, description="ppl_w and ppl_z look at the middle of the pictures, as for faces")
    segmentation: str | None = Field(None, description="segmentation network as module:function, for miou")
    segmentation_weights: str | None = Field(None, description="its weights")
    labels: str = Field("cityscapes", description="label table: a CSV file, or cityscapes")
    threads: int = Field(1, gt=0, le=1024, description="threads of a latency measurement")

    @field_validator("search")
    @classmethod
    def _metric(cls, value: str) -> str:
        check_metric(value)
        return value

    @field_validator("final")
    @classmethod
    def _metrics(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            check_metric(name)
        return value

    @field_validator("extractor")
    @classmethod
    def _extractor(cls, value: str) -> str:
        return check_extractor(value)

    @field_validator("segmentation")
    @classmethod
    def _function(cls, value: str | None) -> str | None:
        if value is not None and ":" not in value:
            raise ValueError("allowed is module:function, which makes the network")
        return value


def check_metric(name: str) -> str:
    """The metric in ``l1[teacher]`` or ``module:name[teacher]``; nothing is imported.

    Raises:
        ConfigError: it is neither a built-in's name nor ``module:name``.
    """
    return check_name(name.removesuffix(TEACHER_MARK), METRICS, "metric")
