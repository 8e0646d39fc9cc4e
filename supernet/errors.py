"""Every mistake a user can make, as one family of ``ValueError``.

A message always holds three things: the value that was given, what is allowed, and the way out.
The command line prints the message alone and exits with status 2.
"""

from __future__ import annotations

import difflib
import traceback
from collections.abc import Iterable
from numbers import Integral

FIXED_SIZE = "its size is fixed in the forward"


class GantailorError(ValueError):
    """Base of all errors that a user can cause and mend."""


class UntraceableError(GantailorError):
    """An operation in the generator's forward has no channel rule."""


class VerificationError(GantailorError):
    """A traced graph does not describe the generator.

    Attributes:
        widths: those that cannot be narrowed, or whose channels cannot be exchanged.
        inexact: those that can, but whose removal is not the same as zeroing them.
        constants: integers of modules that must not be set when these are narrowed.
        reason: why ``widths`` cannot be narrowed.
    """

    def __init__(
        self,
        message: str,
        widths: Iterable[str] = (),
        inexact: Iterable[str] = (),
        constants: Iterable[str] = (),
        reason: str = FIXED_SIZE,
    ) -> None:
        super().__init__(message)
        self.widths, self.inexact, self.constants = tuple(widths), tuple(inexact), tuple(constants)
        self.reason = reason


class SelectionError(GantailorError):
    """A subnet configuration or channel selection does not fit the graph."""


class BudgetError(GantailorError):
    """A budget cannot be read or cannot be reached."""


class CheckpointError(GantailorError):
    """A weights file is missing, damaged, unsafe, or belongs to another architecture."""


class DataError(GantailorError):
    """A data folder or an image cannot be used."""


class EvaluationError(GantailorError):
    """A score cannot be computed."""


class ConfigError(GantailorError):
    """One or more settings are wrong; all of them are listed."""


class RunError(GantailorError):
    """A run folder cannot be used."""


class UnreadableError(GantailorError):
    """A document is not what it should be: no regular file, too large or too deep, or not of its kind.

    Attributes:
        why: the reason alone, for a message that names the source itself.
    """

    def __init__(self, message: str, why: str = "") -> None:
        super().__init__(message)
        self.why = why or message


class BusyError(RunError):
    """Another process writes in the run folder."""


def nearest(name: str, allowed: Iterable[str]) -> str:
    """The part of a message that lists what is allowed, the most similar names first.

    >>> nearest("resnet_8blocks", ["unet_128", "resnet_9blocks"])
    "did you mean 'resnet_9blocks'? Allowed: resnet_9blocks, unet_128"
    """
    names = sorted(allowed)
    close = difflib.get_close_matches(name, names, n=2, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
    return f"{hint}Allowed: {', '.join(names)}"


def check_whole(name: str, value: object, *, least: int | None = None) -> None:
    """That an argument is a whole number, of numpy too.

    Raises:
        ConfigError: it is not, or too small.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or (least is not None and value < least):
        bound = "" if least is None else f" of at least {least}"
        raise ConfigError(f"{name} cannot be {value!r}; give a whole number{bound}")


def why_of(error: Exception) -> str:
    """The reason of an error about a file, without the file, which the message around it names."""
    if isinstance(error, UnreadableError):
        return error.why
    return (error.strerror if isinstance(error, OSError) else None) or first_line(error)


def shortened(text: str, longest: int = 100) -> str:
    """A value as a message shows it: its beginning, should it be long, in one line."""
    line = " ".join(text.splitlines())
    return line if len(line) <= longest else f"{line[:longest]}..."


def first_line(error: Exception) -> str:
    """What an exception says, in one line."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__).rstrip(".;:")


def told(error: Exception) -> str:
    """One line about what somebody's code raised, never empty."""
    return f"{type(error).__name__}: {first_line(error)[:300]}" if str(error).strip() else with_place(error)


def with_place(error: Exception) -> str:
    """An exception and where it was raised: ``KeyError('a') in mine.py, line 3``."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{error!r} in {place.filename}, line {place.lineno}"
