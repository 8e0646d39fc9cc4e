"""Scores on the terminal: what they are, and how they changed."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any

from gantailor.evaluators.scores import provenance_differences
from gantailor.supernet.errors import ConfigError, UnreadableError, why_of
from gantailor.supernet.received.documents import read_json


def print_scores(rows: Mapping[str, dict[str, Any]]) -> None:
    """Print scores: a line each and what they share."""
    width = max(map(len, rows))
    for name, row in rows.items():
        better = "lower" if row["lower_is_better"] else "higher"
        value = f"{row['value']:,}" if isinstance(row["value"], int) else f"{row['value']:.6g}"
        print(f"{name:<{width}}  {value:>16}  {row['unit']}, {better} is better")
    shared: dict[str, Any] = {}
    for row in rows.values():
        shared = {**row["provenance"], **shared}
    print("  ".join(f"{name} {value}" for name, value in shared.items()))


def differences_of(provenances: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A line for each of several figures on one page that does not compare with the first, by name, and why."""
    (first, known), *others = provenances.items()
    found = ((name, provenance_differences(known, other)) for name, other in others)
    return [f"{name} does not compare with {first}: {'; '.join(lines)}" for name, lines in found if lines]


def warn(lines: Iterable[str]) -> None:
    """To the terminal, in red where it has colours."""
    for line in lines:
        text = f"warning: {line}"
        print(f"\033[31m{text}\033[0m" if sys.stderr.isatty() else text, file=sys.stderr)


def print_changes(rows: Mapping[str, dict[str, Any]], earlier: str) -> None:
    """Print the change of every score, and warn in red where the protocol is not the earlier one's.

    Raises:
        ConfigError: the file is unreadable, or has none of the scores.
    """
    try:
        before = read_json(earlier)
    except (OSError, UnreadableError) as error:
        raise ConfigError(f"--against {earlier!r} cannot be read: {why_of(error)}; give what --json printed") from None
    both = [name for name in rows if name in before]
    if not both:
        raise ConfigError(
            f"--against {earlier!r} has none of {', '.join(rows)}; ask for the same metrics and extractor"
        )
    for name in both:
        differences = provenance_differences(before[name]["provenance"], rows[name]["provenance"])
        print(f"{name}: {rows[name]['value'] - before[name]['value']:+.6g} against {earlier}", file=sys.stderr)
        warn([f"{name} does not compare: {'; '.join(differences)}"] if differences else [])
