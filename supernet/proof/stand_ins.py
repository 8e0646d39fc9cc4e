"""Tensors without values: a forward of them has the right shapes and takes next to no time."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from gantailor.supernet.proof.shapes import Shapes
from gantailor.supernet.tracing.counting import run_kernel


class Meta:
    """PyTorch's own, on the device ``meta``. Fast; not for code that moves tensors or keeps them outside buffers."""

    def __init__(self) -> None:
        self.kernel = Shapes()

    def context(self) -> AbstractContextManager[Any]:
        """Within it code makes new tensors of this kind."""
        return torch.device("meta")

    def of(self, value: Any) -> Any:
        """What stands for a tensor."""
        return torch.empty_like(value, device="meta") if isinstance(value, Tensor) else value


class Fake:
    """Those of PyTorch's compiler, which seem to lie where the real ones lie; for all code that asks no values."""

    kernel = staticmethod(run_kernel)  # its own cache remembers shapes

    def __init__(self) -> None:
        self._mode = FakeTensorMode(allow_non_fake_inputs=True)

    def context(self) -> AbstractContextManager[Any]:
        """Within it code makes new tensors of this kind."""
        return self._mode

    def of(self, value: Any) -> Any:
        """What stands for a tensor."""
        return self._mode.from_tensor(value) if isinstance(value, Tensor) else value


class Real:
    """The tensors themselves."""

    kernel = staticmethod(run_kernel)

    def context(self) -> AbstractContextManager[Any]:
        """Nothing changes."""
        return nullcontext()

    def of(self, value: Any) -> Any:
        """Itself."""
        return value


StandIn = Meta | Fake | Real


def has_values(tensor: Tensor) -> bool:
    """Whether it is no stand-in."""
    return not (tensor.is_meta or isinstance(tensor, FakeTensor))
