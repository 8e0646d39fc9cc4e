"""Batch norm statistics belong to a subnet: made anew from pictures, in the extracted copy."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def has_running_statistics(model: nn.Module) -> bool:
    """Whether any norm of the model keeps running statistics."""
    return any(norm.running_mean is not None for norm in _norms(model))


def _norms(model: nn.Module) -> list[nn.modules.batchnorm._NormBase]:
    return [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._NormBase) and m.track_running_stats]


@torch.no_grad()
def recalibrate(model: nn.Module, batches: Iterable[Tensor]) -> nn.Module:
    """Running means and variances from these input batches, in place; the model comes back in eval mode.

    The average over batches of each batch's statistics (give batches of one size). Dropout stays off. A model without
    running statistics is only put into eval mode. Give it an extracted subnet, never the supernet.
    """
    model.eval()
    norms = _norms(model)
    if not norms:
        return model
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's name for the plain average
        norm.train()
    try:
        for batch in batches:
            model(batch)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        model.eval()
    return model
