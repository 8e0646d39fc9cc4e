"""Device profiles: what an exported generator is written for."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from gantailor.export.targets import TARGETS
from gantailor.supernet.errors import ConfigError, UnreadableError, nearest, why_of
from gantailor.supernet.plugins import check_name
from gantailor.supernet.received.documents import read_yaml

_SHIPPED = Path(__file__).with_name("devices.yaml")


class Device(BaseModel):
    """A runtime with its settings."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    name: str
    runtime: str = Field(description="onnxruntime, openvino, ... or module:name of a Target of one's own")
    precision: Literal["float32", "float16", "int8"] = "float32"
    layout: Literal["NCHW"] = "NCHW"
    channel_multiple: int = Field(1, gt=0, description="widths of a search for this device are multiples of it")
    opset: int = Field(20, ge=18, description="ONNX opset")
    threads: int = Field(1, gt=0, le=1024)
    batch: Literal["static", "dynamic"] = "static"
    size: Literal["fixed", "dynamic"] = Field("fixed", description="dynamic: height and width of the input are free")
    size_multiple: int = Field(1, gt=0, description="sides of a dynamic size are multiples of it and the generator's")
    largest_side: int | None = Field(None, gt=0, description="of a dynamic size, in pixels; none: no bound")
    providers: tuple[str, ...] = ("CPUExecutionProvider",)
    picture_range: tuple[Literal[-1, 0], Literal[1]] = Field((-1, 1), description="[0, 1]: of pictures, in and out")

    @field_validator("name")
    @classmethod
    def _name(cls, value: str) -> str:
        if not is_name(value):
            raise ValueError("the export's folder is called so: give a name without slashes, commas and a dot in front")
        return value

    @field_validator("runtime")
    @classmethod
    def _runtime(cls, value: str) -> str:
        return check_name(value, TARGETS, "runtime")


def is_name(text: str) -> bool:
    """Whether a folder of an export may be called so: a path would lead out of it."""
    return bool(text.strip()) and not text.startswith(".") and not set(text) & set("/\\,\0") and len(text) <= 100


def device(name: str) -> Device:
    """A shipped profile by name, or one's own as ``FILE`` (its first) or ``FILE:NAME``.

    Raises:
        ConfigError: there is none, or the file has mistakes.
    """
    file, _, inside = name.partition(":")
    own = file.endswith((".yaml", ".yml"))
    try:
        known = read_yaml(Path(file) if own else _SHIPPED)
        wanted = (inside or next(iter(known))) if own else name
        if wanted not in known:
            raise ConfigError(f"device {wanted!r} is unknown; {nearest(wanted, known)}, or a YAML file of your own")
        return Device.model_validate({"name": wanted, **known[wanted]})
    except (OSError, UnreadableError, TypeError, StopIteration) as error:
        raise ConfigError(f"device file {file!r} cannot be read: {why_of(error)}") from None
    except ValidationError as error:
        mistakes = "; ".join(
            f"{'.'.join(map(str, e['loc']))}: {e['msg'].removeprefix('Value error, ')}" for e in error.errors()
        )
        raise ConfigError(f"device {name!r}: {mistakes}") from None
