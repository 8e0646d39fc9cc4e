"""Where a run is: its stages by the files that they leave, and how far the one that goes on is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gantailor.run.folder import RunFolder
from gantailor.supernet.errors import UnreadableError
from gantailor.supernet.received.documents import LARGEST_LOG, parse_lines, read_text

# The files that say a stage is done, in the order of gantailor.pipeline.compress.STAGES.
FILES = {
    "check": RunFolder.trace.name,
    "train": RunFolder.supernet.name,
    "search": RunFolder.subnet_config.name,
    "finetune": RunFolder.subnet.name,
    "evaluate": RunFolder.scores.name,
    "export": RunFolder.manifest.name,
    "report": RunFolder.report.name,
}
TEACHER = "teacher.safetensors"  # of a run that trains a teacher, which has one stage
LOGS = {"train": "supernet.ckpt.jsonl", "finetune": "subnet.ckpt.jsonl", "teacher": "teacher.ckpt.jsonl"}
FEW = 3  # rows, where the last counts
RECIPES = {"train": "train", "finetune": "finetune", "teacher": "train"}  # sections of the settings


@dataclass(frozen=True)
class Stage:
    """One stage of a run.

    Attributes:
        name: as in ``gantailor.pipeline.compress.STAGES``; ``teacher`` where a teacher is trained.
        state: ``done``, ``running``, ``stopped`` (it is the next, and nobody works on it), ``waiting``, ``not asked``.
        done, total: how far it is, in ``unit``; None where that is not known.
        left: seconds that it still takes at its latest rate; None where there is none.
    """

    name: str
    state: str
    done: float | None = None
    total: float | None = None
    unit: str = ""
    left: float | None = None

    @property
    def share(self) -> float | None:
        """From 0 to 1; None where that is not known."""
        return None if self.done is None or not self.total else min(1.0, self.done / self.total)


def rows_of(file: Path, *, most: int | None = None) -> list[dict[str, Any]]:
    """The lines of a log, none where there is none that can be read.

    Args:
        most: of a longer log about so many, evenly spaced, with the last two: the last may be cut short.
    """
    try:
        text = read_text(file, largest=LARGEST_LOG)
    except (OSError, UnreadableError):
        return []
    lines = text.splitlines() if most else []
    if most and len(lines) > most:
        text = "\n".join(lines[: -2 : -(-len(lines) // most)] + lines[-2:])
    return parse_lines(text)


def number(value: Any) -> float | None:
    """A finite number, or None."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def setting(settings: Mapping[str, Any], *names: str) -> Any:
    """A nested setting; None where it is missing, or its section is none."""
    value: Any = settings
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def stages_of(folder: RunFolder, settings: Mapping[str, Any], until: str | None = None) -> list[Stage]:
    """The stages of a run, in order.

    A stage is done when its file and those of all before it are there: a longer search begins several anew.

    Args:
        until: the last stage that was asked for, if that is known.
    """
    names = _names(folder)
    last = names.index(until) if until in names else len(names) - 1
    busy, stages, open_yet = not folder.free, list[Stage](), True
    for index, name in enumerate(names):
        if open_yet and folder.file(TEACHER if name == "teacher" else FILES[name]).is_file():
            stages.append(Stage(name, "done"))
            continue
        state = ("running" if busy else "stopped") if open_yet else "waiting"
        stages.append(_progress(folder, settings, name, state if index <= last else "not asked", stages))
        open_yet = False
    return stages


def _names(folder: RunFolder) -> list[str]:
    teaches = folder.file(TEACHER).is_file() or folder.file(LOGS["teacher"]).is_file()
    return ["teacher"] if teaches and not folder.trace.is_file() else list(FILES)


def _progress(folder: RunFolder, settings: Mapping[str, Any], name: str, state: str, before: Sequence[Stage]) -> Stage:
    """A stage that is not done, with how far it is and what is left, as its log tells."""
    if name not in LOGS:
        return Stage(name, state)
    total = number(setting(settings, RECIPES[name], "kimg"))
    rows = rows_of(folder.file(LOGS[name]), most=FEW)
    last = rows[-1] if rows else {}
    done, rate = number(last.get("kimg")), number(last.get("images_per_second"))
    if total is None or done is None:
        return Stage(name, state, None if total is None else 0.0, total, "kimg", _guess(folder, name, total))
    left = 1000 * max(0.0, total - done) / rate if rate else None
    return Stage(name, state, done, total, "kimg", left)


def _guess(folder: RunFolder, name: str, total: float | None) -> float | None:
    """Seconds of a fine-tuning that has not begun, as quick as the training before it: a narrow net is quicker."""
    rows = rows_of(folder.file(LOGS["train"]), most=FEW) if name == "finetune" else []
    rate = number(rows[-1].get("images_per_second")) if rows else None
    return 1000 * total / rate if rate and total is not None else None


def state_of(stages: Sequence[Stage]) -> str:
    """In words: ``finished``, ``finished up to search``, ``running: train (40%)``, ``stopped in search``."""
    current = next((stage for stage in stages if stage.state in ("running", "stopped")), None)
    if current is None:
        done = [stage.name for stage in stages if stage.state == "done"]
        return "finished" if len(done) == len(stages) else f"finished up to {done[-1] if done else 'nothing'}"
    if current.state == "running":
        return f"running: {current.name}{_percent(current)}"
    begun = current.done or any(stage.state == "done" for stage in stages)
    return f"stopped in {current.name}{_percent(current)}" if begun else "not begun"


def _percent(stage: Stage) -> str:
    return f" ({stage.share:.0%})" if stage.share else ""
