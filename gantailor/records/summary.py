"""A run folder in a row: what it makes, how far it is, what came out, who made it where and with what."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gantailor.records.stages import number, rows_of, setting, stages_of, state_of
from gantailor.run.folder import RunFolder
from gantailor.search.config import shown
from gantailor.supernet.errors import GantailorError, UnreadableError, why_of
from gantailor.supernet.received.documents import read_json, read_text

SECTIONS = ("generator", "method", "data", "budget")  # settings that every run has, and hardly another program's file
FIRST_SCORES = 2  # that a row shows


@dataclass(frozen=True)
class Summary:
    """What a run folder tells.

    Attributes:
        folder: its path, as it was found.
        reason: why it tells nothing else; empty where it does.
        state: see ``gantailor.records.stages.state_of``; ``unreadable`` with a reason.
        macs, teacher_macs: of the result and of the whole generator, counted in ``convention``; None where not known.
        scores: of the result on the test split, by name; ``units`` and directions in ``scores.json``.
        date: of the last start, ISO in UTC; of runs by earlier versions when their settings were written.
        settings: all of them, passwords hidden.
    """

    folder: str
    reason: str = ""
    state: str = "unreadable"
    method: str = ""
    generator: str = ""
    budget: str = ""
    convention: str = ""
    macs: int | None = None
    teacher_macs: int | None = None
    scores: dict[str, float] = field(default_factory=dict)
    date: str = ""
    host: str = ""
    gantailor: str = ""
    commit: str = ""
    command: str = ""
    settings: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    @classmethod
    def read(cls, folder: str | Path) -> Summary:
        """Of a folder that may be anything: what cannot be read is a reason, never an error."""
        files = RunFolder(folder)
        try:
            return _summary(files)
        except (GantailorError, OSError) as error:
            return cls(str(folder), reason=why_of(error))
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError, RecursionError) as error:
            return cls(str(folder), reason=f"its files are damaged ({type(error).__name__}: {error})")


def _summary(folder: RunFolder) -> Summary:
    settings = _settings(folder)
    starts = rows_of(folder.starts)
    last, until = last_start(starts)
    made, convention = _read(folder.manifest), str(settings.get("convention", "true"))
    trace = _read(folder.trace)
    macs = number(setting(made, "macs", convention)) or _macs_in_front(folder, convention)
    whole = setting(made, "teacher_macs", convention) or setting(trace, "macs_full", convention)
    version = last.get("gantailor") or setting(made, "provenance", "gantailor")
    return Summary(
        str(folder),
        state=state_of(stages_of(folder, settings, until)),
        method=str(settings["method"]),
        generator=str(settings["generator"]),
        budget=str(settings["budget"]),
        convention=convention,
        macs=None if macs is None else int(macs),
        teacher_macs=None if number(whole) is None else int(whole),
        scores=_scores(folder),
        date=str(last.get("date") or _written(folder.config)),
        host=str(last.get("host") or ""),
        gantailor=str(version or ""),
        commit=str(last.get("commit") or ""),
        command=str(last.get("command") or ""),
        settings=settings,
    )


def _settings(folder: RunFolder) -> dict[str, Any]:
    """The stored settings, without a database's password.

    Raises:
        UnreadableError: there are none, or another program's.
    """
    if not folder.config.exists():
        raise UnreadableError("it has no config.json: half written, or its settings were deleted")
    found: dict[str, Any] = read_json(folder.config)
    if missing := [name for name in SECTIONS if name not in found]:
        raise UnreadableError(f"config.json is not of a run by gantailor: it has no {', '.join(missing)}")
    storage = setting(found, "search", "storage")
    return found if storage is None else {**found, "search": {**found["search"], "storage": shown(storage)}}


def last_start(rows: list[dict[str, Any]]) -> tuple[dict[str, Any], str | None]:
    """The last start, and the last stage that any was to do; empty and None where none is known."""
    untils = [row["until"] for row in rows if isinstance(row.get("until"), str)]
    return (rows[-1] if rows else {}), (untils[-1] if untils else None)


def _read(file: Path) -> dict[str, Any]:
    """A JSON object of the folder; empty where there is none that can be read: the row goes without."""
    with suppress(OSError, UnreadableError):
        found: dict[str, Any] = read_json(file)
        return found
    return {}


def _scores(folder: RunFolder) -> dict[str, float]:
    rows = _read(folder.scores).get("subnet")
    values = {name: number(setting(row, "value")) for name, row in (rows if isinstance(rows, Mapping) else {}).items()}
    return {str(name): value for name, value in values.items() if value is not None}


def _macs_in_front(folder: RunFolder, convention: str) -> float | None:
    """MACs of the chosen widths by the table of evaluated subnets: there before anything is exported."""
    widths = _read(folder.subnet_config)
    for row in table_rows(folder.front) if widths else ():
        same = [row[name] == str(size) for name, size in widths.items() if name in row]
        with suppress(KeyError, ValueError, OverflowError):
            if same and all(same):
                return number(float(row[f"macs_{convention}"]))
    return None


def table_rows(file: Path) -> Iterator[dict[str, str]]:
    """The rows of a CSV file, none where there is none that can be read."""
    with suppress(OSError, UnreadableError, csv.Error):
        yield from (
            {name: value for name, value in row.items() if isinstance(name, str) and isinstance(value, str)}
            for row in csv.DictReader(io.StringIO(read_text(file)))
        )


def _written(file: Path) -> str:
    return datetime.fromtimestamp(file.stat().st_mtime, UTC).isoformat(timespec="seconds")
