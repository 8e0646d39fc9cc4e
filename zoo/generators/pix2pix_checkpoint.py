"""Reads ``latest_net_G.pth`` of junyanz/pytorch-CycleGAN-and-pix2pix: U-Nets and ResNets."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

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
