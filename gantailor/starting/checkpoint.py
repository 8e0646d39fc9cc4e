"""Which generator of the zoo a checkpoint holds, by the readers that each family has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gantailor.evaluators.pictures.rgb import l1_of
from gantailor.evaluators.scores import evenly
from gantailor.starting.pictures import Pictures
from gantailor.supernet.errors import CheckpointError, GantailorError, first_line
from gantailor.supernet.traits import Traits, traits_of, with_signed_pictures
from gantailor.zoo.checkpoints import load_teacher
from gantailor.zoo.data.fit import Reading
from gantailor.zoo.data.kinds.files import FileItems
from gantailor.zoo.data.kinds.folder import FolderItems
from gantailor.zoo.data.pictures import to_float
from gantailor.zoo.generators import GENERATORS
from gantailor.zoo.generators.record import find_generator
from gantailor.zoo.reading.files import read_file, split_file
from gantailor.zoo.reading.paths import descended
from gantailor.zoo.reading.search import Search
from gantailor.zoo.reading.tensors import as_float32

SEVERAL = "generators that fit"  # what the search says where a file holds several
TRIED = 4  # pairs that tell which side is the teacher's input
NEARER = 0.9  # of the other direction's L1, below which it is told


@dataclass(frozen=True)
class Checkpoint:
    """A trained generator in a file.

    Attributes:
        file: as it was given, ``FILE`` or ``FILE:netG``.
        generator: its name in the zoo.
        options: that its tensors tell and that are not so anyway.
        traits: what the module says of itself.
    """

    file: str
    generator: str
    options: Mapping[str, Any]
    traits: Traits

    @property
    def enlarges(self) -> bool:
        """Whether it makes pictures larger, so that large pictures alone are data for it."""
        usual = find_generator(self.generator).defaults({}).get("data", {})
        return bool(usual.get("kind") == "super_resolution")

    def module(self) -> nn.Module:
        """It, in eval mode, pictures in [-1, 1]."""
        side = find_generator(self.generator).side
        return with_signed_pictures(load_teacher(self.file, generator=self.generator, side=side, **self.options))


def recognised(path: str | Path) -> Checkpoint:
    """The zoo's generator that a checkpoint holds.

    Raises:
        CheckpointError: missing, damaged or unsafe file; several generators that fit; none of the zoo's.
    """
    file, inside = split_file(path)
    loaded = descended(as_float32(read_file(file)), inside, str(file))
    for name in GENERATORS:
        record = find_generator(name)
        search = Search(record, {}, {"side": record.side} if record.side else {}, str(file))
        try:
            found = search.one(loaded, inside)
        except GantailorError as error:
            if SEVERAL in str(error):
                raise
            continue
        with torch.device("meta"):
            traits = traits_of(record.make(**found.options))
        return Checkpoint(str(path), name, dict(found.options), traits)
    raise CheckpointError(
        f"{str(path)!r} is none of the zoo's generators ({', '.join(GENERATORS)}); write the YAML by hand, with "
        "generator: module:name for one of your own, or teacher: {weights: FILE, rename: {old: new}} where only names "
        "of layers differ"
    )


def directed(checkpoint: Checkpoint, pictures: Pictures) -> tuple[Pictures, str]:
    """Pairs in the direction in which the teacher comes nearer to them, and what tells it, a sentence.

    Where it cannot be tried, or comes equally near in both, they stay as they are.
    """
    try:
        module = checkpoint.module()
        errors = {way: l1_of(module, *_some_pairs(checkpoint, pictures, way)) for way in ("AtoB", "BtoA")}
    except (GantailorError, RuntimeError, TypeError, ValueError, OSError) as error:
        return pictures, f"direction AtoB, for the teacher could not be tried on pairs ({first_line(error)})"
    (best, least), (_, other) = sorted(errors.items(), key=lambda found: found[1])
    told = f"the teacher's L1 to {TRIED} targets is {errors['AtoB']:.3g} with AtoB and {errors['BtoA']:.3g} with BtoA"
    if least > NEARER * other:
        return pictures, f"direction AtoB: {told}, which tells little"
    return replace(pictures, settings={**pictures.settings, "direction": best}), f"direction {best}: {told}"


def _some_pairs(checkpoint: Checkpoint, pictures: Pictures, direction: str) -> tuple[Tensor, Tensor]:
    """A few training pairs, ``[N, 3, H, W]`` in [-1, 1]."""
    size = sides_for(pictures.shape, checkpoint.traits.size_multiple)
    reading, chosen = Reading(size=size), [pictures.train[row] for row in evenly(len(pictures.train), TRIED)]
    items: FolderItems | FileItems
    if pictures.kind == "folder":
        folder = chosen[0][0].parent
        items = FolderItems(folder, tuple(file.name for file, _ in chosen), reading, direction)
    else:
        both = [(first, second) for first, second in chosen if second is not None]
        files = tuple(pair if direction == "AtoB" else pair[::-1] for pair in both)
        items = FileItems(tuple(pair[0].name for pair in files), files, reading)
    rows = [items.read(index, lambda lost: None) for index in range(len(items))]  # type: ignore[arg-type]
    inputs, targets = (np.stack(side) for side in zip(*(row for row in rows if row is not None), strict=True))
    return to_float(inputs), to_float(targets)


LARGEST, SMALLEST = 256, 16  # pixels: what most published teachers were trained at, and the least that there is


def sides_for(shape: tuple[int, int] | None, multiple: int) -> int | tuple[int, int]:
    """``data.size`` for pictures of a height and width: their own where that is possible, 256 px where it is more."""
    multiple = max(1, multiple)
    if shape is None:
        shape = (LARGEST, LARGEST)
    least = max(SMALLEST, multiple)
    if max(shape) > LARGEST:
        shape = (LARGEST, LARGEST)
    height, width = (max(least, side // multiple * multiple) for side in shape)
    return height if height == width else (height, width)
