"""A stand-in for a graphics card: a device of its own whose tensors only meet tensors of their own device.

Its numbers are the CPU's, bit for bit, so what is computed on it can be compared with what the CPU computes; a tensor
that was left on the CPU is an error as it is on a real card.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.backend_registration import (
    _DummyBackendModule,
    _DummyPrivateUse1Hook,
    _setup_privateuseone_for_python_backend,
)

NAME = "card"


class _Backend(_DummyBackendModule):
    plugged = False

    def is_available(self) -> bool:
        return self.plugged

    def device_count(self) -> int:
        return int(self.plugged)

    def current_device(self) -> int:
        return 0

    def synchronize(self, device: Any = None) -> None:
        return None

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.float16, torch.bfloat16]


class _Hook(_DummyPrivateUse1Hook):
    def is_available(self) -> bool:
        return _BACKEND.plugged


_BACKEND = _Backend()
_setup_privateuseone_for_python_backend(NAME, _BACKEND, _Hook())
_LIBRARY = torch.library.Library("_", "IMPL")
_LIBRARY.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
CARD = torch.device(NAME, 0)


class OnCard(torch.Tensor):
    """A tensor of the card; ``held`` has its values."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> Self:
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=CARD,
        )
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(function, args, kwargs or {})


class _Card(TorchDispatchMode):
    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(function, args, kwargs or {})


class WrongDeviceError(RuntimeError):
    """Tensors of two devices in one operation."""


def _run(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    name, given = function.name(), [one for one in tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor)]
    here = [one for one in given if isinstance(one, OnCard)]
    moves = name.startswith(("aten::copy_", "aten::_to_copy", "aten::_copy_from"))
    numbers = torch.Tag.pointwise in function.tags  # operations that also take a number from the CPU, and no others
    if here and not moves and any(one.ndim or not numbers for one in given if not isinstance(one, OnCard)):
        shapes = [(one.device.type, tuple(one.shape)) for one in given]
        raise WrongDeviceError(f"{name}: tensors of two devices, {shapes}")
    asked = kwargs.get("device")
    if kwargs.get("generator") is not None and (here or (asked is not None and torch.device(asked).type == NAME)):
        raise WrongDeviceError(f"{name}: the generator of random numbers is of the CPU")
    wanted = torch.device(asked) if asked is not None else here[0].device if here else torch.device("cpu")
    if asked is not None:
        kwargs = {**kwargs, "device": torch.device("cpu"), **({"pin_memory": False} if "pin_memory" in kwargs else {})}
    if here and torch.Tag.inplace_view in function.tags:  # the wrapper's own shape changes too
        with no_dispatch():
            function(*args, **kwargs)
    args, kwargs = tree_map_only(OnCard, lambda one: one.held, (args, kwargs))
    made = function(*args, **kwargs)
    known = {id(one.held): one for one in here}
    if wanted.type != NAME:
        return made
    return tree_map_only(torch.Tensor, lambda one: known[id(one)] if id(one) in known else OnCard(one), made)


def _empty_strided(size: Any, stride: Any, *, dtype: Any = None, **_: Any) -> torch.Tensor:
    return OnCard(torch.empty_strided(size, stride, dtype=dtype))


def _copy_from(source: torch.Tensor, target: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
    held = [one.held if isinstance(one, OnCard) else one for one in (source, target)]
    held[1].copy_(held[0])
    return target


# What PyTorch does beneath every mode: ``x.new_tensor(...)``.
_KERNELS = torch.library.Library("aten", "IMPL")
_KERNELS.impl("empty_strided", _empty_strided, "PrivateUse1")
_KERNELS.impl("_copy_from", _copy_from, "PrivateUse1")


def plain_gru(inputs: torch.Tensor, start: torch.Tensor, weights: Any, *_: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Cho et al. 2014, both ways, a layer: PyTorch's own takes a kernel here that CPUs do not have."""
    ways, ends = [], []
    for way in range(2):
        w_in, w_state, b_in, b_state = weights[4 * way : 4 * way + 4]
        state, seen = start[way], []
        for x in (inputs.flip(0) if way else inputs).unbind():
            mine, held = ((v @ w.T + b).chunk(3, -1) for w, v, b in ((w_in, x, b_in), (w_state, state, b_state)))
            reset, update = torch.sigmoid(mine[0] + held[0]), torch.sigmoid(mine[1] + held[1])
            state = (1 - update) * torch.tanh(mine[2] + reset * held[2]) + update * state
            seen.append(state)
        ways.append(torch.stack(seen[::-1] if way else seen))
        ends.append(state)
    return torch.cat(ways, -1), torch.stack(ends)


@contextmanager
def plugged_in(monkeypatch: Any) -> Iterator[torch.device]:
    """Inside, the machine has the card, and ``device: auto`` means it."""
    monkeypatch.setattr(_BACKEND, "plugged", True)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self, *_: self)
    monkeypatch.setattr(torch._VF, "gru", plain_gru)
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda *_: None)
    with _Card():
        yield CARD
