"""Copies of modules, also of those that ``copy.deepcopy`` refuses."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

M = TypeVar("M", bound=nn.Module)


def copied(model: M, *, shared: Mapping[int, Any] | None = None) -> M:
    """A deep copy, also where a forward left results of a computation in attributes, or in lists and dicts there.

    The copy has these results as plain tensors.

    Args:
        shared: what original and copy have in common, by ``id``.
    """
    memo: dict[int, Any] = dict(shared or {})
    for module in model.modules():
        for value in tree_leaves(list(vars(module).values())):
            if isinstance(value, Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    return copy.deepcopy(model, memo)
