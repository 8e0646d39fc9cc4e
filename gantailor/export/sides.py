"""Exports whose height and width are free (``size: dynamic``): which sides, and at which others they are proved."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from gantailor.export.devices import Device
from gantailor.export.errors import ExportError
from gantailor.export.target import find_target
from gantailor.supernet.calling import Inputs, each, first, forward
from gantailor.supernet.errors import first_line
from gantailor.supernet.traits import plain_generator, traits_of

Sides = tuple[int, int]  # height and width in pixels
PROVED = 2  # other sizes at which a written model must equal PyTorch
BOUND = 4  # times the example's larger side, where a runtime plans its memory and the profile has no largest_side


def with_sides(profile: Device, model: nn.Module, example: Inputs) -> Device:
    """The profile with what the generator says of a free size: the multiple, and the bound where there must be one."""
    if profile.size == "fixed":
        return profile
    check_sides(profile, model, example)
    largest = profile.largest_side
    if largest is None and find_target(profile.runtime).sizes == "bounded":
        largest = BOUND * max(sides_of(example))
    return profile.model_copy(update={"size_multiple": _multiple(profile, model), "largest_side": largest})


def _multiple(profile: Device, model: nn.Module) -> int:
    return math.lcm(profile.size_multiple, traits_of(plain_generator(model)).size_multiple)


def check_sides(profile: Device, model: nn.Module, example: Inputs) -> None:
    """That the generator itself has a free height and width, if the profile wants that.

    Raises:
        ExportError: it has not; the operation that fails at another size is named.
    """
    if profile.size == "dynamic":
        other_sides(profile, model, example)


def sides_of(inputs: Inputs) -> Sides:
    """Height and width of the picture among the inputs."""
    height, width = first(inputs).shape[2:]
    return height, width


def is_free(one: Tensor, inputs: Inputs) -> bool:
    """Whether an input has the sides that are free: the picture, and what lies beside it pixel by pixel."""
    return one.ndim == 4 and one.shape[2:] == first(inputs).shape[2:]


def at_sides(inputs: Inputs, sides: Sides) -> Inputs:
    """The inputs at another height and width: repeated, then cut."""

    def change(one: Tensor) -> Tensor:
        if not is_free(one, inputs):
            return one
        down, across = (-(-wanted // have) for wanted, have in zip(sides, one.shape[2:], strict=True))
        return one.repeat(1, 1, down, across)[..., : sides[0], : sides[1]].contiguous()

    return each(inputs, change)


@torch.no_grad()
def other_sides(profile: Device, model: nn.Module, example: Inputs) -> list[Sides]:
    """Two other sizes that the generator takes, multiples of what it needs; the first is wider than the example.

    Raises:
        ExportError: its input has no sides, it does not take others, or what it makes has one size whatever comes in.
    """
    if first(example).ndim != 4:
        raise ExportError(
            f"device {profile.name!r}: the input {list(first(example).shape)} has no height and width; use size: fixed"
        )
    native, found, failed = sides_of(example), [], ""
    shape = forward(model, example).shape
    for sides in _candidates(native, _multiple(profile, model), profile.largest_side):
        last = _Last()
        try:
            with last:
                made = forward(model, at_sides(example, sides)).shape
        except Exception as error:  # whatever a generator of one's own raises
            failed = failed or f"{last.name} at {_shown(sides)}: {first_line(error)}"
            continue
        if made == shape:
            raise ExportError(
                f"device {profile.name!r}: the generator makes {_shown(shape[2:])} pixels of {_shown(native)} and of "
                f"{_shown(sides)}: its size is fixed; use size: fixed"
            )
        found.append(sides)
        if len(found) == PROVED:
            return found
    raise ExportError(
        f"device {profile.name!r}: the generator has the size {_shown(native)} built in"
        + (f" ({failed})" if failed else f", largest_side {profile.largest_side} leaves no other")
        + "; use size: fixed"
    )


def _candidates(native: Sides, multiple: int, largest: int | None) -> list[Sides]:
    """Sizes to try: wider, half as high, larger; then nearer ones, for what bounds and small pictures leave."""
    (height, width), one = native, multiple
    half = -(-height // (2 * one)) * one
    near = [(height - one, width), (height, width - one), (height + one, width)]
    wanted = [(height + one, width + 2 * one), (half, width), (height + 3 * one, width + one), *near]
    fit = [sides for sides in wanted if sides != native and min(sides) > 0 and max(sides) <= (largest or max(sides))]
    return list(dict.fromkeys(fit))


def _shown(sides: Any) -> str:
    return " x ".join(map(str, sides))


class _Last(TorchFunctionMode):
    """Remembers the operation that ran last, which is the one that failed."""

    name = "its forward"

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.name = getattr(func, "__name__", self.name)
        return func(*args, **(kwargs or {}))
