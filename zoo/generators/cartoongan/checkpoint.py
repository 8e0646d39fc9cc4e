"""Reads CartoonGAN weights: the PyTorch port's ``*_net_G_float.pth``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gantailor.supernet.errors import CheckpointError


def read_cartoongan(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of the port's ``*_net_G_float.pth``, whose names are those of ``CartoonGenerator``.

    A leading ``module.`` (``nn.DataParallel``) is dropped, and the picture channels of the first and the last layer are
    turned from BGR to RGB, unless the file was made here and is RGB already.
    """
    weights = {name.removeprefix("module."): value for name, value in state.items()}
    missing = [name for name in ("conv01_1.weight", "in01_1.scale", "deconv03_1.bias") if name not in weights]
    if missing:
        raise CheckpointError(
            f"this is not a CartoonGAN generator: it has no {', '.join(missing)}, only "
            f"{', '.join(list(weights)[:4]) or 'nothing'}, ... Allowed: the state dict of the port's "
            "*_net_G_float.pth. Pass what torch.load(path, weights_only=True) reads from that file."
        )
    if "rgb" not in weights:
        weights["rgb"] = torch.ones(())
        weights["conv01_1.weight"] = weights["conv01_1.weight"].flip(1)
        weights |= {name: weights[name].flip(0) for name in ("deconv03_1.weight", "deconv03_1.bias")}
    return weights


def cartoongan_options(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Channels and blocks."""
    first, last = state["conv01_1.weight"], state.get("deconv03_1.weight")
    blocks = {match[1] for name in state if (match := re.match(r"conv(\d\d)_2\.weight", name)) and int(match[1]) > 3}
    found = {"input_nc": first.shape[1], "ngf": first.shape[0], "blocks": len(blocks)}
    return found if last is None else found | {"output_nc": last.shape[0]}
