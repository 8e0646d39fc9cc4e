"""The runs below a folder, filtered by their settings, as a table."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gantailor.records.summary import FIRST_SCORES, Summary
from gantailor.run.config import SHORT
from gantailor.run.folder import RunFolder
from gantailor.search.limits import format_macs
from gantailor.supernet.errors import ConfigError, UnreadableError, nearest, shortened
from gantailor.supernet.received.documents import parse_yaml

DEEPEST = 8  # folders within the folder
OF_RUNS = tuple(file.name for file in (RunFolder.config, RunFolder.mark, RunFolder.trace, RunFolder.starts))
TOLD = ("folder", "state", "host", "date", "gantailor", "commit")  # of a row, beside its settings
LONGEST = 48  # characters of a cell


def find_runs(root: str | Path) -> list[Summary]:
    """Every run below a folder, by path: the folder itself, and those within; none within another run.

    Links are not followed. What only looks like a run is a row with a reason.

    Raises:
        ConfigError: there is no such folder.
    """
    top = Path(root)
    if not top.is_dir():
        what = "is no folder" if top.exists() else "does not exist"
        raise ConfigError(f"{str(root)!r} {what}; give a folder that holds run folders, as runs")
    return sorted(_below(top), key=lambda row: row.folder)


def _below(top: Path) -> Iterator[Summary]:
    refused: list[OSError] = []
    for place, folders, files in os.walk(top, onerror=refused.append):
        depth = len(Path(place).relative_to(top).parts)
        if any(name in files for name in OF_RUNS):
            found = Summary.read(place)
            yield found
            if not found.reason:
                folders.clear()
        folders[:] = sorted(name for name in folders if not name.startswith(".")) if depth < DEEPEST else []
    for error in refused:
        yield Summary(str(error.filename), reason=f"cannot be listed: {error.strerror}")


def matching(rows: Sequence[Summary], wanted: Sequence[str]) -> list[Summary]:
    """Those of which all of ``key=value`` are so; rows with a reason have no settings, so never.

    A key is a setting, with dots (``train.kimg``), or one of ``TOLD``; a value is written as in YAML. A list has a
    value that is one of its own.

    Raises:
        ConfigError: no ``key=value``, or a key that no run has.
    """
    kept = list(rows)
    for text in wanted:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ConfigError(f"--where {text!r} cannot be read; write a setting and its value: --where train.kimg=6")
        known = {name for row in rows if not row.reason for name in _flat(row.settings)} | set(TOLD) | set(SHORT)
        if key not in known and any(not row.reason for row in rows):
            raise ConfigError(f"--where {text!r}: no run here has a setting {key!r}; {_near(key, known)}")
        kept = [row for row in kept if not row.reason and _is_so(_value(row, key), value)]
    return kept


def _near(key: str, known: set[str]) -> str:
    """The nearest names, of which there are too many to list all."""
    close = nearest(key, known).partition("? Allowed")[0]
    return f"{close}?" if close.startswith("did you") else "gantailor settings lists them"


def _flat(settings: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """Settings by their dotted names, sections too."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        found[f"{where}{name}"] = value
        if isinstance(value, Mapping):
            found |= _flat(value, f"{where}{name}.")
    return found


def _value(row: Summary, key: str) -> Any:
    if key in TOLD:
        return getattr(row, key)
    return _flat(row.settings).get(f"{key}.{SHORT[key]}" if key in SHORT else key)


def _is_so(value: Any, text: str) -> bool:
    """Whether a setting is what a text says, by itself or as YAML reads it."""
    if isinstance(value, list) and any(_is_so(one, text) for one in value):
        return True
    if str(value) == text or (isinstance(value, str) and value.partition(" (")[0].partition(":")[0] == text):
        return True  # a state as well: running, for any stage
    try:
        read = parse_yaml(text, "--where")
    except UnreadableError:
        return False
    truth = isinstance(read, bool) or isinstance(value, bool)  # to Python 1 is true
    return read is value if truth else bool(read == value)


def text_of(rows: Sequence[Summary], root: str | Path) -> str:
    """A line for each, names relative to ``root``; what is not printable, in folders of others, is a question mark."""
    head = ("run", "state", "method", "generator", "budget", "MACs", "scores", "date", "host", "version")
    cells = [head, *(_cells(row, Path(root)) for row in rows)]
    widths = [max(len(line[column]) for line in cells if len(line) > 2) for column in range(len(head))]
    widths[0] = max(len(line[0]) for line in cells)
    lines = []
    for line in cells:
        padded = [f"{cell:<{width}}" for cell, width in zip(line, widths, strict=False)]
        lines.append("  ".join(padded if len(line) > 2 else [padded[0], line[1]]).rstrip())
    return "\n".join(lines)


def _cells(row: Summary, root: Path) -> tuple[str, ...]:
    path = Path(row.folder)
    name = path.relative_to(root).as_posix() if path.is_relative_to(root) else row.folder
    if row.reason:
        return printable(name), f"unreadable: {printable(row.reason, 160)}"
    macs = "" if row.macs is None else format_macs(row.macs)
    ratio = f" ({row.teacher_macs / row.macs:.3g}x fewer)" if row.macs and row.teacher_macs else ""
    scores = ", ".join(f"{name} {value:.4g}" for name, value in list(row.scores.items())[:FIRST_SCORES])
    version = " ".join(filter(None, (row.gantailor, row.commit[:9])))
    told = (name, row.state, row.method, row.generator, row.budget, macs + ratio, scores)
    return tuple(printable(text) for text in (*told, row.date[:16].replace("T", " "), row.host, version))


def printable(text: str, longest: int = LONGEST) -> str:
    """A text from a folder of anybody's, for a terminal: in one line, without what moves its cursor."""
    return shortened("".join(one if one.isprintable() else "?" for one in text), longest)
