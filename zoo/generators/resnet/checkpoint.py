"""Reads ResNet generators: ``latest_net_G.pth`` of pytorch-CycleGAN-and-pix2pix."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from gantailor.zoo.generators.pix2pix_checkpoint import norm_options, read_pix2pix


def read_resnet(checkpoint: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a ResNet, whose names are those of ``ResnetGenerator``."""
    return read_pix2pix(checkpoint)


def resnet_options(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Channels, blocks, norm, and whether there is dropout, which moves a block's second convolution from 5 to 6."""
    stem = state.get("model.1.weight")
    if stem is None or stem.ndim != 4:
        return {}
    found = {"input_nc": stem.shape[1], "ngf": stem.shape[0]}
    found |= norm_options(state, conv="model.1", norm="model.2")
    inside = [match for name in state if (match := re.match(r"model\.(\d+)\.conv_block\.(\d+)\.(conv\.)?", name))]
    if inside:
        layers = {match[2] for match in inside}
        found |= {"blocks": len({match[1] for match in inside}), "separable": any(match[3] for match in inside)}
        found |= {"dropout": "6" in layers and "5" not in layers}
        last = state.get(f"model.{10 + found['blocks'] + 7}.weight")  # behind two norms, activations and a padding
        if last is not None:
            found["output_nc"] = last.shape[0]
    return found
