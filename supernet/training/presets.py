"""Published training settings by name.

Sources: GAN Compression (Li et al. 2020, arXiv 2003.08936) for the supernets; the generators' own papers for the
teachers: pix2pix (1611.07004), CycleGAN (1703.10593), SPADE (1903.07291), MUNIT (1804.04732), StyleGAN2 (1912.04958);
GAN Slimming (2008.11062); StyleKD (2208.14840) for its retraining; Real-ESRGAN (2107.10833). Numbers that a comment
calls the code's are not in the paper, but in its public configurations. Lengths are for the data set in the comment;
``kimg`` is there to be set.
"""

from __future__ import annotations

from typing import Any

from gantailor.supernet.errors import ConfigError, nearest

# float32, no weight average and no shift by pixels, as all of these were published.
_PLAIN = {"precision": "float32", "ema_kimg": 0.0, "shift": 0, "sampling": "uniform"}
_CLASSIC = {**_PLAIN, "lr": 2e-4, "beta1": 0.5}
# Hinge, 128 channels and the batch are GAN Compression's code's for edges2shoes; pix2pix itself has the log loss.
_PIX2PIX = {**_CLASSIC, "gan": "hinge", "target_weight": 100.0, "ndf": 128, "batch": 4, "decay_from": 0.25}
_CYCLEGAN = {**_CLASSIC, "gan": "lsgan", "conditional": False, "target_weight": 0.0, "batch": 1, "decay_from": 0.5}
# The first weights are the code's; so is that the discriminator's loss is not halved.
_SPADE = {
    **_PLAIN,
    "lr": 1e-4,
    "lr_discriminator": 4e-4,
    "beta1": 0.0,
    "beta2": 0.9,
    "gan": "hinge",
    "discriminator": "multiscale",
    "discriminator_layers": 4,
    "discriminator_weight": 1.0,
    "ndf": 64,
    "init": "xavier",
    "matching_weight": 10.0,
    "target_weight": 0.0,
    "batch": 16,
}
# The sum over three scales is the code's, and so are weight decay and layers.
_MUNIT = {
    **_PLAIN,
    "lr": 1e-4,
    "beta1": 0.5,
    "weight_decay": 1e-4,
    "gan": "lsgan",
    "gan_reduction": "sum",
    "discriminator": "munit",
    "discriminator_layers": 4,
    "discriminator_weight": 1.0,
    "conditional": False,
    "target_weight": 0.0,
    "batch": 1,
}
# All from the code: the paper gives neither rates nor the perceptual loss's layers.
_SLIMMING = {
    **_PLAIN,
    "beta1": 0.5,
    "weight_decay": 1e-3,
    "decay": "cosine",
    "decay_from": 0.0,
    "gan": "lsgan",
    "gan_reduction": "score",
    "pool": 50,
    "discriminator_norm": "instance_affine",
    "conditional": False,
    "target_weight": 0.0,
    "perceptual_loss": "gram",
    "perceptual_weight": 20.0,
    "ndf": 64,
    "kimg": 267.0,  # horse2zebra: 200 epochs of 1,334
}

# Real-ESRGAN's two stages, for 256 px of truth. Moments of Adam and the average's 0.999 a step, whose half-life is 693
# steps of 48, are the code's.
_REALESR = {
    **_PLAIN,
    "beta1": 0.9,
    "beta2": 0.99,
    "decay_from": 1.0,
    "ema_kimg": 33.3,
    "batch": 48,
    "target_weight": 1.0,
}

PRESETS: dict[str, dict[str, Any]] = {
    # Supernets, with their distillation; weights and lengths are the code's.
    "pix2pix": {**_PIX2PIX, "feature_weight": 1.0, "kimg": 1840.0},  # edges2shoes: 10 + 30 epochs of 46k
    # horse2zebra: 200 + 200 epochs of the 1,214 zebras of its training part; an epoch is the larger set
    "cyclegan": {**_CYCLEGAN, "output_weight": 10.0, "feature_weight": 0.01, "ndf": 64, "kimg": 486.0},
    "spade": {**_SPADE, "feature_weight": 10.0, "kimg": 1190.0},  # Cityscapes: 200 + 200 epochs of 3k
    "munit": {  # edges2shoes; the code halves every 200k steps of 2M
        **_MUNIT,
        "output_weight": 10.0,
        "feature_weight": 1.0,
        "feature_loss": "l1",
        "halve_kimg": 200.0,
        "kimg": 2000.0,
    },
    # GAN Slimming and the training after it, which has another rate and batch.
    "gan-slimming": {**_SLIMMING, "lr": 1e-5, "batch": 8},
    "gan-slimming-finetune": {**_SLIMMING, "lr": 1e-4, "batch": 16},
    # 1,000k steps of L1, then 400k with all three losses. The perceptual loss is L1 of VGG19's features there; the
    # house's is LPIPS, of the same weight, where its files are named.
    "realesrnet": {**_REALESR, "gan": "none", "lr": 2e-4, "kimg": 48000.0},
    "realesrgan": {
        **_REALESR,
        "gan": "vanilla",
        "gan_weight": 0.1,
        "discriminator": "unet",
        "discriminator_layers": 3,
        "discriminator_weight": 1.0,
        "conditional": False,
        "ndf": 64,
        "perceptual_weight": 1.0,
        "lr": 1e-4,
        "kimg": 19200.0,
    },
    # Teachers. pix2pix: the paper's log loss (halved for the discriminator), L1 of 100, batch norms, rates; the linear
    # fall is its code's. 200 epochs of Cityscapes' 2,975, less the 200 that GAN Compression searches with.
    "teacher-pix2pix": {
        **_PIX2PIX,
        "gan": "vanilla",
        "ndf": 64,
        "discriminator_norm": "batch",
        "batch": 1,
        "decay_from": 0.5,
        "kimg": 555.0,
    },
    # horse2zebra: 100 + 100 epochs of 1,334, the larger set; which of two unequal sets an epoch is, is the code's.
    "teacher-cyclegan": {**_CYCLEGAN, "task": "cyclegan", "ndf": 64, "kimg": 267.0},
    "teacher-spade": {**_SPADE, "kimg": 595.0},  # Cityscapes: 100 + 100 epochs of 2,975
    "teacher-munit": {**_MUNIT, "task": "munit", "halve_kimg": 100.0, "kimg": 1000.0},  # the code's 1M steps
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
    "precision": "auto",
    "watch_kimg": 10.0,
    "decay_from": 0.8,
    "task_options": {"augment": 1, "r1": 2.0, "path": 0.0},
    "kimg": 200.0,
}
# A pruned StyleGAN2 taught by the whole one, as StyleKD (Xu et al. 2022, arXiv 2208.14840) and DCP-GAN do. The weight
# of LPIPS is meant for VGG (evaluation.lpips_network), which sees 1024 px pictures at 256, as in the code.
PRESETS["stylekd"] = {
    **PRESETS["teacher-stylegan2"],
    "output_weight": 3.0,
    "perceptual_weight": 3.0,
    "perceptual_size": 256,
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
