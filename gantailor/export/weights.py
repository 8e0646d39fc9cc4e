"""A subnet's weights in one safetensors file that says how to build the generator around them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor, nn

import gantailor
from gantailor.export.errors import ExportError
from gantailor.supernet.errors import CheckpointError
from gantailor.supernet.files import load_tensors, save_tensors
from gantailor.supernet.received.documents import parse_yaml, read_json
from gantailor.supernet.received.signature import is_own, mark
from gantailor.zoo.generators.given import is_given

FILE = "model.safetensors"
ORIGIN = ("generator", "options", "config", "input_shapes", "decisions")


def write_weights(folder: Path, narrow: nn.Module, origin: Mapping[str, Any]) -> Path:
    """Write ``model.safetensors``; its metadata is the origin, and gantailor's version.

    Args:
        narrow: the extracted subnet.
        origin: ``generator`` (a zoo name or ``module:function``), ``options`` (of that generator), ``config`` (width
            names to channels), ``input_shapes`` (one for each input that it was traced with) and ``decisions`` (what
            tracing and repair decided); JSON values all, and options what YAML holds: StyleGAN2's ``channels`` have
            numbers as keys.

    Raises:
        ExportError: an entry is missing or unknown, or cannot be stored.
    """
    if wrong := set(ORIGIN) ^ set(origin):
        raise ExportError(
            f"the origin of weights has {', '.join(sorted(wrong))} too many or too few; give {', '.join(ORIGIN)}"
        )
    stored: dict[str, Any] = {"gantailor": gantailor.__version__}
    for name in ORIGIN:
        value = plain(origin[name])
        try:
            stored[name] = yaml.safe_dump(value, default_flow_style=True) if name == "options" else value
            lossless = name == "options" or json.loads(json.dumps(value)) == value
        except (TypeError, ValueError, yaml.YAMLError):
            lossless = False
        if not lossless:
            raise ExportError(
                f"{name} {value!r} cannot be stored beside the weights; allowed are numbers, text, lists and mappings"
            )
    if ":" in stored["generator"]:  # code, which nobody else's file may name
        stored["mark"] = mark(named_in(stored))
    path = folder / FILE
    save_tensors(path, narrow.state_dict(), stored)
    return path


def named_in(info: Mapping[str, Any]) -> dict[str, Any]:
    """What is called when a file is loaded, and with what."""
    return {"generator": info.get("generator"), "options": info.get("options")}


def read_weights(path: Path, *, trust_code: bool = False) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the origin that ``write_weights`` stored (tuples have become lists).

    Raises:
        CheckpointError: the file is missing or damaged, or does not say how to build its generator; or somebody else
            wrote it, and it names code.
    """
    tensors, info = load_tensors(path)
    if "generator" not in info:  # a tool that converts files drops it; the hub's layout has it beside them
        info = _beside(path) or info
    named = str(info.get("generator"))
    own = ":" not in named or is_given(named) or is_own(named_in(info), info.get("mark"))
    if not (trust_code or own):
        raise CheckpointError(
            f"{str(path)!r} was not made by you on this machine, and names what would be imported: generator "
            f"{info['generator']!r}; where you trust who made it, allow that with --trust-code (trust_code=True in "
            "Python)"
        )
    if missing := [name for name in ORIGIN if name not in info]:
        raise CheckpointError(
            f"{str(path)!r} does not say its {', '.join(missing)}; give a model.safetensors that gantailor export wrote"
        )
    origin = {name: info[name] for name in ORIGIN}
    return tensors, {**origin, "options": parse_yaml(str(origin["options"]), f"{path}: options")}


def _beside(path: Path) -> dict[str, Any]:
    """The origin as the hub's ``config.json`` holds it; nothing where there is none of ours."""
    file = path.with_name("config.json")
    info: dict[str, Any] = read_json(file) if file.is_file() else {}
    if set(ORIGIN) - set(info):
        return {}
    return info | {"options": yaml.safe_dump(_numbered(info["options"]))}


def _numbered(options: Any) -> Any:
    """JSON's keys are text; those of digits alone were numbers (StyleGAN2's ``channels``)."""
    if not isinstance(options, Mapping):
        return options
    return {int(key) if str(key).isdecimal() else key: _numbered(value) for key, value in options.items()}


def plain(value: Any) -> Any:
    """The value in dictionaries and lists."""
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, list | tuple) else value
