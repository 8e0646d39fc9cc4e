"""Multiply-accumulates of what really runs, by PyTorch's own formulas: what ``Supernet.macs`` is held against."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_flop


def _addbmm(_added: Any, a: Any, b: Any, **_: Any) -> int:
    return 2 * a.numel() * b.shape[-1]  # type: ignore[no-any-return]


def _of_shapes(formula: Callable[..., int]) -> Callable[..., int]:
    """PyTorch's own, without its search for tensors in arguments of any depth: those of kernels lie on top."""
    inner = getattr(formula, "__wrapped__", None)
    if inner is None:  # a formula of the tensors themselves
        return formula

    def count(*args: Any, out_val: Any, **kwargs: Any) -> int:
        results = tuple(map(_shape, out_val)) if isinstance(out_val, list | tuple) else _shape(out_val)
        given = {name: _shape(value) for name, value in kwargs.items()}
        return inner(*map(_shape, args), out_shape=results, **given)  # type: ignore[no-any-return]

    return count


def _shape(value: Any) -> Any:
    return value.shape if isinstance(value, Tensor) else value


_OWN = {operation: _of_shapes(formula) for operation, formula in flop_registry.items()}
_FORMULAS: dict[Any, Callable[..., int]] = {
    **_OWN,  # and kernels that PyTorch leaves out:
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _of_shapes(sdpa_flop),
    torch.ops.aten.addbmm: _addbmm,
    torch.ops.aten.addbmm_: _addbmm,  # what is done in place is as much work
    torch.ops.aten.addmm_: _OWN[torch.ops.aten.addmm],
    torch.ops.aten.baddbmm_: _OWN[torch.ops.aten.baddbmm],
}


Kernel = Callable[[Any, tuple[Any, ...], Mapping[str, Any]], Any]


def run_kernel(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """What PyTorch does with an operation."""
    return func(*args, **kwargs)


class ProductCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts convolutions and matrix products, whoever calls them, at the level of the kernels.

    Args:
        kernel: gives the results of operations.

    Attributes:
        total: multiply-accumulates so far; products of a matrix and a vector do not count, as in PyTorch's counter.
    """

    def __init__(self, kernel: Kernel = run_kernel) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total, self.kernel = 0, kernel

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else each operation goes through the compiler's switch, though nothing is compiled here

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = self.kernel(func, args, kwargs)
        formula = _FORMULAS.get(func._overloadpacket)
        if formula is not None:
            self.add(formula(*args, **kwargs, out_val=result) // 2)
        return result

    def add(self, products: int) -> None:
        """More of them."""
        self.total += products


@torch.no_grad()
def count_products(model: nn.Module, inputs: tuple[Any, ...]) -> int:
    """Multiply-accumulates of one forward on these inputs, for the whole batch."""
    counter = ProductCounter()
    with counter:
        model(*inputs)
    return counter.total
