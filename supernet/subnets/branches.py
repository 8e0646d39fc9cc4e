"""Branches: widths that may lose all their channels, so that a residual block becomes an identity.

With no channel left, the layers that read a width add their biases and nothing else, whatever the layers before them
compute. So all these layers are replaced (``removal.py``); what lies between them passes on one channel that nobody
reads.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from gantailor.supernet.gates import GatePlaces
from gantailor.supernet.proof.double import Precise, in_best

if TYPE_CHECKING:
    from gantailor.supernet.supernet import Supernet

NOTHING = 1e-9  # an effect, as a share of what it is in the whole generator, in float64


def branches(supernet: Supernet) -> frozenset[int]:
    """Removable widths, by number, whose loss takes nothing else away: those within residual blocks.

    Without them, all together, every other width and every input still has an effect on the output: its gradient is not
    zero. Found in float64 by a forward and a backward for each.
    """
    if not supernet.graph.removable:
        return frozenset()
    return in_best(supernet, None, _branches)


def _branches(precise: Precise) -> frozenset[int]:
    double, inputs = precise.supernet, precise.inputs
    places, found, count = GatePlaces(double.graph), frozenset[int](), len(double.graph.widths)
    whole = _effects(double, inputs, places, found)
    if not whole[count:].any():  # an input of integers, which has no gradient
        return found
    for width in sorted(double.graph.removable):
        gone = found | {width}
        left = _effects(double, inputs, places, gone) > NOTHING * whole
        left[[*gone, *np.flatnonzero(whole == 0)]] = True
        found = gone if left.all() else found
    return found


def _effects(double: Supernet, inputs: Any, places: GatePlaces, gone: Iterable[int]) -> np.ndarray:
    """The largest gradient of (a random mixture of) the outputs at each width's gates, then at each input.

    The gates of some widths are closed.
    """
    leaves, spec = tree_flatten(inputs)
    leaves = [x.clone().requires_grad_() if _is_float(x) else x for x in leaves]
    gates = torch.ones(int(places.starts[-1]), dtype=torch.float64, requires_grad=True)
    closed = torch.ones_like(gates)
    for width in gone:
        closed[places.starts[width] : places.starts[width + 1]] = 0
    with torch.enable_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        output = double.call_with(places.apply(double.tensors, gates * closed), tree_unflatten(leaves, spec))
        mixture = sum((x * torch.randn_like(x)).sum() for x in tree_leaves(output) if _is_float(x))
    asked = [gates, *(x for x in leaves if _is_float(x))]
    found = torch.autograd.grad(mixture, asked, allow_unused=True)
    of_gates = np.maximum.reduceat(found[0].abs().numpy(), places.starts[:-1])
    return np.array([*of_gates, *(0.0 if x is None else float(x.abs().max()) for x in found[1:])])


def _is_float(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()
