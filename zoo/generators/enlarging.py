"""The settings of a run beneath the user's for generators that enlarge pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TO_TEACHER = ("psnr_y[teacher]", "ssim_y[teacher]")
TO_REAL = ("psnr_y", "ssim_y")


def defaults(own: Mapping[str, Any]) -> dict[str, Any]:
    """Large pictures made small by bicubic resampling, and L1 to the teacher alone: what is kept is how it draws.

    A training with a discriminator, after the truth or on Real-ESRGAN's degradation, is a preset or a setting away.
    """
    train: dict[str, Any] = {"gan": "none", "shift": 0, "precision": "float32", "feature_weight": 0.0}
    teacher = own.get("teacher")
    if not (own.get("evaluation") or {}).get("lpips_features"):
        train["perceptual_weight"] = 0.0  # of preset realesrgan, which needs files
    weights = teacher.get("weights") if isinstance(teacher, Mapping) else teacher
    alone = weights == "none"
    train |= {"target_weight": 1.0, "output_weight": 0.0} if alone else {"target_weight": 0.0, "output_weight": 1.0}
    scores = TO_REAL if alone else (*TO_TEACHER, *TO_REAL)
    return {
        "options": {},
        "data": {"kind": "super_resolution"},
        "train": train,
        "finetune": train,
        "evaluation": {"search": scores[0], "final": scores},
    }
