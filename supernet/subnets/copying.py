"""Copies of modules, also of those that ``copy.deepcopy`` refuses."""

from __future__ import annotations

import copy
import types
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


def copied(model: M, *, shared: Mapping[int, Any] | None = None) -> M:
    """A deep copy, also where a forward left results of a computation in attributes, or in what is reached from there.

    The copy has these results as plain tensors.

    Args:
        shared: what original and copy have in common, by ``id``.
    """
    memo: dict[int, Any] = dict(shared or {})
    for value in _results(model):
        memo.setdefault(id(value), value.detach().clone())
    return copy.deepcopy(model, memo)


def _results(model: nn.Module) -> Iterator[Tensor]:
    """Tensors that a computation made, in the model, in modules that it holds in lists, in objects of any kind."""
    waiting, seen = [model], set[int]()
    while waiting:
        value: Any = waiting.pop()
        if id(value) in seen or isinstance(value, type | types.ModuleType | types.FunctionType | str | bytes | int):
            continue
        seen.add(id(value))
        if isinstance(value, Tensor):
            if not value.is_leaf:
                yield value
        elif isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list | tuple | set):
            waiting += value
        elif isinstance(vars(value) if hasattr(value, "__dict__") else None, dict):
            waiting += vars(value).values()
