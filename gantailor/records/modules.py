"""Modules of one's own that a run names: where each lay and what it held, so that a moved run finds the same file.

Imported is what is installed or lies where the user stands, as ever. Where that is nothing, the file is taken that the
run was made with, where it was or as far from the moved folder: only of the very content that this user ran, which
their key marks. So no folder makes code run that was not run before.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gantailor.run.folder import RunFolder
from gantailor.run.loading import names_in
from gantailor.supernet.errors import RunError
from gantailor.supernet.plugins import is_installed, remember
from gantailor.supernet.received.documents import LARGEST, read_bytes
from gantailor.supernet.received.signature import is_own, mark


def noted_modules(settings: Mapping[str, Any], folder: RunFolder) -> dict[str, Any]:
    """For ``trace.json``: of each module that the settings name and that is imported, its one file; and the mark."""
    files: dict[str, dict[str, str]] = {}
    for name in names_in(settings):
        module = name.partition(":")[0]
        file = getattr(sys.modules.get(module), "__file__", None)
        if file is None or "." in module or is_installed(file) or Path(file).name == "__init__.py":
            continue
        at = Path(file).absolute()
        files[module] = {
            "at": str(at),
            "beside": os.path.relpath(at, folder.path.resolve()),
            "sha256": hashlib.sha256(at.read_bytes()).hexdigest(),
        }
    return {"files": files, "mark": mark(files)} if files else {}


def find_modules(folder: RunFolder) -> None:
    """Let the modules of a run be found where they lie now, should they not be where Python looks."""
    try:
        noted = folder.stored_trace().get("modules")
    except RunError:  # told where it is needed
        return
    files = noted.get("files") if isinstance(noted, Mapping) else None
    if not isinstance(noted, Mapping) or not isinstance(files, Mapping) or not is_own(files, noted.get("mark")):
        return
    for module, known in files.items():
        beside = os.path.normpath(folder.path.resolve() / known["beside"])
        places = list(dict.fromkeys([Path(known["at"]), Path(beside)]))
        same = (place for place in places if _digest(place) == known["sha256"])
        remember(module, next(same, None), known["sha256"], [*map(str, places)])


def _digest(file: Path) -> str | None:
    try:
        return hashlib.sha256(read_bytes(file, largest=LARGEST)).hexdigest()
    except (OSError, ValueError):
        return None
