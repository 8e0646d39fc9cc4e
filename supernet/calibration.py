"""Batch norm statistics belong to a subnet: made anew from pictures, in the extracted copy."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import nn

from gantailor.supernet.calling import Inputs, forward


def has_running_statistics(model: nn.Module) -> bool:
    """Whether any norm of the model keeps running statistics."""
    return any(norm.running_mean is not None for norm in _norms(model))


def _norms(model: nn.Module) -> list[nn.modules.batchnorm._NormBase]:
    return [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._NormBase) and m.track_running_stats]


@torch.no_grad()
def recalibrate(model: nn.Module, batches: Iterable[Inputs]) -> nn.Module:
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
            forward(model, batch)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        model.eval()
    return model


def per_picture(model: nn.Module) -> nn.Module:
    """A copy in which batch norms take each picture's own statistics, in eval mode too.

    What a batch norm in train mode computes of a batch of one picture, as pix2pix's ``test.py`` runs its generators
    without ``--eval`` (Isola et al. 2017, arXiv 1611.07004, section 3.4); of a larger batch, each picture as if alone.
    Dropout, which is active there as well, stays off.
    """
    model = copy.deepcopy(model)
    for path, norm in list(model.named_modules()):
        if isinstance(norm, nn.BatchNorm2d):
            single = nn.InstanceNorm2d(norm.num_features, eps=norm.eps, affine=norm.affine)
            if norm.affine:
                single.weight, single.bias = norm.weight, norm.bias
            parent, _, name = path.rpartition(".")
            setattr(model.get_submodule(parent), name, single.train(norm.training))
    return model
