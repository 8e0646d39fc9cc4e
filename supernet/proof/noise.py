"""Noise that is the same for every channel, so that nets of other channels, or in another order, get the same."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_FILLED_BY = {
    "randn": "normal_",
    "randn_like": "normal_",
    "normal_": "normal_",
    "rand": "uniform_",
    "rand_like": "uniform_",
    "uniform_": "uniform_",
}


class EvenNoise(TorchFunctionMode):
    """Within the block a noise tensor repeats its first channel (dimension 1), in sequences its first element.

    As many numbers are drawn at every width, so later noise is the same too. Noise of one channel is as it always is.
    """

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        name, kwargs = getattr(func, "__name__", ""), kwargs or {}
        if name not in _FILLED_BY:
            return func(*args, **kwargs)
        before = torch.get_rng_state()
        result = func(*args, **kwargs)
        if not isinstance(result, Tensor) or result.dim() < 2 or result.shape[1] < 2:
            return result
        torch.set_rng_state(before)
        kept = (len(result), 1, *result.shape[2:]) if result.dim() != 3 else (len(result), 1, 1)
        fill = getattr(result.new_empty(kept), _FILLED_BY[name])
        return result.copy_(fill(*args[1:], **kwargs) if name.endswith("_") else fill())
