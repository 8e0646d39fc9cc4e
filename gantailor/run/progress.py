"""Live progress with the time left: a bar on a terminal, a line every ten seconds elsewhere; a run's log."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gantailor.supernet.errors import ConfigError

if TYPE_CHECKING:
    from gantailor.supernet.training.trainer import Progress


# a link is not followed, and a pipe not waited for
APPENDING = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
LARGEST = 2**20  # bytes of a log; of a larger one the later half stays


class _Warnings(logging.Handler):
    """What the packages warn of goes into the log of the run that this process works on, and where it goes anyway."""

    report: Reporter | None = None

    def emit(self, record: logging.LogRecord) -> None:
        if self.report is not None:
            self.report.record(f"{record.levelname.lower()}: {record.getMessage()}")
        usual = logging.lastResort  # which Python takes only where there is no handler at all
        if usual is not None and not logging.getLogger().handlers and record.levelno >= usual.level:
            usual.handle(record)


_WARNINGS = _Warnings()


def _tensorboard(folder: Path) -> Callable[[int], Any]:
    """Makes a writer that goes on at a step: what a process that was killed wrote from there on is no longer shown."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ConfigError("TensorBoard is not installed; run: pip install 'gantailor[tensorboard]'") from None
    return lambda step: SummaryWriter(str(folder), purge_step=step)


class _Lines:
    """A file for tqdm where no terminal is: what would overwrite a line becomes one of its own."""

    def __init__(self) -> None:
        self._last = ""

    def write(self, text: str) -> None:
        """Without the ends of a terminal's lines, and not the same twice."""
        line = text.strip("\r\n ")
        if line and line != self._last:
            print(line, file=sys.stderr, flush=True)
            self._last = line

    def flush(self) -> None:
        """Nothing waits."""


class _Bar:
    """How far something is.

    Args:
        form: tqdm's bar format, without the bar.
        patient: say nothing before an interval has passed.
    """

    def __init__(self, name: str, form: str, *, unit: str, live: bool, quiet: bool, patient: bool = False) -> None:
        interval = 0.5 if live else 10
        self._options: dict[str, Any] = {"desc": name, "unit": unit, "disable": quiet, "mininterval": interval}
        self._options |= {"miniters": 1, "delay": interval if patient else 0, "dynamic_ncols": live}
        self._options |= {"bar_format": form + (" {bar}" if live else ""), "file": sys.stderr if live else _Lines()}
        self._bar: Any = None

    def show(self, done: int, total: int, note: str = "") -> None:
        """So many of so many, and what else is known; all of them end the bar."""
        from tqdm import tqdm

        if self._bar is None:
            self._bar = tqdm(total=total, initial=done, postfix=note, **self._options)
        self._bar.total = total
        self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(done - self._bar.n)
        if done >= total:
            self.close()

    def close(self) -> None:
        """The last that is known stays."""
        if self._bar is not None:
            self._bar.close()
        self._bar = None


class Reporter:
    """Where the pipeline tells what it does.

    Attributes:
        silent: whether all of them are quiet, as ``--quiet`` asks for.
        log: the file that keeps what is told, quiet or not, while a run is worked on.
    """

    silent = False
    log: Path | None = None

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet or self.silent
        self.live = sys.stderr.isatty()
        self._before: list[str] = []  # what was told before there was a log

    def stage(self, name: str, place: str = "") -> None:
        """A stage begins; ``place`` says where it stands among the others."""
        self.note(f"== {name} {place}".rstrip())

    def note(self, text: str) -> None:
        """What a stage has to say at its end."""
        self.record(text)
        if not self.quiet:
            from tqdm import tqdm

            tqdm.write(text, file=sys.stderr)  # above a bar, should there be one
            sys.stderr.flush()

    def keep(self, log: Path) -> None:
        """From now on what is told, and what was told before, is appended to a file, with its time."""
        from gantailor.supernet.files import write_bytes  # which takes PyTorch, and mistakes are told before

        with suppress(OSError):
            if log.is_file() and log.stat().st_size > LARGEST:
                with log.open("rb") as file:
                    file.seek(-LARGEST // 2, os.SEEK_END)
                    later = file.read().partition(b"\n")[2]
                write_bytes(log, later)
        self.log, _WARNINGS.report = log, self
        logging.getLogger("gantailor").addHandler(_WARNINGS)
        for line in self._before:
            self._append(line)
        self._before = []

    def record(self, text: str) -> None:
        """A line of the log, and nothing on the terminal."""
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        line = f"{now} {text}".replace("\n", "\n  ")
        if self.log is None:
            self._before = [*self._before[-99:], line]
        else:
            self._append(line)

    def _append(self, line: str) -> None:
        if self.log is not None:
            with suppress(OSError):  # the run is worth more
                place = os.open(self.log, APPENDING, 0o644)
                with os.fdopen(place, "a", encoding="utf8", errors="replace") as file:
                    file.write(f"{line}\n")

    def end(self) -> None:
        """Nothing is kept any more."""
        self.log = None
        if _WARNINGS.report is self:
            _WARNINGS.report = None
            logging.getLogger("gantailor").removeHandler(_WARNINGS)

    def _bar(self, name: str, form: str, *, unit: str = "it", patient: bool = False) -> _Bar:
        return _Bar(name, form, unit=unit, live=self.live, quiet=self.quiet, patient=patient)

    @contextmanager
    def training(self, name: str, tensorboard: Path | None = None) -> Iterator[Callable[[Progress], None]]:
        """A listener for a trainer; with a folder it writes the losses there for TensorBoard as well."""
        bar = self._bar(name, "{desc} {n_fmt}/{total_fmt} ({percentage:.0f}%){postfix}, {remaining} left")
        begin = _tensorboard(tensorboard / name) if tensorboard else None
        writer: Any = None

        def listen(p: Progress) -> None:
            nonlocal writer
            if begin is not None and writer is None:
                writer = begin(round(1000 * p.kimg))
            for key, value in p.losses.items() if writer else ():
                writer.add_scalar(f"{name}/{key}", value, round(1000 * p.kimg))
            losses = " ".join(f"{key} {value:.3g}" for key, value in p.losses.items())
            bar.show(p.step, p.steps, f"{p.images_per_second:.0f} img/s, {losses}")

        try:
            yield listen
        finally:
            bar.close()
            if writer:
                writer.close()

    @contextmanager
    def counting(self, name: str, total: int) -> Iterator[Callable[[int, float], None]]:
        """A listener for a search."""
        bar = self._bar(name, "{desc} {n_fmt}/{total_fmt}{postfix}, {remaining} left")
        try:
            yield lambda done, best: bar.show(done, total, f"best {best:.5g}")
        finally:
            bar.close()

    @contextmanager
    def proving(self) -> Iterator[Callable[[int, int], None]]:
        """A listener for a proof; its count begins anew after a repair."""
        bar = self._bar("proof", "{desc} {n_fmt}/{total_fmt} steps, {remaining} left", patient=True)
        try:
            yield bar.show
        finally:
            bar.close()

    def pictures(self, name: str, unit: str = "pictures", *, patient: bool = True) -> Callable[[int, int], None]:
        """A listener for (pictures read, all pictures) of one folder after another."""
        return self._bar(name, "{desc} {n_fmt}/{total_fmt}, {rate_noinv_fmt}", unit=f" {unit}", patient=patient).show
