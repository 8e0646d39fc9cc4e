"""What a forward does: the operations that run, by module and weight, and the multiply-accumulates that they take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from gantailor.supernet.tracing.counting import ProductCounter


@dataclass(frozen=True)
class Step:
    """One operation of a forward: the module whose code calls it, its name, and the weights that it is given."""

    module: str
    operation: str
    weights: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.operation}({', '.join(self.weights)})" if self.weights else self.operation


@dataclass
class Recording:
    """What one forward did.

    Attributes:
        steps: in the order in which they ran.
        macs: multiply-accumulates by module, for the whole batch.
        lowest: bits of the coarsest floating-point result.
    """

    steps: list[Step] = field(default_factory=list)
    macs: Counter[str] = field(default_factory=Counter)
    lowest: int = 64


class _Steps(TorchFunctionMode):
    def __init__(self, recording: Recording, stack: list[str], names: Mapping[int, str]) -> None:
        super().__init__()
        self.recording, self.stack, self.names = recording, stack, names

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        made = [t for t in tree_leaves(result) if isinstance(t, Tensor)]
        name = getattr(func, "__name__", str(func))
        if name == "__get__":
            name = getattr(getattr(func, "__self__", None), "__name__", name)
        if made or name == "__setitem__":  # asking for a size, a type or a place computes nothing
            given = [self.names[id(t)] for t in tree_leaves((args, kwargs)) if id(t) in self.names]
            self.recording.steps.append(Step(self.stack[-1], name, tuple(given)))
        bits = (torch.finfo(t.dtype).bits for t in made if t.is_floating_point())
        self.recording.lowest = min(self.recording.lowest, *bits, 64)
        return result


class _Products(ProductCounter):  # type: ignore[no-untyped-call]
    def __init__(self, recording: Recording, stack: list[str]) -> None:
        super().__init__()
        self.recording, self.stack = recording, stack

    def add(self, products: int) -> None:
        self.recording.macs[self.stack[-1]] += products


@contextmanager
def recorded(model: nn.Module, tensors: Mapping[str, Tensor]) -> Iterator[Recording]:
    """What forwards of the model do within the block; ``tensors`` are its weights and buffers by name."""
    recording, stack = Recording(), [""]
    names = {id(tensor): name for name, tensor in reversed([*tensors.items()])}
    handles = [
        handle
        for path, module in model.named_modules()
        if not isinstance(module, torch.jit.ScriptModule)  # refuses hooks
        for handle in (
            module.register_forward_pre_hook(_entering(recording, stack, path), prepend=True),
            module.register_forward_hook(_leaving(stack), always_call=True),
        )
    ]
    try:
        with _Products(recording, stack), _Steps(recording, stack, names):
            yield recording
    finally:
        for handle in handles:
            handle.remove()


def _entering(recording: Recording, stack: list[str], path: str) -> Callable[..., None]:
    def hook(*_: Any) -> None:
        recording.steps.append(Step(stack[-1], f"call of {path}", ()))
        stack.append(path)

    return hook


def _leaving(stack: list[str]) -> Callable[..., None]:
    def hook(*_: Any) -> None:
        stack.pop()

    return hook


def difference(full: Recording, narrow: Recording) -> tuple[Step | None, Step | None] | None:
    """The first step in which two forwards differ, None where one of them is at its end; None if they do the same."""
    steps = full.steps, narrow.steps
    for one, other in zip(*steps, strict=False):
        if one != other:
            return one, other
    length = min(map(len, steps))
    if len(steps[0]) == len(steps[1]):
        return None
    return next(iter(steps[0][length:]), None), next(iter(steps[1][length:]), None)
