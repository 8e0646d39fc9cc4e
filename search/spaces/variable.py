"""One dimension of a search space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Variable:
    """One decision.

    Attributes:
        name: unique in the space.
        choices: ascending labels, as a config is written.
        sizes: for each driven width, its size at each choice.
    """

    name: str
    choices: tuple[int, ...]
    sizes: tuple[tuple[str, tuple[int, ...]], ...]

    @classmethod
    def scaled(cls, name: str, choices: Sequence[int], factors: Sequence[tuple[str, int]]) -> Variable:
        """A variable whose widths are multiples of its choice."""
        return cls(name, tuple(choices), tuple((width, tuple(c * f for c in choices)) for width, f in factors))

    def choice_of(self, widths: Mapping[str, int]) -> int:
        """The choice that gives these sizes of the widths that it drives.

        Raises:
            KeyError: a width is missing.
            ValueError: no choice gives them.
        """
        for number, choice in enumerate(self.choices):
            if all(widths[name] == sizes[number] for name, sizes in self.sizes):
                return choice
        raise ValueError(f"{self.name!r} has no choice with these sizes")
