"""Where the pictures come from, as a configuration says it."""

from __future__ import annotations

from collections.abc import Callable
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
    size: int | tuple[int, int] = Field(64, description="height and width in pixels, 16 to 2048: 256, or [128, 256]")
    fit: Literal["stretch", "crop", "scale-and-crop", "pad"] = Field(
        "stretch", description="what becomes of pictures of another shape; crops are of the middle"
    )
    background: str = Field("white", description="colour of transparent pixels and of pads: a name, or #808080")
    channels: int | tuple[int, int] | None = Field(
        None,
        description="1 grey, 3 RGB, 4 with alpha; [1, 3] where inputs and targets differ; as the generator has them if "
        "missing",
    )
    scale: int | None = Field(
        None, ge=1, le=16, description="sides of targets over those of inputs; as the generator makes them if missing"
    )
    load: int | tuple[int, int] | None = Field(
        None, description="another size for training pictures, before data.crop: 286; data.size if missing"
    )
    crop: int | tuple[int, int] | None = Field(
        None, description="train on random parts of this size; scores are of whole pictures"
    )
    cache: Literal["auto", "on", "off"] = Field(
        "auto", description="keep decoded pictures on disk; auto: where they take less than 8 GB"
    )
    workers: int = Field(0, ge=0, le=64, description="processes that read pictures beside the training")
    skip_corrupt: bool = Field(False, description="go on without pictures that cannot be read")
    labels: str | None = Field(
        None, description="label maps in colours: their table, a CSV file (id,name,red,green,blue) or cityscapes"
    )
    direction: Literal["AtoB", "BtoA", "unpaired"] = Field("AtoB", description="which half of a picture is the input")
    options: dict[str, Any] = Field({}, description="settings of a kind of your own, {fold: 3}")

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    def channels_of(self, side: int) -> int:
        """Of inputs (0) or of targets (1)."""
        return _of(3 if self.channels is None else self.channels, side)

    @field_validator("size", "load", "crop", mode="before")
    @classmethod
    def _size(cls, value: Any) -> int | tuple[int, int] | None:
        if value is None:
            return None
        return _one_or_two(value, lambda side: 16 <= side <= 2048, "give 16 to 2048, or [height, width] of such")

    @field_validator("channels", mode="before")
    @classmethod
    def _channels(cls, value: Any) -> int | tuple[int, int] | None:
        if value is None:
            return None
        return _one_or_two(value, lambda count: count in (1, 3, 4), "give 1, 3 or 4, or [input, target] of such")

    @field_validator("background")
    @classmethod
    def _background(cls, value: str) -> str:
        if value != "white":  # the default needs no Pillow
            from PIL import ImageColor

            try:
                ImageColor.getrgb(value)
            except ValueError:
                raise ValueError("give a colour: white, black, #808080, rgb(0, 0, 0)") from None
        return value

    @field_validator("kind")
    @classmethod
    def _known(cls, value: str) -> str:
        return check_name(value, DATA_KINDS, "data kind")


def _of(value: int | tuple[int, int], side: int) -> int:
    return value if isinstance(value, int) else value[side]


def _one_or_two(value: Any, allowed: Callable[[int], bool], wanted: str) -> int | tuple[int, int]:
    """A whole number, or two of them; two equal ones are one."""
    numbers = tuple(value) if isinstance(value, list | tuple) else (value,)
    if len(numbers) not in (1, 2) or not all(type(n) is int and allowed(n) for n in numbers):
        raise ValueError(wanted)
    return numbers[0] if len(set(numbers)) == 1 else numbers
