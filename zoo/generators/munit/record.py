"""The MUNIT generators by name."""

from __future__ import annotations

from gantailor.zoo.generators.record import Generator

_BUILD = "gantailor.zoo.generators.munit.generator:MunitGenerator"
_READ = "gantailor.zoo.generators.munit.checkpoint:read_munit"
_OPTIONS = "gantailor.zoo.generators.munit.checkpoint:munit_options"

_SIDE = "a2b"  # what is compressed is a translator

MUNIT = Generator(
    name="munit", build=_BUILD, options={"separable": False}, read=_READ, side=_SIDE, options_of_state=_OPTIONS
)
MOBILE_MUNIT = Generator(
    name="mobile_munit", build=_BUILD, options={"separable": True}, read=_READ, side=_SIDE, options_of_state=_OPTIONS
)
