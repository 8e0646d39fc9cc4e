"""The command line: a mistake ends with status 2 and one message. Nothing heavy is loaded before a command runs."""

from __future__ import annotations

import argparse
import ctypes
import difflib
import errno
import io
import json
import logging
import math
import os
import platform
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from importlib import import_module
from pathlib import Path
from typing import IO, Any

import gantailor
from gantailor.supernet.errors import ConfigError, GantailorError, first_line, nearest, told

SPINS = "GOMP_SPINCOUNT"
MALLOC = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, KEPT = -1, -3, 2**31 - 1  # of <malloc.h>, and bytes
LEVELS = ("debug", "info", "warning", "error", "critical")
EXITS = {
    0: "done",
    2: "a mistake, or a bug, told in a message on stderr",
    130: "interrupted by Ctrl-C or SIGTERM; the same command continues",
    141: "whoever read the output has closed it",
}
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # such errors name no file


def _unknown(given: str, command: argparse.ArgumentParser) -> str:
    """What to say of an argument that a command does not take: the flags whose names are most like it."""
    flag, flags = given.partition("=")[0], [name for action in command._actions for name in action.option_strings]
    ends = [name for name in flags if name.rpartition(".")[2] == flag.lstrip("-")]
    close = ends or difflib.get_close_matches(flag, flags, n=2, cutoff=0.6)
    hint = f"; did you mean {' or '.join(close)}?" if close else "."
    return f"{command.prog} does not take {given!r}{hint} All it takes: {command.prog} --help"


def _message(error: BaseException) -> str:
    """What to say of a mistake, or of what should not have happened."""
    if isinstance(error, GantailorError):
        return str(error)
    if isinstance(error, OSError) and error.errno in FULL:
        of = f" ({str(error.filename)!r})" if error.filename else ""
        return f"nothing more can be written{of}: {error.strerror}; make room, the same command continues"
    if isinstance(error, OSError) and error.filename is not None:
        from gantailor.supernet.files import cache_path

        place = "set $GANTAILOR_CACHE to another folder" if _within(error.filename, cache_path()) else "choose another"
        return f"{str(error.filename)!r} cannot be used: {error.strerror}; {place}"
    if isinstance(error, MemoryError):
        return f"not enough memory: {first_line(error)}; take smaller networks, pictures or batches"
    if isinstance(error, RecursionError):
        return "something that was given is nested too deep; write it flat"
    whose = f"a bug of gantailor {gantailor.__version__}, or of code of your own"
    said = told(error) if isinstance(error, Exception) else repr(error)
    return f"{said} ({_place(error)}): {whose}; please report it where you got gantailor, with what --debug prints"


def _place(error: BaseException) -> str:
    """File and line that an error comes from."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else "nowhere"


def _within(file: object, folder: Path) -> bool:
    return isinstance(file, str) and Path(file).absolute().is_relative_to(folder)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status, see ``EXITS``."""
    given = list(sys.argv[1:] if argv is None else argv)
    debug, as_json = "--debug" in given, "--json" in given
    try:
        _prepare_streams()
        _wait_asleep()
        keep_memory()
        with _warnings_in_a_line():
            status = _run(_without_general(given), as_json=as_json)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read this (head, less) has seen enough
        _end_stream(sys.stdout)
        return 141
    except KeyboardInterrupt:
        _clear_bars()
        _say("interrupted; the same command continues")
        return 130
    except Exception as error:
        if debug:
            raise
        _clear_bars()
        _say(f"error: {_message(error)}")
        _end_stream(sys.stdout)
        return 2
    return status


def _wait_asleep() -> None:
    """Threads that are done soon sleep until the others are, unless the user's environment says how they wait.

    By default OpenMP's spin for long: beside other processes on the same cores they keep the one that everybody waits
    for from running, and a step takes eighty times as long. Asleep at once, a step on idle cores takes twice as long;
    a thousand turns (some microseconds) cost neither. It counts for PyTorch since that is loaded later.
    """
    if not any(name in os.environ for name in ("OMP_WAIT_POLICY", SPINS, "KMP_BLOCKTIME")):
        os.environ[SPINS] = "1000"


def keep_memory() -> None:
    """Use the memory of large tensors again, unless the user's environment says how much is given back.

    By default glibc returns blocks of more than 32 MiB at once; the system zeroes them, page by page, for the next
    tensor, which is a tenth of a training step.
    """
    if platform.libc_ver()[0] == "glibc" and not any(name in os.environ for name in (*MALLOC, "LD_PRELOAD")):
        library = ctypes.CDLL(None)
        for limit in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD):
            library.mallopt(limit, KEPT)


def _without_general(given: Sequence[str]) -> list[str]:
    """The command's own arguments; what every command takes is done.

    Raises:
        ConfigError: there is no such level.
    """
    rest, level = [], None
    words = iter(given)
    for word in words:
        if word == "--quiet":
            from gantailor.run.progress import Reporter

            Reporter.silent, level = True, level or "error"
        elif word.partition("=")[0] == "--log-level":
            level = word.partition("=")[2] or next(words, "")
            if level not in LEVELS:
                raise ConfigError(f"--log-level {level!r} is none; {nearest(level, LEVELS)}")
        elif word not in ("--debug", "--json"):
            rest.append(word)
    if level is not None:
        logging.basicConfig(level=level.upper(), format="%(levelname)s %(name)s: %(message)s")
    # also back to what it was: a process may give several commands
    logging.getLogger("gantailor").setLevel(logging.NOTSET if level is None else level.upper())
    return rest


def _run(given: list[str], *, as_json: bool) -> int:
    if given == ["--version"]:
        print(json.dumps({"version": gantailor.__version__}) if as_json else gantailor.__version__)
        return 0
    from gantailor.cli.flags import check_settings  # after the quickest answer
    from gantailor.cli.parser import parser

    arguments, unknown = parser().parse_known_args(given)
    if unknown:
        _say(f"error: {_unknown(unknown[0], arguments.command)}")
        return 2
    check_settings(arguments)
    _ignore_matplotlibrc()
    _join()
    module, _, function = arguments.function.partition(":")
    command = getattr(import_module(module), function)
    with _terminated():
        if not as_json:
            command(arguments)
            return 0
        with redirect_stdout(io.StringIO()):  # what a person reads
            result = command(arguments)
    if os.environ.get("RANK", "0") == "0":
        print(json.dumps(_plain(result), indent=2))
    return 0


def _plain(value: Any) -> Any:
    """A result as JSON has it: what is no number there is null, paths and the like are text."""
    if hasattr(value, "tolist"):  # NumPy's
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(one) for one in value]
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value)


def _prepare_streams() -> None:
    """Streams that can always be written to: closed ones lead nowhere, and no letter is unknown."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115, PTH123  for as long as the process
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def _warnings_in_a_line() -> Iterator[None]:
    """What this project warns of, without the place in its code; others' warnings stay as they are."""
    usual, own = warnings.showwarning, Path(gantailor.__file__).parent

    def show(message: Warning | str, category: type[Warning], filename: str, *rest: Any, **more: Any) -> None:
        if issubclass(category, UserWarning) and Path(filename).is_relative_to(own):
            _say(f"warning: {message}")
        else:
            usual(message, category, filename, *rest, **more)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = usual


def _say(text: str) -> None:
    """To whoever listens: stderr may be closed, or full."""
    try:
        print(text, file=sys.stderr, flush=True)
    except (OSError, ValueError):
        _end_stream(sys.stderr)


def _end_stream(stream: IO[str]) -> None:
    """What cannot be written any more leads nowhere: Python would tell of it when it exits."""
    try:
        stream.flush()
    except (OSError, ValueError):
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _clear_bars() -> None:
    """Take bars off the terminal's line: a message would begin behind what is left of one."""
    tqdm = sys.modules.get("tqdm")
    for bar in list(getattr(tqdm.tqdm, "_instances", ())) if tqdm is not None else ():
        with suppress(Exception):
            bar.leave = False
            bar.close()
    if sys.stderr.isatty():
        with suppress(OSError):
            sys.stderr.write("\r\033[K")


def _ignore_matplotlibrc() -> None:
    """Matplotlib obeys a file of the current folder, which may be somebody else's: it is loaded from elsewhere."""
    if os.path.lexists("matplotlibrc") and "matplotlib" not in sys.modules:
        here = os.getcwd()  # noqa: PTH109  a text, for one may be gone
        os.chdir("/")
        try:
            import_module("matplotlib")
        finally:
            os.chdir(here)


@contextmanager
def _terminated() -> Iterator[None]:
    """SIGTERM ends a command as Ctrl-C does, in every stage: files are whole or absent, what is locked is let go."""

    def end(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _join() -> None:
    """Join the other processes where ``torchrun`` started this."""
    if "RANK" in os.environ:
        from gantailor.supernet.training import distributed

        distributed.join()


if __name__ == "__main__":
    sys.exit(main())
