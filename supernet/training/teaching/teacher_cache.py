"""A teacher's outputs and features, kept where the same picture comes again."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gantailor.supernet.calling import Inputs, first, forward, rows_of
from gantailor.supernet.errors import ConfigError
from gantailor.supernet.files import load_tensors, save_tensors, state_digest
from gantailor.supernet.training.batches import PairSource
from gantailor.supernet.training.recipe import Recipe
from gantailor.supernet.training.teaching.distillation import capture

Taught = tuple[Tensor, dict[str, Tensor]]


def check_cache(recipe: Recipe, data: PairSource) -> None:
    """That what a recipe keeps of its teacher comes again.

    Raises:
        ConfigError: it does not.
    """
    if recipe.teacher_cache == "none":
        return
    why = None
    if getattr(data, "crop", None) is not None:
        why = "of data.crop: parts of pictures never come again"
    if getattr(data, "degrades", False):
        why = "inputs are degraded anew at each step, so nothing comes again"
    if getattr(data, "drawn", None):
        why = "latents are drawn anew at each step, so nothing comes again"
    if why is not None:
        raise ConfigError(f"teacher_cache cannot be {recipe.teacher_cache!r} because {why}; set it to none")


class Teacher:
    """The frozen teacher.

    Args:
        layers: modules whose outputs are distilled; a mapping gives the names that the student has for them.
        cache: ``none``, ``memory`` or ``disk``; what is kept has the precision it was computed in.
        folder: where ``disk`` keeps it, in a folder of its own for each teacher and ``content``.
        content: what the keys are of: data set and precision.
        context: makes the autocast context of a forward.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Iterable[str] | Mapping[str, str],
        *,
        cache: str = "none",
        folder: Path | None = None,
        content: str = "",
        context: Any = None,
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        self.layers = dict(layers) if isinstance(layers, Mapping) else {name: name for name in layers}
        self._context = context
        self._memory: dict[Hashable, dict[str, Tensor]] | None = {} if cache == "memory" else None
        self._folder = folder / f"teacher-{self._digest(content)}" if cache == "disk" and folder else None

    def _digest(self, content: str) -> str:
        return state_digest(self.model, f"{content}|{self.layers}")[:16]

    @torch.no_grad()
    def _compute(self, inputs: Inputs, **options: Tensor) -> dict[str, Tensor]:
        context: AbstractContextManager[Any] = self._context()
        with capture(self.model, self.layers) as features, context:
            return {"output": forward(self.model, inputs, **options), **features}

    def __call__(self, inputs: Inputs, keys: Sequence[Hashable], **options: Tensor) -> Taught:
        """Output (float32) and features of each input ``[N, ...]``; ``keys`` name what comes again as it is.

        What is made with further ``options`` of the teacher's forward is never kept.
        """
        if options or (self._memory is None and self._folder is None):
            found = self._compute(inputs, **options)
        else:
            rows = [self._kept(rows_of(inputs, slice(i, i + 1)), key) for i, key in enumerate(keys)]
            found = {name: torch.cat([row[name] for row in rows]).to(first(inputs).device) for name in rows[0]}
        return found["output"].float(), {name: found[name] for name in self.layers if name in found}

    def _kept(self, one: Inputs, key: Hashable) -> dict[str, Tensor]:
        if self._memory is not None:
            if key not in self._memory:
                self._memory[key] = self._compute(one)
            return self._memory[key]
        assert self._folder is not None
        file = self._folder / ("-".join(map(str, key if isinstance(key, tuple) else (key,))) + ".safetensors")
        if not file.exists():
            save_tensors(file, self._compute(one), {})
        return load_tensors(file)[0]
