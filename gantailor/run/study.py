"""Which study, and which of its trials, are a run's."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from gantailor.run.run import Run
from gantailor.search.scoring import Objective
from gantailor.search.spaces.space import Space

STUDY = "gantailor"  # in a run's own journal; in a database that several runs share, the run's name follows


def storage_of(run: Run) -> str | Path:
    """Where the run's study is kept."""
    return run.config.search.storage or run.folder.search


def study_of(run: Run) -> tuple[str, str | None]:
    """Name of the run's study, and the provenance of its trials; ``None`` where an earlier version stored none."""
    stored = run.folder.stored(run.folder.study)
    return str(stored.get("name", STUDY)), stored.get("provenance")


def study_name(run: Run, provenance: str, objectives: Sequence[Objective], space: Space) -> str:
    """What a search's study is called: as ``search.study`` says, or by the run.

    In a database the name holds the run folder's, which of the folders of that name it is, and what is searched there
    (weights, data, score, objectives, space). A folder that was moved keeps the name that it has.
    """
    settings = run.config.search
    if settings.study:
        return settings.study
    choices = [(variable.name, variable.choices) for variable in space.variables]
    if not settings.storage:  # around a path's net each budget has other choices
        return f"{STUDY}-path-{digest(repr(choices).encode())}" if space.name == "path" else STUDY
    what = digest(provenance.encode(), repr(tuple(objectives)).encode(), repr(choices).encode())
    known, folder = study_of(run)[0], run.folder.path.resolve()
    if known.startswith(f"{STUDY}-") and known.endswith(f"-{what}"):
        return known
    return f"{STUDY}-{folder.name}-{digest(str(folder).encode())[:6]}-{what}"


def digest(*parts: bytes) -> str:
    """Identifies what some bytes say, in 12 hexadecimal digits."""
    return hashlib.sha256(b"|".join(parts)).hexdigest()[:12]
