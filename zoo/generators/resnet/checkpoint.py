"""Reads ResNet generators: ``latest_net_G.pth`` of pytorch-CycleGAN-and-pix2pix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from gantailor.zoo.generators.pix2pix_checkpoint import read_pix2pix


def read_resnet(checkpoint: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a ResNet, whose names are those of ``ResnetGenerator``."""
    return read_pix2pix(checkpoint)


def resnet_options(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Whether it was trained with dropout, which moves the second convolution of a block from place 5 to 6."""
    moved = any(".conv_block.6." in name for name in state) and not any(".conv_block.5." in name for name in state)
    return {"dropout": True} if moved else {}
