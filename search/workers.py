"""Which worker holds which trial, and which workers are gone: their subnets are tried again, nobody else's are.

A number of a process says little: containers have numbers and host names of their own, and numbers come back. So in a
journal a worker lives as long as it holds a lock on a file beside the journal: the system gives it back when the
process ends, however it ends. In a database its running trials have Optuna's heartbeat.
"""

from __future__ import annotations

import fcntl
import logging
import os
import socket
import threading
import time
import uuid
import warnings
import weakref
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import optuna
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.storages import BaseStorage, fail_stale_trials
from optuna.trial import FrozenTrial, TrialState

from gantailor.search.storage import GRACE, JournalFile
from gantailor.supernet.errors import first_line

UNFINISHED = (TrialState.WAITING, TrialState.RUNNING)

logger = logging.getLogger(__name__)


class Worker:
    """One process's part in a study. Where nobody can tell whether it lives, its trials are left alone.

    Attributes:
        name: host, process number and a part that no other worker has; each of its trials bears it.
        pid: of the process that made it; a fork needs a worker of its own.
    """

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.name = f"{socket.gethostname()}:{self.pid}:{uuid.uuid4().hex[:12]}"

    def hold(self, trial_id: int) -> None:
        """From now on the trial is this worker's."""

    def let_go(self, trial_id: int) -> None:
        """The trial is finished, or somebody else may have it."""


class JournalWorker(Worker):
    """Holds a lock on a file of its own."""

    def __init__(self, journal: Path) -> None:
        super().__init__()
        path = _lock_file(journal, self.name)
        path.parent.mkdir(exist_ok=True)
        file = path.open("w")
        fcntl.flock(file, fcntl.LOCK_EX)
        weakref.finalize(self, _end, file, path, self.pid)


def _end(file: IO[str], path: Path, pid: int) -> None:
    if os.getpid() == pid:  # a fork has the file open too, but the lock is not its own
        with suppress(OSError):
            path.unlink()
    file.close()


def _lock_file(journal: Path, worker: str) -> Path:
    return journal.with_name(f"{journal.name}.workers") / worker.rpartition(":")[2]


def _lives(journal: Path, worker: str) -> bool:
    """Whether some process holds the worker's lock, or may: a file of another user cannot be asked."""
    path = _lock_file(journal, worker)
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two that look do not take each other for it
    except FileNotFoundError:
        return False
    except OSError:  # it is held; or nobody can tell
        return True
    with suppress(OSError):
        path.unlink()
    return False


class DatabaseWorker(Worker):
    """Records a heartbeat for all its trials while it lives."""

    def __init__(self, storage: Any) -> None:
        super().__init__()
        self._storage, self._held = storage, set[int]()
        self._stop = threading.Event()
        weakref.finalize(self, self._stop.set)
        arguments = (storage, self._held, self._stop)
        threading.Thread(target=_beat, args=arguments, daemon=True, name="heartbeat").start()

    def hold(self, trial_id: int) -> None:
        """Its first heartbeat; the others follow by themselves."""
        self._storage.record_heartbeat(trial_id)
        self._held.add(trial_id)

    def let_go(self, trial_id: int) -> None:
        """No further heartbeat."""
        self._held.discard(trial_id)


def _beat(storage: Any, held: set[int], stop: threading.Event) -> None:
    while not stop.wait(storage.get_heartbeat_interval()):
        for trial_id in tuple(held):
            try:
                storage.record_heartbeat(trial_id)
            except Exception as error:  # the database may be back at the next
                logger.warning("no heartbeat could be recorded: %s", first_line(error))


def make_worker(study: optuna.Study) -> Worker:
    """This process as a worker of a study."""
    if isinstance(study._storage, JournalFile):
        return JournalWorker(study._storage.path)
    return DatabaseWorker(study._storage) if _has_heartbeat(study._storage) else Worker()


def _has_heartbeat(storage: BaseStorage) -> bool:
    interval = getattr(storage, "get_heartbeat_interval", None)
    return interval is not None and interval() is not None


def can_tell(study: optuna.Study) -> bool:
    """Whether the study's storage shows which workers are gone."""
    return isinstance(study._storage, JournalFile) or _has_heartbeat(study._storage)


def release_lost(study: optuna.Study) -> None:
    """Unfinished trials whose worker is gone are marked failed without a reason: their subnets may be tried again."""
    if not can_tell(study):
        return
    storage = study._storage
    if not isinstance(storage, JournalFile):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            fail_stale_trials(study)
    for trial in study.get_trials(deepcopy=False, states=UNFINISHED):
        if _is_lost(storage, trial):
            give_back(study, trial._trial_id)


def _is_lost(storage: BaseStorage, trial: FrozenTrial) -> bool:
    worker = trial.user_attrs.get("worker")
    if worker is None:  # from before workers had names
        return True
    if isinstance(storage, JournalFile):
        return not _lives(storage.path, worker)
    # between its number and its first heartbeat are milliseconds; what has waited for longer was killed there
    return trial.state == TrialState.WAITING and time.time() - trial.user_attrs["claimed"] > 5 * GRACE


def give_back(study: optuna.Study, trial_id: int) -> None:
    """Mark a trial failed without a reason, unless somebody else finished it."""
    with suppress(UpdateFinishedTrialError):
        study._storage.set_trial_state_values(trial_id, state=TrialState.FAIL)
