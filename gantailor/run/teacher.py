"""The teacher of a run: a trained generator of any architecture, not only the one that is compressed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from gantailor.run.config import Config
from gantailor.zoo.checkpoints import Loaded, read_teacher
from gantailor.zoo.generators.record import find_generator


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
    """

    generator: str
    options: Mapping[str, Any]
    weights: str
    rename: Mapping[str, str] = field(default_factory=dict)
    side: str | None = None
    statistics: Literal["running", "batch"] = "running"

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
        return cls(name, options, weights, wanted.rename, wanted.side or find_generator(name).side, wanted.statistics)

    def same_architecture(self, config: Config) -> bool:
        """Whether the generator to compress is this one, so that it starts from these weights."""
        return (self.generator, dict(self.options)) == (config.generator, dict(config.options))

    def load(self) -> Loaded:
        """The module: frozen, in eval mode, with its running statistics; and the options that its file told.

        Raises:
            CheckpointError: missing, damaged or unsafe file, or another architecture.
        """
        found = read_teacher(self.weights, generator=self.generator, side=self.side, rename=self.rename, **self.options)
        found.module.requires_grad_(False)
        return found
