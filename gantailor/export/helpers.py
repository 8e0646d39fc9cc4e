"""What several targets need to write and to run a model."""

from __future__ import annotations

import contextlib
import inspect
import logging
import math
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx.experimental import _config as tracing

from gantailor.export.devices import Device
from gantailor.export.errors import ExportError
from gantailor.export.sides import at_sides, is_free, sides_of
from gantailor.export.target import Target
from gantailor.supernet.calling import Inputs, as_tuple, joined
from gantailor.supernet.traits import plain_generator

_LOUD = ("torchao", "torch.utils._pytree", "coremltools")
WEIGHTS = ("float64", "float32", "float16", "bfloat16", "int8", "uint8")  # types of weights; the others are shapes


def with_range(model: nn.Module, picture_range: tuple[int, int]) -> nn.Module:
    """A model, itself a copy, with pictures in another range: by its own setting where it has one, else around it."""
    own = plain_generator(model)
    if isinstance(getattr(own, "picture_range", None), tuple):
        setattr(own, "picture_range", picture_range)  # noqa: B010  (of some generators, not of every module)
        return model
    return InRange(model, picture_range).eval()


class Around(nn.Module):
    """A model with something around it, which takes the inputs of the generator inside."""

    wraps_generator = True

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    @property
    def generator(self) -> nn.Module:
        """Whose inputs it takes: the innermost one."""
        return plain_generator(self.model)


class InRange(Around):
    """A model whose pictures lie in another range, in and out, than in [-1, 1].

    Args:
        model: from a picture in [-1, 1] to one.
        picture_range: the range's ends.
    """

    def __init__(self, model: nn.Module, picture_range: tuple[int, int]) -> None:
        super().__init__(model)
        self.ends = picture_range

    def forward(self, picture: Tensor) -> Tensor:
        low, high = self.ends
        return in_range(self.model((picture - low) / ((high - low) / 2) - 1), self.ends)


def in_range(pictures: Tensor, picture_range: tuple[int, int]) -> Tensor:
    """Pictures in [-1, 1] in another range."""
    low, high = picture_range
    return pictures if picture_range == (-1, 1) else (pictures + 1) * ((high - low) / 2) + low


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
    """What an exporter traces with, and its dynamic shapes: a dimension of one would be taken for a constant."""
    if device.batch == "static" and device.size == "fixed":
        return as_tuple(example), None
    batch: dict[int, Any] = {}
    sides: dict[int, Any] = {}
    if device.batch == "dynamic":
        batch = {0: torch.export.Dim("batch", min=1, max=most)}
        example = joined([example, example])
    if device.size == "dynamic":
        least = 2 * device.size_multiple
        height, width = (math.ceil(least / side) * side for side in sides_of(example))
        example = at_sides(example, (height, width))
        sides = {2: _side("height", device), 3: _side("width", device)}
    several = as_tuple(example)
    given = inspect.signature(model.forward).bind(*several).arguments  # of ``*inputs`` they are a tuple of their own

    def free(one: Tensor) -> dict[int, Any]:
        return {**batch, **(sides if is_free(one, example) else {})}

    return several, tuple(tuple(map(free, one)) if isinstance(one, tuple) else free(one) for one in given.values())


def _side(name: str, device: Device) -> Any:
    """A free side, in multiples."""
    multiple, largest = device.size_multiple, device.largest_side
    side = torch.export.Dim(name, min=1, max=None if largest is None else largest // multiple)
    return side if multiple == 1 else multiple * side


@contextlib.contextmanager
def free_sizes(device: Device) -> Iterator[None]:
    """While a free size is traced a side of one, as at the bottom of a U-Net, is a side as any other."""
    before = tracing.backed_size_oblivious
    tracing.backed_size_oblivious = device.size == "dynamic"
    try:
        yield
    finally:
        tracing.backed_size_oblivious = before


def exported_program(model: nn.Module, example: Inputs, device: Device) -> Any:
    """``torch.export``'s program with a static or a dynamic batch and size."""
    given, dynamic = batched(model, example, device, most=64)
    with torch.no_grad(), free_sizes(device):  # strides become part of a program, hence contiguous
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
