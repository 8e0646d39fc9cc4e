"""The StyleGAN2 generator by name, and the settings of a run that prunes one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gantailor.zoo import WEIGHTS
from gantailor.zoo.generators.record import Generator

_DISCRIMINATOR = WEIGHTS / "openmoji_stylegan2_discriminator.safetensors"
_METRICS = ("fid", "kid", "precision", "recall", "density", "coverage", "l1")


def defaults(own: Mapping[str, Any]) -> dict[str, Any]:
    """Retraining as StyleKD, in small: for the few pictures of OpenMoji augmented, with LPIPS where its weights are.

    The shipped teacher's discriminator is gone on with, if no other teacher is named.
    """
    retrain: dict[str, Any] = {"preset": "stylekd", "precision": "auto", "ema_kimg": 2.0, "kimg": 24.0}
    if _section(own, "data").get("kind", "openmoji") == "openmoji":
        retrain["task_options"] = {"augment": 1, "r1": 2.0}
    if not _section(own, "evaluation").get("lpips_features"):
        retrain["perceptual_weight"] = 0.0
    found: dict[str, Any] = {
        "options": {},
        "data": {"direction": "unpaired"},
        "train": retrain,
        "finetune": retrain,
        "evaluation": {"final": _METRICS},
    }
    if own.get("teacher") is None and _DISCRIMINATOR.exists():
        found["discriminator"] = str(_DISCRIMINATOR)
    return found


def _section(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = values.get(name)
    return found if isinstance(found, Mapping) else {}


STYLEGAN2 = Generator(
    name="stylegan2",
    build="gantailor.zoo.generators.stylegan2.generator:StyleGan2Generator",
    task="stylegan2",
    read="gantailor.zoo.generators.stylegan2.checkpoint:read_stylegan2",
    options_of_state="gantailor.zoo.generators.stylegan2.checkpoint:stylegan2_arguments",
    complete="gantailor.zoo.generators.stylegan2.checkpoint:with_constants",
    shipped_teacher=WEIGHTS / "openmoji_stylegan2.safetensors",
    shipped_discriminator=_DISCRIMINATOR,
    defaults=defaults,
)
