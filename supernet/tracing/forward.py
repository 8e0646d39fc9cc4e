"""Following a generator's forward: every tensor operation is given to its rule, every module's channels are noted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from gantailor.supernet.errors import UntraceableError
from gantailor.supernet.tracing.counting import ProductCounter
from gantailor.supernet.tracing.products import OF_ACTIVATIONS
from gantailor.supernet.tracing.sizes import kept_sizes, plain, remembered, sizes_in, sizes_of
from gantailor.supernet.tracing.tracer import LATER, LOST, WEIGHT, Labels, Rule, Tracer, within

# Module type -> the integers it keeps: attribute name to (input or output, dimension, inside a tuple?).
_SIZES: dict[type[nn.Module], dict[str, tuple[str, int, bool]]] = {
    nn.modules.conv._ConvNd: {"in_channels": ("input", 1, False), "out_channels": ("output", 1, False)},
    nn.Linear: {"in_features": ("input", -1, False), "out_features": ("output", -1, False)},
    nn.modules.batchnorm._NormBase: {"num_features": ("input", 1, False)},
    nn.GroupNorm: {"num_channels": ("input", 1, False)},
    nn.RMSNorm: {"normalized_shape": ("input", -1, True)},
    nn.LayerNorm: {"normalized_shape": ("input", -1, True)},
    nn.PReLU: {"num_parameters": ("input", 1, False)},
}

# Operations that make tensors of a given size, also without one that is given.
MADE = frozenset(("zeros", "ones", "empty", "full", "rand", "randn", "eye", "expand", "broadcast_to", "repeat", "tile"))
MADE |= {"new_zeros", "new_ones", "new_empty", "new_full", "repeat_interleave"}


_WRITING = ("setitem", "set_data")  # operations without a result


class TracedForward(TorchFunctionMode):
    """One forward of the tracer's model under its rules.

    Args:
        rules: by torch function, operation name or module type.
        unknown: ``error`` or ``freeze``, for operations without a rule.
        freeze: modules inside which such operations are allowed.
    """

    def __init__(self, tracer: Tracer, rules: Mapping[Any, Rule], *, unknown: str, freeze: Sequence[str]) -> None:
        super().__init__()
        self.tracer, self.rules, self.unknown, self.freeze = tracer, rules, unknown, tuple(freeze)
        self.dims = 0  # of the example's first tensor
        self.inside_leaf = 0  # how many modules whose type has a rule are running

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.inside_leaf:
            return func(*plain(args), **plain(kwargs))
        if not args:  # rules find what they work on in front, however it was passed
            first = next((key for key in ("input", "tensors", "tensor", "self") if key in kwargs), None)
            args, kwargs = (
                ((kwargs[first],), {k: v for k, v in kwargs.items() if k != first}) if first else (args, kwargs)
            )
        name, known = _operation(func), len(self.tracer.costs)
        args = remembered(args, self.tracer)
        given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        before = [self.tracer.labels(t) for t in given]
        with ProductCounter() as products:
            result = func(*plain(args), **plain(kwargs))
        if name in ("shape", "size"):
            return self._sizes(args[0], *args[1:], **kwargs)
        outputs = [t for t in tree_leaves(result) if isinstance(t, Tensor)]
        _note_weights(self.tracer, name, given, outputs)
        for labels, reason in (owed for t in given for owed in getattr(t, LATER, ()) if outputs):
            if name == "getitem":
                self.tracer.later(outputs[0], labels, reason)
            else:
                self.tracer.freeze(labels, reason)
        self.tracer.lost = next((found for t in given if (found := getattr(t, LOST, None))), "")
        sized = name in MADE and any(True for _ in sizes_in((args, kwargs)))
        labelled = any(axis is not None for axes in before for axis in axes)
        if (labelled and (outputs or name in _WRITING)) or (sized and outputs):
            self._apply_rule(func, args, kwargs, result)
        if products.total and len(self.tracer.costs) == known:  # it has no channels, or they stay whole
            self.tracer.cost({"true": float(products.total), **OF_ACTIVATIONS})
        for output in outputs:
            self._check(output, name, labelled=labelled, made=not given)
        return result

    def _check(self, output: Tensor, name: str, *, labelled: bool, made: bool) -> None:
        """Channels that do not fit the result are frozen; a result that has none left remembers where they went."""
        labels = list(self.tracer.labels(output))
        for d, (axis, size) in enumerate(zip(labels, output.shape, strict=True)):
            if axis is not None and len(axis) != size:
                self.tracer.freeze(axis, f"is lost in {name}")
                labels[d] = None
                self.tracer.set(output, labels)
        if all(axis is None for axis in labels):
            lost = f"lost its channels in {name}{self.tracer.where}" if labelled else self.tracer.lost
            setattr(output, LOST, lost or (made and f"{name} makes{self.tracer.where}"))

    def _sizes(self, tensor: Tensor, dim: int | None = None) -> Any:
        """Sizes of axes with channels, as numbers that remember them."""
        sizes = sizes_of(self.tracer, tensor)
        return torch.Size(sizes) if dim is None else sizes[dim]

    def _apply_rule(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        name = _operation(func)
        rule = self.rules.get(func) or self.rules.get(name)
        before = [self.tracer.labels(t) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        if rule is not None:
            try:
                rule(self.tracer, func, args, kwargs, result)
            except (IndexError, KeyError, TypeError, ValueError, AttributeError, AssertionError):
                if not rule.__module__.startswith("gantailor."):
                    raise
                self._freeze(before, f"is given to {name} in a way that its rule does not know")
        elif self.unknown == "freeze" or within(self.tracer.path, self.freeze):
            self._freeze(before, f"enters {name} without a rule")
        else:
            raise UntraceableError(_untraceable(self.tracer, name, before))

    def _freeze(self, before: list[Labels], reason: str) -> None:
        for axes in before:
            for axis in axes:
                self.tracer.freeze(axis, reason)

    def run(self, inputs: Sequence[Any]) -> None:
        """The forward itself, with hooks that follow the module stack.

        Raises:
            UntraceableError: a layer is given one without a batch, as the example is.
        """
        handles = []
        self.dims = next((one.dim() for one in tree_leaves(inputs) if isinstance(one, Tensor)), 0)
        for path, module in self.tracer.model.named_modules():
            if not isinstance(module, torch.jit.ScriptModule):
                leaf = self.rules.get(type(module))
                handles.append(module.register_forward_pre_hook(self._enter(path, leaf)))
                handles.append(module.register_forward_hook(self._leave(path, leaf)))
        try:
            with torch.no_grad(), kept_sizes(self.tracer), self, _unscripted(self.tracer):
                output = self.tracer.model(*inputs)
            for tensor in tree_leaves(output):
                if isinstance(tensor, Tensor):
                    for axis in self.tracer.labels(tensor):
                        self.tracer.freeze(axis, "is the generator's output")
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, path: str, leaf: Rule | None) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any) -> None:
            _check_batch(path, module, inputs, self.dims)
            self.tracer.stack.append(path)
            self.inside_leaf += leaf is not None

        return hook

    def _leave(self, path: str, leaf: Rule | None) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            if leaf is not None and self.inside_leaf == 1:
                leaf(self.tracer, module, inputs, {}, output)
            self.inside_leaf -= leaf is not None
            self.tracer.stack.pop()
            if isinstance(output, Tensor) and not self.inside_leaf:
                if path and output.dim() > 1:
                    self.tracer.activations[path] = self.tracer.labels(output)[1]
                if inputs and isinstance(inputs[0], Tensor):
                    _note_sizes(self.tracer, path, module, inputs[0], output)

        return hook


@contextmanager
def _unscripted(tracer: Tracer) -> Iterator[None]:
    """Within the block scripted functions run as the Python that they were made from: compiled, they hide what they do.

    What enters a compiled function or module whose Python is not known stays whole.
    """
    kinds: list[Any] = [torch.jit.ScriptFunction, torch._C.ScriptMethod]
    compiled = [kind.__call__ for kind in kinds]

    def replaced(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(function: Any, *args: Any, **kwargs: Any) -> Any:
            source = getattr(function, "_torchdynamo_inline", None)
            if source is not None:
                return source(*args, **kwargs)
            for tensor in tree_leaves((args, kwargs)):
                for axis in tracer.labels(tensor) if isinstance(tensor, Tensor) else ():
                    tracer.freeze(axis, "enters what torch.jit compiled (give the Python that it was made from)")
            return original(function, *plain(args), **plain(kwargs))

        return call

    for kind, original in zip(kinds, compiled, strict=True):
        kind.__call__ = replaced(original)
    try:
        yield
    finally:
        for kind, original in zip(kinds, compiled, strict=True):
            kind.__call__ = original


def _check_batch(path: str, module: nn.Module, inputs: Sequence[Any], dims: int) -> None:
    """That an example of ``dims`` dimensions has a batch: layers take one without, whose costs would be divided."""
    if not isinstance(module, nn.modules.conv._ConvNd | nn.Linear) or not inputs:
        return
    given = plain(inputs[0])
    if isinstance(given, Tensor) and given.dim() == dims < module.weight.dim():
        raise UntraceableError(
            f"{path or 'the generator'!r} ({type(module).__name__}) is given {list(given.shape)}, without a batch; "
            "give an example with the batch in dimension 0, x[None]"
        )


def _note_weights(tracer: Tracer, name: str, given: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
    """Results made of weights alone are weights, and a weight stays one when activations scale it (modulation)."""
    made = all(map(tracer.is_weight, given))
    for out in outputs:
        scaled = name in ("mul", "div", "multiply", "divide") and any(
            weight.dim() >= 2 and out.shape[1:] == weight.shape[1 - out.dim() :]
            for weight in filter(tracer.is_weight, given)
        )
        small = all(tracer.is_weight(x) or x.numel() < out.numel() for x in given)
        setattr(out, WEIGHT, made or (scaled and small))


def _note_sizes(tracer: Tracer, path: str, module: nn.Module, given: Tensor, output: Tensor) -> None:
    for kind, attributes in _SIZES.items():
        if not isinstance(module, kind):
            continue
        for name, (side, dimension, as_tuple) in attributes.items():
            axis = tracer.labels(given if side == "input" else output)[dimension]
            value = plain(getattr(module, name))
            value = value[-1] if as_tuple else value
            if axis is not None and value == len(axis):
                tracer.sizes.append((path, name, axis, as_tuple))
    if not type(module).__module__.startswith("torch."):
        _note_own_sizes(tracer, path, module, given, output)
    if isinstance(module, nn.modules.conv._ConvNd) and 1 < plain(module.groups) == plain(module.in_channels):
        axis = tracer.labels(given)[1]
        if axis is not None:
            tracer.sizes.append((path, "groups", axis, False))


def _note_own_sizes(tracer: Tracer, path: str, module: nn.Module, given: Tensor, output: Tensor) -> None:
    """Integers that somebody's own layer keeps of its channels, found by value; ``verify`` proves the guess.

    ``in...``, ``out...``, filters name their side; another name means the input, or the output if only that fits.
    """
    axes = {"in": tracer.labels(given), "out": tracer.labels(output)}
    channels = {side: labels[1] for side, labels in axes.items() if len(labels) > 1}
    for name, kept in vars(module).items():
        value = plain(kept)
        if type(value) is not int or value < 2:
            continue
        sides = ["in"] if name.startswith("in") else ["out"] if "out" in name or "filter" in name else ["in", "out"]
        fitting = [a for side in sides if (a := channels.get(side)) is not None and len(a) == value]
        if fitting:
            tracer.guesses.append((path, name, fitting[0], False))


def _operation(func: Any) -> str:
    """A name for a torch function that is the same for ``torch.add``, ``Tensor.add_``, ``+`` and ``+=``."""
    name = getattr(func, "__name__", str(func))
    if name in ("__get__", "__set__"):
        attribute = getattr(getattr(func, "__self__", None), "__name__", name)
        name = attribute if name == "__get__" else f"set_{attribute}"
    name = name.strip("_")
    dunder = {"iadd": "add", "radd": "add", "isub": "sub", "rsub": "sub", "imul": "mul", "rmul": "mul"}
    dunder |= {"itruediv": "div", "truediv": "div", "rtruediv": "div", "rdiv": "div", "rpow": "pow", "ipow": "pow"}
    return dunder.get(name, name)


def _untraceable(tracer: Tracer, name: str, before: list[Labels]) -> str:
    makers = [weight.rpartition(".")[0] or weight for axes in before for axis in axes for weight in tracer.makers(axis)]
    declared = [tracer.path] if tracer.path else list(dict.fromkeys(makers))
    return (
        f"cannot follow channels through {name!r}{tracer.where}, where those of {', '.join(dict.fromkeys(makers))} "
        f"enter it. Three ways out: (1) register a rule, rules={{ModuleType: rule}} or rules={{{name!r}: rule}}; "
        f"(2) freeze what enters it, unknown='freeze'; (3) declare the module's widths fixed, freeze={declared}"
    )
