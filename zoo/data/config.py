"""Where the pictures come from, as a configuration says it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from gantailor.supernet.plugins import check_name
from gantailor.supernet.received.options import Options
from gantailor.zoo.data import DATA_KINDS


class DataConfig(BaseModel):
    """Where the pictures come from."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    kind: str = Field(
        "openmoji",
        description="openmoji: the embedded pictures; folder: pairs side by side, or pictures alone; folders: two "
        "matched by name; domains: two not matched; list: CSV or JSON lines; classes: a folder for each; zip: "
        "StyleGAN's; tensors: npz or safetensors; labels: SPADE's label maps; super_resolution: large pictures, made "
        "small; or module:name, a record or a Dataset",
    )
    path: str | None = Field(
        None, description="folder with train/ and test/ (and val/ or search/) inside; or the list, archive or tensors"
    )
    split: Literal["auto", "hash", "folders", "all"] = Field(
        "auto",
        description="splits that find the same pictures (a folder without test/; val/ alone for search and test) share "
        "them out by a hash of their names, 8 : 1 : 1; auto: but search may read training pictures; folders: refused; "
        "all: every split has all of them",
    )
    sides: tuple[str, str] = Field(
        ("A", "B"), description="two folders: what they are called, [A, B] for trainA and trainB, train/A and train/B"
    )
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
    direction: Literal["AtoB", "BtoA", "unpaired"] = Field(
        "AtoB", description="which half of a picture, or which side, is the input"
    )
    options: Options = Field(
        {},
        description="settings of a kind of your own, {fold: 3}; tensors: {inputs: [a, b], target: c}; "
        "super_resolution: {degradation: bicubic, area or realesrgan}, and the latter's ranges",
    )

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return _both(self.size)

    @property
    def loaded(self) -> tuple[int, int]:
        """Height and width of training pictures, before crops."""
        return _both(self.size if self.load is None else self.load)

    @property
    def cropped(self) -> tuple[int, int] | None:
        """Height and width of the random parts that are trained on; None where pictures are whole."""
        if self.crop is not None:
            return _both(self.crop)
        return None if self.load is None else self.shape

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

    @model_validator(mode="after")
    def _room(self) -> Self:
        if self.cropped is not None and any(c > s for c, s in zip(self.cropped, self.loaded, strict=True)):
            crop, load = (" x ".join(map(str, sides)) for sides in (self.cropped, self.loaded))
            raise ValueError(
                f"crops of {crop} do not fit in training pictures of {load}: a larger load, or another crop"
            )
        return self

    @field_validator("sides")
    @classmethod
    def _sides(cls, value: tuple[str, str]) -> tuple[str, str]:
        if value[0] == value[1] or not all(side.strip(". ") and "/" not in side for side in value):
            raise ValueError("give two names of folders, [A, B]")
        return value

    @field_validator("kind")
    @classmethod
    def _known(cls, value: str) -> str:
        return check_name(value, DATA_KINDS, "data kind")


def _both(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


def _of(value: int | tuple[int, int], side: int) -> int:
    return value if isinstance(value, int) else value[side]


def _one_or_two(value: Any, allowed: Callable[[int], bool], wanted: str) -> int | tuple[int, int]:
    """A whole number, or two of them; two equal ones are one."""
    numbers = tuple(value) if isinstance(value, list | tuple) else (value,)
    if len(numbers) not in (1, 2) or not all(type(n) is int and allowed(n) for n in numbers):
        raise ValueError(wanted)
    return numbers[0] if len(set(numbers)) == 1 else numbers
