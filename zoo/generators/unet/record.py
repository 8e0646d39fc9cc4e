"""The U-Net generators by name."""

from __future__ import annotations

from gantailor.zoo.generators.record import Generator

_BUILD = "gantailor.zoo.generators.unet.generator:UnetGenerator"
_READ = "gantailor.zoo.generators.unet.checkpoint:read_unet"
_OPTIONS = "gantailor.zoo.generators.unet.checkpoint:unet_options"

UNET_128 = Generator(name="unet_128", build=_BUILD, options={"levels": 7}, read=_READ, options_of_state=_OPTIONS)
UNET_256 = Generator(name="unet_256", build=_BUILD, options={"levels": 8}, read=_READ, options_of_state=_OPTIONS)
