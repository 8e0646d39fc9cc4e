"""Taylor importance: by how much the loss changes when a channel goes (Molchanov et al. 2019, arXiv 1906.10771)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gantailor.supernet.calling import Inputs, as_tuple
from gantailor.supernet.device import HOST
from gantailor.supernet.gates import GatePlaces
from gantailor.supernet.importance.diversity import OnBatch, Scores, batches
from gantailor.supernet.supernet import Supernet
from gantailor.supernet.training.losses import l1_loss


def taylor_scores(
    supernet: Supernet,
    inputs: Inputs,
    *,
    targets: Tensor | None = None,
    batch: int = 1,
    seed: int = 0,
    on_batch: OnBatch | None = None,
) -> Scores:
    """For each width, the mean over batches of its gates' squared gradients at 1, ``[size]`` (equation 8).

    The gate multiplies every weight that reads the channel, so its gradient is the sum over these weights of weight
    times gradient, and its square the squared change of the loss, to first order, when the channel is removed. Values
    of all widths are of one loss and may be compared.

    With targets the loss is L1 to them. Without any, the whole net's own outputs are the target: there the loss and its
    gradient are zero, and what counts is the second order. The loss is then the outputs' sum with random signs, over
    the root of their number: in the mean over the signs the squared gradient is the outputs' mean squared change.

    Args:
        inputs: latents or pictures ``[N, ...]``, several as a tuple; the last incomplete batch is dropped.
        targets: what the outputs should be, ``[N, C, H, W]`` in [-1, 1].
        batch: inputs whose loss is one; with 1, gradients of different pictures do not cancel.
        seed: of the signs.

    Raises:
        ConfigError: fewer inputs than a batch, or targets of another shape than the outputs.
    """
    places, count = GatePlaces(supernet.graph), 0
    random, device = torch.Generator().manual_seed(seed), as_tuple(inputs)[0].device
    gates = torch.ones(int(places.starts[-1]), device=device, dtype=_precision(supernet), requires_grad=True)
    fixed = {name: tensor.detach() for name, tensor in supernet.tensors.items()}
    total = np.zeros(len(gates))
    for part in batches(inputs, batch, on_batch):
        rows = slice(count * batch, (count + 1) * batch)
        with torch.enable_grad():
            made: Tensor = supernet.call_with(places.apply(fixed, gates), as_tuple(part))
            loss = _response(made, random) if targets is None else l1_loss(made, targets[rows].to(made))
            slope = torch.autograd.grad(loss, gates)[0]
        total += slope.to(HOST).double().square().numpy()
        count += 1
    return places.by_width(total / count)


def _response(made: Tensor, random: torch.Generator) -> Tensor:
    """The outputs' sum with random signs, over the root of their number."""
    signs = torch.randint(0, 2, made.shape, generator=random).to(made) * 2 - 1
    response: Tensor = (made * signs).sum() / made.numel() ** 0.5
    return response


def _precision(supernet: Supernet) -> torch.dtype:
    return next((tensor.dtype for tensor in supernet.tensors.values() if tensor.is_floating_point()), torch.float32)
