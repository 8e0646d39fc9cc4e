"""The MUNIT generators by name."""

from __future__ import annotations

from dataclasses import replace

from gantailor.zoo.generators.record import Generator

MUNIT = Generator(
    name="munit",
    build="gantailor.zoo.generators.munit.generator:MunitGenerator",
    options={"separable": False},
    task="munit",
    read="gantailor.zoo.generators.munit.checkpoint:read_munit",
    side="a2b",  # what is compressed is a translator
    options_of_state="gantailor.zoo.generators.munit.checkpoint:munit_options",
)
MOBILE_MUNIT = replace(MUNIT, name="mobile_munit", options={"separable": True})
