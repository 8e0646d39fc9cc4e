"""Running statistics of norms belong to a subnet: made anew from pictures, in the extracted copy."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gantailor.supernet.calling import Inputs, forward
from gantailor.supernet.errors import ConfigError
from gantailor.supernet.subnets.copying import copied
from gantailor.supernet.supernet import Supernet


def has_running_statistics(model: nn.Module) -> bool:
    """Whether any norm of the model keeps running statistics."""
    return bool(_norms(model))


def _norms(model: nn.Module) -> list[nn.Module]:
    """Every norm with statistics that follow by a momentum: batch and instance norms, and others like them."""
    return [module for module in model.modules() if _follows(module)]


def _follows(module: nn.Module) -> bool:
    kept = (getattr(module, name, None) for name in ("running_mean", "running_var"))
    if not all(isinstance(one, Tensor) for one in kept):
        return False
    return isinstance(module, nn.modules.batchnorm._NormBase) or isinstance(getattr(module, "momentum", None), float)


def recalibrate(model: nn.Module, batches: Iterable[Inputs]) -> nn.Module:
    """Running means and variances from these input batches, in place; the model comes back in eval mode.

    The average over batches of each batch's statistics (give batches of one size). Dropout stays off. A model without
    running statistics is only put into eval mode. Give it an extracted subnet, never the supernet. Where a batch cannot
    be used the model keeps the statistics that it had.

    Raises:
        ConfigError: there is no batch, or it is a supernet.
    """
    if isinstance(model, Supernet):
        raise ConfigError(
            "recalibrate was given a Supernet, whose widths share its statistics; give supernet.extract(config)"
        )
    return renew_statistics(model, batches)


@torch.no_grad()
def renew_statistics(model: nn.Module, batches: Iterable[Inputs]) -> nn.Module:
    """The same for any model: a supernet has those of its full width then.

    Raises:
        ConfigError: there is no batch.
    """
    model.eval()
    norms: list[Any] = _norms(model)
    if not norms:
        return model
    momenta = [norm.momentum for norm in norms]
    before = [held.clone() for norm in norms for held in norm.buffers(recurse=False)]
    for norm in norms:
        norm.running_mean.zero_()
        norm.running_var.fill_(1)
        if isinstance(getattr(norm, "num_batches_tracked", None), Tensor):
            norm.num_batches_tracked.zero_()
        norm.train()
    number = 0
    try:
        for number, batch in enumerate(batches, 1):
            for norm in norms:
                norm.momentum = 1 / number  # the plain average, for which PyTorch's None stands in batch norms alone
            forward(model, tuple(batch) if isinstance(batch, list) else batch)  # a DataLoader gives lists
        if not number:
            raise ConfigError(
                "recalibrate was given no batch; give at least one (an iterator is empty after its first use: give a "
                "list or a DataLoader)"
            )
    except BaseException:
        _put_back(norms, before)
        raise
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        model.eval()
    return model


def _put_back(norms: Iterable[nn.Module], values: Iterable[Tensor]) -> None:
    for held, value in zip((held for norm in norms for held in norm.buffers(recurse=False)), values, strict=True):
        held.copy_(value)


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


class WeightAverages:
    """Exponential averages of the weights of networks that are trained (Karras et al. 2018, arXiv 1710.10196).

    Args:
        kimg: half-life in thousand pictures.
    """

    def __init__(self, networks: Mapping[str, nn.Module], kimg: float) -> None:
        self.networks, self.kimg = dict(networks), kimg
        self.means = {name: copied(network) for name, network in networks.items()}

    @torch.no_grad()
    def update(self, step: int, batch: int) -> None:
        """After a step of ``batch`` pictures; buffers are the networks' own."""
        decay = min(0.5 ** (batch / (self.kimg * 1000)), (1 + step) / (10 + step))  # young averages follow quickly
        for name, network in self.networks.items():
            means: list[Tensor] = list(self.means[name].parameters())
            values: list[Tensor] = list(network.parameters())
            torch._foreach_lerp_(means, values, 1 - decay)
            for mine, held in zip(self.means[name].buffers(), network.buffers(), strict=True):
                mine.copy_(held)

    def hand_over(self) -> None:
        """At the end the networks beside the first become their averages, with statistics and all."""
        for name in list(self.networks)[1:]:
            self.networks[name].load_state_dict(self.means[name].state_dict())
