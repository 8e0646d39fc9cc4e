"""What a forward does: the operations that run, by module and weight, and the multiply-accumulates that they take."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from gantailor.supernet.calling import code_line
from gantailor.supernet.proof.stand_ins import has_values
from gantailor.supernet.tracing.counting import Kernel, ProductCounter, run_kernel


@dataclass(frozen=True, slots=True)
class Step:
    """One operation of a forward: the module whose code calls it, its name, and the weights that it is given.

    Attributes:
        line: of the generator's code, where that is known.
    """

    module: str
    operation: str
    weights: tuple[str, ...]
    line: str = field(default="", compare=False)

    def __str__(self) -> str:
        given = f"({', '.join(self.weights)})" if self.weights else ""
        return f"{self.operation}{given}{f' in {self.line}' if self.line else ''}"


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


_RECURRENT = ("lstm", "gru", "rnn_tanh", "rnn_relu")


class _Steps(TorchFunctionMode):
    def __init__(self, recording: Recording, products: _Products, stack: list[str], names: Mapping[int, str]) -> None:
        super().__init__()
        self.recording, self.products, self.stack, self.names = recording, products, stack, names

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        brief = getattr(func, "__name__", "") in _RECURRENT and len(args) > 8 and not has_values(args[0])
        try:
            result = self._one_step(func, *args) if brief else func(*args, **(kwargs or {}))
        except Exception:
            self._note(_name(func), args, kwargs)
            raise
        made = _tensors(result)
        if made or getattr(func, "__name__", "") == "__setitem__":  # asking for a size or a type computes nothing
            self._note(_name(func), args, kwargs)
            self.recording.lowest = min(self.recording.lowest, *(_bits(t.dtype) for t in made), 64)
        return result

    def _note(self, name: str, args: Any, kwargs: Any) -> None:
        given = _tensors(args) + (_tensors(kwargs) if kwargs else [])
        weights = tuple(self.names[id(t)] for t in given if id(t) in self.names)
        self.recording.steps.append(Step(self.stack[-1], name, weights, code_line()))

    def _one_step(self, func: Callable[..., Any], x: Tensor, *rest: Any) -> tuple[Tensor, ...]:
        """A recurrent layer does the same in each step: where there are no values, one shows what all do."""
        time = 1 if rest[-1] else 0  # batch_first
        steps = self.products.times = x.shape[time]
        output, *states = func(x.narrow(time, 0, 1), *rest)
        self.products.times = 1
        shape = [steps if d == time else size for d, size in enumerate(output.shape)]
        return output.new_empty(shape), *states


def _name(func: Any) -> str:
    name = getattr(func, "__name__", str(func))
    return getattr(getattr(func, "__self__", None), "__name__", name) if name == "__get__" else name


def _tensors(value: Any) -> list[Tensor]:
    """Those in a result or in arguments; asked of everything that runs, so the usual kinds come first."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, list | tuple):
        return [] if type(value) is torch.Size else [t for one in value for t in _tensors(one)]
    if value is None or isinstance(value, int | float | str | torch.dtype | torch.device):
        return []
    return [t for t in tree_leaves(value) if isinstance(t, Tensor)]


@functools.cache
def _bits(dtype: torch.dtype) -> int:
    return torch.finfo(dtype).bits if dtype.is_floating_point else 64


class _Products(ProductCounter):  # type: ignore[no-untyped-call]
    def __init__(self, recording: Recording, stack: list[str], kernel: Kernel) -> None:
        super().__init__(kernel)
        self.recording, self.stack, self.times = recording, stack, 1

    def add(self, products: int) -> None:
        self.recording.macs[self.stack[-1]] += products * self.times


class Recorder:
    """Records forwards of a model, one after the other; its hooks stay in the model's modules."""

    def __init__(self, model: nn.Module) -> None:
        self.recording, self.stack = Recording(), [""]
        self.handles = [
            handle
            for path, module in model.named_modules()
            if not isinstance(module, torch.jit.ScriptModule)  # refuses hooks
            for handle in (
                module.register_forward_pre_hook(self._entering(path), prepend=True),
                module.register_forward_hook(self._leaving, always_call=True),
            )
        ]

    @contextmanager
    def recorded(self, tensors: Mapping[str, Tensor], *, kernel: Kernel = run_kernel) -> Iterator[Recording]:
        """What forwards of the model do within the block.

        Args:
            tensors: its weights and buffers by name.
            kernel: gives the results of operations.
        """
        self.recording = recording = Recording()
        self.stack[:] = [""]
        names = {id(tensor): name for name, tensor in reversed([*tensors.items()])}
        with _Products(recording, self.stack, kernel) as products, _Steps(recording, products, self.stack, names):
            yield recording

    def _entering(self, path: str) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            self.recording.steps.append(Step(self.stack[-1], f"call of {path}", (), code_line()))
            self.stack.append(path)

        return hook

    def _leaving(self, *_: Any) -> None:
        self.stack.pop()


@contextmanager
def recorded(model: nn.Module, tensors: Mapping[str, Tensor]) -> Iterator[Recording]:
    """What forwards of a model do within the block, which leaves no hooks in it."""
    recorder = Recorder(model)
    try:
        with recorder.recorded(tensors) as recording:
            yield recording
    finally:
        for handle in recorder.handles:
            handle.remove()


def difference(full: Recording, narrow: Recording, *, broke: bool = False) -> tuple[Step | None, Step | None] | None:
    """The first step in which two forwards differ, None where one of them is at its end; None if they do the same.

    Args:
        broke: the narrow forward came no further than its last step, in the middle of it.
    """
    steps = full.steps, narrow.steps
    for one, other in zip(*steps, strict=False):
        if one != other:
            return one, other
    length = min(map(len, steps))
    if len(steps[0]) == len(steps[1]) or broke:
        return None
    return next(iter(steps[0][length:]), None), next(iter(steps[1][length:]), None)
