"""Reads ``latest_net_G.pth`` of junyanz/pytorch-CycleGAN-and-pix2pix: U-Nets and ResNets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from gantailor.zoo.generators.norms import has_conv_bias

STATISTICS = (".running_mean", ".running_var", ".num_batches_tracked")


def read_pix2pix(checkpoint: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights without the statistics that old instance norms kept and never read.

    A layer that has statistics and no weight is an instance norm: the batch norms of these generators are affine.
    """
    return {
        name: value
        for name, value in checkpoint.items()
        if not name.endswith(STATISTICS) or f"{name.rpartition('.')[0]}.weight" in checkpoint
    }


def norm_options(state: Mapping[str, Tensor], *, conv: str, norm: str) -> dict[str, Any]:
    """The options ``norm`` and, where it is not the original's, ``bias``.

    Instance norms without scale leave no tensor; that they are there shows in the bias of the convolution before them.

    Args:
        conv: a convolution before a norm.
        norm: that norm.
    """
    bias = f"{conv}.bias" in state
    if f"{norm}.weight" in state:
        name = "batch" if f"{norm}.running_mean" in state else "instance_affine"
    else:
        name = "instance" if bias else "none"
    return {"norm": name} if bias == has_conv_bias(name) else {"norm": name, "bias": bias}
