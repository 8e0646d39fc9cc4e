"""What kernels make of shapes, remembered: most operations of a narrow forward are those at full width.

On the device ``meta`` a result is a shape, strides and a type, which follow from those of the arguments. For many
kernels PyTorch finds them in Python, with milliseconds for one interpolation.
"""

from __future__ import annotations

import functools
from collections.abc import Hashable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

_NO_FUNCTION_OF_SHAPES = {torch.Tag.inplace_view, torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


class Shapes:
    """Runs operations on tensors of the device ``meta``, each once for the same shapes, types and options.

    Remembered are those that make new tensors, or write into their first argument and leave its shape as it is. All
    others run each time: views, what asks for values, whatever is given or makes a tensor with values, and what
    compiled functions call, since recordings see that only when it runs.
    """

    def __init__(self) -> None:
        self._known: dict[Hashable, tuple[type, tuple[Any, ...]]] = {}

    def __call__(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """The operation's result."""
        in_place = _in_place(func)
        if in_place is None or torch._C._len_torch_function_stack():  # none are left where Python calls an operation
            return func(*args, **kwargs)
        try:
            key = (func, torch.get_default_dtype(), *map(_form, args), *((k, _form(v)) for k, v in kwargs.items()))
            known = self._known.get(key)
        except TypeError:  # a tensor with values, or an argument that is no key
            return func(*args, **kwargs)
        if known is not None:
            return args[0] if in_place else _made(*known)
        result = func(*args, **kwargs)
        results = (result,) if isinstance(result, Tensor) else tuple(result)
        if in_place and result is args[0] and _form(result) == key[2]:
            self._known[key] = type(result), ()
        elif not in_place and all(isinstance(x, Tensor) and x.is_meta and x.layout is torch.strided for x in results):
            self._known[key] = type(result), tuple((x.shape, x.stride(), x.dtype) for x in results)
        return result


def _form(value: Any) -> Hashable:
    """What a result's shape may depend on.

    Raises:
        TypeError: on more than that.
    """
    kind = type(value)
    if kind is Tensor or kind is nn.Parameter:
        if not value.is_meta or value.is_complex() or value.layout is not torch.strided:
            raise TypeError("this tensor is more than its shape and type")
        return value.shape, value.stride(), value.dtype
    if isinstance(value, Tensor):
        raise TypeError("somebody's own tensor")
    return tuple(map(_form, value)) if kind in (list, tuple) else (kind, value)  # 1, 1.0 and True are not the same


def _made(kind: Any, forms: tuple[Any, ...]) -> Any:
    made = [torch.empty_strided(shape, strides, dtype=dtype, device="meta") for shape, strides, dtype in forms]
    return made[0] if issubclass(kind, Tensor) else kind(made)


@functools.cache
def _in_place(func: Any) -> bool | None:
    """Whether an operation returns its first argument, changed; None where it is not to be remembered."""
    schema = getattr(func, "_schema", None)
    if schema is None or _NO_FUNCTION_OF_SHAPES & {*func.tags} or not schema.returns:
        return None
    if any(str(made.type) not in ("Tensor", "List[Tensor]") for made in schema.returns):
        return None
    aliases = [made.alias_info is not None for made in schema.returns]
    if not schema.is_mutable:
        return None if any(aliases) else False
    written = [given.alias_info is not None and given.alias_info.is_write for given in schema.arguments]
    return True if aliases == [True] and written[0] and not any(written[1:]) else None
