"""Doing the runs of a comparison, in one process or in several that share the folder."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from gantailor.comparison.runs import SUPERNET, UNTRAINED, Entry, goes_to_budget
from gantailor.evaluators.metric import metric_of
from gantailor.pipeline.check import find_mistakes
from gantailor.pipeline.estimates import about
from gantailor.run.progress import Reporter
from gantailor.run.run import Run
from gantailor.search.methods.method import method as find_method
from gantailor.supernet.errors import BusyError, ConfigError, GantailorError, RunError, told
from gantailor.supernet.files import write_bytes

PATIENCE = 5.0  # seconds between two looks at what another process works on


def check_folders(entries: Sequence[Entry]) -> None:
    """That what lies in the folders was made with these settings.

    Raises:
        ConfigError: a run was made with others.
    """
    for entry in entries:
        if other := entry.open().changed():
            raise ConfigError(
                f"{str(entry.folder)!r} was made with other settings ({'; '.join(other)}); choose another --out, or "
                "delete that folder"
            )


def run_all(entries: Sequence[Entry]) -> dict[str, str]:
    """Every run to its scores; what is done stays, and what another process works on is waited for. Failures by name.

    A process that ends lets its folder go: what it left is then done here.
    """
    report, failed, time_left = Reporter(), dict[str, str](), TimeLeft(entries)
    mistaken = dict[tuple[str, str], str]()  # what is wrong with an arm's settings is wrong with every seed
    left = list(enumerate(entries, 1))
    while left:
        busy: list[tuple[int, Entry]] = []
        for number, entry in left:
            name, arm = entry.folder.name, (entry.method, entry.budget)
            if arm in mistaken:
                failed[name] = mistaken[arm]
                continue
            report.note(
                f"==== {name}, {number} of {len(entries)}{', done' if entry.done else time_left.said(len(failed))}"
            )
            try:
                work_on(entry, entries, report)
            except BusyError:
                busy.append((number, entry))
            except Exception as error:  # one that fails, be it in somebody's own code, does not take the others along
                failed[name] = reason_of(error)
                if isinstance(error, ConfigError):
                    mistaken[arm] = failed[name]
                report.note(f"{name} failed: {failed[name]}")
        if busy:
            names = ", ".join(entry.folder.name for _, entry in busy)
            report.note(f"{names}: in work in another process, which is waited for")
            wait_for([entry for _, entry in busy])
        left = busy
    return failed


class TimeLeft:
    """How soon the runs end, by those that did since this began, in other processes too."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries, self.before, self.started = entries, sum(entry.done for entry in entries), time.monotonic()

    def said(self, failed: int) -> str:
        """``, about 2 hours left in all``; nothing before one has ended."""
        done = sum(entry.done for entry in self.entries)
        if done == self.before:
            return ""
        each = (time.monotonic() - self.started) / (done - self.before)
        return f", {about(each * (len(self.entries) - done - failed))} left in all"


def work_on(entry: Entry, entries: Sequence[Entry], report: Reporter) -> None:
    """One run, if it has no scores yet.

    Raises:
        BusyError: another process works on it.
        ConfigError: its settings, or the files that they name, cannot be used.
        GantailorError: it failed.
    """
    if entry.done:
        return
    run = entry.open(report)
    try:
        _check(run)
        run.claim()  # the folder is this process's from here on
        if take_supernet(entry, entries):
            run.setup.look_again()
        run.known_scores = untrained_scores(entries)
        entry.complete(run)
    finally:
        run.release()


def untrained_scores(entries: Sequence[Entry]) -> dict[str, dict[str, Any]]:
    """What another run has scored that no run trains; what is timed is timed by each.

    A score is taken only where weights, pictures and settings are the same (``pipeline.evaluate``).
    """
    other = next((entry.scores() for entry in entries if entry.done), {})
    rows = {name: scores for name, scores in other.items() if name in UNTRAINED}
    return {
        name: {key: row for key, row in scores.items() if metric_of(key).compares != "generator"}
        for name, scores in rows.items()
    }


def reason_of(error: Exception) -> str:
    """Why a run failed: ours in its own words, what somebody's code raised by its kind."""
    return str(error) if isinstance(error, GantailorError) else told(error)


def _check(run: Run) -> None:
    loud, run.report.quiet = run.report.quiet, True  # the stage looks again, and tells
    try:
        find_mistakes(run)
    except RunError:  # of its folder
        raise
    except GantailorError as error:
        raise ConfigError(str(error)) from error
    finally:
        run.report.quiet = loud


def wait_for(entries: Sequence[Entry]) -> None:
    """Until one of them is done, or let go."""
    while not any(entry.done or entry.open().folder.free for entry in entries):
        time.sleep(PATIENCE)


def shares_supernet(entry: Entry, other: Entry) -> bool:
    """Whether a supernet that one of them trains is the other's: they differ in budget and search alone.

    A path that ends at the budget of one says nothing of the nets of a smaller one.
    """
    if goes_to_budget(entry.config) and entry.config.budget != other.config.budget:
        return False
    theirs = {"budget": entry.config.budget, "search": entry.config.search}
    return find_method(entry.config.method).searches and other.config.model_copy(update=theirs) == entry.config


def leader(entry: Entry, entries: Sequence[Entry]) -> int:
    """The first of all entries that trains the supernet of this one; itself, where there is none to train."""
    trains = entry.config.train.kimg > 0
    same = (n for n, other in enumerate(entries) if other is entry or (trains and shares_supernet(entry, other)))
    return next(same)


def take_supernet(entry: Entry, entries: Sequence[Entry]) -> bool:
    """A supernet is trained once for all budgets and searches: that of a run that differs in nothing else is copied.

    Returns:
        Whether one was.
    """
    if not find_method(entry.config.method).searches or (entry.folder / SUPERNET[-1]).exists():
        return False
    for other in entries:
        if shares_supernet(entry, other) and (other.folder / SUPERNET[-1]).exists():
            entry.folder.mkdir(parents=True, exist_ok=True)
            for file in (other.folder / name for name in SUPERNET):
                if file.exists():
                    write_bytes(entry.folder / file.name, file.read_bytes())
            return True
    return False
