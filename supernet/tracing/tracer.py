"""Tracing: one ordinary forward with an example input, followed channel by channel.

Every element of every weight axis gets an identity. While the generator's own forward runs, a ``TorchFunctionMode``
sees each tensor operation and a small rule (``supernet/tracing/rules.py``) says what becomes of the identities: an
addition makes two channels one, a concatenation puts them side by side, a convolution ends its input channels and
starts its output channels. What is joined by the end is a width. Since the forward really runs, Python control flow,
loops, shared modules and functional calls need no special care, and order inside concatenations comes for free.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from gantailor.supernet.errors import UntraceableError
from gantailor.supernet.graph import FIXED

Labels = tuple[np.ndarray | None, ...]
Rule = Callable[["Tracer", Callable[..., Any], tuple[Any, ...], dict[str, Any], Any], None]

SLOT, _LATER = "_gantailor_labels", "_gantailor_later"

# Module type -> the integers it keeps: attribute name to (input or output, dimension, inside a tuple?).
_SIZES: dict[type[nn.Module], dict[str, tuple[str, int, bool]]] = {
    nn.modules.conv._ConvNd: {"in_channels": ("input", 1, False), "out_channels": ("output", 1, False)},
    nn.Linear: {"in_features": ("input", -1, False), "out_features": ("output", -1, False)},
    nn.modules.batchnorm._NormBase: {"num_features": ("input", 1, False)},
    nn.GroupNorm: {"num_channels": ("input", 1, False)},
    nn.LayerNorm: {"normalized_shape": ("input", -1, True)},
    nn.PReLU: {"num_parameters": ("input", 1, False)},
}


class Tracer(TorchFunctionMode):
    """Follows channel identities through one forward. Rules call its methods; users see it only in rules."""

    def __init__(
        self, model: nn.Module, rules: Mapping[Any, Rule], *, unknown: str, freeze: Sequence[str], batch: int
    ) -> None:
        super().__init__()
        self.model, self.rules, self.unknown, self.batch = model, rules, unknown, batch
        self.declared = tuple(freeze)
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
        self.costs: list[tuple[str, dict[str, float], np.ndarray | None, np.ndarray | None]] = []
        self.activations: dict[str, np.ndarray | None] = {}
        self.sizes: list[tuple[str, str, np.ndarray, bool]] = []
        self.stack: list[str] = [""]
        self.inside_leaf = 0

    # -- what rules use ----------------------------------------------------------------------------------------

    def labels(self, tensor: Tensor) -> Labels:
        """The channel identities of each axis: ``None`` for an axis without, ``FIXED`` for single elements."""
        known = getattr(tensor, SLOT, None)
        if known is not None:
            return known
        name = self.names.get(id(tensor))
        if name is None:
            return (None,) * tensor.dim()
        if name not in self.touched:
            fresh: list[np.ndarray | None] = []
            for size in tensor.shape:
                fresh.append(np.arange(self.count, self.count + size) if size > 1 else None)
                if size > 1:
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
            self.freeze(b if a is None else a, "meets a tensor of fixed size")
            return a if b is None else b
        if a is b:
            return a
        free = (a != FIXED) & (b != FIXED)
        if free.any():
            self.edges.append((a[free], b[free]))
        self.freeze(a[b == FIXED], "meets a tensor of fixed size")
        self.freeze(b[a == FIXED], "meets a tensor of fixed size")
        return np.where(a == FIXED, b, a)

    def freeze(self, labels: np.ndarray | None, reason: str) -> None:
        """These channels can never go."""
        if labels is not None and (labels != FIXED).any():
            where = f" in {self.path}" if self.path else ""
            self.frozen.append((labels[labels != FIXED], reason + where))

    def later(self, tensor: Tensor, labels: np.ndarray, reason: str) -> None:
        """Freeze these channels if the tensor is used: code that only asks for its size does no harm."""
        setattr(tensor, _LATER, [*getattr(tensor, _LATER, []), (labels, reason)])

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

    def _origins(self, labels: np.ndarray | None) -> list[tuple[str, int]]:
        """The (weight, dimension) pairs whose own identities these are, also behind views of the weight."""
        if labels is None:
            return []
        starts = [start for start, _, _ in self.ranges]
        found = np.searchsorted(starts, labels[labels != FIXED], "right") - 1
        return [self.ranges[i][1:] for i in dict.fromkeys(found.tolist())]

    def cost(self, coefficients: dict[str, float], rows: np.ndarray | None, columns: np.ndarray | None) -> None:
        """Add ``coefficient * |rows| * |columns|`` multiply-accumulates for the whole example batch."""
        per_image = {name: value / self.batch for name, value in coefficients.items()}
        self.costs.append((self.path, per_image, rows, columns))

    @property
    def path(self) -> str:
        """The module whose forward runs."""
        return self.stack[-1]

    # -- following the forward ---------------------------------------------------------------------------------

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.inside_leaf:
            return func(*args, **kwargs)
        if not args:  # rules find what they work on in front, however it was passed
            first = next((key for key in ("input", "tensors", "tensor", "self") if key in kwargs), None)
            args, kwargs = (
                ((kwargs[first],), {k: v for k, v in kwargs.items() if k != first}) if first else (args, kwargs)
            )
        given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        before = [self.labels(t) for t in given]
        result = func(*args, **kwargs)
        outputs = [t for t in tree_leaves(result) if isinstance(t, Tensor)]
        name = _operation(func)
        for labels, reason in (owed for t in given for owed in getattr(t, _LATER, ()) if outputs):
            if name == "getitem":
                self.later(outputs[0], labels, reason)
            else:
                self.freeze(labels, reason)
        if (not outputs and name != "setitem") or not any(axis is not None for axes in before for axis in axes):
            return result
        rule = self.rules.get(func) or self.rules.get(name)
        if rule is not None:
            rule(self, func, args, kwargs, result)
        elif self.unknown == "freeze" or within(self.path, self.declared):
            for axes in before:
                for axis in axes:
                    self.freeze(axis, f"enters {name}, which has no rule,")
        else:
            raise UntraceableError(_untraceable(name, self.path))
        return result

    def run(self, inputs: Sequence[Any]) -> None:
        """The forward itself, with hooks that follow the module stack."""
        handles = []
        for path, module in self.model.named_modules():
            leaf = self.rules.get(type(module))
            handles.append(module.register_forward_pre_hook(self._enter(path, leaf)))
            handles.append(module.register_forward_hook(self._leave(path, leaf)))
        try:
            with torch.no_grad(), self:
                output = self.model(*inputs)
            for tensor in tree_leaves(output):
                if isinstance(tensor, Tensor):
                    for axis in self.labels(tensor):
                        self.freeze(axis, "is the generator's output")
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, path: str, leaf: Rule | None) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: Any) -> None:
            self.stack.append(path)
            self.inside_leaf += leaf is not None

        return hook

    def _leave(self, path: str, leaf: Rule | None) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            if leaf is not None and self.inside_leaf == 1:
                leaf(self, module, inputs, {}, output)
            self.inside_leaf -= leaf is not None
            self.stack.pop()
            if isinstance(output, Tensor) and not self.inside_leaf:
                if path and output.dim() > 1:
                    self.activations[path] = self.labels(output)[1]
                if inputs and isinstance(inputs[0], Tensor):
                    self._note_sizes(path, module, inputs[0], output)

        return hook

    def _note_sizes(self, path: str, module: nn.Module, given: Tensor, output: Tensor) -> None:
        for kind, attributes in _SIZES.items():
            if not isinstance(module, kind):
                continue
            for name, (side, dimension, as_tuple) in attributes.items():
                axis = self.labels(given if side == "input" else output)[dimension]
                value = getattr(module, name)
                value = value[-1] if as_tuple else value
                if axis is not None and value == len(axis):
                    self.sizes.append((path, name, axis, as_tuple))
        if not type(module).__module__.startswith("torch."):
            self._note_own_sizes(path, module, given, output)
        if isinstance(module, nn.modules.conv._ConvNd) and module.groups > 1 and module.groups == module.in_channels:
            axis = self.labels(given)[1]
            if axis is not None:
                self.sizes.append((path, "groups", axis, False))

    def _note_own_sizes(self, path: str, module: nn.Module, given: Tensor, output: Tensor) -> None:
        """Integers that somebody's own layer keeps of its channels, found by value; ``verify`` proves the guess.

        ``in...``, ``out...``, filters name their side; another name means the input, or the output if only that fits.
        """
        axes = {"in": self.labels(given), "out": self.labels(output)}
        channels = {side: labels[1] for side, labels in axes.items() if len(labels) > 1}
        for name, value in vars(module).items():
            if type(value) is not int or value < 2:
                continue
            sides = ["in"] if name.startswith("in") else ["out"] if "out" in name or "filter" in name else ["in", "out"]
            fitting = [a for side in sides if (a := channels.get(side)) is not None and len(a) == value]
            if fitting:
                self.sizes.append((path, name, fitting[0], False))


def within(name: str, prefixes: Sequence[str]) -> bool:
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


def _operation(func: Any) -> str:
    """A name for a torch function that is the same for ``torch.add``, ``Tensor.add_``, ``+`` and ``+=``."""
    name = getattr(func, "__name__", str(func))
    if name == "__get__":
        name = getattr(getattr(func, "__self__", None), "__name__", name)
    name = name.strip("_")
    dunder = {"iadd": "add", "radd": "add", "isub": "sub", "rsub": "sub", "imul": "mul", "rmul": "mul"}
    dunder |= {"itruediv": "div", "truediv": "div", "rtruediv": "div", "rdiv": "div", "rpow": "pow", "ipow": "pow"}
    return dunder.get(name, name)


def _untraceable(name: str, path: str) -> str:
    return (
        f"cannot follow channels through {name!r} in module {path or '(the generator itself)'!r}. Three ways out: "
        f"(1) register a rule, rules={{ModuleType: rule}} or rules={{{name!r}: rule}}; "
        f"(2) freeze what enters it, unknown='freeze'; "
        f"(3) declare the module's widths fixed, freeze=[{path!r}]"
    )
