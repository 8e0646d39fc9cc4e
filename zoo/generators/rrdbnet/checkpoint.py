"""Reads RRDBNets: ``RealESRGAN_x4plus.pth``, ``RealESRGAN_x4plus_anime_6B.pth``, and ESRGAN's two older layouts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from gantailor.supernet.errors import CheckpointError
from gantailor.zoo.generators.basicsr_checkpoint import averaged
from gantailor.zoo.generators.rrdbnet.generator import UNSHUFFLED

# ESRGAN's own code, which BSRGAN and others share.
TRUNK = {
    "RRDB_trunk": "body",
    "trunk_conv": "conv_body",
    "upconv1": "conv_up1",
    "upconv2": "conv_up2",
    "HRconv": "conv_hr",
}
# The code before it, whose layers are numbered.
NUMBERED = {
    "model.0": "conv_first",
    "model.3": "conv_up1",
    "model.6": "conv_up2",
    "model.8": "conv_hr",
    "model.10": "conv_last",
}


def read_rrdbnet(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """The weights in the names of ``RrdbNetGenerator``: ``params_ema`` before ``params``.

    Raises:
        CheckpointError: an older ESRGAN that does not enlarge twice, or another net of BasicSR's.
    """
    weights = averaged(checkpoint, first=("conv_first.weight", "model.0.weight"), what="rrdbnet")
    if "model.0.weight" in weights and any(".RDB1." in name for name in weights):
        return {_of_numbered(name, weights): value for name, value in weights.items()}
    return {_of_trunk(name): value for name, value in weights.items()}


def _of_trunk(name: str) -> str:
    first, dot, rest = name.partition(".")
    return TRUNK.get(first, first) + dot + re.sub(r"\bRDB(\d)\.", r"rdb\1.", rest)


def _of_numbered(name: str, weights: Mapping[str, Any]) -> str:
    if "model.10.weight" not in weights:
        layers = sorted({int(match[1]) for other in weights if (match := re.match(r"model\.(\d+)\.", other))})
        raise CheckpointError(
            f"this is an older ESRGAN that does not enlarge twice by two (its last layer is model.{layers[-1]}, not "
            "model.10), another net than rrdbnet; give one of scale 4, or build it as a generator of your own"
        )
    layer, _, kind = name.rpartition(".")
    if layer in NUMBERED:
        return f"{NUMBERED[layer]}.{kind}"
    if match := re.fullmatch(r"model\.1\.sub\.(\d+)\.RDB(\d)\.conv(\d)\.0", layer):
        return f"body.{match[1]}.rdb{match[2]}.conv{match[3]}.{kind}"
    if re.fullmatch(r"model\.1\.sub\.\d+", layer):
        return f"conv_body.{kind}"
    return name


def rrdbnet_options(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Channels, blocks and growth; the scale from how many pixels of the input are put into channels."""
    first, made = state["conv_first.weight"], state["conv_last.weight"].shape[0]
    blocks = {match[1] for name in state if (match := re.match(r"body\.(\d+)\.", name))}
    scales = {factor**2: scale for scale, factor in UNSHUFFLED.items()}
    taken, scale = first.shape[1], scales.get(first.shape[1] // made) if first.shape[1] % made == 0 else None
    return {
        "num_in_ch": taken if scale is None else made,
        "num_out_ch": made,
        "scale": 4 if scale is None else scale,
        "num_feat": first.shape[0],
        "num_block": len(blocks),
        "num_grow_ch": state["body.0.rdb1.conv1.weight"].shape[0],
    }
