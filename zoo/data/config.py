"""Settings of a data set."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class DataConfig(BaseModel):
    """Where the pictures come from."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["openmoji", "folder", "domains", "labels"] = Field(
        "openmoji", description="the embedded pictures; a folder; trainA and trainB of CycleGAN; SPADE's label maps"
    )
    path: str | None = Field(None, description="folder with train/ and test/ (and val/ or search/) inside")
    classes: int = Field(35, gt=0, description="label maps: number of classes")
    size: int = Field(64, ge=16, le=2048, description="height and width in pixels")
    direction: Literal["AtoB", "BtoA", "unpaired"] = Field("AtoB", description="which half of a picture is the input")
