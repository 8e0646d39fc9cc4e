"""The teacher of a run: a trained generator of any architecture, not only the one that is compressed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from gantailor.run.config import Config
from gantailor.zoo.checkpoints import load_teacher
from gantailor.zoo.generators.record import find_generator


@dataclass(frozen=True)
class Teacher:
    """Which generator, with which options and weights.

    Attributes:
        generator: a zoo generator, or ``module:name``.
        options: of its ``build``.
        weights: a checkpoint.
    """

    generator: str
    options: Mapping[str, Any]
    weights: str

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
        return cls(name, options, wanted.weights or str(find_generator(name).teacher_file(options)))

    def same_architecture(self, config: Config) -> bool:
        """Whether the generator to compress is this one, so that it starts from these weights."""
        return (self.generator, dict(self.options)) == (config.generator, dict(config.options))

    def load(self) -> nn.Module:
        """The module: frozen, in eval mode.

        Raises:
            CheckpointError: missing, damaged or unsafe file, or another architecture.
        """
        return load_teacher(self.weights, generator=self.generator, **self.options).requires_grad_(False)
