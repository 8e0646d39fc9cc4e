"""The generator of ESRGAN and Real-ESRGAN by name."""

from __future__ import annotations

from gantailor.zoo.generators.enlarging import defaults
from gantailor.zoo.generators.record import Generator

RRDBNET = Generator(
    name="rrdbnet",
    build="gantailor.zoo.generators.rrdbnet.generator:RrdbNetGenerator",
    read="gantailor.zoo.generators.rrdbnet.checkpoint:read_rrdbnet",
    options_of_state="gantailor.zoo.generators.rrdbnet.checkpoint:rrdbnet_options",
    defaults=defaults,
)
