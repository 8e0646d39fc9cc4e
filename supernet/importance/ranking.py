"""Channel ranking: which units of a width matter most, and putting these first.

A config means the *leading* units, so a supernet is trained after the important ones were moved to the front. The move
does not change the generator's function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from gantailor.supernet.calling import Inputs
from gantailor.supernet.device import HOST
from gantailor.supernet.errors import ConfigError
from gantailor.supernet.importance import CRITERIA
from gantailor.supernet.importance.diversity import OnBatch, Scores, activation_scores, content_scores, diversity_scores
from gantailor.supernet.importance.taylor import taylor_scores
from gantailor.supernet.plugins import find_record
from gantailor.supernet.supernet import Supernet, check_supernet


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


def random_scores(supernet: Supernet, seed: int = 0) -> Scores:
    """A random order, another one for each seed: what any criterion must beat."""
    rng = np.random.default_rng(seed)
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
            norms = tensors[name].abs().sum(others).to(HOST).double().numpy()
            mine = axis.width == number
            np.add.at(total, axis.unit[mine], norms[mine])
        scores[width.name] = total
    return scores


@dataclass(frozen=True)
class Criterion:
    """A ranking by name.

    Attributes:
        scores: from a supernet, and from inputs where there are any, to a score for each unit; larger stays.
        inputs: how many latents or pictures it looks at; 0 for one that reads the weights alone.
        seeded: whether it is drawn: ``scores`` then takes a ``seed``.
        compares: whether it looks at a loss: ``scores`` then takes ``targets``, what the outputs for these inputs
            should be, or None where that is what the whole generator makes.
    """

    scores: Callable[..., Scores]
    inputs: int = 0
    seeded: bool = False
    compares: bool = False


L1 = Criterion(l1_scores)
L1_PRODUCERS = Criterion(producer_scores)
TAYLOR = Criterion(taylor_scores, 64, compares=True)
RANDOM = Criterion(random_scores, seeded=True)
NONE = Criterion(no_scores)
DIVERSITY = Criterion(diversity_scores, 1000)
DIVERSITY_MAGNITUDE = Criterion(partial(diversity_scores, measure="magnitude"), 1000)
DIVERSITY_ANY_DIRECTION = Criterion(partial(diversity_scores, principal=False), 1000)
CONTENT = Criterion(content_scores, 400)
ACTIVATION = Criterion(activation_scores, 1000)


def criterion(name: str) -> Criterion:
    """A criterion by its name, or one's own by ``module:NAME``.

    Raises:
        ConfigError: there is none, or it is no ``Criterion``.
    """
    return find_record(name, CRITERIA, "ranking", Criterion)


def criterion_scores(
    supernet: Supernet,
    name: str,
    inputs: Inputs | None = None,
    *,
    targets: Tensor | None = None,
    on_batch: OnBatch | None = None,
    seed: int = 0,
) -> Scores:
    """The scores of a ranking by name, for each width ``[size]``; larger is more important.

    Args:
        inputs: ``[N, ...]``, several as a tuple, for those that look at inputs; drawn from a normal distribution if
            missing, which is right for latents only.
        targets: what the outputs for these inputs should be, for criteria that compare; None: what the generator makes.
        seed: of the random ranking.

    Raises:
        ConfigError: an unknown ranking, or one that needs pictures and has none.
    """
    chosen = criterion(name)
    if not chosen.inputs:
        return chosen.scores(supernet, seed=seed) if chosen.seeded else chosen.scores(supernet)
    if inputs is None:
        example = supernet.example_inputs[0]
        if example.ndim != 2 or len(supernet.example_inputs) > 1:
            raise ConfigError(f"ranking {name!r} looks at pictures; give inputs, about {chosen.inputs} of them")
        drawn = torch.randn(chosen.inputs, example.shape[1], generator=torch.Generator().manual_seed(0))
        inputs = drawn.to(example)
    compared = {"targets": targets} if chosen.compares else {}
    return chosen.scores(supernet, inputs, on_batch=on_batch, **compared)


def order_channels(supernet: Supernet, scores: Mapping[str, np.ndarray]) -> None:
    """Reorder the units of every scored width in place, most important first."""
    supernet.permute_({name: np.argsort(-np.asarray(score), kind="stable") for name, score in scores.items()})


def rank_channels(supernet: Supernet, *, criterion: str = "l1", inputs: Inputs | None = None) -> Scores:
    """Reorder every width of the supernet in place, most important unit first; returns the scores in the old order.

    Raises:
        ConfigError: it is no supernet, or an unknown ranking, or one that needs pictures and has none.
    """
    check_supernet(supernet)
    scores = criterion_scores(supernet, criterion, inputs)
    order_channels(supernet, scores)
    return scores
