"""Mappings of tensors in a loaded checkpoint, whatever their names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from gantailor.zoo.reading import names

DEPTH = 3  # mappings within mappings


def parts(loaded: Any, where: str = "", depth: int = 0) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Mappings of tensors, as they are and without the prefix that all names share."""
    if isinstance(loaded, list | tuple):
        loaded = dict(enumerate(loaded))
    if not isinstance(loaded, Mapping) or "param_groups" in loaded or depth > DEPTH:
        return
    tensors = {str(name): value for name, value in loaded.items() if isinstance(value, Tensor)}
    if tensors:
        yield where, tensors
        plain = names.unwrapped(tensors)
        shared = names.common_prefix(plain)
        yield where, {name.removeprefix(shared): value for name, value in plain.items()}
    for name, inner in loaded.items():
        yield from parts(inner, f"{where}.{name}".strip("."), depth + 1)
