"""Command ``runs``: the runs below a folder."""

from __future__ import annotations

import argparse
from typing import Any

from gantailor.records.listing import find_runs, matching, text_of
from gantailor.reports.scores import warn


def runs(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """List them, those that are wanted."""
    found = find_runs(arguments.folder)
    rows = matching(found, arguments.where) if arguments.where else found
    if arguments.where and (left := sum(bool(row.reason) for row in found)):
        warn([f"{left} folders cannot be read and are left out; without --where they are listed with the reason"])
    if rows:
        print(text_of(rows, arguments.folder))
    else:
        print(f"no run {'of ' + str(len(found)) + ' is so' if found else 'below ' + repr(arguments.folder)}")
    return [row.to_json() for row in rows]
