"""The SPADE generators by name."""

from __future__ import annotations

from gantailor.zoo.generators.record import Generator

_BUILD = "gantailor.zoo.generators.spade.generator:SpadeGenerator"
_READ = "gantailor.zoo.generators.spade.checkpoint:read_spade"
_OPTIONS = "gantailor.zoo.generators.spade.checkpoint:spade_options"

SPADE = Generator(name="spade", build=_BUILD, options={"separable": False}, read=_READ, options_of_state=_OPTIONS)
MOBILE_SPADE = Generator(
    name="mobile_spade", build=_BUILD, options={"separable": True}, read=_READ, options_of_state=_OPTIONS
)
