"""Names of tensors: wrappers and prefixes taken off, parts exchanged by a pattern, and the pattern that would do it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from gantailor.supernet.errors import CheckpointError, ConfigError

# What wrapping puts between the names of modules: DataParallel and AveragedModel, torch.compile, FSDP, activation
# checkpoints. A generator may call a submodule "module" itself, so names are tried with it first.
WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
DEEPEST = 5  # parts of a prefix: a LightningModule's generator within a wrapper within a wrapper


def unwrapped(state: Mapping[str, Any]) -> dict[str, Any]:
    """The names without the parts that wrappers put in, wherever they are; unchanged where two would be the same."""
    found = {".".join(part for part in name.split(".") if part not in WRAPPERS): state[name] for name in state}
    return found if len(found) == len(state) else dict(state)


def prefixes(names: Iterable[str]) -> list[str]:
    """Every beginning of a name that ends in a dot, short ones first; ``""`` is the first."""
    found = {""}
    for name in names:
        parts = name.split(".")[:-1]
        found |= {".".join(parts[:count]) + "." for count in range(1, min(len(parts), DEEPEST) + 1)}
    return sorted(found, key=lambda prefix: (prefix.count("."), prefix))


def common_prefix(names: Iterable[str]) -> str:
    """The longest beginning in whole parts, with its dot, that all names share, their last parts apart."""
    paths = [name.split(".")[:-1] for name in names]
    shared: list[str] = []
    for parts in zip(*paths):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return "".join(f"{part}." for part in shared)


def check_rename(rename: Mapping[str, str]) -> dict[str, str]:
    """The same patterns.

    Raises:
        ConfigError: one is empty, or gives another number of ``*`` than it takes.
    """
    for old, new in rename.items():
        if not old or not isinstance(new, str) or old.split(".").count("*") != new.split(".").count("*"):
            raise ConfigError(
                f"rename {old!r}: {new!r} cannot be read; give parts of names between dots, as block: conv_block, with "
                "the same number of * (any one part) on both sides"
            )
    return dict(rename)


def renamed(value: Any, rename: Mapping[str, str], source: str) -> Any:
    """A checkpoint with parts of its tensors' names exchanged, in all mappings inside.

    ``block: conv_block`` exchanges a whole part between dots wherever it stands; ``a.b: c`` two of them; ``net: ""``
    drops it; ``down.*.conv: model.*`` keeps what stands at the ``*``.

    Raises:
        ConfigError: a pattern cannot be read.
        CheckpointError: a pattern is found nowhere, or two tensors would get one name.
    """
    used: set[str] = set()
    made = _renamed(value, check_rename(rename), used, source)
    idle = [old for old in rename if old not in used]
    if idle:
        raise CheckpointError(
            f"{source!r} has no tensor with {idle[0]!r} in its name, which rename is to exchange; give parts between "
            f"the dots of {', '.join(_some_names(value)) or 'names'}"
        )
    return made


def _renamed(value: Any, rename: Mapping[str, str], used: set[str], source: str) -> Any:
    if isinstance(value, list | tuple):
        return [_renamed(inner, rename, used, source) for inner in value]
    if not isinstance(value, Mapping):
        return value
    found: dict[str, Any] = {}
    for name, inner in value.items():
        new = str(name)
        if isinstance(inner, Tensor):
            new = rename_one(new, rename, used)
        if new in found:
            raise CheckpointError(f"{source!r}: rename gives two tensors the name {new!r}; make the pattern longer")
        found[new] = _renamed(inner, rename, used, source)
    return found


def rename_one(name: str, rename: Mapping[str, str], used: set[str] | None = None) -> str:
    """A name with its parts exchanged, one pattern after the other; those that did something are put into ``used``."""
    for old, new in rename.items():
        pattern = r"(?<![^.])" + re.escape(old).replace(r"\*", r"([^.]+)") + r"(?=\.|$)"
        pieces = new.split("*")

        def put(match: re.Match[str], pieces: Sequence[str] = pieces) -> str:
            kept = [*match.groups(), ""]
            return "".join(piece + kept[index] for index, piece in enumerate(pieces))

        name, count = re.subn(pattern, put, name)
        name = re.sub(r"\.{2,}", ".", name).strip(".")
        if count and used is not None:
            used.add(old)
    return name


def proposed(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, str] | None:
    """The one ``rename`` that gives a state the generator's names, where its shapes, in order, are the generator's."""
    if not _same_shapes(state, expected):
        return None
    pattern = next(_middles(zip(state, expected)), None)
    if pattern is None or not all(pattern) or all(part.replace(".", "").isdigit() for part in pattern):
        return None
    rename = dict([pattern])
    return rename if [rename_one(name, rename) for name in state] == list(expected) else None


def _same_shapes(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> bool:
    return [tuple(value.shape) for value in state.values()] == [tuple(value.shape) for value in expected.values()]


def shapes_fit(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> tuple[str, str] | None:
    """The first two names that differ, where all shapes, in order, are the generator's."""
    if not _same_shapes(state, expected):
        return None
    return next(((old, new) for old, new in zip(state, expected) if old != new), None)


def _middles(pairs: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """What differs between two names, their common beginnings and ends taken off."""
    for one, two in pairs:
        if one != two:
            old, new = one.split("."), two.split(".")
            while len(old) > 1 and new and old[-1] == new[-1]:
                old, new = old[:-1], new[:-1]
            while len(old) > 1 and new and old[0] == new[0]:
                old, new = old[1:], new[1:]
            yield ".".join(old), ".".join(new)


def _some_names(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        own = [str(name) for name, inner in value.items() if isinstance(inner, Tensor)]
        return own[:4] or next((found for inner in value.values() if (found := _some_names(inner))), [])
    if isinstance(value, list | tuple):
        return next((found for inner in value if (found := _some_names(inner))), [])
    return []
