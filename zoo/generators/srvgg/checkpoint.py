"""Reads Real-ESRGAN's compact generators: ``realesr-animevideov3.pth``, ``realesr-general-x4v3.pth``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from gantailor.zoo.generators.basicsr_checkpoint import averaged


def read_srvgg(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """The weights, whose names are those of ``SrvggGenerator``: ``params_ema`` before ``params``.

    Raises:
        CheckpointError: the file is BasicSR's, of another net.
    """
    return averaged(checkpoint, first=("body.0.weight",), what="srvgg")


def srvgg_options(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Channels, convolutions, scale, and that there is a PReLU; other activations leave no trace."""
    first = state["body.0.weight"]
    last = max(int(name.split(".")[1]) for name in state if name.startswith("body."))
    taken, made = first.shape[1], state[f"body.{last}.weight"].shape[0]
    found: dict[str, Any] = {"num_in_ch": taken, "num_feat": first.shape[0], "num_conv": last // 2 - 1}
    if "body.1.weight" in state:
        found["act_type"] = "prelu"
    upscale = math.isqrt(made // taken)
    if made == taken * upscale**2:  # what is added to the input has its channels; one may be added to three
        return found | {"num_out_ch": taken, "upscale": upscale}
    return found
