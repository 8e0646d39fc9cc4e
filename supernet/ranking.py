"""Channel ranking: which units of a width matter most, and putting these first.

A config means the *leading* units, so a supernet is trained after the important ones were moved to the front. The move
does not change the generator's function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch

from supernet.errors import nearest
from supernet.supernet import Supernet

Scores = dict[str, np.ndarray]


@torch.no_grad()
def l1_scores(supernet: Supernet) -> Scores:
    """For each width, the L1 norm of the weights that read each unit, ``[size]``; larger is more important.

    The norm is taken where channels are consumed: a norm layer behind a convolution makes the scale of the weights
    that produce a channel meaningless.
    """
    return _norms(supernet, [supernet.graph.consumers.get(n, ()) for n in range(len(supernet.graph.widths))])


@torch.no_grad()
def producer_scores(supernet: Supernet) -> Scores:
    """For each width, the L1 norm of the weights that make each unit (Li et al. 2017, arXiv 1608.08710).

    Where a place of the weights does not say whether it reads or writes, all places that do not read count.
    """
    graph, tensors = supernet.graph, dict(supernet.generator.named_parameters())
    places = []
    for number in range(len(graph.widths)):
        read = set(graph.consumers.get(number, ()))
        touched = [(name, d) for name, axes in graph.axes.items() for d, axis in axes.items() if number in axis.counts]
        places.append([(n, d) for n, d in touched if (n, d) not in read and tensors[n].dim() > 1])
    return _norms(supernet, places)


def random_scores(supernet: Supernet) -> Scores:
    """A fixed random order: what any criterion must beat."""
    rng = np.random.default_rng(0)
    return {width.name: rng.random(width.size) for width in supernet.graph.widths}


def no_scores(supernet: Supernet) -> Scores:
    """The channels as they lie."""
    return {width.name: np.zeros(width.size) for width in supernet.graph.widths}


def _norms(supernet: Supernet, places: Sequence[Iterable[tuple[str, int]]]) -> Scores:
    """L1 norm of each unit of each width, over its places (tensor name, dimension)."""
    tensors = dict(supernet.generator.named_parameters())
    scores = {}
    for number, width in enumerate(supernet.graph.widths):
        total = np.zeros(width.size)
        for name, dimension in places[number]:
            axis = supernet.graph.axes[name][dimension]
            others = [d for d in range(tensors[name].dim()) if d != dimension]
            norms = tensors[name].abs().sum(others).double().cpu().numpy()
            mine = axis.width == number
            np.add.at(total, axis.unit[mine], norms[mine])
        scores[width.name] = total
    return scores


RANKINGS: dict[str, Callable[[Supernet], Scores]] = {
    "l1": l1_scores,
    "l1-producers": producer_scores,
    "random": random_scores,
    "none": no_scores,
}


def rank_channels(supernet: Supernet, *, criterion: str = "l1") -> Scores:
    """Reorder every width of the supernet in place, most important unit first; returns the scores in the old order."""
    if criterion not in RANKINGS:
        raise ValueError(f"criterion {criterion!r} is unknown: {nearest(criterion, RANKINGS)}")
    scores = RANKINGS[criterion](supernet)
    supernet.permute_({name: np.argsort(-score, kind="stable") for name, score in scores.items()})
    return scores
