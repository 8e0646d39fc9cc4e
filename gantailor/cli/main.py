"""The command line: a mistake ends with status 2 and one message. Nothing heavy is loaded before a command runs."""

from __future__ import annotations

import argparse
import difflib
import errno
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import gantailor
from gantailor.supernet.errors import GantailorError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # such errors name no file


def _unknown(given: str, command: argparse.ArgumentParser) -> str:
    """What to say of an argument that a command does not take: the flags whose names are most like it."""
    flag, flags = given.partition("=")[0], [name for action in command._actions for name in action.option_strings]
    ends = [name for name in flags if name.rpartition(".")[2] == flag.lstrip("-")]
    close = ends or difflib.get_close_matches(flag, flags, n=2, cutoff=0.6)
    hint = f"; did you mean {' or '.join(close)}?" if close else "."
    return f"{command.prog} does not take {given!r}{hint} All it takes: {command.prog} --help"


def _message(error: GantailorError | OSError) -> str:
    """What to say of a mistake; an ``OSError`` about no file is none of the user's."""
    if isinstance(error, GantailorError):
        return str(error)
    if error.filename is None and error.errno not in FULL:
        raise error
    if error.filename is None:
        return f"nothing more can be written: {error.strerror}; make room, the same command continues"
    from gantailor.supernet.files import cache_path

    place = "set $GANTAILOR_CACHE to another folder" if _within(error.filename, cache_path()) else "choose another"
    return f"{str(error.filename)!r} cannot be used: {error.strerror}; {place}"


def _within(file: object, folder: Path) -> bool:
    return isinstance(file, str) and Path(file).absolute().is_relative_to(folder)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status: 0, 2 for a user's mistake, 130 for Ctrl-C, 141 for a closed pipe."""
    given = list(sys.argv[1:] if argv is None else argv)
    if given == ["--version"]:
        print(gantailor.__version__)
        return 0
    from gantailor.cli.flags import check_settings  # after the quickest answer
    from gantailor.cli.parser import parser

    arguments, unknown = parser().parse_known_args(given)
    if unknown:
        print(f"error: {_unknown(unknown[0], arguments.command)}", file=sys.stderr)
        return 2
    try:
        check_settings(arguments)
        _join()
        module, _, function = arguments.function.partition(":")
        getattr(import_module(module), function)(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read this (head, less) has seen enough; nothing may be said at exit either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (GantailorError, OSError) as error:
        print(f"error: {_message(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command continues", file=sys.stderr)
        return 130
    return 0


def _join() -> None:
    """Join the other processes where ``torchrun`` started this."""
    if "RANK" in os.environ:
        from gantailor.supernet.training import distributed

        distributed.join()


if __name__ == "__main__":
    sys.exit(main())
