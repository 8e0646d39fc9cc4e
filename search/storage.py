"""Where studies are kept: a journal file in the run folder, or a database that several machines share."""

from __future__ import annotations

import fcntl
import json
import os
import random
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import optuna
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

from gantailor.search.config import shown
from gantailor.search.errors import SearchError
from gantailor.search.scoring import Objective
from gantailor.search.spaces.space import Space
from gantailor.supernet.errors import ConfigError, first_line
from gantailor.supernet.received.documents import check_regular

HEARTBEAT, GRACE = 20, 120  # seconds: how often a running trial of a database shows that it lives, and when it is lost
MAKING = 20  # attempts at tables that others make too
BEGINS = b'{"op_code"'  # a journal, as Optuna writes it
DRIVERS = {"psycopg2": "psycopg2-binary", "psycopg": "psycopg[binary]", "MySQLdb": "mysqlclient"}  # as pip calls them
DATABASES = "sqlite:///FILE, postgresql://USER:PASSWORD@HOST/NAME or mysql+pymysql://..."


class JournalFile(JournalStorage):
    """Optuna's journal, which knows its file.

    Raises:
        ConfigError: a line of it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.exists():
            check_regular(path)
        try:
            _check_begin(path)
            _cut_unfinished(path)
            super().__init__(JournalFileBackend(str(path), lock_obj=JournalLock(path)))
            _check_end(path)
        except OSError:
            raise
        except Exception as error:  # lines of another kind raise what they like
            raise ConfigError(
                f"the journal {str(path)!r} is damaged ({first_line(error)}); take a copy of it from a backup, or "
                "choose another run folder"
            ) from None


class JournalLock(JournalFileSymlinkLock):
    """The journal's lock, which goes with the process that holds it: a kill leaves none behind.

    Where the file system refuses such locks it is Optuna's, a link whose holder may be long dead: it is broken after
    half a minute.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path.absolute()))  # of a relative path the link would lead nowhere, and never grow old
        self._file = path.with_name(f".{path.name}.lock").absolute()
        self._held: list[int | None] = []

    def acquire(self) -> bool:
        """Wait for it."""
        held: int | None = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(held, fcntl.LOCK_EX)  # type: ignore[arg-type]
        except OSError:
            os.close(held)  # type: ignore[arg-type]
            held = None
            super().acquire()
        self._held.append(held)
        return True

    def release(self) -> None:
        """Let others have it."""
        held = self._held.pop()
        if held is None:
            super().release()
        else:
            os.close(held)


def _check_begin(path: Path) -> None:
    """That a file which is there is a journal: nothing is cut off or added to what somebody has of another kind.

    Raises:
        ValueError: it is not.
    """
    if path.exists():
        with path.open("rb") as file:
            head = file.read(len(BEGINS))
        if not BEGINS.startswith(head):
            raise ValueError("it begins as no journal does")


def _check_end(path: Path) -> None:
    """That the last whole line can be read: Optuna would say so of it when the next one is added, in its own words.

    Raises:
        ValueError: it cannot.
    """
    line = path.read_bytes().rpartition(b"\n")[0].rpartition(b"\n")[2]
    if line:
        json.loads(line)


def _cut_unfinished(path: Path) -> None:
    """Take a last line off that a power cut or a full disk cut short: the next one would be joined to it.

    What the line was to say is lost; the trial that it spoke of is tried again.
    """
    if _ends_whole(path) or not os.access(path, os.W_OK):
        return
    lock = JournalLock(path)
    lock.acquire()  # another process may be writing that line just now
    try:
        with path.open("rb+") as file:
            file.truncate(file.read().rfind(b"\n") + 1)
    finally:
        lock.release()


def _ends_whole(path: Path) -> bool:
    """Whether the last line of a file, if there is one, has its end."""
    if not path.is_file() or not path.stat().st_size:
        return True
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() == b"\n"


def open_study(
    storage: str | Path | None,
    *,
    name: str,
    objectives: Sequence[Objective] = (Objective("score"),),
    space: Space | None = None,
) -> optuna.Study:
    """The study in a journal file, or behind a database URL (``postgresql://...``), made if missing; None: in memory.

    Raises:
        ConfigError: a study of that name has other objectives or directions, or trials of another space.
    """
    place = _place(storage)
    kinds = optuna.study.StudyDirection
    wanted = [kinds.MINIMIZE if objective.minimize else kinds.MAXIMIZE for objective in objectives]
    study = optuna.create_study(study_name=name, storage=place, directions=wanted, load_if_exists=True)
    known = study.user_attrs.get("objectives")
    if known is None and not study.get_trials(deepcopy=False):
        study.set_user_attr("objectives", [objective.name for objective in objectives])
    check_study(study, objectives, space)
    return study


def check_study(study: optuna.Study, objectives: Sequence[Objective], space: Space | None = None) -> None:
    """That a study is one of these objectives, and that its trials chose from this space.

    Optuna keeps one set of choices for each parameter of a study, so that two spaces cannot share one.

    Raises:
        ConfigError: it is another one.
    """
    known, wanted = study.user_attrs.get("objectives"), [objective.name for objective in objectives]
    mend = "choose another run folder, or another name with search.study"
    if known != wanted:
        of = f"searches for {', '.join(known)}" if known else "is none of gantailor's"
        raise ConfigError(f"study {study.study_name!r} {of}, not for {', '.join(wanted)}; {mend}")
    for objective, direction in zip(objectives, study.directions, strict=True):
        if objective.minimize != (direction == optuna.study.StudyDirection.MINIMIZE):
            kept, asked = ("highest", "lowest") if objective.minimize else ("lowest", "highest")
            raise ConfigError(
                f"study {study.study_name!r} looks for the {kept} {objective.name}, not for the {asked}; {mend}"
            )
    choices = {} if space is None else {variable.name: tuple(variable.choices) for variable in space.variables}
    for trial in study.get_trials(deepcopy=False) if choices else ():
        for parameter, has in trial.distributions.items():
            if choices.get(parameter, ()) != tuple(getattr(has, "choices", ())):
                raise ConfigError(
                    f"study {study.study_name!r} holds subnets of another space (trial {trial.number}, {parameter}); "
                    f"{mend}"
                )


def load_study(storage: str | Path, *, name: str) -> optuna.Study:
    """A study that exists.

    Raises:
        ConfigError: there is none.
    """
    if "://" in str(storage) or Path(storage).exists():
        with suppress(KeyError):
            return optuna.load_study(study_name=name, storage=_place(storage))
    raise ConfigError(f"nothing was searched yet in {shown(storage)!r}")


def check_storage(storage: str | Path, *, name: str | None = None, objectives: Sequence[Objective] = ()) -> None:
    """That a study can be kept there; writes nothing.

    Args:
        name, objectives: where a study of that name is there already it must be one of these objectives.

    Raises:
        ConfigError: the storage cannot be read or reached, a driver is missing, or the study is another one.
    """
    file = _file_of(str(storage))
    if file is None and str(storage).startswith("sqlite"):
        raise ConfigError(f"search.storage {str(storage)!r} forgets everything with its process; give sqlite:///FILE")
    if file is not None and not file.exists():
        if file.is_dir() or not file.parent.is_dir() or not os.access(file.parent, os.W_OK):
            raise ConfigError(
                f"search.storage {shown(storage)!r} cannot be made: {str(file.parent)!r} is no folder to write in; "
                "make it, or choose another"
            )
        return
    if "://" in str(storage):
        if "studies" not in _connect(str(storage)):
            return
    elif file is not None and (file.is_dir() or not os.access(file, os.W_OK)):
        raise ConfigError(f"search.storage {str(storage)!r} is no file to write in; choose another")
    if name is not None:
        with reaching(storage), suppress(KeyError):
            check_study(optuna.load_study(study_name=name, storage=_place(storage)), objectives)


def prepare_storage(storage: str | Path) -> None:
    """Make what a study needs in a database, or find that it is there and of Optuna's version.

    Raises:
        ConfigError: there is no right to, or another version of Optuna made it.
    """
    if "://" not in str(storage):
        return
    try:
        _place(storage)
    except Exception as error:
        if not (_is_of_storage(error) or isinstance(error, RuntimeError)):
            raise
        raise ConfigError(f"search.storage {shown(storage)!r} cannot be used: {_said(error, storage)}") from None


def _file_of(storage: str) -> Path | None:
    """The file of a journal or of SQLite; none for a server, and for SQLite in memory."""
    if "://" not in storage:
        return Path(storage)
    kind, _, rest = storage.partition("://")
    path = rest.partition("?")[0].removeprefix("/")
    return Path(path) if kind.partition("+")[0] == "sqlite" and path not in ("", ":memory:") else None


def _connect(url: str) -> list[str]:
    """One connection to a database, and away again; its tables.

    Raises:
        ConfigError: it is not possible; says what to install, or what the database said.
    """
    import sqlalchemy
    from sqlalchemy import exc

    told = f"search.storage {shown(url)!r}"
    try:
        engine = sqlalchemy.create_engine(url)
        try:
            with engine.connect() as connection:
                return list(sqlalchemy.inspect(connection).get_table_names())  # a file may be anything
        finally:
            engine.dispose()
    except exc.NoSuchModuleError:
        raise ConfigError(f"{told} is of no known kind; give {DATABASES}") from None
    except ImportError as error:
        driver = (error.name or str(error)).partition(".")[0]
        raise ConfigError(f"{told} needs a driver; run: pip install '{DRIVERS.get(driver, driver)}'") from None
    except (exc.ArgumentError, ValueError):
        raise ConfigError(f"{told} cannot be read; give {DATABASES}") from None
    except Exception as error:  # drivers raise what they like
        raise ConfigError(f"{told} cannot be reached: {_said(error, url)}; start it, or mend the address") from None


@contextmanager
def reaching(storage: str | Path) -> Iterator[None]:
    """Within the block a database, or a journal, that cannot be used any more is one line.

    Raises:
        SearchError: what it said.
    """
    try:
        yield
    except Exception as error:
        if not _is_of_storage(error):
            raise
        raise SearchError(
            f"the study in {shown(storage)!r} cannot be reached: {_said(error, storage)}; what it holds is kept, and "
            "the same command continues once it is back"
        ) from None


def _is_of_storage(error: Exception) -> bool:
    """Whether Optuna, SQLAlchemy or a driver raised it: the study, or all of it, is away."""
    if isinstance(error, StorageInternalError):
        return True
    if isinstance(error, KeyError):  # Optuna's own word for a study that somebody deleted
        return str(error.args[:1]).startswith("('Record does not exist")
    return any(kind.__module__.partition(".")[0] == "sqlalchemy" for kind in type(error).__mro__)


def _said(error: BaseException, storage: str | Path) -> str:
    """What the driver said at first, in a line, without the password."""
    while (cause := getattr(error, "orig", None) or error.__cause__) is not None:
        error = cause
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else first_line(error)  # type: ignore[arg-type]
    return text.replace(str(storage), shown(storage)).rstrip(".")


def _place(storage: str | Path | None) -> BaseStorage:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if storage is None:
        return InMemoryStorage()
    if "://" not in str(storage):
        return JournalFile(Path(storage))
    return _database(str(storage))


def _database(url: str) -> RDBStorage:
    """Optuna's storage behind a URL, with its tables, which several machines may be about to make at this moment."""
    patient = {"connect_args": {"timeout": HEARTBEAT}} if url.startswith("sqlite") else None
    for left in reversed(range(MAKING)):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)  # heartbeats are "experimental" since 2021
                return RDBStorage(url, patient, heartbeat_interval=HEARTBEAT, grace_period=GRACE)
        except Exception as error:
            if not left or not _is_being_made(error):
                raise
            time.sleep(random.uniform(0.05, 0.5))  # another time for each, or they meet again
    raise AssertionError("the last attempt returns or raises")


def _is_being_made(error: Exception) -> bool:
    """Whether another process made a table, or its first row, between a look and an attempt to make it."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    return bool(kinds & {"IntegrityError", "AssertionError"}) or ("SQLAlchemyError" in kinds and "exist" in str(error))


@contextmanager
def exclusive(path: Path | None) -> Iterator[None]:
    """Only one process of this machine at a time."""
    if path is None:
        yield
        return
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
