"""An input and the output that a trained generator is known to give for it: what proves that it was read rightly."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from gantailor.evaluators.pictures.reader import PictureReader
from gantailor.supernet.calling import evaluating
from gantailor.supernet.errors import CheckpointError, ConfigError, first_line
from gantailor.supernet.files import load_tensors
from gantailor.supernet.traits import traits_of
from gantailor.zoo.data.pictures import to_float

LEVELS = 1.0  # mean difference of two pictures, in levels of 8 bits: both were rounded or cut to them
RELATIVE = 1e-4  # largest difference of two tensors, of the largest value
FORMS = "give one FILE.npz or FILE.safetensors with input and output, or two pictures, input.png,output.png"


@dataclass(frozen=True)
class Example:
    """A known input and its output.

    Attributes:
        files: one with tensors, or two pictures. Several inputs are ``input_0``, ``input_1``, ... in the order of the
            forward; a batch of one may be left out.

    Raises:
        ConfigError: neither one file of tensors nor two others.
    """

    files: tuple[str, ...]

    def __post_init__(self) -> None:
        tensors = [file for file in self.files if Path(file).suffix in (".npz", ".safetensors")]
        if len(self.files) != (1 if tensors else 2):
            raise ConfigError(f"teacher.example cannot be {', '.join(self.files)!r}: {FORMS}")
        for file in self.files:
            if not Path(file).is_file():
                raise ConfigError(f"teacher.example {file!r} does not exist; {FORMS}")

    @property
    def pictures(self) -> bool:
        """Whether they are two pictures."""
        return len(self.files) == 2

    @property
    def allowed(self) -> float:
        """The error of a generator that was read rightly."""
        return LEVELS if self.pictures else RELATIVE

    def said(self, error: float) -> str:
        """An error in words."""
        if self.pictures:
            return f"{error:.2g} of 255 levels in the mean (allowed: {LEVELS:g})"
        return f"{error:.2g} of the largest value (allowed: {RELATIVE:g})"

    @torch.no_grad()
    def error(self, model: nn.Module) -> float:
        """What a generator's output differs by from the known one; see ``allowed``.

        Raises:
            CheckpointError: it does not run on the input, or makes something of another shape.
        """
        inputs = self.inputs(model)
        try:
            with evaluating(model):
                made = model(*inputs)
        except (RuntimeError, TypeError) as error:
            shapes = " and ".join(str(list(one.shape)) for one in inputs)
            said = first_line(error)
            raise CheckpointError(
                f"teacher.example {self.files[0]!r}: the generator cannot run on {shapes}: {said}; {FORMS}"
            ) from None
        known = self._picture(self.files[1], made.shape[1]) if self.pictures else self._tensors["output"]
        if made.shape != known.shape:
            raise CheckpointError(
                f"teacher.example {self.files[-1]!r} is {list(known.shape)}, the generator makes {list(made.shape)}; "
                "give the output for this input, as large as the generator makes it"
            )
        if self.pictures:
            levels = [((one.clamp(-1, 1) + 1) * 127.5).round() for one in (made, known)]
            return float((levels[0] - levels[1]).abs().mean())
        return float((made - known).abs().max() / known.abs().max().clamp(min=1e-12))

    def inputs(self, model: nn.Module) -> tuple[Tensor, ...]:
        """What the generator is given, a batch of one or more each."""
        if not self.pictures:
            return tuple(value for name, value in sorted(self._tensors.items()) if name.startswith("input"))
        shapes = traits_of(model).input_shapes
        return (self._picture(self.files[0], shapes[0][0] if shapes else 3),)

    def _picture(self, file: str, channels: int) -> Tensor:
        """In [-1, 1], ``[1, channels, H, W]``."""
        if channels not in (1, 3, 4):
            raise CheckpointError(
                f"teacher.example {file!r} is a picture, the generator's has {channels} channels; give tensors: {FORMS}"
            )
        pixels = PictureReader(channels=channels, error=CheckpointError, way_out="give another").read(Path(file))
        assert pixels is not None
        return to_float(pixels[None])

    @cached_property
    def _tensors(self) -> dict[str, Tensor]:
        """Of the one file, with a batch in front."""
        file = Path(self.files[0])
        if file.suffix == ".npz":
            try:
                with np.load(file, allow_pickle=False) as stored:
                    found = {name: torch.from_numpy(np.asarray(stored[name])).float() for name in stored.files}
            except (OSError, ValueError, TypeError, zipfile.BadZipFile) as error:
                raise CheckpointError(
                    f"teacher.example {str(file)!r} cannot be read: {first_line(error)}; {FORMS}"
                ) from None
        else:
            found = {name: value.float() for name, value in load_tensors(file)[0].items()}
        if "output" not in found or not any(name.startswith("input") for name in found):
            listed = ", ".join(found) or "nothing"
            raise CheckpointError(f"teacher.example {str(file)!r} holds {listed}; {FORMS}")
        return {name: value[None] if value.ndim in (1, 3) else value for name, value in found.items()}


def example_of(files: Sequence[str | Path] | str | Path | None) -> Example | None:
    """The example of one or two files; None where none are named.

    Raises:
        ConfigError: they are none.
    """
    if not files:
        return None
    several = (files,) if isinstance(files, str | Path) else files
    return Example(tuple(str(file) for file in several))
