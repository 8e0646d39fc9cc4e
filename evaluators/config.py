"""Settings of scores."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class EvaluationConfig(BaseModel):
    """How generators are scored."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    search: str = Field("features", description="score that the search follows")
    search_images: int = Field(128, gt=1, description="pictures of the search split that it is computed on")
    final: tuple[str, ...] = Field(("l1", "fid", "kid"), description="scores of the report, on the whole test split")
    extractor: str = Field(
        "efficientnet-lite0", description="features: efficientnet-lite0 or inception-2015-12-05[@768]"
    )
    weights: str | None = Field(None, description="weights file of the extractor")
    resize: Literal["bilinear", "tensorflow"] = Field("bilinear", description="how Inception's input is resized")
    lpips_features: str | None = Field(None, description="AlexNet's weights, for lpips and diversity")
    lpips_heads: str | None = Field(None, description="the official LPIPS heads, lin_v0.1_alex.pth")
    segmentation: str | None = Field(None, description="segmentation network as module:function, for miou")
    segmentation_weights: str | None = Field(None, description="its weights")
    labels: str = Field("cityscapes", description="label table: a CSV file, or cityscapes")
    threads: int = Field(1, gt=0, description="threads of a latency measurement")
