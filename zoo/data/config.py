"""Where the pictures come from, as a configuration says it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from gantailor.supernet.plugins import check_name
from gantailor.zoo.data import DATA_KINDS


class DataConfig(BaseModel):
    """Where the pictures come from."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: str = Field(
        "openmoji",
        description="openmoji: the embedded pictures; folder; domains: trainA and trainB of CycleGAN; labels: SPADE's "
        "label maps; or module:name",
    )
    path: str | None = Field(None, description="folder with train/ and test/ (and val/ or search/) inside")
    classes: int = Field(35, gt=0, description="label maps: number of classes")
    size: int = Field(64, ge=16, le=2048, description="height and width in pixels")
    direction: Literal["AtoB", "BtoA", "unpaired"] = Field("AtoB", description="which half of a picture is the input")
    options: dict[str, Any] = Field({}, description="settings of a kind of your own, {fold: 3}")

    @field_validator("kind")
    @classmethod
    def _known(cls, value: str) -> str:
        return check_name(value, DATA_KINDS, "data kind")
