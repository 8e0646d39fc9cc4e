"""Paths inside a loaded checkpoint, ``state_dict.generator``: through mappings, lists and the prefixes of names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from gantailor.supernet.errors import CheckpointError, nearest


def descended(loaded: Any, inside: str, source: str) -> Any:
    """What stands at a path of names with dots inside a loaded file: a mapping, or the part with one prefix.

    Raises:
        CheckpointError: nothing stands there; what does is listed.
    """
    rest, value = inside, loaded
    while rest:
        if isinstance(value, list | tuple):
            value = dict(enumerate(value))
        entries = {str(name): inner for name, inner in value.items()} if isinstance(value, Mapping) else {}
        fitting = [name for name in entries if rest == name or rest.startswith(f"{name}.")]
        if fitting:
            name = max(fitting, key=len)
            value, rest = entries[name], rest[len(name) + 1 :]
            continue
        part = {name.removeprefix(f"{rest}."): inner for name, inner in entries.items() if name.startswith(f"{rest}.")}
        if not part:
            known = _paths(loaded)
            way = nearest(inside, known) if known else f"nothing in it has a name like that: leave :{inside} out"
            raise CheckpointError(f"{source!r} has no {inside!r} inside; {way}")
        return part
    return value


def _paths(loaded: Any, where: str = "") -> list[str]:
    """Paths of mappings, and of first parts of names, that a message can list."""
    if isinstance(loaded, list | tuple):
        loaded = dict(enumerate(loaded))
    if not isinstance(loaded, Mapping) or "param_groups" in loaded or where.count(".") >= 2:
        return []
    found: list[str] = []
    for name, inner in loaded.items():
        if isinstance(inner, Tensor) and "." in str(name):
            found.append(joined(where, str(name).partition(".")[0]))
        elif isinstance(inner, Mapping | list | tuple):
            found += [joined(where, str(name)), *_paths(inner, joined(where, str(name)))]
    return list(dict.fromkeys(found))[:20]


def joined(where: str, name: str) -> str:
    """A path one step further."""
    return f"{where}.{name}".strip(".")
