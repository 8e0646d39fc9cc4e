"""Which files of two folders belong together, by their names."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gantailor.supernet.errors import DataError, GantailorError


@dataclass(frozen=True)
class Matched:
    """Files of two folders that belong together, in order of their names, and those without a partner."""

    pairs: tuple[tuple[Path, Path], ...]
    first_only: tuple[Path, ...]
    second_only: tuple[Path, ...]

    def unmatched(self) -> str:
        """How many did not match, and the first of them; empty where all did."""
        parts = []
        for rest in (self.first_only, self.second_only):
            if rest:
                names = ", ".join(f.name for f in rest[:3]) + (", ..." if len(rest) > 3 else "")
                parts.append(f"{len(rest)} of {str(rest[0].parent)!r} ({names})")
        return " and ".join(parts)


def match_names(first: Sequence[Path], second: Sequence[Path], *, error: type[GantailorError] = DataError) -> Matched:
    """Files of one name; where names are not the same, of one stem; then by stems whose numbers are the same.

    ``img_7.png`` belongs to ``img_7.jpg`` if there is one, and to ``img_007.png`` otherwise.

    Raises:
        GantailorError: two files of one folder have one stem.
    """
    names = {f.name: f for f in second}
    if len(first) == len(second) and all(f.name in names for f in first):
        return Matched(tuple((f, names[f.name]) for f in first), (), ())
    ones, others = by_stem(first, error=error), by_stem(second, error=error)
    partners = {stem: others[stem] for stem in ones.keys() & others.keys()}
    taken = set(partners.values())
    rest = _by_numbers([f for f in second if f not in taken])
    for number, group in _by_numbers([f for stem, f in ones.items() if stem not in partners]).items():
        if number in rest:
            for several in (group, rest[number]):
                if len(several) > 1:
                    raise error(f"{_both(several)} differ in zeros only, and one partner fits both; rename one")
            partners[_stem(group[0])] = rest[number][0]
    taken = set(partners.values())
    return Matched(
        tuple((ones[stem], partners[stem]) for stem in sorted(partners)),
        tuple(f for stem, f in ones.items() if stem not in partners),
        tuple(f for f in second if f not in taken),
    )


def by_stem(files: Iterable[Path], *, error: type[GantailorError] = DataError) -> dict[str, Path]:
    """The files by their names up to the suffix.

    Raises:
        GantailorError: two have the same.
    """
    found: dict[str, Path] = {}
    for file in files:
        stem = _stem(file)
        if stem in found:
            both = _both([found[stem], file])
            raise error(f"{both} have one name up to the suffix, so nobody knows which is meant; remove or rename one")
        found[stem] = file
    return found


def _stem(file: Path) -> str:
    """The name up to the suffix; a Mac's "a" and two dots are one letter, as elsewhere."""
    return unicodedata.normalize("NFC", file.stem)


def _both(files: Sequence[Path]) -> str:
    return f"{files[0].name!r} and {files[1].name!r} in {str(files[0].parent)!r}"


def _by_numbers(files: Iterable[Path]) -> dict[str, list[Path]]:
    """By stems without the zeros in front of their numbers."""
    found = defaultdict(list)
    for file in files:
        found[re.sub(r"[0-9]+", lambda digits: digits[0].lstrip("0") or "0", _stem(file))].append(file)
    return dict(found)
