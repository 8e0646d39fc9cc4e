"""Functions that somebody's forward calls, replaced by others while it runs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from gantailor.export.helpers import Around

GET_DATA: Any = Tensor.data.__get__  # type: ignore[attr-defined]
SET_DATA: Any = Tensor.data.__set__  # type: ignore[attr-defined]
_TINY = 1e-30  # what is the same everywhere deviates by 0, not by 0 / 0


class Replaced(TorchFunctionMode):
    """Within it functions are others, which give None where they do not fit."""

    def __init__(self, by: Mapping[Any, Callable[..., Tensor | None]]) -> None:
        super().__init__()
        self.by = by

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = self.by[func](*args, **(kwargs or {})) if func in self.by else None
        return func(*args, **(kwargs or {})) if made is None else made


class WithReplaced(Around):
    """A model whose forward has other functions."""

    def __init__(self, model: nn.Module, by: Mapping[Any, Callable[..., Tensor | None]]) -> None:
        super().__init__(model)
        self.by = by

    def forward(self, *inputs: Any) -> Any:
        with Replaced(self.by):
            return self.model(*inputs)


def instance_norms_of_forwards(model: nn.Module) -> nn.Module:
    """``F.instance_norm`` in somebody's forward as means; the model is wrapped."""
    return WithReplaced(model, {F.instance_norm: _norm_by_means}).eval()


def deviations_of_forwards(model: nn.Module) -> nn.Module:
    """``std`` in somebody's forward as means; the model is wrapped."""
    return WithReplaced(model, {torch.std: _deviation_by_means, Tensor.std: _deviation_by_means}).eval()


def as_onnx_has_it() -> Replaced:
    """Within it a forward has no functions that PyTorch's exporter writes as something else.

    An axis of more than one element that is squeezed, which PyTorch leaves and ONNX refuses; a batch norm by the
    statistics of its input, which is written as one by those that were kept; ``tensor.data``, which is not followed.
    """
    squeezes = {torch.squeeze: _left_alone, Tensor.squeeze: _left_alone}
    return Replaced({**squeezes, F.batch_norm: _batch_norm_by_means, GET_DATA: _detached})


def _detached(x: Tensor, *_: Any) -> Tensor:
    return x.detach()


def by_means(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, *, axes: tuple[int, ...] = (2, 3)
) -> Tensor:
    """A norm of ``[N, C, ...]`` by the statistics over some axes: an instance norm of pictures."""
    centred = x - x.mean(axes, keepdim=True)
    result = centred / torch.sqrt((centred * centred).mean(axes, keepdim=True) + eps)
    beside = (slice(None), *[None] * (x.dim() - 2))
    result = result if weight is None else result * weight[beside]
    return result if bias is None else result + bias[beside]


def _norm_by_means(*args: Any, **kwargs: Any) -> Tensor | None:
    """``F.instance_norm`` of pictures; None where it has running statistics."""
    values = inspect.signature(F.instance_norm).bind(*args, **kwargs)
    values.apply_defaults()
    given = values.arguments
    if given["running_mean"] is not None or given["input"].dim() != 4:
        return None
    return by_means(given["input"], given["weight"], given["bias"], given["eps"])


def _batch_norm_by_means(*args: Any, **kwargs: Any) -> Tensor | None:
    """``F.batch_norm`` by the statistics of its input; None of other calls."""
    values = inspect.signature(F.batch_norm).bind(*args, **kwargs)
    values.apply_defaults()
    given = values.arguments
    x: Tensor = given["input"]
    if not given["training"]:
        return None
    axes = tuple(axis for axis in range(x.dim()) if axis != 1)
    return by_means(x, given["weight"], given["bias"], given["eps"], axes=axes)


def _deviation_by_means(x: Tensor, *args: Any, **kwargs: Any) -> Tensor | None:
    """``torch.std`` over named axes, which stay as ones; None of other calls.

    Without a size, which a backend would need as a number: of ``n`` squares with the sum ``s`` and the mean ``m``
    ``s / (n - 1)`` is ``s m / (s - m)``.
    """
    axes = args[0] if args else kwargs.get("dim")
    if not isinstance(axes, tuple | list) or len(args) > 1 or not kwargs.get("keepdim", False):
        return None
    lost = kwargs.get("correction", 1) if kwargs.get("unbiased", True) else 0
    squares = (x - x.mean(axes, keepdim=True)).square()
    total, mean = squares.sum(axes, keepdim=True), squares.mean(axes, keepdim=True)
    return torch.sqrt(total * mean / (total - lost * mean + _TINY))


def _left_alone(x: Tensor, *args: Any, **kwargs: Any) -> Tensor | None:
    axis = args[0] if args else kwargs.get("dim")
    if type(axis) is not int or not x.dim():
        return None
    size = x.shape[axis]
    return x if type(size) is int and size != 1 else None  # a free size is a symbol
