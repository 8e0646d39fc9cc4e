"""A discriminator without a condition is told of which centre a picture should be a neighbour, by a projection."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gantailor.supernet.errors import ConfigError
from gantailor.supernet.gates import GatePlaces
from gantailor.supernet.supernet import Supernet


class Projection(nn.Module):
    """Adds to every logit the inner product of an embedded centre with the features that the logit is made of.

    Miyato and Koyama 2018 (arXiv 1802.05637): ``D(y, h) = psi(phi(y)) + <V h, phi(y)>``, here for a map of logits, so
    that ``phi`` is pooled over the window of each logit. ``V`` belongs to the discriminator: it learns with it, and has
    no rows for channels that are closed. At first ``V h`` is normal with variance 4 / channels, so that the term is
    about twice as large as a feature and the pairing counts from the first step.

    Args:
        discriminator: its logits are made by convolutions to one channel.
        features: numbers ``d`` that describe a centre.
        seed: of the first weights.

    Raises:
        ConfigError: it has no such layer.
    """

    def __init__(self, discriminator: Supernet, features: int, *, seed: int) -> None:
        super().__init__()
        self.layers = _logit_layers(discriminator)
        if not self.layers:
            raise ConfigError("a discriminator without a condition needs logits from a convolution: use patch or munit")
        random, places = torch.Generator().manual_seed(seed), GatePlaces(discriminator.graph)
        self.embeddings = nn.ParameterList()
        for number, layer in enumerate(self.layers.values()):
            first = torch.randn(layer.in_channels, features, generator=random)
            self.embeddings.append(nn.Parameter(2 * first / math.sqrt(layer.in_channels)))
            axis = discriminator.graph.axes[f"{list(self.layers)[number]}.weight"][1]
            self.register_buffer(f"places_{number}", torch.from_numpy(places.positions(axis)), persistent=False)

    @contextmanager
    def given(self, centres: Tensor, gates: Tensor) -> Iterator[None]:
        """Within the block, the discriminator judges neighbours of centres ``[N, d]``, with its gates ``[units]``."""
        with ExitStack() as stack:
            for number, (layer, embedding) in enumerate(zip(self.layers.values(), self.embeddings, strict=True)):
                opened = torch.cat([gates, gates.new_ones(1)])[getattr(self, f"places_{number}")]
                stack.callback(layer.register_forward_hook(_adding(F.linear(centres, embedding) * opened)).remove)
            yield


def _adding(embedded: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    """A hook that adds the inner product of ``[N, C]`` with what a convolution reads, pooled over its window."""

    def hook(layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        pooled = F.avg_pool2d(inputs[0], layer.kernel_size, layer.stride, layer.padding, count_include_pad=False)
        return output + (pooled * embedded[:, :, None, None]).sum(1, keepdim=True)

    return hook


def _logit_layers(discriminator: Supernet) -> dict[str, nn.Conv2d]:
    """Convolutions to one channel, by name, whose inputs may lose channels."""
    return {
        name: module
        for name, module in discriminator.generator.named_modules()
        if isinstance(module, nn.Conv2d) and module.out_channels == 1 and f"{name}.weight" in discriminator.graph.axes
    }
