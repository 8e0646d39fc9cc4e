"""What a family of generators is: one record, found by its name or, one's own, as ``module:name``.

A record is light: functions may be named as ``module:name``, and are imported when they are first called, so that a
configuration can be read without PyTorch. What a built *module* says of itself (its input shapes, the layers whose
features are distilled, ...) is not repeated here: see ``gantailor.supernet.traits``.

    MINE = Generator(name="mine", build=MyNet)          # a class or function: options in, nn.Module out
    gantailor.build("mymodule:MINE", width=32)

``gantailor.zoo.conformance.GeneratorConformance`` has the tests that a record must pass.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gantailor.supernet.errors import ConfigError, GantailorError, first_line, nearest
from gantailor.supernet.plugins import check_name, checked_call, find, import_name
from gantailor.zoo.generators import GENERATORS
from gantailor.zoo.generators.given import given, is_given
from gantailor.zoo.tasks import BY_INPUT, TASKS

if TYPE_CHECKING:
    from torch import Tensor, nn

    from gantailor.zoo.tasks.training import Training


LARGE = 4096  # no width of a published generator is larger


def no_defaults(own: Mapping[str, Any]) -> dict[str, Any]:
    """A run's usual settings: pictures in, pictures out."""
    return {}


@dataclass(frozen=True, kw_only=True)
class Generator:
    """A family of generators. Fields that hold a function take its ``module:name`` as well.

    Attributes:
        name: as a configuration names it.
        build: from keyword options to a module with fresh weights, ``(**options) -> nn.Module``.
        options: what the name stands for, beneath the user's options: ``{"blocks": 6}``.
        task: how it is trained beside a teacher, a name of ``gantailor.zoo.tasks.TASKS`` (or ``module:name`` of a
            ``Training``). None: by what it takes, see ``gantailor.zoo.tasks.BY_INPUT``.
        read: from the mapping in an original checkpoint file (prefixes taken off, float32) to the tensors of the
            generator's state dict, ``(mapping, **options) -> mapping``. A state dict of this generator must pass
            unchanged. None: the file is the state dict.
        side: which of two generators in a file a run takes where its settings do not say; ``read`` has this option.
        options_of_state: options of ``build`` that a state dict tells, beneath ``options`` and the user's. What tells
            nothing, or is not this family's, gives fewer options or a ``KeyError``. None: none.
        complete: ``(module, state) -> state`` with the buffers that some files leave out. None: files have all.
        shipped_teacher: weights that come with the package.
        shipped_options: the options that these were trained with. None: the file tells them.
        shipped_discriminator: the discriminator that was trained beside them.
        defaults: settings of a run beneath the user's, ``(the user's settings, nested) -> settings, nested``.
    """

    name: str
    build: Callable[..., nn.Module] | str
    options: Mapping[str, Any] = field(default_factory=dict)
    task: str | None = None
    read: Callable[..., Mapping[str, Tensor]] | str | None = None
    side: str | None = None
    options_of_state: Callable[[Mapping[str, Tensor]], Mapping[str, Any]] | str | None = None
    complete: Callable[[nn.Module, Mapping[str, Tensor]], Mapping[str, Tensor]] | str | None = None
    shipped_teacher: Path | None = None
    shipped_options: Mapping[str, Any] | None = None
    shipped_discriminator: Path | None = None
    defaults: Callable[[Mapping[str, Any]], Mapping[str, Any]] = no_defaults

    def __post_init__(self) -> None:
        if self.task is not None:
            check_name(self.task, TASKS, "training task")

    def make(self, **options: Any) -> nn.Module:
        """A module with fresh weights.

        Raises:
            ConfigError: an option that it does not have (the nearest are shown), one that is missing, or a value that
                it does not take.
        """
        factory = self._function("build")
        allowed = inspect.signature(factory).parameters
        for option in options:
            if option not in allowed and not any(p.kind is p.VAR_KEYWORD for p in allowed.values()):
                raise ConfigError(f"generator {self.name!r} has no option {option!r}; {nearest(option, allowed)}")
        given = {**self.options, **options}
        named = [p for p in allowed.values() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        for option in (p.name for p in named if p.default is p.empty and p.name not in given):
            raise ConfigError(f"generator {self.name!r} needs option {option!r}; give it: options {{{option}: ...}}")
        try:
            self._check_memory(factory, given)
            made = factory(**given)
        except GantailorError:
            raise
        except (TypeError, ValueError, RuntimeError, LookupError, ArithmeticError) as error:
            raise ConfigError(
                f"generator {self.name!r} cannot be built with options {options}: {first_line(error)}"
            ) from error
        return self._module(made)

    def _check_memory(self, factory: Callable[..., Any], given: Mapping[str, Any]) -> None:
        """That weights of absurd widths fit into memory, counted before they are made."""
        if not any(isinstance(value, int) and abs(value) > LARGE for value in given.values()):
            return
        import torch

        with torch.device("meta"):
            made = factory(**given)
        needed = sum(weight.numel() * weight.element_size() for weight in made.parameters())
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if needed > there:
            raise ConfigError(
                f"generator {self.name!r} with options {given} has weights of {needed / 2**30:.3g} GiB, and this "
                f"machine {there / 2**30:.3g} GiB of memory; give smaller numbers"
            )

    def _module(self, made: object) -> nn.Module:
        """What was built, if it is a module."""
        from torch import nn

        if not isinstance(made, nn.Module):
            raise ConfigError(f"generator {self.name!r} made a {type(made).__name__}; its build must return a module")
        return made

    def state_of(self, checkpoint: Mapping[str, Any], **options: Any) -> Mapping[str, Any]:
        """The state dict in an original checkpoint's mapping; ``options`` are the reader's own (``side`` of a MUNIT).

        Raises:
            ConfigError: an option that the reader does not have.
            CheckpointError: another layout.
        """
        reader = self._function("read") if self.read is not None else None
        allowed = [] if reader is None else list(inspect.signature(reader).parameters)[1:]
        for option in options:
            if option not in allowed:
                raise ConfigError(f"checkpoints of generator {self.name!r} have no {option}; leave it out")
        found: Mapping[str, Any] = checkpoint if reader is None else reader(checkpoint, **options)
        return found

    def told_by(self, state: Mapping[str, Tensor]) -> dict[str, Any]:
        """Options that the tensors of a state dict tell; none where they are another family's."""
        if self.options_of_state is None:
            return {}
        try:
            return dict(self._function("options_of_state")(state))
        except (KeyError, IndexError):  # a tensor or a dimension that it looks at is not there
            return {}

    def options_for(self, state: Mapping[str, Tensor], **options: Any) -> dict[str, Any]:
        """Options for ``make``: the user's, and beneath them what the tensors tell where that is not so anyway.

        What the name stands for (``blocks`` of ``resnet_9blocks``) is the user's word too.
        """
        usual = {name: value.default for name, value in inspect.signature(self._function("build")).parameters.items()}
        told = {name: value for name, value in self.told_by(state).items() if name not in {**self.options, **options}}
        return {**{name: value for name, value in told.items() if usual.get(name) != value}, **options}

    def contradicted(self, state: Mapping[str, Tensor], **options: Any) -> dict[str, tuple[Any, Any]]:
        """Options, the user's and those that the name stands for, of which the tensors tell another: (own, told)."""
        own = {**self.options, **options}
        told = self.told_by(state)
        return {name: (own[name], told[name]) for name in own if name in told and own[name] != told[name]}

    def completed(self, module: nn.Module, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The state dict with the buffers that the file left out."""
        if self.complete is None:
            return state
        found: Mapping[str, Tensor] = self._function("complete")(module, state)
        return found

    def teacher_file(self, options: Mapping[str, Any]) -> Path:
        """The shipped weights of a generator with these options.

        Raises:
            ConfigError: none are shipped; a wrong option is told first.
        """
        fits = self.shipped_options is None or dict(options) == dict(self.shipped_options)
        if self.shipped_teacher is None or not fits:
            self.make(**options)
            raise ConfigError(
                f"no teacher is shipped for {self.name!r} with options {dict(options)}: set teacher to a checkpoint "
                "(gantailor teacher makes one), or to none"
            )
        return self.shipped_teacher

    def training(self, module: nn.Module) -> Training:
        """How it is trained beside a teacher; ``module`` is one of this family.

        Raises:
            ConfigError: the task is not for such a module.
        """
        from gantailor.supernet.traits import traits_of
        from gantailor.zoo.tasks.training import find_training

        return find_training(self.task or BY_INPUT[traits_of(module).takes])

    def _function(self, which: str) -> Callable[..., Any]:
        value = getattr(self, which)
        found: Callable[..., Any] = import_name(value, f"{which} of generator") if isinstance(value, str) else value
        return found


def find_generator(name: str) -> Generator:
    """The record of a built-in, or one's own as ``module:name``: a ``Generator``, or a plain factory of modules.

    Of a module that was given from Python it makes copies, weights and all.

    Raises:
        ConfigError: an unknown name (the nearest are shown), or what it names is neither.
    """
    if is_given(name):
        return Generator(name=name, build=given(name))
    found = find(name, GENERATORS, "generator")
    if isinstance(found, Generator):
        return found
    from torch import nn

    wanted = "give a Generator record, or a class or function that makes a module"
    checked_call(found, name, "generator", wanted, nn.Module)
    return Generator(name=name, build=found)


def build(name: str, **options: Any) -> nn.Module:
    """A generator of the zoo, or one's own as ``module:name``, with fresh weights.

    Raises:
        ConfigError: unknown name (the nearest are shown) or unknown option.
    """
    return find_generator(name).make(**options)
