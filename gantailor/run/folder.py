"""A run folder: what lies in it, and who may write there."""

from __future__ import annotations

import fcntl
import json
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Self, overload

from gantailor.supernet.errors import BusyError, GantailorError, RunError, SelectionError, UnreadableError, told
from gantailor.supernet.files import clear_unfinished, write_bytes, write_json
from gantailor.supernet.graph import SubnetConfig
from gantailor.supernet.received.documents import check_regular, read_json, read_text
from gantailor.supernet.received.signature import is_own, mark

ASKED_AGAIN = (0.01, 0.03)  # seconds


class _File:
    """A file of the folder, as a path."""

    def __init__(self, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, folder: None, owner: type[RunFolder]) -> Self: ...

    @overload
    def __get__(self, folder: RunFolder, owner: type[RunFolder]) -> Path: ...

    def __get__(self, folder: RunFolder | None, owner: type[RunFolder]) -> Self | Path:
        return self if folder is None else folder.path / self.name


class RunFolder:
    """The files of a run by what they hold, and the lock that one process writes under.

    Attributes:
        config: settings of the run, JSON.
        starts: who worked on it, a line of JSON for each process: date, host, command, version, see ``records/starts``.
        mark: shows that this user made them, see ``supernet/received/signature.py``.
        trace: what tracing and its repair decided, and the costs of the whole generator, JSON.
        ranking: scores of every channel by the run's criterion, JSON.
        shown: a few inputs of the test split, which exports are compared on.
        supernet: weights of the whole generator after training, channels in their final order.
        supernet_discriminator: what judged beside it at the end of that training; ``subnet_discriminator`` of
            fine-tuning. Of a CycleGAN both discriminators.
        supernet_maps: its 1x1 maps to the teacher's features, by layer, from the channels as they lie in ``supernet``.
        supernet_checkpoint: of a training that is not at its end.
        selected: widths that a method's training chose, JSON; absent where the search chooses.
        ranges: of a training in few bits, JSON; ``subnet_ranges`` after fine-tuning.
        subnet_config: the chosen widths, JSON.
        subnet: weights of the narrow generator after fine-tuning; ``subnet_best`` while that runs, ``subnet_last`` of
            its last step where that was not the best.
        search, search_lock: the study's journal.
        study: which study, and which of its trials, are the run's, JSON.
        front: every evaluated subnet, CSV.
        path_scores: costs and inherited scores of nets along the path, where there is one, CSV.
        scores: on the test split, JSON.
        export, manifest: the exported files.
        log: what was told, with times; ``log_of`` a training is another.
    """

    config = _File("config.json")
    starts = _File("starts.jsonl")
    mark = _File(".mark")
    trace = _File("trace.json")
    ranking = _File("ranking.json")
    shown = _File("shown.safetensors")
    supernet = _File("supernet.safetensors")
    supernet_discriminator = _File("supernet_discriminator.safetensors")
    supernet_maps = _File("supernet_maps.safetensors")
    supernet_checkpoint = _File("supernet.ckpt.safetensors")
    selected = _File("selected.json")
    ranges = _File("slimming.ranges.json")
    subnet_config = _File("subnet.json")
    subnet = _File("subnet.safetensors")
    subnet_discriminator = _File("subnet_discriminator.safetensors")
    subnet_checkpoint = _File("subnet.ckpt.safetensors")
    subnet_best = _File("subnet.best.safetensors")
    subnet_last = _File("subnet.last.safetensors")
    subnet_ranges = _File("subnet.ranges.json")
    search = _File("search.journal")
    search_lock = _File(".search.lock")
    study = _File("study.json")
    front = _File("front.csv")
    path_scores = _File("path.csv")
    scores = _File("scores.json")
    export = _File("export")
    manifest = _File("export/manifest.json")
    report = _File("report.html")
    log = _File("gantailor.log")
    tensorboard = _File("tensorboard")

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock: IO[str] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """A copy that another process works with does not hold the lock."""
        return {**self.__dict__, "_lock": None}

    def __str__(self) -> str:
        return str(self.path)

    def file(self, name: str) -> Path:
        """Any file of the folder."""
        return self.path / name

    def weights_of(self, partner: str) -> Path:
        """Weights of a net that was narrowed along with the generator; its widths lie beside it as JSON."""
        return self.path / f"{partner}.safetensors"

    def log_of(self, training: str) -> Path:
        """A line of JSON for each look at a training."""
        return self.path / f"{training}.watch.jsonl"

    def store_config(self, config: dict[str, Any], *, private: bool = False) -> None:
        """Store the settings of the run.

        Args:
            private: whether they hold what nobody else may read.

        Raises:
            RunError: there is no right to write.
        """
        with self._usable():
            write_bytes(self.mark, f"{mark(config)}\n".encode())
            write_json(self.config, config, mode=0o600 if private else 0o644)

    @contextmanager
    def _usable(self) -> Iterator[None]:
        """What the system refuses within the block is told as a mistake in the choice of the folder."""
        try:
            yield
        except (OSError, UnreadableError) as error:
            raise RunError(f"run folder {str(self)!r} cannot be used: {error}; choose another --out") from None

    def stored(self, file: Path) -> dict[str, Any]:
        """What a JSON file of the folder holds; empty where it is not there.

        Raises:
            RunError: it cannot be read.
        """
        with self._usable():
            found: dict[str, Any] = read_json(file) if file.exists() else {}
        return found

    def stored_config(self) -> dict[str, Any]:
        """The settings that the folder's run has; empty where there is none.

        Raises:
            RunError: they cannot be read.
        """
        return self.stored(self.config)

    def stored_trace(self) -> dict[str, Any]:
        """What tracing and its repair decided for the folder's run; empty where it was not traced yet.

        Raises:
            RunError: it cannot be read.
        """
        return self.stored(self.trace)

    def is_own(self, stored: dict[str, Any]) -> bool:
        """Whether this user made the run that has these settings, and nobody changed them since."""
        try:
            return is_own(stored, read_text(self.mark).strip())
        except (OSError, UnreadableError):
            return False

    def lock(self) -> None:
        """Make the folder, and keep other processes from writing here.

        The lock goes with the process: a killed run leaves none behind.

        Raises:
            BusyError: another process has it.
            RunError: there is no right to write.
        """
        if self._lock is not None:
            return
        with self._usable():
            self.path.mkdir(parents=True, exist_ok=True)
            check_links(self.path)
            lock = _opened(self.file(".lock"))
        try:
            _hold(lock)
        except BlockingIOError:
            lock.seek(0)
            raise BusyError(
                f"{str(self)!r} is being written by process {lock.read().strip() or 'unknown'}; wait for it, or "
                "choose another --out"
            ) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        self._lock = lock
        clear_unfinished(self.path)

    @property
    def free(self) -> bool:
        """Whether no process writes here at this moment; nothing is written to find out."""
        lock = self.file(".lock")
        try:
            check_regular(lock)
            with lock.open() as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except (OSError, UnreadableError):  # no process was here yet
            return True
        return True

    def release(self) -> None:
        """Let other processes write here."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def check_place(folder: Path) -> None:
    """That a run folder can be here; nothing is made.

    Raises:
        RunError: a file is in the way, the name is none, or the folder may only be read.
    """
    if "\0" in str(folder):
        raise RunError(f"run folder {str(folder)!r} cannot be used: its name holds a null byte; choose another --out")
    there = next(place for place in (folder, *folder.absolute().parents) if os.path.lexists(place))
    if folder.is_dir() and not os.access(folder, os.W_OK):
        raise RunError(f"run folder {str(folder)!r} cannot be used: it cannot be written; choose another --out")
    if not there.is_dir():
        raise RunError(
            f"run folder {str(folder)!r} cannot be used: {str(there)!r} exists and is no folder; choose another --out"
        )


def check_links(folder: Path) -> None:
    """That nothing in a run folder is a link: what is written there would be written elsewhere. It may be one itself.

    Raises:
        RunError: something is.
    """
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            file = Path(place, name)
            if name.startswith(f"{RunFolder.search.name}.lock"):  # Optuna's, of an earlier version that was killed
                file.unlink(missing_ok=True)
            elif file.is_symlink():
                raise RunError(
                    f"{str(file)!r} is a link to {str(file.readlink())!r}, and nothing is written through links in a "
                    "run folder; put there what it leads to, or delete it"
                )


def _opened(path: Path) -> IO[str]:
    """A lock's file, made if missing, for reading and writing; a link is not followed, a pipe not waited for.

    Raises:
        OSError: the system refuses.
        UnreadableError: it is no regular file.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o644)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        check_regular(path)
    return os.fdopen(descriptor, "a+")


def _hold(lock: IO[str]) -> None:
    """Take a lock alone; who only asks whether it is free (``RunFolder.free``) has it for less than a moment.

    Raises:
        BlockingIOError: another process has it.
    """
    for wait in (*ASKED_AGAIN, None):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if wait is None:
                raise
            time.sleep(wait)


@contextmanager
def damaged(file: Path) -> Iterator[None]:
    """Within the block, what a file of the folder lacks or has in another form is told in a line.

    Raises:
        RunError: something is.
    """
    try:
        yield
    except GantailorError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError, RuntimeError) as error:
        raise _damage(file, told(error)) from None


def _damage(file: Path, why: str) -> RunError:
    return RunError(f"{str(file)!r} is damaged ({why}); make it again, or take it from a backup")


def read_config(file: Path) -> SubnetConfig:
    """Widths that ``write_config`` wrote.

    Raises:
        RunError: they cannot be read.
    """
    try:
        with damaged(file):
            return SubnetConfig.from_json(json.dumps(read_json(file)))
    except SelectionError as error:  # what stands there is no number of channels
        raise _damage(file, str(error)) from None
    except (OSError, UnreadableError) as error:
        raise RunError(f"the widths of the subnet: {error}; make them again") from None


def write_config(path: Path, config: SubnetConfig) -> None:
    """Write widths as JSON, atomically."""
    write_bytes(path, (config.to_json() + "\n").encode())


def decided(folder: RunFolder | None) -> dict[str, Any]:
    """What an earlier process decided for a run; empty where there is none, and without a folder."""
    return {} if folder is None else folder.stored_trace()
