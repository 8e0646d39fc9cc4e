"""GAN Slimming: distillation, channel pruning and 8 bits trained together (Wang et al. 2020, arXiv 2008.11062).

Scales multiply the weights that read a channel, on every width (``supernet/gates.py``). They pay an L1 penalty by a
proximal step after each update, while the generator distils its teacher and, if ``bits`` are set, computes in integers.
The paper has only the penalty's strength; here the smallest scales are closed step by step along a path of MACs to a
budget, and the scales that fit, largest first, are kept. What happens after a step is ``L1Sparsity.after_step``
(``search/methods/l1_sparsity.py``), which hypernetworks share.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gantailor.search.methods.control import Usage
from gantailor.search.methods.l1_sparsity import LR, MOMENTUM, L1Sparsity, SparsityOptions
from gantailor.supernet.gates import Gates
from gantailor.supernet.graph import Selection
from gantailor.supernet.importance.ranking import l1_scores
from gantailor.supernet.quantization.quantisers import Quantisers
from gantailor.supernet.supernet import AroundSupernet, Supernet, call_narrow
from gantailor.supernet.training.recipe import Recipe, require
from gantailor.supernet.training.task import Task


@dataclass(frozen=True)
class SlimmingOptions(SparsityOptions):
    """Settings of the slimming, in ``train.method_options``, beside those of ``SparsityOptions``.

    Published: ``control: penalty`` with a ``strength`` of 0.01 (0.008 to 0.009 for horse2zebra, over 200 epochs).

    Attributes:
        scale_lr: SGD learning rate of the scales, with ``scale_momentum``.
        trunk: 0 leaves alone the widths that several layers write (residual trunks), as the paper does.
    """

    reach: float = 0.5
    scale_lr: float = LR
    scale_momentum: float = MOMENTUM
    trunk: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        require("scale_lr", self.scale_lr, above=0)
        require("scale_momentum", self.scale_momentum, least=0, most=0.999)


def prunable(supernet: Supernet, widths: Iterable[int] | None, *, trunk: bool) -> list[int]:
    """Of these widths (of all by default) those that may lose channels, by number; ``trunk`` as in ``Slimmed``."""
    every = range(len(supernet.graph.widths)) if widths is None else widths
    return [i for i in every if trunk or len(_writers(supernet, i)) < 2]


class Slimmed(AroundSupernet):
    """A supernet whose channels are scaled and whose layers may be rounded; ``generator`` is the plain one inside.

    Args:
        widths: those that may lose channels, by number.
        trunk: False leaves out those that several layers write.
        branches: those that may lose all their channels, by number.
    """

    def __init__(
        self,
        supernet: Supernet,
        widths: Iterable[int] | None = None,
        *,
        trunk: bool = True,
        branches: Iterable[int] = (),
        quantisers: Quantisers | None = None,
    ) -> None:
        super().__init__(supernet)
        self.quantisers = quantisers
        self.gates = Gates(supernet.graph, prunable(supernet, widths, trunk=trunk), branches=branches)
        self._move_norms_into_scales()

    @torch.no_grad()
    def _move_norms_into_scales(self) -> None:
        """Scales begin as the relative norms of the weights that they multiply, which are divided by them.

        The function stays. The paper's scales, those of trained norms, differ at the start too; equal ones would all
        vanish in the same few steps.
        """
        gates, scores = self.gates, l1_scores(self.supernet)
        relative = [values / max(values.mean(), 1e-12) for values in scores.values()]
        start = torch.from_numpy(np.concatenate(relative)).float().clamp(min=0.05)
        gates.values.copy_(torch.where(gates.free, start, gates.values))
        for name, tensor in gates.places.apply(self.supernet.tensors, 1 / gates.values).items():
            self.supernet.tensors[name].copy_(tensor)

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor of the generator, with the scales multiplied in."""
        found: dict[str, Tensor] = self.gates(self.supernet.tensors)
        return found

    def open_features(self, features: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor | slice]]:
        """Of outputs of named modules the channels that are still read, and their numbers."""
        return self.gates.open_features(features)

    def forward(self, *inputs: Any, config: Selection | None = None, **options: Any) -> Any:
        """The net without what was closed for good, which is not computed; or a subnet by its units."""
        subnet = self.gates.places.selection(self.gates.opened()) if config is None else config
        if self.quantisers is None:
            return call_narrow(self.supernet, subnet, inputs, options, tensors=self.tensors())
        with self.quantisers.rounding(self.generator):
            return call_narrow(
                self.supernet, subnet, inputs, options, tensors=self.tensors(), change=self.quantisers.weights
            )


def _writers(supernet: Supernet, number: int) -> set[str]:
    """Layers that write a width from others; a depthwise convolution only passes it on."""
    graph, read = supernet.graph, set(supernet.graph.consumers.get(number, ()))
    tensors = supernet.tensors
    return {
        name
        for name, axes in graph.axes.items()
        for d, axis in axes.items()
        if number in axis.counts and (name, d) not in read and tensors[name].dim() > 1 and tensors[name].shape[1] > 1
    }


def slimming(task: Task, slimmed: Slimmed, recipe: Recipe, *, usage: Usage) -> L1Sparsity:
    """The task that trains a slimmed generator, with SGD and the penalty on its scales."""
    options = recipe.options_of(SlimmingOptions, method=True)
    optimizer = torch.optim.SGD([slimmed.gates.values], lr=options.scale_lr, momentum=options.scale_momentum)
    return L1Sparsity(task, slimmed.gates, recipe, optimizer=optimizer, usage=usage, options=options, name="scales")
