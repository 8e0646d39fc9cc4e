"""What a generator module declares about itself, read in one place.

A declaration is a plain class or instance attribute; every one may be missing:

===================  ======================================================  ====================================
attribute            value                                                   missing
===================  ======================================================  ====================================
``input_shape``      shape of the one input, without batch: ``(3, 256,       unknown
                     256)``; ``(512,)`` of latents
``input_shapes``     a tuple of such shapes, where there are several inputs  that of ``input_shape``
``takes``            ``pictures``, ``labels`` (one-hot maps) or ``latents``  ``latents`` for a shape of one number,
                                                                             else ``pictures``
``size_multiple``    sides of input pictures are multiples of it             1
``size``             side in pixels of what a generator of latents makes     unknown
``feature_layers``   modules whose outputs are distilled                     none
``interface_layers`` modules whose outputs others use (a latent code), so    none
                     that they stay whole
``picture_range``    of its pictures, in and out, an attribute to set:       (-1, 1)
                     ``(0, 1)`` as it was published; a run sets (-1, 1),
                     ``with_signed_pictures``
``modulation``       form of its modulated convolutions, an attribute to     has none
                     set: ``shared`` or ``grouped``
===================  ======================================================  ====================================

A submodule, tensor or method of such a name is a part of the generator and declares nothing.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast, get_args, runtime_checkable

from torch import Tensor, nn

from gantailor.supernet.errors import ConfigError, nearest

Takes = Literal["pictures", "labels", "latents"]
TAKES: tuple[Takes, ...] = get_args(Takes)
PictureRange = tuple[float, float]
SIGNED: PictureRange = (-1.0, 1.0)


@dataclass(frozen=True)
class Traits:
    """The declarations of one generator; the attributes are explained at the top of this file."""

    input_shapes: tuple[tuple[int, ...], ...] = ()
    takes: Takes = "pictures"
    size_multiple: int = 1
    size: int | None = None
    feature_layers: tuple[str, ...] = ()
    interface_layers: tuple[str, ...] = ()
    picture_range: PictureRange = SIGNED
    modulation: str | None = None


def traits_of(module: nn.Module) -> Traits:
    """What a generator declares about itself.

    Raises:
        ConfigError: a declaration of the wrong type, or the name of a layer that the generator does not have.
    """
    shapes = _shapes(module)
    takes = _takes(module, shapes)
    modulation = _declared(module, "modulation")
    return Traits(
        input_shapes=shapes,
        takes=takes,
        size_multiple=_whole_number(module, "size_multiple") or 1,
        size=_whole_number(module, "size") if takes == "latents" else None,
        feature_layers=_layers(module, "feature_layers"),
        interface_layers=_layers(module, "interface_layers"),
        picture_range=_range(module),
        modulation=modulation if isinstance(modulation, str) else None,
    )


def _declared(module: nn.Module, name: str) -> Any:
    """The attribute's value, or None where it is missing or a part of the generator."""
    value = getattr(module, name, None)
    return None if isinstance(value, nn.Module | Tensor) or callable(value) else value


def _mistake(module: nn.Module, name: str, value: Any, allowed: str) -> ConfigError:
    return ConfigError(f"{type(module).__name__}.{name} cannot be {value!r}: {allowed}")


def _whole_number(module: nn.Module, name: str) -> int | None:
    value = _declared(module, name)
    if value is not None and (type(value) is not int or value < 1):
        raise _mistake(module, name, value, "give a whole number of at least 1")
    return value


def _range(module: nn.Module) -> PictureRange:
    value = _declared(module, "picture_range")
    if value is None:
        return SIGNED
    numbers = isinstance(value, tuple | list) and len(value) == 2 and all(isinstance(n, int | float) for n in value)
    if not numbers or not value[0] < value[1]:
        raise _mistake(module, "picture_range", value, "give black and white, as (0, 1)")
    return float(value[0]), float(value[1])


def with_signed_pictures(module: nn.Module) -> nn.Module:
    """The same module, set to take and to make pictures in [-1, 1] as every run does, where it declares a range.

    >>> with_signed_pictures(gantailor.load_teacher("realesr-general-x4v3.pth", generator="srvgg"))  # doctest: +SKIP
    """
    if _range(module) != SIGNED:
        module.picture_range = SIGNED  # type: ignore[assignment]
    return module


def _is_shape(value: Any) -> bool:
    return isinstance(value, tuple | list) and bool(value) and all(type(n) is int and n > 0 for n in value)


def _shapes(module: nn.Module) -> tuple[tuple[int, ...], ...]:
    several, one = _declared(module, "input_shapes"), _declared(module, "input_shape")
    if several is not None:
        if not isinstance(several, tuple | list) or not several or not all(_is_shape(shape) for shape in several):
            raise _mistake(module, "input_shapes", several, "give one shape for each input, as ((3, 256, 256), (8,))")
        return tuple(tuple(shape) for shape in several)
    if one is not None and not _is_shape(one):
        raise _mistake(module, "input_shape", one, "give a shape without batch, as (3, 256, 256), or (512,) of latents")
    return () if one is None else (tuple(one),)


def _takes(module: nn.Module, shapes: Sequence[Sequence[int]]) -> Takes:
    value = _declared(module, "takes")
    if value is None:
        return "latents" if shapes and len(shapes[0]) == 1 else "pictures"
    if value not in TAKES:
        raise _mistake(module, "takes", value, f"allowed are {', '.join(TAKES)}")
    if shapes and (value == "latents") != (len(shapes[0]) == 1):
        allowed = f"its input shape is {tuple(shapes[0])}; latents, and only they, have one number"
        raise _mistake(module, "takes", value, allowed)
    return value  # type: ignore[no-any-return]


def _layers(module: nn.Module, name: str) -> tuple[str, ...]:
    value = _declared(module, name)
    if value is None:
        return ()
    if not isinstance(value, tuple | list) or not all(isinstance(layer, str) for layer in value):
        raise _mistake(module, name, value, "give a tuple of the names of modules, as ('model.9', 'model.12')")
    known = {path for path, _ in module.named_modules() if path}
    for layer in value:
        if layer not in known:
            raise _mistake(module, name, layer, f"the generator has no module of this name; {nearest(layer, known)}")
    return tuple(value)


class WrapsGenerator(Protocol):
    """A module around a generator (a supernet, say), whose layers are looked up in the generator inside.

    The marker tells it from a user's own generator that happens to have a part called ``generator``. Ask with
    ``plain_generator``: to ``isinstance`` a submodule is no attribute from Python 3.12 on.
    """

    wraps_generator: bool

    @property
    def generator(self) -> nn.Module:
        """The user's generator."""


def plain_generator(model: nn.Module) -> nn.Module:
    """The user's generator inside a module that wraps one, or the model itself."""
    return cast(WrapsGenerator, model).generator if getattr(model, "wraps_generator", False) is True else model


@runtime_checkable
class ClosesChannels(Protocol):
    """A module that closes channels of its generator while it trains."""

    def open_features(self, features: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor | slice]]:
        """Of outputs of named modules in its forward the channels that are still read.

        Beside them their numbers among the whole module's channels, or all as a slice.
        """


class MapsLatents(Protocol):
    """A generator with a mapping network, whose forward takes what it gives with ``input_is_latent=True``."""

    def mapping(self, latents: Tensor) -> Tensor:
        """From latents ``z`` to ``w``, ``[N, width]`` both."""

    def forward(self, latents: Tensor, *, input_is_latent: bool = False) -> Tensor:
        """Pictures ``[N, 3, H, W]``."""


def maps_latents(module: nn.Module) -> bool:
    """Whether a generator is a ``MapsLatents``: by its ``mapping`` and by the arguments of its forward."""
    return callable(getattr(module, "mapping", None)) and (
        "input_is_latent" in inspect.signature(module.forward).parameters
    )
