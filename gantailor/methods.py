"""The compression systems by name: settings that differ from a run's usual ones, beneath what the user writes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from supernet.errors import ConfigError, nearest

METHODS: dict[str, dict[str, Any]] = {
    # Once-for-all supernet and search (GAN Compression, arXiv 2003.08936).
    "supernet": {},
    # Diversity-aware channel pruning (DCP-GAN, CVPR 2024): a ranking, the same share of every width, retraining. With
    # ``space: default`` and a ``train`` length the ranked supernet is trained and searched instead.
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
    "diversity": {"ranking": "diversity", "space": {"name": "uniform"}, "search": {"trials": 1}, "train": {"kimg": 0}},
}

_STYLEKD = {
    "preset": "stylekd",
    "precision": "bfloat16",
    "ema_kimg": 2.0,
    "task_options": {"augment": 1, "r1": 2.0},
}

# What a generator from latents needs instead of the settings for pictures in, pictures out.
GENERATORS: dict[str, dict[str, Any]] = {
    "stylegan2": {
        "options": {},
        "train": {**_STYLEKD, "kimg": 24.0},
        "finetune": {**_STYLEKD, "kimg": 24.0},
        "evaluation": {"final": ("fid", "kid", "precision", "recall", "density", "coverage", "l1")},
    },
}


def beneath(values: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with the settings of its generator and its method filled in where it says nothing.

    Raises:
        ConfigError: an unknown method.
    """
    method = str(values.get("method", "supernet"))
    if method not in METHODS:
        raise ConfigError(f"method {method!r} is unknown; {nearest(method, METHODS)}")
    generator = GENERATORS.get(str(values.get("generator")), {})
    own: dict[str, Any] = {
        name: {"name": value} if name == "space" and isinstance(value, str) else value for name, value in values.items()
    }
    settings = merged(merged(generator, METHODS[method]), own)
    if generator and not dict(settings.get("evaluation") or {}).get("lpips_features"):
        without = {"train": {"perceptual_weight": 0.0}, "finetune": {"perceptual_weight": 0.0}}
        settings = merged(without, settings)  # LPIPS where its weights are given
    return settings


def merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings: ``over`` wins, leaf by leaf; free mappings such as ``task_options`` are leaves."""
    result = dict(under)
    for name, value in over.items():
        below = result.get(name)
        if (
            isinstance(below, Mapping)
            and isinstance(value, Mapping)
            and name not in ("options", "task_options", "method_options")
        ):
            result[name] = merged(below, value)
        else:
            result[name] = value
    return result
