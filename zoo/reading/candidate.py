"""One mapping of a checkpoint beside the generator that it may be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gantailor.zoo.generators.pix2pix_checkpoint import STATISTICS


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A mapping that may be the generator.

    Attributes:
        where: its path inside the file, ``state_dict.generator``; empty for the whole file.
        state: its tensors in the generator's names, before what files leave out is put in.
        options: those that the generator is built with, the file's beneath the user's.
        expected: names and shapes of that generator.
        whole: the state with what files leave out, and without what they have beside.
    """

    where: str
    state: Mapping[str, Tensor]
    options: Mapping[str, Any]
    expected: Mapping[str, Tensor]
    whole: Mapping[str, Tensor]

    @property
    def fits(self) -> bool:
        """Whether names and shapes are the generator's."""
        return not any(differences(self.expected, self.whole))

    @property
    def common(self) -> int:
        """How many names are the generator's."""
        return sum(name in self.expected for name in self.state)


def differences(expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> tuple[list[str], list[str], list[str]]:
    """Names that the state lacks, names that it has beside, and what is said of other shapes."""
    shapes = [
        f"{name} is {tuple(state[name].shape)}, not {tuple(value.shape)}"
        for name, value in expected.items()
        if name in state and state[name].shape != value.shape
    ]
    return [name for name in expected if name not in state], [name for name in state if name not in expected], shapes


def completed(expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without the statistics that old instance norms left idle; with the counters that old batch norms did not have."""
    kept = {name: value for name, value in state.items() if name in expected or not name.endswith(STATISTICS)}
    counters = [name for name in expected if name.endswith(".num_batches_tracked") and name not in kept]
    return {**kept, **{name: torch.zeros((), dtype=torch.long) for name in counters}}
