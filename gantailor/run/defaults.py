"""The compression systems by name: settings that differ from a run's usual ones, beneath what the user writes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gantailor.supernet.errors import ConfigError, nearest
from gantailor.supernet.training.presets import PRESETS
from gantailor.zoo.generators.record import find_generator

METHODS: dict[str, dict[str, Any]] = {
    # Once-for-all supernet and search (GAN Compression, arXiv 2003.08936).
    "supernet": {},
    # Diversity-aware channel pruning (DCP-GAN, CVPR 2024): a ranking, the same share of every width, retraining. With
    # another ``space`` the ranked supernet is trained and searched instead.
    "diversity": {"ranking": "diversity", "space": {"name": "uniform"}},
    # Scales, distillation and 8 bits trained together (GAN Slimming, arXiv 2008.11062); no search.
    "slimming": {
        "ranking": "none",
        "space": {"name": "every"},
        "train": {"kimg": 24.0, "bits": 8, "ema_kimg": 0.0},
        "finetune": {"bits": 8},
        "devices": ("onnxruntime-cpu", "onnxruntime-cpu-int8"),
    },
    # Weights made by a hypernetwork whose latents are sparsified (CoroNet-GAN); no teacher, no search.
    "hypernetwork": {
        "teacher": "none",
        "ranking": "none",
        "space": {"name": "every"},
        "train": {"kimg": 24.0, "output_weight": 0.0, "feature_weight": 0.0, "ema_kimg": 0.0},
        "finetune": {"kimg": 24.0, "output_weight": 0.0, "feature_weight": 0.0},
    },
    # Agents open and close the channels of generator and discriminator (after Ganjdanesh et al. 2024); no search.
    "agents": {
        "ranking": "none",
        "space": {"name": "every"},
        "train": {"kimg": 8.0, "output_weight": 0.0, "feature_weight": 0.0, "ema_kimg": 0.0, "decay_from": 0.8},
        "finetune": {"output_weight": 0.0, "feature_weight": 0.0},
    },
}
SPARSIFYING = ("slimming", "hypernetwork", "agents")  # methods whose training itself ends at a budget
_UNIFORM = {"search": {"trials": 1}, "train": {"kimg": 0}}
_TEACHES = ("output_weight", "feature_weight")
_MAKES_THE_METHOD = ("bits", "output_weight", "feature_weight", "perceptual_weight")  # whatever preset is named


def beneath(values: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with the settings of its generator and its method filled in where it says nothing.

    A preset that the user names wins over them, but for what makes the method what it is.

    Raises:
        ConfigError: an unknown method.
    """
    method = str(values.get("method", "supernet"))
    if method not in METHODS:
        raise ConfigError(f"method {method!r} is unknown; {nearest(method, METHODS)}")
    own = {k: {"name": v} if k == "space" and isinstance(v, str) else v for k, v in values.items()}
    below = merged(_of_generator(own), METHODS[method])
    if method == "diversity" and _section(own, "space").get("name", "uniform") == "uniform":
        below = merged(below, _UNIFORM)
    data = _section(own, "data")
    if data.get("direction") == "unpaired" or data.get("kind") == "domains":  # no targets: the teacher's outputs are
        below["finetune"] = {
            k: v for k, v in _section(below, "finetune").items() if k not in _TEACHES or method != "agents"
        }
    for section in ("train", "finetune"):
        preset = PRESETS.get(str(_section(own, section).get("preset")))
        if preset is not None:
            settled = {*preset, "task_options", "preset", "kimg"} - set(_MAKES_THE_METHOD)
            below[section] = {k: v for k, v in _section(below, section).items() if k not in settled}
    return merged(below, own)


def _of_generator(own: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a generator, some of which depend on the data and on what files are given."""
    name = own.get("generator")
    return dict(find_generator(name).defaults(own)) if isinstance(name, str) else {}


def _section(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = values.get(name)
    return found if isinstance(found, Mapping) else {}


def merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings: ``over`` wins, leaf by leaf; a generator's ``options`` are one leaf."""
    result = dict(under)
    for name, value in over.items():
        below = result.get(name)
        nested = name != "options" and isinstance(below, Mapping) and isinstance(value, Mapping)
        result[name] = merged(below, value) if nested and isinstance(below, Mapping) else value
    return result
