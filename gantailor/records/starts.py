"""Who worked on a run, when and where: a line for each start in ``starts.jsonl`` of its folder."""

from __future__ import annotations

import json
import os
import platform
import shlex
import socket
import sys
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import torch

import gantailor
from gantailor.run.folder import RunFolder
from gantailor.search.config import shown
from gantailor.supernet.device import processor
from gantailor.supernet.errors import RunError, UnreadableError
from gantailor.supernet.files import cut_rows

CHECKOUT = Path(gantailor.__file__).resolve().parents[1]
LONGEST = 4096  # characters of a command line that are kept
REFS = 5  # links from one reference to another that git allows


def commit(checkout: Path = CHECKOUT) -> str | None:
    """The commit of a git checkout, read from its files; None where there is none, as in a wheel."""
    with suppress(OSError, ValueError):
        folder = checkout / ".git"
        if folder.is_file():  # of a worktree it names the folder
            folder = checkout / folder.read_text().strip().removeprefix("gitdir: ")
        common = folder / "commondir"
        shared = folder / common.read_text().strip() if common.is_file() else folder
        return _resolved(folder, shared, "HEAD")
    return None


def _resolved(folder: Path, shared: Path, name: str) -> str | None:
    """The commit that a reference leads to."""
    for _ in range(REFS):
        file = next((place / name for place in (folder, shared) if (place / name).is_file()), None)
        if file is None:
            packed = (shared / "packed-refs").read_text().splitlines()
            return next((line.split()[0] for line in packed if line.endswith(f" {name}")), None)
        text = file.read_text().strip()
        if not text.startswith("ref: "):
            return text
        name = text.removeprefix("ref: ")
    return None


def _command() -> str:
    """The command line without passwords of databases, and without the place of this installation."""
    program, *words = sys.argv
    ours = Path(program).name in (gantailor.__name__, "__main__.py")
    return shlex.join([gantailor.__name__ if ours else shown(program), *map(shown, words)])[:LONGEST]


def note_start(folder: RunFolder, until: str | None) -> None:
    """Add this process to the run's starts; the folder is its own.

    Args:
        until: the last stage that it was told to do; None where it does no stages.

    Raises:
        RunError: there is no right to write.
    """
    row = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": socket.gethostname(),
        "processor": processor(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "command": _command(),
        "until": until,
        "gantailor": gantailor.__version__,
        "commit": commit(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    try:
        cut_rows(folder.starts, 0)  # a line that a kill cut short would be joined to this one
        with folder.starts.open("a") as file:
            file.write(json.dumps(row) + "\n")
    except (OSError, UnreadableError) as error:
        raise RunError(f"run folder {str(folder)!r} cannot be used: {error}; choose another --out") from None
