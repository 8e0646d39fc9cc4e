"""How a generator is called: with one input or several, in eval mode."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

# What a generator takes: one tensor with the batch first, or several in the order of its forward.
Inputs = Tensor | tuple[Tensor, ...]


def forward(model: nn.Module, inputs: Inputs, **options: Any) -> Tensor:
    """The model's output for one input or several."""
    return model(*as_tuple(inputs), **options)  # type: ignore[no-any-return]


def as_tuple(inputs: Inputs) -> tuple[Tensor, ...]:
    """Also one input as a tuple."""
    return inputs if isinstance(inputs, tuple) else (inputs,)


def first(inputs: Inputs) -> Tensor:
    """The input that is shown and judged beside the output: the only one, or the first of several."""
    return as_tuple(inputs)[0]


def each(inputs: Inputs, change: Callable[[Tensor], Tensor]) -> Inputs:
    """The same change of every input: a slice of rows, a device."""
    return tuple(change(one) for one in inputs) if isinstance(inputs, tuple) else change(inputs)


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
