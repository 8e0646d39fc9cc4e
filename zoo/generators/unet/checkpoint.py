"""Reads U-Net generators: ``latest_net_G.pth`` of pytorch-CycleGAN-and-pix2pix."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from gantailor.zoo.generators.pix2pix_checkpoint import read_pix2pix


def read_unet(checkpoint: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a U-Net, whose names are those of ``UnetGenerator``, with dropout or without."""
    return read_pix2pix(checkpoint)
