"""Forwards that write into their own module: what an exporter traces must not, or its stand-ins stay in the weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from gantailor.export.errors import ExportError
from gantailor.export.helpers import Around
from gantailor.export.rewriting.functions import GET_DATA, SET_DATA, Replaced


class Still(Around):
    """A model whose forward leaves its weights (``weight.data = ...``) and the attributes of its modules as they are.

    Args:
        model: holds what its forward would write.
    """

    def forward(self, *inputs: Any) -> Any:
        with _attributes_kept(self.model), Replaced({SET_DATA: _nothing, GET_DATA: _copy}):
            return self.model(*inputs)


@torch.no_grad()
def still(model: nn.Module, run: Callable[[nn.Module, float], object]) -> nn.Module:
    """A model whose forward writes nothing into itself: this one, or one around it with what it wrote in its weights.

    Args:
        model: in eval mode; its weights become what its forward writes.
        run: calls the model with its example, multiplied by the number that is given.

    Raises:
        ExportError: what it writes depends on its input.
    """
    before, writes = _weights(model), _Writes()
    with _attributes_kept(model), writes:
        run(model, 1.0)
    once = _weights(model)
    if not writes.any and not _different(before, once):
        return model
    with _attributes_kept(model):
        run(model, 0.9)
    dependent = _different(once, _weights(model))
    if dependent:
        raise ExportError(
            f"the generator's forward writes {dependent[0]!r}, another value for each input, which no file can hold; "
            "compute it without writing it into the module"
        )
    return Still(model).eval()


class _Writes(TorchFunctionMode):
    any = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.any = self.any or func == SET_DATA
        return func(*args, **(kwargs or {}))


def _weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def _different(one: dict[str, Tensor], other: dict[str, Tensor]) -> list[str]:
    return [name for name, value in one.items() if not torch.equal(value, other[name])]


def _nothing(weight: Tensor, value: Tensor) -> Tensor:
    return weight


def _copy(weight: Tensor, *_: Any) -> Tensor:
    """So that what is written into ``weight.data`` in place goes nowhere."""
    return weight.detach().clone()


@contextmanager
def _attributes_kept(model: nn.Module) -> Iterator[None]:
    """Within it modules may be given attributes, which they lose behind it."""
    before = [(module, dict(vars(module))) for module in model.modules()]
    try:
        yield
    finally:
        for module, kept in before:
            for name in vars(module).keys() - kept.keys():
                del vars(module)[name]
            vars(module).update(kept)
