"""Command ``init``: a first configuration from pictures and a checkpoint."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gantailor.run.loading import load_config
from gantailor.starting.configuration import propose, write_new
from gantailor.supernet.errors import ConfigError


def init(arguments: argparse.Namespace) -> dict[str, Any]:
    """Look, tell, and write a file that was not there."""
    out = Path(arguments.out)
    if out.exists():  # before anything is read
        raise ConfigError(f"{str(out)!r} is there already and stays as it is; choose another --out")
    found = propose(arguments.folder, arguments.teacher)
    load_config(found.settings)
    write_new(out, found.yaml(arguments.out))
    for text in found.found:
        print(f"found: {text}")
    for text in found.assumed:
        print(f"assumed: {text}")
    print(f"{out} is written; look at it, then: gantailor compress {out} --dry-run")
    return {"file": out}
