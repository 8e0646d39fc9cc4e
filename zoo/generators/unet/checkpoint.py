"""Reads U-Net generators: ``latest_net_G.pth`` of pytorch-CycleGAN-and-pix2pix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from gantailor.zoo.generators.pix2pix_checkpoint import norm_options, read_pix2pix


def read_unet(checkpoint: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a U-Net, whose names are those of ``UnetGenerator``, with dropout or without."""
    return read_pix2pix(checkpoint)


def unet_options(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Channels, levels and norm. Dropout leaves no trace in the names."""
    down, up = state.get("model.model.0.weight"), state.get("model.model.3.weight")
    if down is None or up is None or down.ndim != 4 or up.ndim != 4:
        return {}
    levels, level = 1, "model.model.1.model."
    while f"{level}1.weight" in state:
        levels, level = levels + 1, f"{level}3.model."
    second = "model.model.1.model"
    return {
        "levels": levels,
        "input_nc": down.shape[1],
        "output_nc": up.shape[1],
        "ngf": down.shape[0],
        **norm_options(state, conv=f"{second}.1", norm=f"{second}.2"),
    }
