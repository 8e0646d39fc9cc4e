"""How a generator is called: with one input or several, in eval mode."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from gantailor.supernet.errors import ConfigError
from gantailor.supernet.traits import plain_generator

# What a generator takes: one tensor with the batch first, or several in the order of its forward.
Inputs = Tensor | tuple[Tensor, ...]

_OWN, _TORCH = str(Path(__file__).parent), str(Path(str(torch.__file__)).parent)


def forward(model: nn.Module, inputs: Inputs, **options: Any) -> Tensor:
    """The model's output for one input or several."""
    return model(*as_tuple(inputs), **options)  # type: ignore[no-any-return]


def as_tuple(inputs: Inputs) -> tuple[Tensor, ...]:
    """Also one input as a tuple."""
    return inputs if isinstance(inputs, tuple) else (inputs,)


def check_module(model: object) -> None:
    """That it is a module whose tensors can be exchanged when it is called.

    Raises:
        ConfigError: it is none, or wrapped in one that does not let them.
    """
    if not isinstance(model, nn.Module):
        kind = f"the class {model.__name__}" if isinstance(model, type) else f"a {type(model).__name__}"
        raise ConfigError(f"the generator is {kind}; give a torch.nn.Module, which was made of its class")
    if isinstance(model, torch.jit.ScriptModule):
        raise ConfigError("the generator is TorchScript, which cannot be narrowed; give the module it was made from")
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        raise ConfigError(f"the generator is wrapped in {type(model).__name__}; give its .module")


def not_float32(tensors: Iterable[Tensor]) -> list[str]:
    """The names of other precisions that are among these; whole numbers have none."""
    return sorted({str(one.dtype) for one in tensors if one.is_floating_point()} - {"torch.float32"})


def check_batch(example: tuple[Any, ...]) -> None:
    """That its first tensor has rows, by which costs are told for one.

    Raises:
        ConfigError: it has none.
    """
    first_tensor = next((one for one in tree_leaves(example) if isinstance(one, Tensor)), None)
    if first_tensor is not None and (not first_tensor.ndim or not len(first_tensor)):
        raise ConfigError(f"the example is {list(first_tensor.shape)}, without a row; give one or more, x[:1]")


def alone(several: tuple[Tensor, ...]) -> Inputs:
    """A tuple of one as that one."""
    return several if len(several) > 1 else several[0]


def first(inputs: Inputs) -> Tensor:
    """The input that is shown and judged beside the output: the only one, or the first of several."""
    return as_tuple(inputs)[0]


def each(inputs: Inputs, change: Callable[[Tensor], Tensor]) -> Inputs:
    """The same change of every input: a slice of rows, a device."""
    return tuple(change(one) for one in inputs) if isinstance(inputs, tuple) else change(inputs)


def size_of(inputs: Inputs) -> int:
    """How many are in the batch."""
    return len(first(inputs))


def rows_of(inputs: Inputs, rows: slice | Tensor) -> Inputs:
    """These rows of every input."""
    return each(inputs, lambda one: one[rows])


def shape_of(inputs: Inputs) -> list[int] | list[list[int]]:
    """The shape of the only input, or a list of shapes; as JSON takes it."""
    shapes = [list(one.shape) for one in as_tuple(inputs)]
    return shapes if isinstance(inputs, tuple) else shapes[0]


def condition(inputs: Inputs) -> Tensor:
    """What a conditional discriminator sees beside the output, ``[N, C, H, W]``.

    The first input and further pictures of its size (a mask, say), joined along channels; vectors (a latent, a class)
    are left out: they say nothing of a place.
    """
    shown, *others = as_tuple(inputs)
    pictures = [one for one in others if one.ndim == 4 and one.shape[2:] == shown.shape[2:]]
    return torch.cat([shown, *pictures], 1) if pictures else shown


def input_names(model: nn.Module, count: int) -> tuple[str, ...]:
    """The names of a model's inputs: the first arguments of its forward, or ``input_0`` and so on where it has none."""
    generator = plain_generator(model)
    arguments = inspect.signature(generator.forward).parameters.values()
    named = [a.name for a in arguments if a.kind in (a.POSITIONAL_ONLY, a.POSITIONAL_OR_KEYWORD)]
    return tuple(named[:count]) if len(named) >= count else tuple(f"input_{number}" for number in range(count))


def joined(batches: Sequence[Inputs]) -> Inputs:
    """Batches one after the other, input by input."""
    if isinstance(batches[0], tuple):
        return tuple(torch.cat(parts) for parts in zip(*map(as_tuple, batches), strict=True))
    return torch.cat([first(batch) for batch in batches])


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """The model in eval mode; every module's mode comes back afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield model
    finally:
        for module, training in modes:
            module.training = training


def code_line() -> str:
    """The line of a generator's code that runs, ``net.py:12``; empty where PyTorch's and our own call each other."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        own, name = _home(frame.f_code.co_filename)
        if own and frame.f_code.co_name == "run":  # what runs forwards: nothing above it is the generator's
            return ""
        if name:
            return f"{name}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


@functools.cache
def _home(file: str) -> tuple[bool, str]:
    """Whether a file is one of ours, and its name if it may be the generator's: asked of every frame, many times."""
    own, name = file.startswith(_OWN), Path(file).name
    foreign = own or file.startswith(("<", _TORCH)) or name in ("contextlib.py", "einops.py")
    return own, "" if foreign else name
