"""Live progress with the time left: a bar on a terminal, a line every ten seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gantailor.supernet.errors import ConfigError
from gantailor.supernet.training.trainer import Progress


def _clock(seconds: float) -> str:
    return f"{int(seconds // 60)}:{int(seconds % 60):02d}"


def _tensorboard(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ConfigError("TensorBoard is not installed; run: pip install 'gantailor[tensorboard]'") from None
    return SummaryWriter(str(folder))


class Reporter:
    """Where the pipeline tells what it does."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self.live = sys.stderr.isatty()

    def stage(self, name: str) -> None:
        """A stage begins."""
        self._line(f"== {name}")

    def note(self, text: str) -> None:
        """What a stage has to say at its end."""
        self._line(text)

    def _line(self, text: str, *, final: bool = True) -> None:
        if self.quiet:
            return
        end = "\n" if final or not self.live else "\r"
        print(text.ljust(110) if self.live else text, end=end, file=sys.stderr, flush=True)

    @contextmanager
    def training(self, name: str, tensorboard: Path | None = None) -> Iterator[Callable[[Progress], None]]:
        """A listener for a trainer; with a folder it writes the losses there for TensorBoard as well."""
        last = 0.0
        writer: Any = _tensorboard(tensorboard / name) if tensorboard else None

        def listen(p: Progress) -> None:
            nonlocal last
            for key, value in p.losses.items() if writer else ():
                writer.add_scalar(f"{name}/{key}", value, round(1000 * p.kimg))
            done = p.step == p.steps
            if not done and time.monotonic() - last < (0.5 if self.live else 10):
                return
            last = time.monotonic()
            left = (p.steps - p.step) * p.kimg * 1000 / max(p.step, 1) / max(p.images_per_second, 1e-9)
            losses = " ".join(f"{key} {value:.3g}" for key, value in p.losses.items())
            share = f"{name} {p.step}/{p.steps} ({100 * p.step / p.steps:.0f}%)"
            self._line(f"{share} {p.images_per_second:.0f} img/s, {_clock(left)} left  {losses}", final=done)

        try:
            yield listen
        finally:
            if writer:
                writer.close()

    @contextmanager
    def counting(self, name: str, total: int) -> Iterator[Callable[[int, float], None]]:
        """A listener for a search."""
        start, last, first = time.monotonic(), 0.0, -1

        def listen(done: int, best: float) -> None:
            nonlocal last, first
            first = done - 1 if first < 0 else first
            if done < total and time.monotonic() - last < (0.5 if self.live else 10):
                return
            last = time.monotonic()
            left = (last - start) / max(done - first, 1) * (total - done)
            self._line(f"{name} {done}/{total}, best {best:.5g}, {_clock(left)} left", final=done == total)

        yield listen

    def pictures(self, name: str, unit: str = "pictures") -> Callable[[int, int], None]:
        """A listener for (pictures read, all pictures) of one folder after another."""
        last = start = time.monotonic()

        def listen(done: int, total: int) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last < (0.5 if self.live else 10) and not (self.live and done == total):
                return
            last = now
            self._line(f"{name} {done}/{total}, {done / max(now - start, 1e-9):.0f} {unit}/s", final=done == total)

        return listen
