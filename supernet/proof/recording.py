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
from gantailor.supernet.proof.stand_ins import MAKERS, has_values
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


_PLAIN = (
    *(int, float, str, slice, type(None), type(...)),
    *(torch.Size, torch.dtype, torch.device, torch.memory_format, torch.layout),
)  # hold no weights
_RECURRENT = ("lstm", "gru", "rnn_tanh", "rnn_relu")


class _Steps(TorchFunctionMode):
    def __init__(
        self,
        recording: Recording,
        products: _Products,
        names: Mapping[int, str],
        *,
        note: Callable[..., None],
        device: torch.device | None,
    ) -> None:
        super().__init__()
        self.recording, self.products, self.names, self.note = recording, products, names, note
        self.device = device

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if self.device is not None and func in MAKERS and (kwargs or {}).get("device") is None:
            kwargs = {**(kwargs or {}), "device": self.device}
        name = getattr(func, "__name__", "")
        brief = name in _RECURRENT and len(args) > 8 and not has_values(args[0])
        try:
            result = self._one_step(func, *args) if brief else func(*args, **(kwargs or {}))
        except Exception:
            self.note(_name(func), self._weights(args, kwargs))
            raise
        made = _tensors(result)
        if made or name == "__setitem__":  # asking for a size or a type computes nothing
            self.note(_name(func), self._weights(args, kwargs))
            for tensor in made:
                self.recording.lowest = min(self.recording.lowest, _bits(tensor.dtype))
        return result

    def _weights(self, args: Any, kwargs: Any) -> tuple[str, ...]:
        given = _tensors(args) + (_tensors(kwargs) if kwargs else [])
        return tuple([self.names[id(t)] for t in given if id(t) in self.names])

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
    if isinstance(value, _PLAIN):
        return []
    if isinstance(value, list | tuple):
        return [t for one in value if not isinstance(one, _PLAIN) for t in _tensors(one)]
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
        self.recording, self.like, self.stack = Recording(), Recording(), [""]
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
    def recorded(
        self,
        tensors: Mapping[str, Tensor],
        *,
        kernel: Kernel = run_kernel,
        device: torch.device | None = None,
        like: Recording | None = None,
    ) -> Iterator[Recording]:
        """What forwards of the model do within the block.

        Args:
            tensors: its weights and buffers by name.
            kernel: gives the results of operations.
            device: where new tensors are made if the forward does not say.
            like: another recording, whose steps stand for those that are the same.
        """
        self.recording, self.like = Recording(), like or Recording()
        self.stack[:] = [""]
        names = {id(tensor): name for name, tensor in reversed([*tensors.items()])}
        with (
            _Products(self.recording, self.stack, kernel) as products,
            _Steps(self.recording, products, names, note=self._note, device=device),
        ):
            yield self.recording

    def _note(self, operation: str, weights: tuple[str, ...] = ()) -> None:
        done, module, known = self.recording.steps, self.stack[-1], self.like.steps
        same = known[len(done)] if len(done) < len(known) else None
        if same is None or same.operation != operation or same.module != module or same.weights != weights:
            same = Step(module, operation, weights, code_line())
        done.append(same)

    def _entering(self, path: str) -> Callable[..., None]:
        operation = f"call of {path}"

        def hook(*_: Any) -> None:
            self._note(operation)
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
        if one is not other and one != other:
            return one, other
    length = min(map(len, steps))
    if len(steps[0]) == len(steps[1]) or broke:
        return None
    return next(iter(steps[0][length:]), None), next(iter(steps[1][length:]), None)
