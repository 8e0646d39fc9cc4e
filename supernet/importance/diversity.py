"""Rankings that look at what a generator makes: how much each channel matters for the variety of its pictures.

Diversity-aware channel pruning: Chung et al. 2024, DCP-GAN (CVPR 2024), after its public code. Content-aware: Liu et
al. 2021, CAGAN (arXiv 2104.02244). All work on any generator: latents are moved in w where there is a mapping network
(``generator.mapping`` and ``input_is_latent``, as in StyleGAN2), pictures and other inputs as they are. Of several
inputs one is moved, the others stay: the first vector (a latent, a style), or where all are pictures the first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gantailor.supernet.calling import Inputs, alone, as_tuple, forward, joined, rows_of, size_of
from gantailor.supernet.device import HOST, exact
from gantailor.supernet.errors import ConfigError
from gantailor.supernet.gates import GatePlaces
from gantailor.supernet.supernet import Supernet
from gantailor.supernet.training.teaching.distillation import capture
from gantailor.supernet.traits import maps_latents

Scores = dict[str, np.ndarray]
OnBatch = Callable[[int, int], None]
STEP, PICTURE_STEP = 5.0, 0.1  # in a latent space, as published; root mean square over a picture's values


def latents_of(supernet: Supernet, inputs: Inputs) -> tuple[Inputs, dict[str, Any]]:
    """What the generator is given, and the options with which it takes it.

    It is w of each input where the generator has a mapping network, else the inputs themselves.
    """
    generator: Any = supernet.generator
    if not maps_latents(generator):
        return inputs, {}
    z, *others = as_tuple(inputs)
    with torch.no_grad():
        w = torch.cat([generator.mapping(part) for part in torch.split(z, 256)])
    return alone((w, *others)), {"input_is_latent": True}


def moved_input(inputs: Inputs) -> int:
    """Which of several inputs is perturbed: the first vector, or the first of all."""
    return next((number for number, one in enumerate(as_tuple(inputs)) if one.ndim == 2), 0)


def principal_directions(latents: Tensor) -> tuple[Tensor, Tensor]:
    """PCA: unit directions ``[k, d]`` and the share of the variance along each ``[k]``, largest first.

    Args:
        latents: ``[N, ...]``, flattened to d numbers each; k is the smaller of N and d.
    """
    flat = latents.flatten(1).double()
    flat = flat - flat.mean(0)
    if flat.shape[0] >= flat.shape[1]:
        _, singular, rows = torch.linalg.svd(flat, full_matrices=False)
    else:  # pictures have far more values than there are of them: the small matrix of their products will do
        values, vectors = torch.linalg.eigh(flat @ flat.T)
        singular = values.flip(0).clamp(min=0).sqrt()
        rows = (vectors.flip(1) / singular.clamp(min=1e-12)).T @ flat
    return rows.to(latents.dtype), (singular.square() / singular.square().sum()).cpu()


def _moved(inputs: Inputs, place: int, step: Tensor) -> Inputs:
    """One of several inputs a step further."""
    return alone(tuple(one + step if number == place else one for number, one in enumerate(as_tuple(inputs))))


def diversity_scores(
    supernet: Supernet,
    inputs: Inputs,
    *,
    directions: int = 10,
    batch: int = 5,
    step: float | None = None,
    measure: str = "dispersion",
    principal: bool = True,
    seed: int = 0,
    on_batch: OnBatch | None = None,
) -> Scores:
    """For each width, how differently its channels respond to different directions, ``[size]``.

    For every batch of latents some principal directions are drawn by their share of the variance. Each gives the loss
    ``sum |g(w + step * d) - g(w)|`` and, for every channel, the mean magnitude of the loss's gradient over the weights
    that read it. A channel's score is the squared deviation of that magnitude from its mean over the directions, summed
    over all batches (as the published code does), or with ``measure`` ``magnitude`` the magnitudes' sum (as the paper's
    page describes it). Gradients flow through both pictures; noise is the generator's own fixed one.

    Args:
        inputs: latents or pictures ``[N, ...]``, several as a tuple; the last incomplete batch is dropped.
        directions: drawn for each batch, with replacement.
        principal: False draws directions evenly over all there are, which takes the method's own idea away.
        step: length of a step; by default 5 in a latent space, and 0.1 root mean square over a picture's values.

    Raises:
        ConfigError: fewer inputs than a batch, or an unknown measure.
    """
    if measure not in ("dispersion", "magnitude"):
        raise ConfigError(f"measure {measure!r} is unknown; allowed are dispersion and magnitude")
    every, options = latents_of(supernet, inputs)
    place = moved_input(every)
    latents = as_tuple(every)[place]
    basis, shares = principal_directions(latents) if principal else (latents.new_zeros(0), latents.new_zeros(0))
    length = step or (STEP if latents.ndim == 2 else PICTURE_STEP * math.sqrt(latents[0].numel()))
    random = torch.Generator().manual_seed(seed)
    gradients = ChannelGradients(supernet)
    total = np.zeros(gradients.size)
    for part in batches(every, batch, on_batch):
        if principal:
            chosen = torch.multinomial(shares.to(HOST), directions, replacement=True, generator=random)
            drawn = basis[chosen.to(basis.device)]
        else:
            drawn = F.normalize(torch.randn(directions, latents[0].numel(), generator=random))
        rows = []
        for direction in drawn.to(latents):
            moved = _moved(part, place, length * direction.reshape(1, *latents.shape[1:]))
            first, second = gradients.render(joined([part, moved]), options).chunk(2)
            rows.append(gradients.of((second - first).abs().sum()))
        found = np.stack(rows)
        deviations = found - found.mean(0) if measure == "dispersion" else np.sqrt(found)
        total += np.square(deviations).sum(0)
    return gradients.by_width(total)


def content_scores(
    supernet: Supernet,
    inputs: Inputs,
    *,
    region: Callable[[Tensor], Tensor] | None = None,
    probability: float = 0.05,
    batch: int = 5,
    seed: int = 0,
    on_batch: OnBatch | None = None,
) -> Scores:
    """For each width, how much its channels respond to noise on the content (CAGAN), ``[size]``.

    Salt and pepper falls on a share ``probability`` of the pixels of interest; the loss is the summed absolute
    difference between the picture and the noisy one, the score a channel's mean gradient magnitude, summed over
    batches.

    Args:
        region: from pictures ``[N, 3, H, W]`` to the pixels of interest ``[N, 1, H, W]`` in [0, 1]; by default all. The
            paper uses a face parser.
    """
    latents, options = latents_of(supernet, inputs)
    random = torch.Generator().manual_seed(seed)
    gradients = ChannelGradients(supernet)
    total = np.zeros(gradients.size)
    for part in batches(latents, batch, on_batch):
        made = gradients.render(part, options)
        shape = (len(made), 1, *made.shape[2:])
        struck = (torch.rand(shape, generator=random) < probability).to(made.device)
        salt = torch.randint(0, 2, shape, generator=random).to(made) * 2 - 1
        if region is not None:
            struck &= region(made.detach()) > 0.5
        total += gradients.of((torch.where(struck, salt, made.detach()) - made).abs().sum())
    return gradients.by_width(total)


@torch.no_grad()
def activation_scores(
    supernet: Supernet, inputs: Inputs, *, batch: int = 16, on_batch: OnBatch | None = None
) -> Scores:
    """For each width, the variance over inputs of its channels' activations, averaged over places: needs no gradient.

    The activations are those of the last module in which a width occurs alone.
    """
    graph = supernet.graph
    last = {next(iter(axis.counts)): name for name, axis in graph.activations.items() if axis.leading is not None}
    sums: dict[int, list[Tensor]] = {}
    count = 0
    for part in batches(inputs, min(batch, size_of(inputs)), on_batch):
        with capture(supernet.generator, list(last.values())) as features:
            forward(supernet.generator, part)
        count += size_of(part)
        for number, name in last.items():
            x = exact(features[name])
            parts = [x.sum(0), x.square().sum(0)]
            sums[number] = [a + b for a, b in zip(sums[number], parts, strict=True)] if number in sums else parts
    scores = {width.name: np.zeros(width.size) for width in graph.widths}
    for number, (first, second) in sums.items():
        variance = second / count - (first / count).square()
        scores[graph.widths[number].name] = variance.reshape(len(variance), -1).mean(1).cpu().numpy()
    return scores


def batches(inputs: Inputs, size: int, on_batch: OnBatch | None) -> Iterator[Inputs]:
    """Whole batches of the inputs; ``on_batch`` is told how many inputs are done, and of how many."""
    count = size_of(inputs) // size
    if not count:
        raise ConfigError(f"a ranking over {size_of(inputs)} inputs is not possible; give at least {size}")
    for number in range(count):
        yield rows_of(inputs, slice(number * size, (number + 1) * size))
        if on_batch:
            on_batch((number + 1) * size, count * size)


class ChannelGradients:
    """Mean gradient magnitudes for every unit of every width, as one vector.

    They are taken where a width is read, at the weights with the most elements that read it (all of these, where
    several are equally large, as on a residual trunk): in StyleGAN2 the next convolution, not toRGB, as the paper does.
    """

    def __init__(self, supernet: Supernet) -> None:
        self.supernet = supernet
        graph, self.all = supernet.graph, GatePlaces(supernet.graph)
        held = supernet.tensors
        self.places: list[tuple[int, str, int]] = []
        for number in range(len(graph.widths)):
            found = graph.consumers.get(number, ())
            most = max((held[name].numel() for name, _ in found), default=0)
            self.places += [(number, name, d) for name, d in found if held[name].numel() == most]
        names = dict.fromkeys(name for _, name, _ in self.places)
        self.tensors = {name: held[name].detach().clone().requires_grad_() for name in names}
        self.size = int(self.all.starts[-1])

    def render(self, inputs: Inputs, options: dict[str, Any]) -> Tensor:
        """The generator's pictures, with a graph down to the weights."""
        with torch.enable_grad():
            pictures: Tensor = self.supernet.call_with(self.tensors, as_tuple(inputs), options)
        return pictures

    def of(self, loss: Tensor) -> np.ndarray:
        """For one loss, the mean magnitude of each unit's gradients, ``[size]``; 0 where it does not matter."""
        slopes = torch.autograd.grad(loss, list(self.tensors.values()), allow_unused=True)
        by_name = dict(zip(self.tensors, slopes, strict=True))
        total = np.zeros(self.size)
        for number, name, dimension in self.places:
            slope = by_name[name]
            if slope is None:
                continue
            axis = self.supernet.graph.axes[name][dimension]
            others = [d for d in range(slope.dim()) if d != dimension]
            means = slope.abs().mean(others).to(HOST).double().numpy()
            mine = axis.width == number
            np.add.at(total, self.all.starts[number] + axis.unit[mine], means[mine])
        return total

    def by_width(self, values: np.ndarray) -> Scores:
        """The vector as scores."""
        return self.all.by_width(values)
