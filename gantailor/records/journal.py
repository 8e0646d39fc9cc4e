"""A search's journal while it is written: replayed from its lines in memory, so that nothing of it is touched."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend
from optuna.trial import FrozenTrial, TrialState

from gantailor.records.stages import rows_of
from gantailor.run.folder import RunFolder
from gantailor.search.results import table
from gantailor.supernet.errors import RunError, UnreadableError, first_line
from gantailor.supernet.received.documents import read_json

if TYPE_CHECKING:
    import pandas as pd

LATEST = 20  # trials whose pace tells how long the others take


class _Lines(BaseJournalBackend):
    """Lines that were read, and none more."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows = rows

    def read_logs(self, log_number_from: int) -> Iterable[dict[str, Any]]:
        """Those from a number on."""
        return self.rows[log_number_from:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Nothing is written.

        Raises:
            RunError: always.
        """
        raise RunError("a journal that is looked at is not written")


@dataclass(frozen=True)
class Journal:
    """What a search found so far.

    Attributes:
        score: that it follows; ``lower_is_better`` its direction.
        frame: a row for each evaluated subnet, see ``gantailor.search.results.table``.
        pace: seconds between two trials that ended, of the latest; None of less than two.
    """

    score: str
    lower_is_better: bool
    frame: pd.DataFrame
    pace: float | None


def read_journal(folder: RunFolder) -> Journal | None:
    """The run's own study; None where there is none yet, or it is kept in a database.

    Raises:
        RunError: the journal is damaged.
    """
    rows = rows_of(folder.search)
    if not rows:
        return None
    try:
        stored = read_json(folder.study) if folder.study.exists() else {}
        storage = JournalStorage(_Lines(rows))
        names = [study.study_name for study in storage.get_all_studies()]
        wanted = str(stored.get("name", ""))
        if not names:
            return None
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.load_study(study_name=wanted if wanted in names else names[-1], storage=storage)
        frame = table(study, provenance=stored.get("provenance"))
        score = str(study.user_attrs["objectives"][0])
        lower = study.directions[0] == optuna.study.StudyDirection.MINIMIZE
        return Journal(score, lower, frame, _pace(study.get_trials(deepcopy=False)))
    except (OSError, UnreadableError) as error:
        raise RunError(f"{str(folder.study)!r} cannot be read: {first_line(error)}") from None
    except Exception as error:  # lines of another kind raise what they like
        raise RunError(f"the journal {str(folder.search)!r} cannot be read ({first_line(error)})") from None


def _pace(trials: list[FrozenTrial]) -> float | None:
    ends = sorted(t.datetime_complete for t in trials if t.state == TrialState.COMPLETE and t.datetime_complete)
    latest = ends[-LATEST:]
    if len(latest) < 2:
        return None
    spent: timedelta = latest[-1] - latest[0]
    return spent.total_seconds() / (len(latest) - 1)
