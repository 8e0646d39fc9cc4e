"""Records by name: a built-in's, or one's own as ``module:name`` wherever a built-in's name may stand.

Built-ins are literal dictionaries from names to ``module:name`` as well: a name is known without importing what stands
behind it, and a user's record is found as ours are.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import inspect
import sys
import sysconfig
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from gantailor.supernet.errors import ConfigError, first_line, nearest

T = TypeVar("T")


class CallablePackage(types.ModuleType):
    """A package that is a function too, the one that its ``called`` names: ``gantailor.search(...)``.

    Its modules are imported as those of any package: ``gantailor.search.budget``.
    """

    called: str

    def __call__(self, *given: Any, **options: Any) -> Any:
        return import_name(self.called, "function")(*given, **options)


_NOTHING = (type(None), bool, int, float, str, bytes)  # results that no maker of ours has


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


def checked_call(found: Any, name: str, what: str, wanted: str, kind: type = object) -> Callable[..., Any]:
    """The same thing, if settings may become its arguments: a class, or a function that somebody wrote for it.

    It is looked at and not called. What comes with Python itself (``os:system``, ``subprocess:run``) makes nothing of
    ours, nor does a function written in C, one whose annotation names another result, or a class of something else.

    Args:
        wanted: what to give, for the message.
        kind: what is to be made.

    Raises:
        ConfigError: it is none of these.
    """
    code = found
    while isinstance(code, functools.partial):
        code = code.func
    code = inspect.unwrap(code) if callable(code) else code
    top = str(getattr(code, "__module__", None) or "builtins").partition(".")[0]
    if not callable(code):
        shown = f"{type(code).__name__}"
    elif top in sys.stdlib_module_names and top != "__main__":
        shown = f"part of Python's own {top}"
    elif inspect.isclass(code) and not issubclass(code, kind):
        shown = f"class that is no {kind.__name__}"
    elif not inspect.isclass(code) and not _is_written_for(code, kind):
        shown = f"function that makes no {kind.__name__}"
    else:
        maker: Callable[..., Any] = found
        return maker
    raise ConfigError(f"{what} {name!r} is a {shown}, and was not called; {wanted}")


def own_function(name: str, what: str) -> Callable[..., Any]:
    """A user's function ``module:name``, which is called with pictures.

    Raises:
        ConfigError: it cannot be imported, or is no such function.
    """
    return checked_call(import_name(name, what), name, what, "give a function of pictures, in a module of your own")


def _is_written_for(function: Any, kind: type) -> bool:
    """Whether a function, or an object that is called, is in Python, and makes a ``kind`` by its annotation.

    One without an annotation may do so where it lies in a user's own file, and not in a package that is installed.
    """
    code = function if inspect.isroutine(function) else type(function).__call__
    if not inspect.isfunction(inspect.unwrap(code)) and not inspect.ismethod(code):
        return False
    try:
        said = typing.get_type_hints(code).get("return")
        said = type(None) if said is None and "return" in getattr(code, "__annotations__", {}) else said
    except Exception:  # names that only a type checker imports
        said = None
    if said is None or said is Any:
        return not _is_installed(code)
    return not inspect.isclass(said) or (said not in _NOTHING and (issubclass(said, kind) or issubclass(kind, said)))


def _is_installed(function: Any) -> bool:
    return is_installed(inspect.getfile(inspect.unwrap(function)))


def is_installed(file: str | Path) -> bool:
    """Whether a file belongs to an installed package."""
    file = Path(file).resolve()
    return any(file.is_relative_to(Path(sysconfig.get_path(name)).resolve()) for name in ("purelib", "platlib"))


@dataclass(frozen=True)
class _File:
    """A module that lies where Python does not look: its file, if that is there, what it held, where it may lie."""

    file: Path | None
    sha256: str
    places: Sequence[str]


_ELSEWHERE: dict[str, _File] = {}


def remember(module: str, file: Path | None, sha256: str, places: Sequence[str]) -> None:
    """Let a module be imported from a file of this content, where it is neither installed nor in the current folder.

    Args:
        file: None where none is; then a message tells where it was looked for.
    """
    _ELSEWHERE[module] = _File(file, sha256, places)


def import_name(name: str, what: str) -> Any:
    """The object behind ``module:name``; the current folder is looked into last, but for what is remembered.

    Raises:
        ConfigError: it cannot be imported; ``what`` names the setting.
    """
    module, _, attribute = name.partition(":")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # a console script does not look where it is called
    try:
        return getattr(_imported(module), attribute)
    except Exception as error:  # a user's module may raise anything while it is imported
        said = first_line(error) if isinstance(error, ImportError | AttributeError | ValueError) else repr(error)
        known = _ELSEWHERE.get(module)
        allowed = "allowed is 'module:name', the module being installed or lying in the current folder"
        if known is not None:
            allowed = f"its file (sha256 {known.sha256[:12]}) is at none of {', '.join(map(repr, known.places))} either"
            allowed += "; go to the folder where it lies, or put that into PYTHONPATH"
        raise ConfigError(f"{what} {name!r} cannot be imported: {said}; {allowed}") from None


def _imported(module: str) -> types.ModuleType:
    """A module, from where Python looks, or the file that is remembered."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        known = _ELSEWHERE.get(module)
        if error.name != module or known is None or known.file is None:
            raise
        code = known.file.read_bytes()
        if hashlib.sha256(code).hexdigest() != known.sha256:  # changed since it was looked at
            raise
    spec = importlib.util.spec_from_file_location(module, known.file)
    made = sys.modules[module] = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    try:
        exec(compile(code, str(known.file), "exec"), made.__dict__)
    except BaseException:
        del sys.modules[module]
        raise
    return made
