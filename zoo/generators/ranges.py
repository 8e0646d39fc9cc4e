"""Generators whose pictures are published in [0, 1]: the same nets in a run, where all pictures lie in [-1, 1]."""

from __future__ import annotations

from torch import Tensor

from gantailor.supernet.traits import PictureRange

UNIT: PictureRange = (0.0, 1.0)


def to_unit(pictures: Tensor, given: PictureRange) -> Tensor:
    """Pictures of a range in [0, 1]; those that are stay the same tensor."""
    low, high = given
    return pictures if given == UNIT else (pictures - low) / (high - low)


def from_unit(pictures: Tensor, wanted: PictureRange) -> Tensor:
    """Pictures in [0, 1] in another range."""
    low, high = wanted
    return pictures if wanted == UNIT else pictures * (high - low) + low
