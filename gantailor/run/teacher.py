"""The teacher of a run: a trained generator of any architecture, not only the one that is compressed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import nn

from gantailor.run.config import Config
from gantailor.supernet.calibration import per_picture
from gantailor.supernet.traits import with_signed_pictures
from gantailor.zoo.checkpoints import Loaded, read_teacher
from gantailor.zoo.generators.given import is_given
from gantailor.zoo.generators.record import find_generator
from gantailor.zoo.reading.matching import Matched


@dataclass(frozen=True)
class Teacher:
    """Which generator, with which options and weights.

    Attributes:
        generator: a zoo generator, or ``module:name``.
        options: of its ``build``.
        weights: a checkpoint.
        rename: parts of its names and what they are here.
        side: of a file with two generators, see ``read_munit``; None: as its family reads it.
        statistics: of batch norms, ``running`` or ``batch``.
        example: files of a known input and its output.
    """

    generator: str
    options: Mapping[str, Any]
    weights: str
    rename: Mapping[str, str] = field(default_factory=dict)
    side: str | None = None
    statistics: Literal["running", "batch"] = "running"
    example: tuple[str, ...] = ()

    @classmethod
    def of(cls, config: Config) -> Teacher | None:
        """A configuration's teacher; None for ``teacher: none``.

        Raises:
            ConfigError: no weights are named, and none are shipped for this generator.
        """
        wanted = config.teacher
        if wanted.weights == "none":
            return None
        name, other = wanted.generator or config.generator, wanted.generator not in (None, config.generator)
        options = ({} if other else config.options) if wanted.options is None else wanted.options
        weights = wanted.weights or str(find_generator(name).teacher_file(options))
        side = wanted.side or find_generator(name).side
        return cls(name, options, weights, wanted.rename, side, wanted.statistics, wanted.example)

    def as_used(self, module: nn.Module) -> nn.Module:
        """The loaded module as it teaches: with pictures in [-1, 1] and the statistics that are wanted."""
        signed = with_signed_pictures(module)
        return per_picture(signed) if self.statistics == "batch" else signed

    def same_architecture(self, config: Config) -> bool:
        """Whether the generator to compress is this one, so that it starts from these weights."""
        return (self.generator, dict(self.options)) == (config.generator, dict(config.options))

    def load(self, matched: Matched | None = None) -> Loaded:
        """The module: frozen, in eval mode, with its running statistics; and the options that its file told.

        Args:
            matched: names that an earlier process matched and proved by the example.

        Raises:
            CheckpointError: missing, damaged or unsafe file, another architecture, or an output not the example's.
        """
        if is_given(self.weights):
            found = Loaded(find_generator(self.weights).make(), {})
            with_signed_pictures(found.module).requires_grad_(False)
            return found
        found = read_teacher(
            self.weights,
            generator=self.generator,
            side=self.side,
            rename=self.rename,
            example=self.example,
            matched=matched,
            use=self.as_used,
            **self.options,
        )
        with_signed_pictures(found.module).requires_grad_(False)
        return found


@dataclass(frozen=True)
class Taken:
    """Weights that a generator took over from a teacher of another kind.

    Attributes:
        names: of the tensors.
        anew: names of those that start anew.
        share: of the generator's numbers, that the teacher gave.
    """

    names: tuple[str, ...]
    anew: tuple[str, ...]
    share: float

    def said(self, teacher: str) -> str:
        """In a line."""
        if not self.names:
            return f"no weights of teacher {teacher!r} fit the generator, which starts anew"
        return (
            f"{len(self.names)} of {len(self.names) + len(self.anew)} tensors, {self.share:.0%} of the numbers, are "
            f"those of teacher {teacher!r} ({_some(self.names)}); {_some(self.anew)} start anew"
        )


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:2]) + (f" and {len(names) - 2} more" if len(names) > 2 else "")


def take_over(generator: nn.Module, teacher: nn.Module) -> Taken:
    """Copy every tensor whose name and shape the teacher has too; the others stay."""
    own, theirs = generator.state_dict(), teacher.state_dict()
    fits = {name: theirs[name] for name in own if name in theirs and theirs[name].shape == own[name].shape}
    generator.load_state_dict({**own, **fits})
    share = sum(tensor.numel() for tensor in fits.values()) / max(1, sum(tensor.numel() for tensor in own.values()))
    return Taken(tuple(fits), tuple(name for name in own if name not in fits), share)
