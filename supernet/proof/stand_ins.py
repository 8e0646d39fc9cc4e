"""Tensors without values: a forward of them has the right shapes and takes next to no time."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from gantailor.supernet.proof.shapes import Shapes
from gantailor.supernet.tracing.counting import run_kernel

# Functions that make tensors out of numbers: on the device that they are told.
MAKERS = {
    *(torch.arange, torch.as_tensor, torch.asarray, torch.bartlett_window, torch.blackman_window, torch.empty),
    *(torch.empty_permuted, torch.empty_strided, torch.eye, torch.fft.fftfreq, torch.fft.rfftfreq, torch.full),
    *(torch.hamming_window, torch.hann_window, torch.kaiser_window, torch.linspace, torch.logspace),
    *(torch.ones, torch.rand, torch.randint, torch.randn, torch.randperm, torch.range, torch.scalar_tensor),
    *(torch.tensor, torch.tril_indices, torch.triu_indices, torch.zeros),
}


class Meta:
    """PyTorch's own, on the device ``meta``. Fast; not for code that moves tensors or keeps them outside buffers."""

    device: torch.device | None = torch.device("meta")

    def __init__(self) -> None:
        self.kernel = Shapes()

    def context(self) -> AbstractContextManager[Any]:
        """Nothing changes: the device as a context would look at every call, which recordings do anyway."""
        return nullcontext()

    def of(self, value: Any) -> Any:
        """What stands for a tensor."""
        return torch.empty_like(value, device="meta") if isinstance(value, Tensor) else value


class Fake:
    """Those of PyTorch's compiler, which seem to lie where the real ones lie; for all code that asks no values."""

    device: torch.device | None = None
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

    device: torch.device | None = None
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
