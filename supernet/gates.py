"""Gates: one factor for each unit of every width, multiplied into the weights that *read* the unit.

A gate at zero is then exactly the removal of its channel. On the weights that write a channel it would not be: behind
an instance norm the channel's constant stays. That is also why nothing has to be folded into a bias when a channel
goes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from gantailor.supernet.device import HOST
from gantailor.supernet.graph import FIXED, Axis, Selection, WidthGraph
from gantailor.supernet.subnets.slicing import kept_channels


class GatePlaces:
    """Where each gate acts: for every weight that reads widths, the gate of each element along that axis.

    Gates are one vector over all units of all widths, in the graph's order.

    Attributes:
        starts: position of each width's first gate, and the number of gates at the end.
    """

    def __init__(self, graph: WidthGraph, widths: Iterable[int] | None = None) -> None:
        self.graph = graph
        self.starts = np.concatenate([[0], np.cumsum([width.size for width in graph.widths])]).astype(np.int64)
        gated = set(range(len(graph.widths)) if widths is None else widths)
        places = dict.fromkeys(place for number in sorted(gated) for place in graph.consumers.get(number, ()))
        self._index: dict[tuple[str, int], Tensor] = {}
        for name, dimension in places:
            axis = graph.axes[name][dimension]
            index = np.where(np.isin(axis.width, list(gated)), self.positions(axis), self.starts[-1])
            self._index[name, dimension] = torch.from_numpy(index)

    def positions(self, axis: Axis) -> np.ndarray:
        """For each element of an axis the position of its gate; -1 where it belongs to no width."""
        found = np.full(len(axis), -1)
        own = axis.width != FIXED
        found[own] = self.starts[axis.width[own]] + axis.unit[own]
        return found

    def apply(self, tensors: Mapping[str, Tensor], gates: Tensor) -> dict[str, Tensor]:
        """The tensors with those that read widths multiplied by their gates ``[units]``; differentiable in both."""
        every = torch.cat([gates, gates.new_ones(1)])
        result = dict(tensors)
        for (name, dimension), index in self._index.items():
            shape = [1] * result[name].dim()
            shape[dimension] = -1
            result[name] = result[name] * every[index.to(gates.device)].reshape(shape).to(result[name].dtype)
        return result

    def slopes(self, tensors: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> Tensor:
        """Gradient of a loss at gates of 1, ``[units]``: of each the sum of weight times gradient over what reads it.

        Args:
            gradients: of the loss by tensor; of what is missing it is zero.
        """
        found = torch.zeros(int(self.starts[-1]) + 1, dtype=torch.float64)
        known = {place: index for place, index in self._index.items() if place[0] in gradients}
        if known:
            products = [
                (tensors[name] * gradients[name]).movedim(dimension, 0).flatten(1).sum(1) for name, dimension in known
            ]
            found.index_add_(0, torch.cat([*known.values()]), torch.cat(products).to(HOST).double())
        return found[:-1]

    @property
    def owner(self) -> np.ndarray:
        """Number of the width of every unit, ``[units]``."""
        return np.repeat(np.arange(len(self.graph.widths)), np.diff(self.starts))

    def by_width(self, gates: np.ndarray) -> dict[str, np.ndarray]:
        """The vector in parts, by the widths' names."""
        parts = np.split(gates, self.starts[1:-1])
        return {width.name: part for width, part in zip(self.graph.widths, parts, strict=True)}

    def selection(self, kept: np.ndarray) -> Selection:
        """The units whose place in the boolean vector is true.

        Raises:
            SelectionError: a width would lose every unit that may not (when the selection is used).
        """
        return Selection({name: np.flatnonzero(part).tolist() for name, part in self.by_width(kept).items()})

    def sizes(self, kept: np.ndarray) -> np.ndarray:
        """Units kept of each width, for one or many boolean vectors: ``[..., units]`` to ``[..., widths]``."""
        return np.add.reduceat(np.asarray(kept, np.int64), self.starts[:-1], axis=-1)


class Gates(nn.Module):
    """Trainable numbers, one for each unit: scales of channels, or a hypernetwork's latents.

    Args:
        widths: those whose gates are trained; the others stay open.
        threshold: a gate counts as closed when its magnitude is not above this.
        least: units of each width that always stay.
        branches: widths of which none has to stay.

    Attributes:
        values: ``[units]``, all 1 at first.
        open: False for gates that were closed for good.
    """

    open: Tensor

    def __init__(
        self,
        graph: WidthGraph,
        widths: Iterable[int] | None = None,
        *,
        threshold: float = 0.0,
        least: int = 1,
        branches: Iterable[int] = (),
    ) -> None:
        super().__init__()
        self.threshold, self.least = threshold, [least] * len(graph.widths)
        for number in branches:
            self.least[number] = 0
        self.places = GatePlaces(graph, widths)
        self.values = nn.Parameter(torch.ones(int(self.places.starts[-1])))
        self.register_buffer("open", torch.ones(len(self.values), dtype=torch.bool))
        free = torch.zeros(len(self.values), dtype=torch.bool)
        for number in range(len(graph.widths)) if widths is None else widths:
            free[self.places.starts[number] : self.places.starts[number + 1]] = True
        self.register_buffer("free", free, persistent=False)

    free: Tensor

    def forward(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The gated tensors."""
        return self.places.apply(tensors, self.values * self.open)

    def short(self, kept: Tensor, order: Tensor) -> Tensor:
        """Positions of the best by ``order``, as many as have to stay, of every width that keeps fewer."""
        found = [torch.empty(0, dtype=torch.long, device=kept.device)]
        for width, (low, high) in enumerate(itertools.pairwise(self.places.starts.tolist())):
            least = min(self.least[width], high - low)
            if int(kept[low:high].sum()) < least:
                found.append(low + order[low:high].topk(least).indices)
        return torch.cat(found)

    def opened(self) -> np.ndarray:
        """Which gates were not closed for good, as a boolean vector."""
        return (self.open | ~self.free).cpu().numpy()

    def open_features(self, features: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor | slice]]:
        """As ``ClosesChannels.open_features``, of a forward that leaves out what was closed for good."""
        graph, selection = self.places.graph, self.places.selection
        kept = kept_channels(graph, features, selection(self.kept()))
        made = kept_channels(graph, features, selection(self.opened()))
        found = {}
        for name, feature in features.items():
            numbers, held = kept[name], made[name]
            if isinstance(numbers, Tensor) and isinstance(held, Tensor):
                numbers = torch.searchsorted(held, numbers)
            found[name] = feature[:, numbers.to(feature.device) if isinstance(numbers, Tensor) else numbers]
        return found, kept

    def kept(self) -> np.ndarray:
        """Which gates are open, as a boolean vector; those that are not trained always are."""
        return ((self.values.abs() > self.threshold) & self.open | ~self.free).detach().cpu().numpy()

    def magnitudes(self, values: Tensor | None = None) -> np.ndarray:
        """``[units]``, of the gates or of other values for them."""
        values = self.values if values is None else values
        return values.detach().abs().double().cpu().numpy()
