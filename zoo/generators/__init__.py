"""Generators: a folder for each family, with its layers, its checkpoint reader and its record."""

from __future__ import annotations

GENERATORS: dict[str, str] = {
    "resnet_6blocks": "gantailor.zoo.generators.resnet.record:RESNET_6BLOCKS",
    "resnet_9blocks": "gantailor.zoo.generators.resnet.record:RESNET_9BLOCKS",
    "mobile_resnet_6blocks": "gantailor.zoo.generators.resnet.record:MOBILE_RESNET_6BLOCKS",
    "mobile_resnet_9blocks": "gantailor.zoo.generators.resnet.record:MOBILE_RESNET_9BLOCKS",
    "unet_128": "gantailor.zoo.generators.unet.record:UNET_128",
    "unet_256": "gantailor.zoo.generators.unet.record:UNET_256",
    "spade": "gantailor.zoo.generators.spade.record:SPADE",
    "mobile_spade": "gantailor.zoo.generators.spade.record:MOBILE_SPADE",
    "munit": "gantailor.zoo.generators.munit.record:MUNIT",
    "mobile_munit": "gantailor.zoo.generators.munit.record:MOBILE_MUNIT",
    "cartoongan": "gantailor.zoo.generators.cartoongan.record:CARTOONGAN",
    "srvgg": "gantailor.zoo.generators.srvgg.record:SRVGG",
    "rrdbnet": "gantailor.zoo.generators.rrdbnet.record:RRDBNET",
    "stylegan2": "gantailor.zoo.generators.stylegan2.record:STYLEGAN2",
}
