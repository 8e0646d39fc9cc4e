"""What tracing a generator and proving its graph decided: stored beside the weights, and replayed without a proof."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from gantailor.supernet.errors import ConfigError, nearest

Unknown = Literal["error", "freeze"]


@dataclass(frozen=True)
class Decisions:
    """How a generator's graph came to be; ``Supernet(..., decisions=...)`` makes the same graph again.

    Attributes:
        freeze: modules or weights that the user keeps at full size.
        unknown: ``error`` or ``freeze``: what was done with operations that have no rule.
        whole: widths that the proof keeps at full size, with the reason.
        inexact: widths whose removal is not the same as zeroing them, as the proof showed, with the reason.
        constants: integers of modules, as ``block.in_channels``, that keep their value when the module is narrowed
            (its forward compares them), with the reason.
        branches: widths that may lose all their channels; None where nobody asked yet.

    Raises:
        ConfigError: ``unknown`` is neither.
    """

    freeze: tuple[str, ...] = ()
    unknown: Unknown = "error"
    whole: Mapping[str, str] = field(default_factory=dict)
    inexact: Mapping[str, str] = field(default_factory=dict)
    constants: Mapping[str, str] = field(default_factory=dict)
    branches: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.unknown not in ("error", "freeze"):
            raise ConfigError(f"unknown cannot be {self.unknown!r}; allowed are error and freeze")

    def amended(
        self, *, whole: Mapping[str, str], inexact: Mapping[str, str], constants: Mapping[str, str]
    ) -> Decisions:
        """These and more; the branches have to be found anew."""
        more = {"whole": whole, "inexact": inexact, "constants": constants}
        every: dict[str, Any] = {name: {**getattr(self, name), **found} for name, found in more.items()}
        return dataclasses.replace(self, **every, branches=None)

    def to_json(self) -> dict[str, Any]:
        """Lists, strings and objects that ``json.dumps`` takes; read back by ``from_json``."""
        return {
            "freeze": list(self.freeze),
            "unknown": self.unknown,
            "whole": dict(self.whole),
            "inexact": dict(self.inexact),
            "constants": dict(self.constants),
            "branches": None if self.branches is None else list(self.branches),
        }

    @classmethod
    def from_json(cls, value: Any) -> Decisions:
        """The decisions that ``to_json`` gave; what is missing has its default.

        Raises:
            ConfigError: a value of another type, or an entry that this version does not know.
        """
        if not isinstance(value, Mapping):
            raise ConfigError(f"decisions cannot be {value!r}; give the object that Decisions.to_json made")
        allowed = [f.name for f in dataclasses.fields(cls)]
        for name in value:
            if name not in allowed:
                raise ConfigError(f"decisions have no entry {name!r}; {nearest(str(name), allowed)}")
        read: dict[str, Any] = {"freeze": _names, "whole": _reasons, "inexact": _reasons, "constants": _reasons}
        read |= {"branches": _names}
        found = {name: read[name](name, entry) if name in read else entry for name, entry in value.items()}
        return cls(**found)


def _names(name: str, value: Any) -> tuple[str, ...] | None:
    if value is None and name == "branches":
        return None
    if not isinstance(value, list | tuple) or not all(isinstance(one, str) for one in value):
        raise ConfigError(f"decisions.{name} cannot be {value!r}; give a list of names")
    return tuple(value)


def _reasons(name: str, value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping) or not all(isinstance(text, str) for pair in value.items() for text in pair):
        raise ConfigError(f"decisions.{name} cannot be {value!r}; give an object of names of widths and reasons")
    return dict(value)
