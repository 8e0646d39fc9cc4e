"""CoroNet-GAN: controlled pruning by hypernetworks (ICCV workshops 2023).

It follows differentiable meta pruning (Li et al. 2020, DHP, arXiv 2003.13683).

A hypernetwork makes every convolution's weights from two latent vectors: one number for each channel that it reads and
for each that it writes. Channels that belong together (a width of the graph) share their number; so couplings hold by
construction. The latents are sparsified while the GAN trains with its own losses, without a teacher; when the budget is
met the weights are made for the channels that are left and the hypernetwork is dropped.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from gantailor.search.methods.control import Usage
from gantailor.search.methods.l1_sparsity import L1Sparsity, SparsityOptions
from gantailor.supernet.gates import Gates
from gantailor.supernet.quantization.quantisers import LAYERS
from gantailor.supernet.supernet import AroundSupernet, Supernet, call_narrow
from gantailor.supernet.training.recipe import Recipe, require
from gantailor.supernet.training.task import Task

EMBEDDING = 8  # numbers in each element's embedding, as published
THRESHOLD = 5e-3  # a channel whose latent is not larger is gone, as published
LEAST = 4  # channels that every width keeps, as published


@dataclass(frozen=True)
class HypernetworkOptions(SparsityOptions):
    """Settings of the sparsification, in ``train.method_options``, beside those of ``SparsityOptions``.

    Published: ``control: penalty`` with a ``strength`` of 0.1 and 0.0003 at a rate of 0.0001. A latent is no factor of
    its channel, whose weights it only has a part in: its size says little of what the channel is worth. ``measured``
    closes channels by the slopes of the made weights instead; latents are then trained, and do not shrink.

    Attributes:
        latent_lr: Adam learning rate of the latents, a rate of its own: at the weights' rate they would hardly move.
    """

    reach: float = 0.8
    control: str = "measured"  # by their own sizes the first, random latents decide alone: docs/results/decisions.md
    latent_lr: float = 0.001

    def __post_init__(self) -> None:
        super().__post_init__()
        require("latent_lr", self.latent_lr, above=0)

    @property
    def moves(self) -> bool:
        """Whether the losses train the latents."""
        return self.ablation != "frozen"


class MadeWeight(nn.Module):
    """One weight ``[rows, columns, ...]`` from a latent for each row and each column.

    ``Z = z_rows z_columns^T + B0``; ``E = Z w1 + b1``, 8 numbers for each element; ``K = W2 E + b2``, element by
    element.

    Args:
        shape: of the weight.
        reads: elements that one output sums over, which scale the first weights.
        places: for rows and for columns the positions among the latents, -1 for a channel of a picture: those have
            latents of their own here, which are never pruned.
    """

    def __init__(
        self, shape: torch.Size, reads: int, places: tuple[np.ndarray, np.ndarray], random: torch.Generator
    ) -> None:
        super().__init__()
        rows, columns, *kernel = shape
        self.kernel, taps = tuple(kernel), math.prod(kernel)

        def uniform(*size: int, bound: float) -> nn.Parameter:
            return nn.Parameter((2 * torch.rand(*size, generator=random) - 1) * bound)

        self.offset = nn.Parameter(torch.zeros(rows, columns))
        self.embed = uniform(rows, columns, EMBEDDING, bound=math.sqrt(3))
        self.embed_offset = nn.Parameter(torch.zeros(rows, columns, EMBEDDING))
        self.explicit = uniform(rows, columns, taps, EMBEDDING, bound=math.sqrt(3 / (EMBEDDING * reads)))
        self.explicit_offset = nn.Parameter(torch.zeros(rows, columns, taps))
        self.own = nn.ParameterList(nn.Parameter(torch.randn(int((p < 0).sum()), generator=random)) for p in places)
        for end, place in zip(("rows", "columns"), places, strict=True):
            self.register_buffer(f"shared_{end}", torch.from_numpy(place[place >= 0]), persistent=False)
            self.register_buffer(f"is_shared_{end}", torch.from_numpy(place >= 0), persistent=False)

    def _latents(self, latents: Tensor, end: str, own: Tensor) -> Tensor:
        shared: Any = getattr(self, f"is_shared_{end}")
        found = latents.new_zeros(len(shared))
        found[shared] = latents[getattr(self, f"shared_{end}")]
        found[~shared] = own
        return found

    def forward(self, latents: Tensor) -> Tensor:
        rows, columns = (
            self._latents(latents, end, own) for end, own in zip(("rows", "columns"), self.own, strict=True)
        )
        z = torch.outer(rows, columns) + self.offset
        embedded = z[:, :, None] * self.embed + self.embed_offset
        made = torch.einsum("rcte,rce->rct", self.explicit, embedded) + self.explicit_offset
        return made.reshape(*made.shape[:2], *self.kernel)


class Hypernetwork(AroundSupernet):
    """A supernet whose convolutions' and linear layers' weights are made from latents; ``generator`` is the plain one.

    It trains about 11 times as many numbers as the weights it makes. Biases and norms are ordinary parameters.

    Args:
        supernet: its weights are not used; the others are trained on.
        widths: those that may lose channels, by number; all of them by default.
        seed: of the first latents and weights.
    """

    def __init__(self, supernet: Supernet, widths: Iterable[int] | None = None, *, seed: int = 0) -> None:
        super().__init__(supernet)
        random = torch.Generator().manual_seed(seed)
        self.gates = Gates(supernet.graph, widths, threshold=THRESHOLD, least=LEAST)
        with torch.no_grad():
            self.gates.values.normal_(generator=random)
        layers = {name: layer for name, layer in self.generator.named_modules() if isinstance(layer, LAYERS)}
        layers = {name: layer for name, layer in layers.items() if f"{name}.weight" in supernet.tensors}  # tied: once
        self.names = [f"{name}.weight" for name in layers]
        self.makers = nn.ModuleList(self._maker(f"{name}.weight", layer, random) for name, layer in layers.items())
        for name, parameter in self.generator.named_parameters():
            parameter.requires_grad_(name not in self.names)

    def _maker(self, name: str, layer: Any, random: torch.Generator) -> MadeWeight:
        axes, places = self.supernet.graph.axes.get(name, {}), []
        for dimension, size in enumerate(layer.weight.shape[:2]):
            whole = np.full(size, -1)
            places.append(self.gates.places.positions(axes[dimension]) if dimension in axes else whole)
        reads = layer.weight[0].numel()
        if isinstance(layer, nn.ConvTranspose2d):
            reads = layer.weight[:, 0].numel() // math.prod(layer.stride)
        return MadeWeight(layer.weight.shape, reads, (places[0], places[1]), random)

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor of the generator, the made weights in the place of its own; what reads closed channels is 0."""
        latents = self.gates.values * self.gates.open
        made = {name: maker(latents) for name, maker in zip(self.names, self.makers, strict=True)}
        return self.gates.places.apply({**self.supernet.tensors, **made}, self.gates.open.to(latents.dtype))

    @torch.no_grad()
    def slopes(self) -> Tensor:
        """The gradient at a factor of 1 on every channel, ``[units]``, from those that lie at the parameters."""
        made, gradients = self.tensors(), {}
        for name, maker in zip(self.names, self.makers, strict=True):
            gradient = cast(MadeWeight, maker).explicit_offset.grad  # it is added to the weight
            if gradient is not None:
                gradients[name] = gradient.reshape(made[name].shape)
        return self.gates.places.slopes(made, gradients)

    def open_features(self, features: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor | slice]]:
        """Of outputs of named modules the channels that are still read, and their numbers."""
        return self.gates.open_features(features)

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """The net without what was closed for good, which is not computed."""
        subnet = self.gates.places.selection(self.gates.opened())
        return call_narrow(self.supernet, subnet, inputs, options, tensors=self.tensors())


def hypernetwork_task(
    task: Task, model: Hypernetwork, recipe: Recipe, *, usage: Usage, name: str = "latents"
) -> L1Sparsity:
    """The task that trains a hypernetwork's generator while its latents are sparsified."""
    options = recipe.options_of(HypernetworkOptions, method=True)
    optimizer = torch.optim.Adam([model.gates.values], lr=options.latent_lr, betas=(recipe.beta1, recipe.beta2))
    return L1Sparsity(
        task, model.gates, recipe, optimizer=optimizer, usage=usage, options=options, slopes=model.slopes, name=name
    )
