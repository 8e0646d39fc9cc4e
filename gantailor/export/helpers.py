"""What several targets need to write and to run a model."""

from __future__ import annotations

import contextlib
import inspect
import logging
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from gantailor.export.devices import Device
from gantailor.export.errors import ExportError
from gantailor.export.target import Target
from gantailor.supernet.calling import Inputs, as_tuple, joined

_LOUD = ("torchao", "torch.utils._pytree", "coremltools")
WEIGHTS = ("float64", "float32", "float16", "bfloat16", "int8", "uint8")  # types of weights; the others are shapes


@contextlib.contextmanager
def quietly(target: Target) -> Iterator[None]:
    """Without the exporters' warnings; a missing package becomes one message.

    Raises:
        ExportError: a package is missing.
    """
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)  # torchvision: not needed
    for name in _LOUD:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except ImportError as error:
            raise ExportError(f"{error.name or error} is not installed; run: {target.install}") from None


def batched(model: nn.Module, example: Inputs, device: Device, *, most: int) -> tuple[tuple[Tensor, ...], Any]:
    """What an exporter traces with, and its dynamic shapes: a batch of one would be taken for a constant."""
    if device.batch == "static":
        return as_tuple(example), None
    batch = {0: torch.export.Dim("batch", min=1, max=most)}
    several = as_tuple(joined([example, example]))
    given = inspect.signature(model.forward).bind(*several).arguments  # of ``*inputs`` they are a tuple of their own
    return several, tuple(tuple(batch for _ in one) if isinstance(one, tuple) else batch for one in given.values())


def exported_program(model: nn.Module, example: Inputs, device: Device) -> Any:
    """``torch.export``'s program with a static or a dynamic batch."""
    given, dynamic = batched(model, example, device, most=64)
    with torch.no_grad():  # strides become part of a program, hence contiguous
        return torch.export.export(model, tuple(one.contiguous() for one in given), dynamic_shapes=dynamic)


def counted(tensors: Iterable[tuple[str, int]]) -> dict[str, int]:
    """How many numbers there are of each type, from (type, number) of each tensor; for ``Target.weights``."""
    found: Counter[str] = Counter()
    for kind, number in tensors:
        if kind in WEIGHTS:
            found[kind] += number
    return dict(found)


def counted_state(state: dict[str, Tensor]) -> dict[str, int]:
    """The same of a PyTorch state."""
    return counted((str(tensor.dtype).removeprefix("torch."), tensor.numel()) for tensor in state.values())
