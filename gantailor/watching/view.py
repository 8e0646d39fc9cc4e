"""What a run folder shows while a run goes on: read within bounds, nothing imported, nothing written."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gantailor.records.journal import Journal, read_journal
from gantailor.records.stages import LOGS, Stage, number, rows_of, setting, stages_of
from gantailor.records.summary import Summary, last_start
from gantailor.run.folder import RunFolder
from gantailor.search.methods import METHODS
from gantailor.search.methods.method import method
from gantailor.supernet.errors import GantailorError, UnreadableError
from gantailor.supernet.received.documents import read_bytes, read_json

PNG = b"\x89PNG\r\n\x1a\n"
SMALL, LARGE = 500, 1100  # pixels of width: of sheets that are enlarged, and as wide as the page is
MOST = 6  # trainings whose scores and pictures are shown
MOST_ROWS = 4000  # of a log that a page draws
SAMPLE = re.compile(r"(?P<name>.+)-(?P<step>\d{1,12})\.png")
WATCHED = ".watch.jsonl"
TITLES = {"train": "training", "finetune": "fine-tuning", "teacher": "training of the teacher"}


@dataclass(frozen=True)
class Sample:
    """The newest sheet of pictures of one training: ``png`` is the file."""

    name: str
    step: int
    png: bytes = field(repr=False)

    @property
    def shown_width(self) -> int:
        """Pixels on the page: small pictures twice as large; 0 where the file does not say."""
        width = int.from_bytes(self.png[16:20], "big")  # of the first chunk, IHDR
        return 2 * width if width < SMALL else min(width, LARGE)


@dataclass(frozen=True)
class View:
    """What is shown.

    Attributes:
        summary: the run in a row.
        stages: see ``gantailor.records.stages``; the search counts subnets.
        left: seconds that trainings and search still take, as far as rates are known; None where none is.
        losses: rows of each training's log, by its title.
        scores: rows of what was watched, by the training's name.
        samples: the newest pictures of each training.
        journal: what the search found so far.
        budget: MACs that it keeps to; None where that is not known.
        notes: what could not be read, a sentence each.
    """

    summary: Summary
    stages: tuple[Stage, ...] = ()
    left: float | None = None
    losses: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    scores: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    samples: tuple[Sample, ...] = ()
    journal: Journal | None = None
    budget: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def busy(self) -> bool:
        """Whether a process works on the run."""
        return any(stage.state == "running" for stage in self.stages)

    @classmethod
    def read(cls, path: str | Path) -> View:
        """Of a folder that may be anything: what cannot be read is a note."""
        folder, summary = RunFolder(path), Summary.read(path)
        if summary.reason:
            return cls(summary, notes=(f"no run can be shown yet: {summary.reason}",))
        journal, notes = None, list[str]()
        try:
            journal = read_journal(folder)
        except GantailorError as error:
            notes.append(str(error))
        until = last_start(rows_of(folder.starts))[1]
        stages = [
            _counted(one, journal, summary, chosen=_chooses(folder, summary))
            for one in stages_of(folder, summary.settings, until)
        ]
        left = [one.left for one in stages if one.left is not None and one.state in ("running", "stopped", "waiting")]
        losses = {TITLES[name]: rows_of(folder.file(file), most=MOST_ROWS) for name, file in LOGS.items()}
        return cls(
            summary,
            tuple(stages),
            sum(left) if left else None,
            {title: rows for title, rows in losses.items() if rows},
            _watched(folder),
            tuple(_samples(folder)),
            journal if journal is not None and len(journal.frame) else None,
            _budget(folder),
            tuple(notes),
        )


def _chooses(folder: RunFolder, summary: Summary) -> bool:
    """Whether the method's training chooses the widths; one's own method is not imported to be asked."""
    built_in = summary.method in METHODS
    return folder.selected.exists() or (built_in and not method(summary.method).searches)


def _counted(stage: Stage, journal: Journal | None, summary: Summary, *, chosen: bool) -> Stage:
    """The search with how many subnets were evaluated, of how many, and what the others take.

    Args:
        chosen: whether the method's training chose the widths, so that one is scored.
    """
    total = 1.0 if chosen else number(setting(summary.settings, "search", "trials"))
    if stage.name != "search" or not total or stage.state == "done":
        return stage
    done = 0 if journal is None else len(journal.frame)
    pace = None if journal is None else journal.pace
    left = None if pace is None else pace * max(0.0, total - done)
    return replace(stage, done=float(done), total=total, unit="subnets", left=left)


def _budget(folder: RunFolder) -> float | None:
    try:
        return number(read_json(folder.trace).get("budget_macs"))
    except (OSError, UnreadableError):
        return None


def _watched(folder: RunFolder) -> dict[str, list[dict[str, Any]]]:
    files = sorted(folder.path.glob(f"*{WATCHED}"))[:MOST]
    found = {file.name.removesuffix(WATCHED): rows_of(file, most=MOST_ROWS) for file in files}
    return {name: rows for name, rows in found.items() if rows}


def _samples(folder: RunFolder) -> list[Sample]:
    """The newest sheet of each training; links lead elsewhere and are not followed."""
    newest: dict[str, tuple[int, Path]] = {}
    for file in folder.file("samples").glob("*.png"):
        known = SAMPLE.fullmatch(file.name)
        if known is None or file.is_symlink() or file.parent.is_symlink():
            continue
        name, step = known["name"], int(known["step"])
        newest[name] = max(newest.get(name, (-1, file)), (step, file))
    found = []
    for name, (step, file) in sorted(newest.items(), key=lambda one: (one[1][0], one[0]))[-MOST:]:
        try:
            content = read_bytes(file)
        except (OSError, UnreadableError):
            continue
        if content.startswith(PNG):
            found.append(Sample(name, step, content))
    return found
