"""Tracing: one ordinary forward with an example input, followed channel by channel.

Every element of every weight axis gets an identity. While the generator's own forward runs, a ``TorchFunctionMode``
(``forward.py``) sees each tensor operation and a small rule (``rules.py``) says what becomes of the identities: an
addition makes two channels one, a concatenation puts them side by side, a convolution ends its input channels and
starts its output channels. What is joined by the end is a width. Since the forward really runs, Python control flow,
loops, shared modules and functional calls need no special care, and order inside concatenations comes for free.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn

from gantailor.supernet.calling import code_line
from gantailor.supernet.graph import FIXED
from gantailor.supernet.tracing.sizes import Kept, Size

Labels = tuple[np.ndarray | None, ...]
Rule = Callable[["Tracer", Callable[..., Any], tuple[Any, ...], dict[str, Any], Any], None]

SLOT, LATER, WEIGHT = "_gantailor_labels", "_gantailor_later", "_gantailor_weight"
LOST = "_gantailor_lost"


class Tracer:
    """Notes what becomes of channel identities. Rules call its methods; users see it only in rules.

    Attributes:
        batch: images in the example.
        by_position: group norms that keep all their groups.
        stack: the modules whose forwards run, the innermost last.
        sizes: integers of PyTorch's own layers, and the channels that they count.
        parts: channels that something else counts alone, so that they are widths of their own.
        guesses: integers of other modules that are as large as a number of their channels.
        demands: sizes that the forward gave to axes, with the channels of these.
        literals: channels whose number the forward gives as a plain integer, and where.
        used: integers of modules that the forward computes with or compares.
        converted: sizes that the forward turned into plain integers, by these.
        running: whether the forward is running.
        lost: what a tensor of the operation that runs has no channels from: where it lost them, or was made.
    """

    def __init__(self, model: nn.Module, *, batch: int, by_position: Collection[str] = ()) -> None:
        self.model, self.batch, self.by_position = model, batch, by_position
        tensors = [*model.named_parameters(), *model.named_buffers()]
        self.names = {id(tensor): name for name, tensor in tensors}
        self.touched: dict[str, list[np.ndarray | None]] = {}
        self.count = 0
        self.ranges: list[tuple[int, str, int]] = []  # first identity of each weight axis, ascending
        self.edges: list[tuple[np.ndarray, np.ndarray]] = []
        self.frozen: list[tuple[np.ndarray, str]] = []
        self.inexact: list[tuple[np.ndarray, str]] = []
        self.sums: list[tuple[str, int]] = []
        self.producers: list[tuple[str, np.ndarray]] = []
        self.costs: list[tuple[str, dict[str, float], tuple[np.ndarray | None, ...]]] = []
        self.activations: dict[str, np.ndarray | None] = {}
        self.sizes: list[tuple[str, str, np.ndarray, bool]] = []
        self.grouped: list[tuple[str, np.ndarray]] = []  # channels of group norms that drop whole groups
        self.parts: list[np.ndarray] = []
        self.guesses: list[tuple[str, str, np.ndarray, bool]] = []
        self.demands: list[tuple[Size, np.ndarray]] = []
        self.literals: list[tuple[np.ndarray, str]] = []
        self.used: set[Kept] = set()
        self.converted: dict[int, Size] = {}
        self.running = False
        self.lost = ""
        self.stack: list[str] = [""]

    def labels(self, tensor: Tensor) -> Labels:
        """The channel identities of each axis: ``None`` for an axis without, ``FIXED`` for single elements."""
        known: Labels | None = getattr(tensor, SLOT, None)
        if known is not None:
            return known
        name = self.names.get(id(tensor))
        if name is None:
            return (None,) * tensor.dim()
        if name not in self.touched:
            fresh: list[np.ndarray | None] = []
            for dimension, size in enumerate(tensor.shape):
                channels = size > 1 and not (dimension > 1 and _is_kernel(self.model, name))
                fresh.append(np.arange(self.count, self.count + size) if channels else None)
                if channels:
                    self.ranges.append((self.count, name, len(fresh) - 1))
                    self.count += size
            self.touched[name] = fresh
        return tuple(self.touched[name])

    def set(self, tensor: Tensor, labels: Sequence[np.ndarray | None]) -> None:
        """Give a result its identities."""
        assert len(labels) == tensor.dim(), f"{len(labels)} labels for shape {tuple(tensor.shape)}"
        setattr(tensor, SLOT, tuple(labels))

    def join(self, a: np.ndarray | None, b: np.ndarray | None) -> np.ndarray | None:
        """Make two axes the same, element by element; what meets a fixed element is frozen."""
        if a is None or b is None:
            lost = f", which {self.lost}" if self.lost else ""
            self.freeze(b if a is None else a, "meets a tensor of fixed size", note=lost)
            return a if b is None else b
        if a is b:
            return a
        free = (a != FIXED) & (b != FIXED)
        if free.any():
            self.edges.append((a[free], b[free]))
        self.freeze(a[b == FIXED], "meets a tensor of fixed size")
        self.freeze(b[a == FIXED], "meets a tensor of fixed size")
        return np.where(a == FIXED, b, a)

    def freeze(self, labels: np.ndarray | None, reason: str, *, note: str = "") -> None:
        """These channels can never go. The module and line that run are told between the reason and a note."""
        if labels is not None and (labels != FIXED).any():
            self.frozen.append((labels[labels != FIXED], reason + self.where + note))

    def later(self, tensor: Tensor, labels: np.ndarray, reason: str) -> None:
        """Freeze these channels if the tensor is used: code that only asks for its size does no harm."""
        setattr(tensor, LATER, [*getattr(tensor, LATER, []), (labels, reason)])

    def mark_inexact(self, labels: np.ndarray | None, reason: str) -> None:
        """Removing these channels is allowed but changes the others (a statistic over channels)."""
        if labels is not None:
            self.inexact.append((labels[labels != FIXED], reason))

    def sum_over(self, labels: np.ndarray | None) -> None:
        """A weight sums over these channels: the place of a gate."""
        self.sums += self._origins(labels)

    def produce(self, labels: np.ndarray | None) -> None:
        """A weight makes these channels: it names their width."""
        for name, _ in self._origins(labels)[:1]:
            assert labels is not None
            self.producers.append((name, labels))

    def makers(self, labels: np.ndarray | None) -> list[str]:
        """Weights and buffers whose own channels these are; none for tensors that the forward makes."""
        return list(dict.fromkeys(name for name, _ in self._origins(labels)))

    def _origins(self, labels: np.ndarray | None) -> list[tuple[str, int]]:
        """The (weight, dimension) pairs whose own identities these are, also behind views of the weight."""
        if labels is None:
            return []
        starts = [start for start, _, _ in self.ranges]
        found = np.searchsorted(starts, labels[labels != FIXED], "right") - 1
        return [self.ranges[i][1:] for i in dict.fromkeys(found.tolist()) if self.ranges[i][1]]

    def cost(self, coefficients: dict[str, float], *axes: np.ndarray | None) -> None:
        """Add ``coefficient`` times the sizes of these axes as multiply-accumulates of the whole example batch.

        ``layers`` is as ``true`` where it is missing.
        """
        every = {"layers": coefficients["true"], **coefficients}
        per_image = {name: value / self.batch for name, value in every.items()}
        self.costs.append((self.path, per_image, axes))

    def is_weight(self, tensor: Tensor) -> bool:
        """Whether it is a weight or buffer, or made of such alone; also a weight that is scaled by activations."""
        return id(tensor) in self.names or getattr(tensor, WEIGHT, False)

    @property
    def path(self) -> str:
        """The module whose forward runs."""
        return self.stack[-1]

    @property
    def where(self) -> str:
        """The module and the line of the generator's code that run, for messages: `` in body.0 (net.py:12)``."""
        module = f" in {self.path}" if self.path else ""
        line = code_line() if self.running else ""
        return f"{module} ({line})" if line else module


def _is_kernel(model: nn.Module, name: str) -> bool:
    """Whether this is the weight of one of PyTorch's convolutions, whose axes from the third on are places."""
    path, _, leaf = name.rpartition(".")
    return leaf == "weight" and isinstance(model.get_submodule(path), nn.modules.conv._ConvNd)


def within(name: str, prefixes: Sequence[str]) -> bool:
    """Whether a dotted name is one of these, or inside one."""
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)
