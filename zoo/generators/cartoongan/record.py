"""The CartoonGAN generator by name."""

from __future__ import annotations

from gantailor.zoo.generators.record import Generator

CARTOONGAN = Generator(
    name="cartoongan",
    build="gantailor.zoo.generators.cartoongan.generator:CartoonGenerator",
    read="gantailor.zoo.generators.cartoongan.checkpoint:read_cartoongan",
    options_of_state="gantailor.zoo.generators.cartoongan.checkpoint:cartoongan_options",
)
