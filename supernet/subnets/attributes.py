"""Integers that a module keeps of its channels: as attributes, in lists and dictionaries there, in objects of options.

They are named as Python writes them: ``dim``, ``dims[2]``, ``widths[up]`` (of a dictionary), ``options.dim``.
"""

from __future__ import annotations

import enum
import re
import sys
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

_NAME = re.compile(r"(\w+)(?:\.(\w+)|\[(.+)\])?")


def integers_of(module: nn.Module) -> Iterator[tuple[str, int]]:
    """The name and value of every integer above 1."""
    for name, value in vars(module).items():
        if isinstance(getattr(type(module), name, None), property):
            continue
        for ending, one in _inside(value):
            if type(one) is int and one > 1:
                yield name + ending, one


def set_integer(module: nn.Module, name: str, value: int) -> tuple[Any, str, Any]:
    """Set an integer; lists, tuples and dictionaries are replaced by changed copies.

    Returns:
        The object whose attribute was changed, the attribute, its old value: to be set back.
    """
    found = _NAME.fullmatch(name)
    assert found is not None, name
    attribute, field, item = found.groups()
    owner: Any = getattr(module, attribute) if field else module
    old = getattr(owner, field or attribute)
    new: Any = value
    if item is not None:
        new = dict(old) if isinstance(old, dict) else list(old)
        new[item if isinstance(old, dict) else int(item)] = value
        new = tuple(new) if isinstance(old, tuple) else new
    object.__setattr__(owner, field or attribute, new)
    return owner, field or attribute, old


def _inside(value: Any) -> Iterator[tuple[str, Any]]:
    if type(value) in (list, tuple) and all(type(one) is int for one in value):
        yield from ((f"[{number}]", one) for number, one in enumerate(value))
    elif type(value) is dict:
        yield from ((f"[{key}]", one) for key, one in value.items() if isinstance(key, str))
    elif isinstance(getattr(value, "__dict__", None), dict) and _is_options(value):
        yield from ((f".{key}", one) for key, one in vars(value).items())
    else:
        yield "", value


def _is_options(value: Any) -> bool:
    """Whether it is an object that only holds values: a namespace, a dataclass, somebody's own configuration."""
    home = type(value).__module__.partition(".")[0]
    foreign = home in ("torch", "numpy") or (home in sys.stdlib_module_names and home not in ("argparse", "types"))
    return not foreign and not callable(value) and not isinstance(value, type | nn.Module | Tensor | enum.Enum)
