"""The U-Net generators by name."""

from __future__ import annotations

from gantailor.zoo.generators.record import Generator

_BUILD = "gantailor.zoo.generators.unet.generator:UnetGenerator"
_READ = "gantailor.zoo.generators.unet.checkpoint:read_unet"

UNET_128 = Generator(name="unet_128", build=_BUILD, options={"levels": 7}, read=_READ)
UNET_256 = Generator(name="unet_256", build=_BUILD, options={"levels": 8}, read=_READ)
