"""The MUNIT generators by name."""

from __future__ import annotations

from gantailor.zoo.generators.record import Generator

_BUILD = "gantailor.zoo.generators.munit.generator:MunitGenerator"
_READ = "gantailor.zoo.generators.munit.checkpoint:read_munit"

MUNIT = Generator(name="munit", build=_BUILD, read=_READ)
MOBILE_MUNIT = Generator(name="mobile_munit", build=_BUILD, options={"separable": True}, read=_READ)
