"""Settings beneath what the user writes: those of the generator, and of the compression method above them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gantailor.run.config import Config
from gantailor.search.methods.method import method
from gantailor.supernet.training.presets import PRESETS
from gantailor.zoo.generators.record import find_generator

# What makes a method what it is: a preset that the user names does not change it.
_MAKES_THE_METHOD = ("bits", "output_weight", "feature_weight", "perceptual_weight")


def beneath(own: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with the settings of its generator and its method filled in where it says nothing.

    A preset that the user names wins over them, but for what makes the method what it is.

    Args:
        own: nested settings, valid ones.

    Raises:
        ConfigError: an unknown method or generator.
    """
    usual = Config.model_fields
    name = str(own.get("method", usual["method"].default))
    record = find_generator(str(own.get("generator", usual["generator"].default)))
    below = merged(record.defaults(own), method(name).defaults(own))
    if ":" in record.name and "options" not in below:  # the usual options are those of the usual generator
        below["options"] = {}
    for section in ("train", "finetune"):
        preset = PRESETS.get(str((own.get(section) or {}).get("preset")))
        if preset is not None:
            settled = {*preset, "task_options", "preset", "kimg"} - set(_MAKES_THE_METHOD)
            below[section] = {k: v for k, v in (below.get(section) or {}).items() if k not in settled}
        if _unpaired(own) and "conditional" not in (preset or {}):
            below[section] = {"conditional": False, **(below.get(section) or {})}
    if _file_tells(own):
        below.setdefault("options", {})
    return merged(below, own)


def _file_tells(own: Mapping[str, Any]) -> bool:
    """Whether a teacher's own file says what the generator's options are, so that the demo's do not count."""
    teacher = own.get("teacher") or {}
    weights = teacher.get("weights") if isinstance(teacher, Mapping) else teacher
    other = isinstance(teacher, Mapping) and (teacher.get("generator") or teacher.get("options") is not None)
    return weights not in (None, "none") and not other and own.get("supernet") is None


def _unpaired(own: Mapping[str, Any]) -> bool:
    """Whether real pictures belong to no input, so that a discriminator can only see them alone."""
    data = own.get("data")
    return isinstance(data, Mapping) and data.get("kind") == "domains"


def merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings: ``over`` wins, leaf by leaf; a generator's ``options`` are one leaf."""
    result = dict(under)
    for name, value in over.items():
        below = result.get(name)
        nested = name != "options" and isinstance(below, Mapping) and isinstance(value, Mapping)
        result[name] = merged(below, value) if nested and isinstance(below, Mapping) else value
    return result
