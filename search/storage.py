"""Where studies are kept: a journal file in the run folder, or a database that several machines share."""

from __future__ import annotations

import fcntl
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend

from gantailor.search.scoring import Objective
from gantailor.supernet.errors import ConfigError

HEARTBEAT, GRACE = 20, 120  # seconds: how often a running trial of a database shows that it lives, and when it is lost


class JournalFile(JournalStorage):
    """Optuna's journal, which knows its file."""

    def __init__(self, path: Path) -> None:
        super().__init__(JournalFileBackend(str(path)))
        self.path = path


def open_study(
    storage: str | Path, *, name: str, objectives: Sequence[Objective] = (Objective("score"),)
) -> optuna.Study:
    """The study in a journal file, or behind a database URL (``postgresql://...``), made if missing.

    Raises:
        ConfigError: a study of that name has other objectives.
    """
    place = _place(storage)
    kinds = optuna.study.StudyDirection
    wanted = [kinds.MINIMIZE if objective.minimize else kinds.MAXIMIZE for objective in objectives]
    study = optuna.create_study(study_name=name, storage=place, directions=wanted, load_if_exists=True)
    known = study.user_attrs.get("objectives")
    if known is None:
        study.set_user_attr("objectives", [objective.name for objective in objectives])
    elif known != [objective.name for objective in objectives]:
        raise ConfigError(
            f"study {name!r} searches for {', '.join(known)}; choose another run folder for other objectives"
        )
    return study


def load_study(storage: str | Path, *, name: str) -> optuna.Study:
    """A study that exists.

    Raises:
        ConfigError: there is none.
    """
    if "://" in str(storage) or Path(storage).exists():
        with suppress(KeyError):
            return optuna.load_study(study_name=name, storage=_place(storage))
    raise ConfigError(f"nothing was searched yet in {str(storage)!r}")


def _place(storage: str | Path) -> BaseStorage:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if "://" not in str(storage):
        return JournalFile(Path(storage))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # heartbeats are "experimental" since 2021
        return RDBStorage(str(storage), heartbeat_interval=HEARTBEAT, grace_period=GRACE)


@contextmanager
def exclusive(path: Path | None) -> Iterator[None]:
    """Only one process of this machine at a time."""
    if path is None:
        yield
        return
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
