"""Options that come back from JSON as they were: StyleGAN2's ``channels`` have numbers as keys, which JSON has not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer

PAIRS = "=pairs"  # the one key of a mapping whose own keys are not text; its value is a list of [key, value]
PLAIN = (bool, int, float, str, type(None))


def stored(value: Any) -> Any:
    """As JSON holds it."""
    if isinstance(value, Mapping):
        if all(isinstance(key, str) for key in value) and PAIRS not in value:
            return {key: stored(inner) for key, inner in value.items()}
        return {PAIRS: [[key, stored(inner)] for key, inner in value.items()]}
    return [stored(inner) for inner in value] if isinstance(value, list | tuple) else value


def restored(value: Any) -> Any:
    """What ``stored`` was given, tuples as lists.

    Raises:
        ValueError: a value that no JSON file can hold.
    """
    if isinstance(value, Mapping):
        pairs = value.get(PAIRS)
        if len(value) == 1 and isinstance(pairs, list) and all(isinstance(p, list) and len(p) == 2 for p in pairs):
            return {_key(key): restored(inner) for key, inner in pairs}
        return {_key(key): restored(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [restored(inner) for inner in value]
    if not isinstance(value, PLAIN):
        raise ValueError(f"{value!r} is a {type(value).__name__}; give numbers, text, lists and mappings")
    return value


def _key(key: Any) -> Any:
    if not isinstance(key, PLAIN):
        raise ValueError(f"{key!r} is a {type(key).__name__}, which names nothing; give text or a number")
    return key


NoOptions = Annotated[dict[str, Any] | None, BeforeValidator(restored), PlainSerializer(stored, when_used="json")]
Options = Annotated[dict[str, Any], BeforeValidator(restored), PlainSerializer(stored, when_used="json")]
