"""Diversity-aware channel pruning (DCP-GAN, Chung et al., CVPR 2024).

A ranking, the same share of every width, retraining beside the teacher. With another ``space`` the ranked supernet is
trained and searched instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gantailor.search.methods.method import Method


def _defaults(own: Mapping[str, Any]) -> Mapping[str, Any]:
    space = own.get("space")
    name = space.get("name", "uniform") if isinstance(space, Mapping) else "uniform"
    found: dict[str, Any] = {"ranking": "diversity", "space": {"name": "uniform"}}
    return found | {"search": {"trials": 1}, "train": {"kimg": 0}} if name == "uniform" else found


DIVERSITY = Method(name="diversity", defaults=_defaults)
