"""Records by name: a built-in's, or one's own as ``module:name`` wherever a built-in's name may stand.

Built-ins are literal dictionaries from names to ``module:name`` as well: a name is known without importing what stands
behind it, and a user's record is found as ours are.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from gantailor.supernet.errors import ConfigError, nearest

T = TypeVar("T")


def check_name(name: str, builtins: Mapping[str, str], what: str) -> str:
    """The same name, if it can stand for a ``what``; nothing is imported.

    Raises:
        ConfigError: it is neither a built-in's name nor ``module:name``; the nearest are shown.
    """
    if name not in builtins and ":" not in name:
        raise ConfigError(f"{what} {name!r} is unknown; {nearest(name, builtins)}, or 'module:name'")
    return name


def find(name: str, builtins: Mapping[str, str], what: str) -> Any:
    """What a name stands for, imported.

    Args:
        builtins: names to ``module:name``.
        what: the kind of thing, for messages: ``method``.

    Raises:
        ConfigError: unknown name, or it cannot be imported.
    """
    return import_name(builtins.get(check_name(name, builtins, what), name), what)


def find_record(name: str, builtins: Mapping[str, str], what: str, kind: type[T]) -> T:
    """The same, where a record of one kind is expected.

    Raises:
        ConfigError: unknown name, it cannot be imported, or it is no ``kind``.
    """
    found = find(name, builtins, what)
    if not isinstance(found, kind):
        raise ConfigError(
            f"{what} {name!r} is a {type(found).__name__}; give a {kind.__name__} record ({kind.__module__}), as the "
            "built-in ones are"
        )
    return found


def import_name(name: str, what: str) -> Any:
    """The object behind ``module:name``; the current folder is looked into as well.

    Raises:
        ConfigError: it cannot be imported; ``what`` names the setting.
    """
    module, _, attribute = name.partition(":")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # a console script does not look where it is called
    try:
        return getattr(import_module(module), attribute)
    except Exception as error:  # a user's module may raise anything while it is imported
        said = str(error) if isinstance(error, ImportError | AttributeError | ValueError) else repr(error)
        raise ConfigError(
            f"{what} {name!r} cannot be imported: {said}; allowed is 'module:name', the module being installed or "
            "lying in the current folder"
        ) from None
