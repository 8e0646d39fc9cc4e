"""Generators, discriminators, their training, data and shipped weights."""

from __future__ import annotations

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"
DEMO_SUPERNET = WEIGHTS / "openmoji_supernet.safetensors"  # trained from the shipped teacher, for ``gantailor demo``
