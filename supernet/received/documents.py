"""JSON, YAML and text from outside, read within bounds: regular files alone, up to a size, a depth, a number of values.

Nothing heavy is imported here.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import yaml

from gantailor.supernet.errors import UnreadableError, first_line

LARGEST = 2**24  # bytes of a JSON document or a log: fronts of thousands of trials are far below
LARGEST_LOG = 2**28  # bytes: a line a second, for months
LARGEST_YAML = 2**20  # bytes: it is read at a few MB a second
DEEPEST = 64  # lists and mappings inside each other
MOST = 50_000  # values of a YAML document, once its aliases are written out
KINDS = {
    stat.S_ISDIR: "a folder",
    stat.S_ISFIFO: "a named pipe",
    stat.S_ISCHR: "a device",
    stat.S_ISBLK: "a device",
    stat.S_ISSOCK: "a socket",
}
_CLoader: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's, where PyYAML was built with it


def read_bytes(path: str | Path, *, largest: int = LARGEST) -> bytes:
    """The content of a regular file.

    Raises:
        OSError: the system refuses.
        UnreadableError: it is no regular file, or larger.
    """
    check_regular(path)
    # Between the look and the opening it may become a pipe: that opens at once, and is found out.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            check_regular(path)
        content = file.read(largest + 1)
    if len(content) > largest:
        raise _unreadable(path, f"it is larger than {largest // 2**20} MiB")
    return content


def check_regular(path: str | Path) -> None:
    """That something is a regular file, or a link to one: a pipe would never end, a device has no size.

    Raises:
        OSError: there is nothing, or the system refuses.
        UnreadableError: it is something else.
    """
    mode = Path(path).stat().st_mode
    if not stat.S_ISREG(mode):
        kind = next((name for is_kind, name in KINDS.items() if is_kind(mode)), "no file")
        raise _unreadable(path, f"it is {kind}, not a regular file")


def read_text(path: str | Path, *, largest: int = LARGEST) -> str:
    """The text of a file in UTF-8.

    Raises:
        OSError: the system refuses.
        UnreadableError: it is no text, no regular file, or larger.
    """
    content = read_bytes(path, largest=largest)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _unreadable(path, f"byte {error.start} is no text in UTF-8") from None


def read_json(path: str | Path, kind: type = dict) -> Any:
    """The value of a JSON file.

    Args:
        kind: what it has to be.

    Raises:
        OSError: the system refuses.
        UnreadableError: it is no JSON, a key stands twice, it is nested too deep, or it is another kind of value.
    """
    found = parse_json(read_text(path), str(path))
    if not isinstance(found, kind):
        raise _unreadable(path, f"it holds a {type(found).__name__}, not a {kind.__name__}")
    return found


def parse_json(text: str, source: str) -> Any:
    """The value of a JSON text.

    Raises:
        UnreadableError: as ``read_json``; ``source`` names the text.
    """
    found = _parsed(lambda: json.loads(text, object_pairs_hook=_unique), source)
    level, depth = [found], 0
    while level := [inner for value in level for inner in _inside(value)]:
        depth += 1
        if depth > DEEPEST:
            raise _unreadable(source, f"it is nested deeper than {DEEPEST}")
    return found


def parse_lines(text: str) -> list[dict[str, Any]]:
    """The JSON objects of a log, a line each; what is none (a kill cut it off, a disk was full) is left out."""
    rows = []
    for line in text.splitlines():
        try:
            row = parse_json(line, "")
        except UnreadableError:
            continue
        rows += [row] if isinstance(row, dict) else []
    return rows


def read_yaml(path: str | Path) -> Any:
    """The value of a YAML file.

    Raises:
        OSError: the system refuses.
        UnreadableError: it is no YAML, a key stands twice, it is nested too deep, or its aliases would grow too large.
    """
    return parse_yaml(read_text(path, largest=LARGEST_YAML), str(path))


def parse_yaml(text: str, source: str) -> Any:
    """The value of a YAML text.

    Raises:
        UnreadableError: as ``read_yaml``; ``source`` names the text.
    """
    if len(text) > LARGEST_YAML:
        raise _unreadable(source, f"it is larger than {LARGEST_YAML // 2**20} MiB")
    _parsed(lambda: _check_events(yaml.parse(text, Loader=_CLoader), source), source)
    return _parsed(lambda: yaml.load(text, Loader=_Unique), source)


class _Unique(_CLoader):  # type: ignore[misc,valid-type]
    """A safe loader that refuses a key which stands twice: one of the two would win in silence."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            name = (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else None
            if name in seen and name is not None and key.tag != "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} stands twice", key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep=deep)


def _check_events(events: Iterable[Any], source: str) -> None:
    """That a document is neither too deep nor too large, before anything of it is made.

    An alias counts as much as what it stands for: nine of them in nine levels are a billion values.
    """
    sizes: dict[str, int] = {}
    opened: list[tuple[str | None, int]] = []
    total = 0
    for event in events:
        anchor = getattr(event, "anchor", None)
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, before = opened.pop()
            sizes |= {anchor: total - before} if anchor else {}
        elif isinstance(event, yaml.AliasEvent):
            if anchor not in sizes:  # an anchor that is still open, or none
                raise _unreadable(source, f"alias {anchor!r} stands inside what it stands for, or for nothing")
            total += sizes[anchor]
        elif isinstance(event, yaml.NodeEvent):
            total += 1
            sizes |= {anchor: 1} if anchor else {}
            if isinstance(event, yaml.CollectionStartEvent):
                sizes.pop(anchor or "", None)
                opened.append((anchor, total - 1))
        _check_bounds(len(opened), total, source)


def _check_bounds(depth: int, count: int, source: str) -> None:
    if depth > DEEPEST:
        raise _unreadable(source, f"it is nested deeper than {DEEPEST}")
    if count > MOST:
        raise _unreadable(source, f"it holds more than {MOST:,} values, its aliases written out")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} stands twice")
    return found


def _inside(value: Any) -> Iterable[Any]:
    """What a list or mapping holds that may hold something itself."""
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [inner for inner in values if isinstance(inner, dict | list)]


def _parsed(how: Callable[[], Any], source: str) -> Any:
    try:
        return how()
    except UnreadableError:
        raise
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = "" if mark is None else f" in line {mark.line + 1}, column {mark.column + 1}"
        raise _unreadable(source, f"{error.problem or error.context or 'no YAML'}{place}") from None
    except RecursionError:
        raise _unreadable(source, f"it is nested deeper than {DEEPEST}") from None
    except Exception as error:  # a number, a date or a tag that means nothing raises what it likes
        raise _unreadable(source, first_line(error)) from None


def _unreadable(source: str | Path, why: str) -> UnreadableError:
    return UnreadableError(f"{str(source)!r} cannot be read: {why}", why)
