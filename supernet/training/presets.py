"""Published training settings by name.

Sources: GAN Compression (Li et al. 2020, arXiv 2003.08936, and its public configurations) for the supernets; the
generators' own papers for the teachers: pix2pix (1611.07004), CycleGAN (1703.10593), SPADE (1903.07291), MUNIT
(1804.04732), StyleGAN2 (1912.04958); StyleKD (2208.14840) for its retraining. Lengths are for the data set in the
comment; ``kimg`` is there to be set.
"""

from __future__ import annotations

from typing import Any

from gantailor.supernet.errors import ConfigError, nearest

_CLASSIC = {"sampling": "uniform", "lr": 2e-4, "beta1": 0.5, "precision": "float32", "ema_kimg": 0.0, "shift": 0}
_PIX2PIX = {**_CLASSIC, "gan": "hinge", "target_weight": 100.0, "ndf": 128, "batch": 4, "decay_from": 0.25}
_CYCLEGAN = {**_CLASSIC, "gan": "lsgan", "conditional": False, "target_weight": 0.0, "batch": 1, "decay_from": 0.5}
_SPADE = {
    "sampling": "uniform",
    "lr": 1e-4,
    "lr_discriminator": 4e-4,
    "beta1": 0.0,
    "beta2": 0.9,
    "gan": "hinge",
    "discriminator": "multiscale",
    "discriminator_layers": 4,
    "ndf": 64,
    "matching_weight": 10.0,
    "target_weight": 0.0,
    "batch": 16,
    "shift": 0,
    "ema_kimg": 0.0,
    "precision": "float32",
}
_MUNIT = {
    "sampling": "uniform",
    "lr": 1e-4,
    "beta1": 0.5,
    "weight_decay": 1e-4,
    "gan": "lsgan",
    "discriminator": "munit",
    "discriminator_layers": 4,
    "conditional": False,
    "target_weight": 0.0,
    "batch": 1,
    "shift": 0,
    "ema_kimg": 0.0,
    "precision": "float32",
}

PRESETS: dict[str, dict[str, Any]] = {
    # supernets, with their distillation
    "pix2pix": {**_PIX2PIX, "feature_weight": 1.0, "kimg": 1840.0},  # edges2shoes: 10 + 30 epochs of 46k
    "cyclegan": {**_CYCLEGAN, "output_weight": 10.0, "feature_weight": 0.01, "ndf": 64, "kimg": 427.0},  # horse2zebra
    "spade": {**_SPADE, "feature_weight": 10.0, "kimg": 1190.0},  # Cityscapes: 200 + 200 epochs of 3k
    "munit": {**_MUNIT, "output_weight": 10.0, "feature_weight": 1.0, "halve_kimg": 200.0, "kimg": 2000.0},
    # teachers
    "teacher-pix2pix": {**_PIX2PIX, "gan": "lsgan", "ndf": 64, "batch": 1, "decay_from": 0.5, "kimg": 555.0},
    "teacher-cyclegan": {
        **_CYCLEGAN,
        "task": "cyclegan",
        "ndf": 64,
        "kimg": 267.0,
    },  # horse2zebra: 100 + 100 epochs of 1,334
    "teacher-spade": {**_SPADE, "kimg": 595.0},
    "teacher-munit": {**_MUNIT, "task": "munit", "halve_kimg": 100.0, "kimg": 1000.0},
    "teacher-stylegan2": {
        "task": "stylegan2",
        "lr": 2e-3,
        "beta1": 0.0,
        "beta2": 0.99,
        "decay_from": 1.0,
        "gan": "nonsaturating",
        "discriminator": "stylegan2",
        "conditional": False,
        "target_weight": 0.0,
        "batch": 16,
        "shift": 0,
        "ema_kimg": 10.0,
        "precision": "float32",
        "kimg": 25000.0,
    },
}
# The shipped one: 1,480 unlike pictures at 64 px, 75 minutes on one core.
PRESETS["teacher-stylegan2-openmoji"] = {
    **PRESETS["teacher-stylegan2"],
    "ema_kimg": 3.0,
    "precision": "bfloat16",
    "watch_kimg": 10.0,
    "decay_from": 0.8,
    "task_options": {"augment": 1, "r1": 2.0, "path": 0.0},
    "kimg": 200.0,
}
# A pruned StyleGAN2 taught by the whole one, as StyleKD (Xu et al. 2022, arXiv 2208.14840) and DCP-GAN do.
PRESETS["stylekd"] = {
    **PRESETS["teacher-stylegan2"],
    "output_weight": 3.0,
    "perceptual_weight": 3.0,
    "feature_weight": 30.0,
    "feature_loss": "relation",
    "ema_kimg": 5.0,
    "kimg": 7200.0,  # 450,000 steps of 16
}


def preset(name: str) -> dict[str, Any]:
    """The settings of a preset.

    Raises:
        ConfigError: there is no such preset.
    """
    if name not in PRESETS:
        raise ConfigError(f"preset {name!r} is unknown: {nearest(name, PRESETS)}")
    return PRESETS[name]
