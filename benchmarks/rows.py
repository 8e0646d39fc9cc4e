"""Results as a CSV file that several processes append to: a row for each arm and seed, none made twice."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd


def is_done(results: Path, **values: Any) -> bool:
    """Whether a row with these values stands there."""
    if not results.exists():
        return False
    frame = pd.read_csv(results)
    return bool(frame.loc[(frame[list(values)] == pd.Series(values)).all(axis=1)].shape[0])


def append(results: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add rows under a lock, and print them."""
    results.parent.mkdir(parents=True, exist_ok=True)
    with results.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        pd.DataFrame(rows).to_csv(file, header=file.tell() == 0, index=False)
    print(json.dumps(list(rows)), flush=True)
