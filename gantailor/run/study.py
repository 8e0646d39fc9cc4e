"""Which study, and which of its trials, are a run's."""

from __future__ import annotations

import json

from gantailor.run.run import Run

STUDY = "gantailor"  # in a run's own journal; in a database that several runs share, what it is of follows


def study_of(run: Run) -> tuple[str, str | None]:
    """Name of the run's study, and the provenance of its trials; ``None`` where an earlier version stored none."""
    file = run.folder.study
    stored = json.loads(file.read_text()) if file.exists() else {}
    return stored.get("name", STUDY), stored.get("provenance")
