"""Sizes that a forward reads and computes with: each remembers where it comes from.

A forward that says ``q.reshape(b, n, self.heads, c // self.heads)`` demands that one axis has as many channels as
another, or as a module holds. While it is traced, the sizes of axes with channels and the integers of modules are
``Size``: plain numbers to Python and PyTorch that note what is computed from them. Every place where one is used for an
axis is a demand; ``settle`` turns the demands into ties between axes, and into the attributes that follow an axis.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor

from gantailor.supernet.graph import FIXED
from gantailor.supernet.subnets.attributes import integers_of, set_integer

if TYPE_CHECKING:
    from gantailor.supernet.tracing.tracer import Tracer


@dataclass(frozen=True, eq=False)
class Read:
    """The size of an axis with these channels."""

    labels: np.ndarray


@dataclass(frozen=True)
class Kept:
    """An integer that a module keeps: an attribute, a field of one (``opt.dim``) or an item (``dims[2]``)."""

    module: str
    name: str


@dataclass(frozen=True, eq=False)
class Computed:
    """The result of an operation on two integers, of which one at least is a ``Size``."""

    operation: str
    left: int
    right: int


Origin = Read | Kept | Computed


def _noting(compare: Callable[[Any, Any], bool]) -> Any:
    def compared(one: Any, other: Any) -> bool:
        _use(one, other)
        return compare(one, other)

    return compared


class Size(int):
    """A number of the traced forward that knows its origin."""

    tracer: Tracer
    origin: Origin

    def __new__(cls, value: int, tracer: Tracer, origin: Origin) -> Self:
        """An integer of this value."""
        made = super().__new__(cls, value)
        made.tracer, made.origin = tracer, origin
        return made

    def _computed(self, operation: str, left: Any, right: Any, value: Any) -> Any:
        if value is NotImplemented or isinstance(left, bool) or isinstance(right, bool):
            return value
        _use(left, right)
        return Size(value, self.tracer, Computed(operation, left, right))

    def __mul__(self, other: Any) -> Any:
        if isinstance(other, float):
            return self._share(other)
        return self._computed("mul", self, other, int.__mul__(self, other))

    def __rmul__(self, other: Any) -> Any:
        if isinstance(other, float):
            return self._share(other)
        return self._computed("mul", other, self, int.__rmul__(self, other))

    def _share(self, factor: float) -> float:
        """Times a number like 0.5 or 1.5."""
        value = float(int.__index__(self)) * factor
        if not value.is_integer():
            return value
        times, parts = factor.as_integer_ratio()
        return Ratio(value, self * times // parts if times > 1 else self // parts)

    def __add__(self, other: Any) -> Any:
        return self._computed("add", self, other, int.__add__(self, other))

    def __radd__(self, other: Any) -> Any:
        return self._computed("add", other, self, int.__radd__(self, other))

    def __sub__(self, other: Any) -> Any:
        return self._computed("sub", self, other, int.__sub__(self, other))

    def __neg__(self) -> Any:
        if int.__lt__(self, 0) and isinstance(self.origin, Computed):  # a place that is counted from the end
            return self.origin.right
        return self._computed("sub", 0, self, int.__neg__(self))

    def __floordiv__(self, other: Any) -> Any:
        return self._computed("floordiv", self, other, int.__floordiv__(self, other))

    def __truediv__(self, other: Any) -> Any:
        value = int.__truediv__(self, other)
        whole = isinstance(value, float) and isinstance(other, int) and value.is_integer()
        return Ratio(value, self // other) if whole else value

    def __int__(self) -> int:
        self.tracer.converted[int.__index__(self)] = self
        return int.__index__(self)

    def __eq__(self, other: object) -> bool:
        same = int.__eq__(self, other)
        _use(self, other)
        if same is True and isinstance(other, Size):  # a test that passes has to pass in a narrow net
            for one, another in ((self, other), (other, self)):
                if isinstance(one.origin, Read) and self.tracer.running:
                    demand(self.tracer, another, one.origin.labels)
                    break
        return same

    def __ne__(self, other: object) -> bool:
        return not self == other if int.__eq__(self, other) is not NotImplemented else True

    __lt__, __le__ = _noting(int.__lt__), _noting(int.__le__)
    __gt__, __ge__ = _noting(int.__gt__), _noting(int.__ge__)
    __hash__ = int.__hash__

    def __reduce__(self) -> Any:
        return int, (int.__index__(self),)


def _use(*numbers: Any) -> None:
    """The forward computes with these: what modules keep of them is followed, not guessed."""
    for number in numbers:
        if isinstance(number, Size) and isinstance(number.origin, Kept):
            number.tracer.used.add(number.origin)


class Ratio(float):
    """A whole quotient of a size: ``int`` of it is noted, so that the same number is known again (a guess)."""

    size: Size

    def __new__(cls, value: float, size: Size) -> Self:
        """A float of this value."""
        made = super().__new__(cls, value)
        made.size = size
        return made

    def __int__(self) -> int:
        return int(self.size)

    __floor__ = __ceil__ = __trunc__ = __int__

    def __round__(self, ndigits: Any = None) -> Any:
        return int(self.size) if ndigits is None else float.__round__(self, ndigits)

    def __reduce__(self) -> Any:
        return float, (float.__float__(self),)


def remembered(value: Any, tracer: Tracer) -> Any:
    """The arguments of an operation, plain integers that are known to come from sizes as these again."""
    if not tracer.converted:
        return value
    if type(value) is int:
        return tracer.converted.get(value, value)
    if isinstance(value, slice):
        return slice(remembered(value.start, tracer), remembered(value.stop, tracer), value.step)
    if type(value) in (list, tuple):
        return type(value)(remembered(one, tracer) for one in value)
    return value


def plain(value: Any) -> Any:
    """The same arguments of an operation, its sizes as ordinary integers."""
    if isinstance(value, Size | Ratio):
        return int.__index__(value) if isinstance(value, Size) else float.__float__(value)
    if isinstance(value, slice):
        return slice(plain(value.start), plain(value.stop), plain(value.step))
    if isinstance(value, torch.Size):
        return torch.Size([plain(one) for one in value])
    if type(value) in (list, tuple):
        return type(value)(plain(one) for one in value)
    if type(value) is dict:
        return {key: plain(one) for key, one in value.items()}
    return value


def sizes_in(value: Any) -> Iterator[Size]:
    """The sizes among the arguments of an operation."""
    if isinstance(value, Size):
        yield value
    elif isinstance(value, slice):
        yield from sizes_in((value.start, value.stop))
    elif isinstance(value, list | tuple):
        for one in value:
            yield from sizes_in(one)
    elif isinstance(value, dict):
        yield from sizes_in(list(value.values()))


def is_computed(size: Any) -> bool:
    """Whether the forward computes this number from others that are not written in it."""
    return isinstance(size, Size) and isinstance(size.origin, Computed)


def reads(size: Any) -> bool:
    """Whether the size of an axis with channels takes part in this number."""
    if not isinstance(size, Size):
        return False
    origin = size.origin
    return isinstance(origin, Read) or (isinstance(origin, Computed) and (reads(origin.left) or reads(origin.right)))


def sizes_of(tracer: Tracer, tensor: Tensor) -> list[int]:
    """A tensor's sizes, those of axes with channels as numbers that remember them."""
    pairs = zip(tensor.shape, tracer.labels(tensor), strict=True)
    return [size if axis is None else Size(size, tracer, Read(axis)) for size, axis in pairs]


def demand(tracer: Tracer, size: int, labels: np.ndarray | None) -> None:
    """The forward gives this size to an axis with these channels: both stay equal."""
    if isinstance(size, Size) and size.tracer is tracer and labels is not None:
        tracer.demands.append((size, labels))


def new_axis(tracer: Tracer, size: int) -> np.ndarray | None:
    """Channels of a tensor that the forward makes: as many as an axis has, or a module says; else of fixed size."""
    if not isinstance(size, Size) or size.tracer is not tracer or size < 2:
        return None
    tracer.ranges.append((tracer.count, "", 0))
    made = np.arange(tracer.count, tracer.count + plain(size))
    tracer.count += len(made)
    demand(tracer, size, made)
    return made


@contextmanager
def kept_sizes(tracer: Tracer) -> Iterator[None]:
    """Within the block the integers of modules remember where they are kept."""
    changed = []
    for path, module in tracer.model.named_modules():
        for name, value in list(integers_of(module)):
            changed.append(set_integer(module, name, Size(value, tracer, Kept(path, name))))
    _forget_sizes()
    tracer.running = True
    try:
        yield
    finally:
        tracer.running = False
        _forget_sizes()
        for owner, name, value in reversed(changed):
            object.__setattr__(owner, name, value)
        for module in tracer.model.modules():  # what the forward noted are numbers again
            vars(module).update({k: plain(v) for k, v in vars(module).items() if any(map(bool, sizes_in(v)))})


def _forget_sizes() -> None:
    """einops keeps the sizes that it computed for earlier shapes, which would have another origin, or none."""
    kept: Any = getattr(sys.modules.get("einops.einops"), "_reconstruct_from_shape", None)
    if hasattr(kept, "cache_clear"):
        kept.cache_clear()


def settle(tracer: Tracer, components: Callable[[Tracer], np.ndarray]) -> None:
    """Meet every demand of the trace: tie axes that need equally many channels, note attributes that follow an axis.

    Args:
        components: the joined identities, as numbers, of the trace as it is now.
    """
    found = _Settlement(tracer, components)
    for size, labels in tracer.demands:
        found.meet(size, labels)
    for module, name, labels, _ in tracer.sizes:
        if Kept(module, name) in found.kept:  # of PyTorch's own layers it is known what their integers count
            found.equally_many(found.kept[Kept(module, name)], labels)
    followed = {(kept.module, kept.name) for kept in (*tracer.used, *found.kept)}
    tracer.sizes = [size for size in (*tracer.sizes, *tracer.guesses) if size[:2] not in followed]
    tracer.sizes += [(kept.module, kept.name, labels, False) for kept, labels in found.kept.items()]
    tracer.parts = [*found.kept.values()]


class _Settlement:
    def __init__(self, tracer: Tracer, components: Callable[[Tracer], np.ndarray]) -> None:
        self.tracer, self.components = tracer, components
        self.unit_of = components(tracer)
        self.kept: dict[Kept, np.ndarray] = {}

    def units(self, labels: np.ndarray) -> np.ndarray:
        return np.where(labels == FIXED, FIXED, self.unit_of[labels])

    def equally_many(self, one: np.ndarray, other: np.ndarray) -> None:
        """Tie two axes unless they consist of the same units already."""
        if len(one) != len(other) or np.array_equal(np.sort(self.units(one)), np.sort(self.units(other))):
            return
        self.tracer.join(one, other)
        self.unit_of = self.components(self.tracer)

    def meet(self, size: Any, labels: np.ndarray) -> None:
        """An axis with these channels has this size, in every narrow net too."""
        if not isinstance(size, Size) or plain(size) != len(labels) or not (labels != FIXED).any():
            return
        origin = size.origin
        if isinstance(origin, Read):
            self.equally_many(origin.labels, labels)
        elif isinstance(origin, Kept):
            self.equally_many(self.kept.setdefault(origin, labels), labels)
        elif origin.operation == "floordiv" and origin.right * len(labels) == origin.left:
            self.meet(origin.left, np.tile(labels, origin.right))
        elif origin.operation == "mul":
            self._product(origin.left, origin.right, labels)
        elif origin.operation == "add":
            for part, count in ((labels[: origin.left], origin.left), (labels[origin.left :], origin.right)):
                self.meet(count, part)
                if not isinstance(count, Size):
                    self.tracer.freeze(part, "is counted by a number that is written in the forward")
        elif origin.operation == "sub":
            self.meet(origin.left, np.concatenate([labels, self._channels(origin.right)]))

    def _product(self, left: int, right: int, labels: np.ndarray) -> None:
        """One factor counts channels, the other how often each occurs: in a row, or after all the others."""
        factors = sorted((f for f in (left, right) if isinstance(f, Size)), key=reads, reverse=True)
        for factor in factors:
            for shape, axis in (((-1, factor), 0), ((factor, -1), 1)):
                grid = self.units(labels).reshape(shape)
                if (grid == grid.take([0], axis)).all():
                    self.meet(factor, labels.reshape(shape).take(0, axis))
                    return
        for factor in factors[:1] if len(factors) == 1 or reads(factors[0]) else []:
            self.meet(factor, self._tied(labels.reshape(-1, factor)))

    def _tied(self, rows: np.ndarray) -> np.ndarray:
        for row in rows[1:]:
            self.tracer.join(rows[0], row)
        self.unit_of = self.components(self.tracer)
        first: np.ndarray = rows[0]
        return first

    def _channels(self, size: int) -> np.ndarray:
        """The channels that a number counts, as far as that is known."""
        origin = size.origin if isinstance(size, Size) else None
        if isinstance(origin, Read):
            return origin.labels
        if isinstance(origin, Kept) and origin in self.kept:
            return self.kept[origin]
        if isinstance(origin, Computed) and origin.operation == "floordiv":
            whole = self._channels(origin.left)
            if len(whole) == origin.right * size and (whole != FIXED).any():
                return self._tied(whole.reshape(origin.right, -1))
        return np.full(size, FIXED)
