"""The compact generator of Real-ESRGAN by name."""

from __future__ import annotations

from gantailor.zoo.generators.enlarging import defaults
from gantailor.zoo.generators.record import Generator

SRVGG = Generator(
    name="srvgg",
    build="gantailor.zoo.generators.srvgg.generator:SrvggGenerator",
    read="gantailor.zoo.generators.srvgg.checkpoint:read_srvgg",
    options_of_state="gantailor.zoo.generators.srvgg.checkpoint:srvgg_options",
    defaults=defaults,
)
