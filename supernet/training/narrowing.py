"""Leading a whole net down to its widths while it trains, instead of cutting it at once.

A net that is cut loses what one that is narrowed channel by channel hands over to the channels that stay. The cost
falls along a straight line in its logarithm (gradual pruning, Zhu and Gupta 2017, arXiv 1710.01878); of every width the
last channels go first, all widths by the same share of what they have to lose.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gantailor.supernet.errors import ConfigError, check_whole
from gantailor.supernet.graph import SubnetConfig
from gantailor.supernet.importance.ranking import rank_channels
from gantailor.supernet.subnets.slicing import kept_channels
from gantailor.supernet.supernet import AroundSupernet, Supernet
from gantailor.supernet.training.task import Task, TaskAround


class Narrowing(AroundSupernet):
    """A supernet that runs at the widths of the moment.

    Args:
        supernet: channels in the order in which they stay; it is trained.
        target: the widths at the end.

    Attributes:
        config: the widths of the moment, whole at first.
    """

    def __init__(self, supernet: Supernet, target: SubnetConfig, *, convention: str = "true") -> None:
        super().__init__(supernet)
        self.target, self.convention = target, convention
        self.config = supernet.full_config()

    @cached_property
    def _way(self) -> tuple[np.ndarray, np.ndarray]:
        """Widths from the end to the whole net, a channel of the widest each, and what they cost."""
        graph = self.supernet.graph
        full, end = (np.array(graph.sizes(c)) for c in (graph.full_config(), self.target))
        parts = np.linspace(0, 1, 1 + int((full - end).max(initial=0)))[:, None]
        rows = end + np.floor(parts * (full - end) + 1e-9).astype(np.int64)
        return rows, self.supernet.macs_many(rows, convention=self.convention)

    def at(self, share: float) -> SubnetConfig:
        """Widths on the way, of a cost that has come down by a share of its logarithm: 0 is the whole net, 1 the end.

        The widest whose cost is not above.
        """
        graph = self.supernet.graph
        if share <= 0:
            return graph.full_config()
        rows, costs = self._way
        allowed = float(costs[-1]) * (float(costs[0]) / float(costs[-1])) ** min(1.0, share)
        chosen = rows[max(0, int(np.searchsorted(costs, allowed * (1 + 1e-12), "right")) - 1)]
        return graph.config(chosen)

    def open_features(self, features: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor | slice]]:
        """The outputs of named modules, which are narrow already, and the numbers of their channels."""
        return dict(features), kept_channels(self.supernet.graph, features, self.config)

    def go_on(self, step: int, steps: float) -> None:
        """Take the widths of a step, from 0 on: after so many steps they are those of the end."""
        self.config = self.at((step + 1) / max(1.0, steps))

    def narrow(self) -> nn.Module:
        """The net at its end."""
        return self.supernet.extract(self.target)

    def forward(self, *inputs: Any, **options: Any) -> Any:
        return self.supernet(*inputs, config=self.config, **options)


class NarrowingTask(TaskAround):
    """Any training task of a ``Narrowing``: after a share of the steps it is at its target, which the rest trains.

    The widths are a function of the step, so there is no state to keep.
    """

    def __init__(self, task: Task, model: Narrowing, *, steps: float) -> None:
        super().__init__(task)
        self.model, self.steps = model, steps

    def backward(self, step: int, batch: Any, share: float) -> dict[str, Tensor]:
        """The task's losses at the widths of the step, and what these cost."""
        model = self.model
        model.go_on(step, self.steps)
        left = model.supernet.macs(model.config) / model.supernet.macs(model.supernet.full_config())
        return {**self.task.backward(step, batch, share), "cost": torch.tensor(left)}


def narrow(
    model: Supernet | nn.Module,
    config: Mapping[str, int],
    *,
    train: Callable[[nn.Module, int], object],
    steps: int = 1000,
    share: float = 0.5,
    example_inputs: Sequence[Any] | Tensor | None = None,
) -> nn.Module:
    """Lead a whole net down to its widths, channel by channel, in a training loop of one's own; the narrow net.

    Args:
        model: a supernet whose channels lie in the order in which they stay (trained, or ``gantailor.rank_channels``);
            its own weights are trained, so that an optimiser of its parameters may exist before. Or any other
            generator, of which a copy is ranked by its weights (l1); it stays as it is.
        config: the widths at the end, as ``gantailor.search(...).best.config``.
        train: ``train(model, step)`` is one step: loss, backward, optimiser. It is given a module that computes at the
            widths of the moment, whose parameters are the whole net's.
        steps: how often it is called.
        share: of the steps after which the widths are those of the end, which the others train; 0: from the first on.
        example_inputs: of a generator that is no supernet, see ``Supernet``.

    Returns:
        A plain narrow module with weights of its own, in eval mode.

    Raises:
        ConfigError: no step, a share that is none, or a generator without its ``example_inputs``.
        SelectionError: widths that the generator does not have.
    """
    check_whole("steps", steps, least=1)
    if not isinstance(share, Real) or not 0 <= share <= 1:
        raise ConfigError(f"share cannot be {share!r}; give a number from 0 to 1")
    if not isinstance(model, Supernet):
        if example_inputs is None:
            raise ConfigError("a generator that is no Supernet needs example_inputs, a tuple of tensors, to be traced")
        model = Supernet(model, example_inputs)
        rank_channels(model)
    target = SubnetConfig(config)
    model.graph.sizes(target)  # a mistake is said before the training
    narrowing = Narrowing(model, target).train()
    for step in range(steps):
        narrowing.go_on(step, share * steps)
        train(narrowing, step)
    return narrowing.narrow().eval()
