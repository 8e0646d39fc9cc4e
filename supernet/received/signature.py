"""Whose settings are they? A mark that only this user's key makes shows that they were made here, and not received.

A run folder or an exported file may name code (``module:name``), which is imported when it is opened. Code is run only
where the user said so: on the command line, in a YAML file, or by ``--trust-code``. What the user said is stored with a
mark (HMAC-SHA256, RFC 2104), so that it need not be said again; a folder from somebody else has none, or another's.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

_NAME = re.compile(r"[^\W\d][\w.]*:[^\W\d][\w.]*(\[\w*\])?")  # module:name, module:name[teacher]


def key_file() -> Path:
    """Where the user's key lies, which nobody else may read: ``gantailor/key`` of the user's configuration folder."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "gantailor" / "key"


def mark(value: Any) -> str:
    """What shows later that this user stored a JSON value; empty where no key can be kept."""
    key = _key()
    return "" if key is None else hmac.new(key, _bytes(value), hashlib.sha256).hexdigest()


def is_own(value: Any, known: object) -> bool:
    """Whether this user made the mark for this very value."""
    return bool(known) and isinstance(known, str) and hmac.compare_digest(mark(value).encode(), known.encode())


def named_code(settings: Any, known: Collection[str] = (), where: str = "") -> Iterator[tuple[str, str]]:
    """Settings that name code, as (setting, name): every text anywhere that could be ``module:name``.

    Args:
        known: settings whose text names something else, a file or a device.
    """
    inner = settings.items() if isinstance(settings, Mapping) else enumerate(settings or ())
    for name, value in inner:
        place = f"{where}{name}"
        if place in known:
            continue
        if isinstance(value, str):
            if _NAME.fullmatch(value.strip()):
                yield place, value
        elif isinstance(value, Mapping | list | tuple):
            yield from named_code(value, known, f"{place}.")


def _bytes(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


def _key() -> bytes | None:
    """The user's key, made if missing; None where it can neither be read nor kept."""
    try:
        file = key_file()
        with suppress(FileExistsError):
            if not file.exists():
                file.parent.mkdir(parents=True, exist_ok=True)
                with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as made:
                    made.write(secrets.token_bytes(32))
        if not file.is_file():
            return None
        with file.open("rb") as kept:
            found = kept.read(64)
    except (OSError, RuntimeError):  # no home, no right to write
        return None
    return found if len(found) >= 32 else None
