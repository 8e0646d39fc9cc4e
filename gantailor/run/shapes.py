"""Channels of pictures, and how much larger targets are than inputs: as the generator has them."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from gantailor.supernet.calling import Inputs, as_tuple, evaluating, forward, shape_of
from gantailor.supernet.errors import ConfigError, GantailorError, first_line
from gantailor.supernet.traits import Traits
from gantailor.zoo.data.config import DataConfig

CHANNELS = (3, 1, 4)  # of pictures, in the order in which they are tried


def as_generator_has(config: DataConfig, generator: nn.Module, traits: Traits, *, name: str) -> DataConfig:
    """The settings with ``channels`` and ``scale`` filled in, from a forward at the data's size.

    Channels of inputs are those that the generator declares, else the first of 3, 1, 4 that it runs on. Channels of
    targets are the output's, ``scale`` the output's side over the input's. For a generator of latents only the output
    counts; label maps have the channels of their classes, and nothing is filled in.

    Args:
        name: the generator's, for messages.

    Raises:
        ConfigError: the generator does not run at this size, what it makes are no pictures, their sides are no whole
            multiple of the input's, or a setting says otherwise.
    """
    if traits.takes == "labels":
        return config
    wanted = traits.input_shapes[0][0] if traits.takes == "pictures" and traits.input_shapes else None
    if wanted not in (None, *CHANNELS):
        return config  # no pictures of a built-in kind; the shape check looks at those that there are
    inputs, made = _first_that_runs(config, generator, traits, name)
    if made is None or inputs is None:
        return config
    if traits.takes == "latents":
        return _filled(config, made.shape[1], made.shape[1], 1, f"generator {name!r} makes {shape_of(made)}")
    taken = as_tuple(inputs)[0]
    said = f"generator {name!r} makes {shape_of(made)} of {shape_of(taken)}"
    return _filled(config, taken.shape[1], made.shape[1], _scale(config, taken, made, said), said)


def _first_that_runs(
    config: DataConfig, generator: nn.Module, traits: Traits, name: str
) -> tuple[Inputs | None, Tensor | None]:
    """Inputs of one picture, and what the generator makes of them; None where it needs inputs that are not known."""
    failed: ConfigError | None = None
    for inputs in _examples(config, traits):
        try:
            return inputs, output_of(generator, inputs, f"generator {name!r}")
        except NoPicturesError:
            raise
        except ConfigError as error:
            failed = failed or error
    if traits.input_shapes:
        raise failed or ConfigError(f"generator {name!r} runs on nothing")
    if _required(generator) == 1:
        tried = ", ".join(map(str, CHANNELS))
        raise ConfigError(f"{failed} Tried were {tried} channels; a generator of others declares input_shapes")
    return None, None


def _examples(config: DataConfig, traits: Traits) -> Iterator[Inputs]:
    """Inputs to try, a picture each; the first of several is the picture."""
    generator = torch.Generator().manual_seed(0)
    sides = config.shape
    said = () if config.channels is None else (config.channels_of(0),)
    for channels in dict.fromkeys([*said, *CHANNELS]):
        declared = traits.input_shapes or ((channels, *sides),)
        shapes = [(shape[0], *sides) if len(shape) == 3 else shape for shape in declared]
        inputs = tuple(torch.rand(1, *shape, generator=generator) * 2 - 1 for shape in shapes)
        yield inputs if len(inputs) > 1 else inputs[0]
        if traits.input_shapes:
            return


def _required(module: nn.Module) -> int:
    """How many inputs a forward must be given."""
    try:
        parameters = inspect.signature(module.forward).parameters.values()
    except (TypeError, ValueError):
        return 1
    alone = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return max(1, sum(p.kind in alone and p.default is p.empty for p in parameters))


def _scale(config: DataConfig, taken: Tensor, made: Tensor, said: str) -> int | None:
    """The output's sides over the input's.

    Raises:
        ConfigError: they are no whole multiple, and the data is none that knows its own.
    """
    ratios = {larger / side for larger, side in zip(made.shape[2:], taken.shape[2:], strict=True)}
    ratio = ratios.pop()
    if not ratios and ratio == int(ratio):
        return int(ratio)
    if ":" in config.kind:  # one's own may have targets of any size
        return config.scale
    raise ConfigError(
        f"{said}: sides of targets are a whole multiple of the inputs'; give a generator that keeps or enlarges them, "
        f"or another data.size (now {config.size})"
    )


def _filled(config: DataConfig, taken: int, made: int, scale: int | None, said: str) -> DataConfig:
    """The settings with what is not said filled in.

    Raises:
        ConfigError: what is said is not so.
    """
    channels = taken if taken == made else (taken, made)
    own = tuple(config.channels_of(side) for side in (0, 1))
    if config.channels is not None and own != (taken, made):
        shown = list(channels) if isinstance(channels, tuple) else channels
        given = list(own) if own[0] != own[1] else own[0]
        raise ConfigError(f"data.channels is {given}, but {said}: leave it out, or set it to {shown}")
    if config.scale not in (None, scale):
        raise ConfigError(f"data.scale is {config.scale}, but {said}: leave it out, or set it to {scale}")
    return config.model_copy(update={"channels": channels, "scale": scale})


class NoPicturesError(ConfigError):
    """A generator runs, but does not make pictures."""


def output_of(model: nn.Module, inputs: Inputs, whose: str) -> Tensor:
    """The pictures ``[N, C, H, W]`` that a model makes of inputs, in eval mode and without gradients.

    Raises:
        ConfigError: it does not run on them.
        NoPicturesError: its output is another thing than one tensor of pictures.
    """
    shown = shape_of(inputs)
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]), evaluating(model):
            made: object = forward(model, inputs)
    except GantailorError:
        raise
    except Exception as error:  # whatever a generator of one's own raises
        few = isinstance(error, TypeError) and "required positional argument" in str(error)
        hint = "declare input_shapes on it, a shape for each input" if few else "is data.size right?"
        raise ConfigError(f"{whose} cannot run on {shown}: {first_line(error)}; {hint}") from error
    if not isinstance(made, Tensor):
        raise NoPicturesError(
            f"{whose} makes {_kind_of(made)} of {shown}; its forward must return one tensor, pictures"
        )
    if made.ndim != 4 or made.shape[1] not in CHANNELS:
        raise NoPicturesError(
            f"{whose} makes {shape_of(made)} of {shown}; wanted are pictures [N, C, H, W] of 1, 3 or 4 channels"
        )
    return made


def _kind_of(value: object) -> str:
    if isinstance(value, Mapping):
        return f"a dict with {', '.join(map(repr, value))}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"
