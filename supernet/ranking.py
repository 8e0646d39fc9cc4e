"""Channel ranking: which units of a width matter most, and putting these first.

A config means the *leading* units, so a supernet is trained after the important ones were moved to the front. The move
does not change the generator's function.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from supernet.errors import nearest
from supernet.supernet import Supernet

Scores = dict[str, np.ndarray]


@torch.no_grad()
def l1_scores(supernet: Supernet) -> Scores:
    """For each width, the L1 norm of the weights that read each unit, ``[size]``; larger is more important.

    The norm is taken where channels are consumed: a norm layer behind a convolution makes the scale of the weights
    that produce a channel meaningless (Li et al. 2017, arXiv 1608.08710, took the producers).
    """
    tensors = dict(supernet.generator.named_parameters())
    scores = {}
    for number, width in enumerate(supernet.graph.widths):
        total = np.zeros(width.size)
        for name, dimension in supernet.graph.consumers.get(number, ()):
            axis = supernet.graph.axes[name][dimension]
            others = [d for d in range(tensors[name].dim()) if d != dimension]
            norms = tensors[name].abs().sum(others).double().cpu().numpy()
            mine = axis.width == number
            np.add.at(total, axis.unit[mine], norms[mine])
        scores[width.name] = total
    return scores


RANKINGS: dict[str, Callable[[Supernet], Scores]] = {"l1": l1_scores}


def rank_channels(supernet: Supernet, *, criterion: str = "l1") -> Scores:
    """Reorder every width of the supernet in place, most important unit first; returns the scores in the old order."""
    if criterion not in RANKINGS:
        raise ValueError(f"criterion {criterion!r} is unknown: {nearest(criterion, RANKINGS)}")
    scores = RANKINGS[criterion](supernet)
    supernet.permute_({name: np.argsort(-score, kind="stable") for name, score in scores.items()})
    return scores
