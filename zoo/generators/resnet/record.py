"""The ResNet generators by name."""

from __future__ import annotations

from gantailor.zoo import WEIGHTS
from gantailor.zoo.generators.record import Generator

_BUILD = "gantailor.zoo.generators.resnet.generator:ResnetGenerator"
_READ = "gantailor.zoo.generators.resnet.checkpoint:read_resnet"
_OPTIONS = "gantailor.zoo.generators.resnet.checkpoint:resnet_options"

RESNET_6BLOCKS = Generator(
    name="resnet_6blocks",
    build=_BUILD,
    options={"blocks": 6, "separable": False},
    read=_READ,
    options_of_state=_OPTIONS,
    shipped_teacher=WEIGHTS / "openmoji_teacher.safetensors",
    shipped_options={"ngf": 48},
)
RESNET_9BLOCKS = Generator(
    name="resnet_9blocks",
    build=_BUILD,
    options={"blocks": 9, "separable": False},
    read=_READ,
    options_of_state=_OPTIONS,
)
MOBILE_RESNET_6BLOCKS = Generator(
    name="mobile_resnet_6blocks",
    build=_BUILD,
    options={"blocks": 6, "separable": True},
    read=_READ,
    options_of_state=_OPTIONS,
)
MOBILE_RESNET_9BLOCKS = Generator(
    name="mobile_resnet_9blocks",
    build=_BUILD,
    options={"blocks": 9, "separable": True},
    read=_READ,
    options_of_state=_OPTIONS,
)
