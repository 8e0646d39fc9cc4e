"""What a run needs from outside its folder: noted by place and content, found where it lies now, asked for by name.

``config.json`` has each as the user wrote it. ``trace.json`` says where that was, on this machine and as seen from the
run folder, and of a file what it held, so a folder may be moved with or without what it needs.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gantailor.run.config import PLACES, SHORT, Config, is_file
from gantailor.run.folder import RunFolder
from gantailor.supernet.errors import ConfigError, RunError, nearest
from gantailor.supernet.files import write_json
from gantailor.zoo.generators.given import is_given
from gantailor.zoo.reading.files import split_file
from gantailor.zoo.shipped import name_of

COMPARED = ("data.path", "teacher.weights")  # by what is read there, whatever file it is in: trace.json has it too


def value_of(config: Config, name: str) -> str | None:
    """What a setting names; None where that is nothing outside: no file at all, a shipped one, a name."""
    part: Any = config
    for section in name.split("."):
        part = getattr(part, section)
    if not isinstance(part, str) or part == "none" or is_given(part) or name_of(part) != part:
        return None
    if (name == "ranking" and not is_file(part)) or (name.endswith("labels") and not part.endswith(".csv")):
        return None
    return part


def with_value(config: Config, name: str, value: str) -> Config:
    """The same with another place."""
    section, _, leaf = name.rpartition(".")
    if not section:
        return config.model_copy(update={leaf: value})
    return config.model_copy(update={section: getattr(config, section).model_copy(update={leaf: value})})


def as_place(name: str) -> str | None:
    """The place that a setting is, also by its short name: ``teacher``; None for other settings."""
    long = f"{name}.{SHORT[name]}" if name in SHORT else name
    return long if long in PLACES else None


def moved_to(config: Config, where: Mapping[str, Any]) -> Config:
    """The same with places as the user gives them now.

    Raises:
        ConfigError: a setting that names none.
    """
    for name, value in where.items():
        place = as_place(name)
        if place is None or not isinstance(value, str | Path):
            raise ConfigError(f"{name!r} of a run cannot be given anew; {nearest(name, PLACES)}")
        config = with_value(config, place, str(value))
    return config


def noted(config: Config, folder: RunFolder) -> dict[str, dict[str, str]]:
    """For ``trace.json``: where each place is, and of a file the sha256 of what it holds."""
    found, here = {}, folder.path.resolve()
    for name in PLACES:
        value = value_of(config, name)
        if value is None:
            continue
        at = os.path.abspath(value)  # noqa: PTH100  a text, in which FILE:netG stays what it is
        found[name] = {"at": at, "beside": os.path.relpath(at, here)}
        if name != "data.path" and (digest := _digest(value)):
            found[name]["sha256"] = digest
    return found


def located(config: Config, folder: RunFolder) -> Config:
    """The configuration of a folder's run with places where they lie now: as written, where they were, or beside it.

    Of several files that of the noted content is meant. What the user gives anew stays as it is.
    """
    stored, trace = folder.stored_config(), folder.stored_trace()
    for name in PLACES:
        value = value_of(config, name)
        if value is None or _setting(stored, name) != value:
            continue
        known = _record(trace, name)
        there = [one for one in candidates(value, folder, trace, name) if _exists(one)]
        if len(there) > 1 and "sha256" in known:
            there = [one for one in there if _digest(one) == known["sha256"]] or there
        if there and there[0] != value:
            config = with_value(config, name, there[0])
    return config


def candidates(value: str, folder: RunFolder, trace: Mapping[str, Any], name: str) -> Iterator[str]:
    """Where something may lie, each once, in the order in which it is looked for."""
    known, made_in = _record(trace, name), trace.get("made_in")
    beside = os.path.normpath(folder.path.resolve() / known["beside"]) if "beside" in known else None
    tried = [value, known.get("at"), beside]
    if isinstance(made_in, str) and made_in:  # of an earlier version
        tried.append(str(Path(made_in) / value))
    yield from dict.fromkeys(one for one in tried if one is not None)


def missing(config: Config) -> list[str]:
    """Places of data and teacher with nothing there."""
    return [name for name in COMPARED if (value := value_of(config, name)) is not None and not _exists(value)]


def check_there(config: Config, folder: RunFolder | None, *names: str) -> None:
    """That what a run that began needs is there.

    Raises:
        RunError: it is not; told are setting, content, where it was looked for, and how it is given.
    """
    for name in names:
        value = value_of(config, name)
        if folder is None or value is None or _exists(value):
            continue
        trace = folder.stored_trace()
        known, text = _record(trace, name), written(folder, name)
        if not known and "made_in" not in trace:  # it did not begin: a mistake in a setting, which others tell
            continue
        tried = ", ".join(map(repr, candidates(str(text or value), folder, trace, name)))
        content = f" (sha256 {known['sha256'][:12]})" if "sha256" in known else ""
        flag = next((short for short, leaf in SHORT.items() if name == f"{short}.{leaf}"), name)
        raise RunError(
            f"{str(folder)!r} needs its {name}{content}, and there is nothing at {tried}; say where it is now: "
            f"--{flag} PATH (in Python where={{{name!r}: PATH}})"
        )


def is_elsewhere(config: Config, folder: RunFolder | None, name: str) -> bool:
    """Whether a place is not the one that the folder's run was begun with, as it was written."""
    place = value_of(config, name)
    return place is not None and folder is not None and written(folder, name) != place


def another(config: Config, folder: RunFolder | None, name: str) -> RunError:
    """What to say where a place does not hold what the folder's run began with."""
    earlier = None if folder is None else written(folder, name)
    return RunError(
        f"{str(folder)!r} began with another {name}, {earlier!r}, and what lies in {value_of(config, name)!r} is not "
        "the same; give the same, choose another --out, or delete the folder"
    )


def same_place(earlier: Config, config: Config, folder: RunFolder, name: str) -> bool:
    """Whether a place is that of the folder's run, should it lie elsewhere than when that began.

    What is compared when it is read passes; other files are the same where they hold what was noted.
    """
    known, mine, trace = value_of(earlier, name), value_of(config, name), folder.stored_trace()
    if known is None or mine is None:
        return False
    if name in COMPARED and trace.get(name.partition(".")[0]):
        return True
    content = _record(trace, name).get("sha256")
    return mine == value_of(located(earlier, folder), name) or (content is not None and _digest(mine) == content)


def as_written(config: Config, earlier: Config, folder: RunFolder) -> Config:
    """The settings with places as they were written when the folder's run began, but for those that are given anew."""
    found = located(earlier, folder)
    for name in PLACES:
        text = value_of(earlier, name)
        if text is not None and value_of(config, name) == value_of(found, name):
            config = with_value(config, name, text)
    return config


def note_anew(config: Config, earlier: Config, folder: RunFolder) -> None:
    """Note in the trace of the folder's run the places that were given anew."""
    trace = folder.stored_trace()
    known = trace.get("places")
    found = {n: one for n, one in noted(config, folder).items() if value_of(config, n) != value_of(earlier, n)}
    if isinstance(known, Mapping) and found:
        write_json(folder.trace, {**trace, "places": {**known, **found}})


def written(folder: RunFolder, name: str) -> Any:
    """A setting as the folder's run has it in its configuration."""
    return _setting(folder.stored_config(), name)


def noted_digest(folder: RunFolder, name: str = "teacher.weights") -> str | None:
    """The sha256 of a file as it was noted."""
    return _record(folder.stored_trace(), name).get("sha256")


def _setting(settings: Mapping[str, Any], name: str) -> Any:
    value: Any = settings
    for section in name.split("."):
        value = value.get(section) if isinstance(value, Mapping) else None
    return value


def _record(trace: Mapping[str, Any], name: str) -> dict[str, str]:
    """What was noted of a place; what is no text is left out."""
    places = trace.get("places")
    known = places.get(name) if isinstance(places, Mapping) else None
    return {k: v for k, v in known.items() if isinstance(v, str)} if isinstance(known, Mapping) else {}


def _exists(value: str) -> bool:
    try:
        return split_file(value)[0].exists()
    except (OSError, ValueError):  # no name at all
        return False


def _digest(value: str) -> str | None:
    """sha256 of a file; None of what is none."""
    try:
        file = split_file(value)[0]
        if not file.is_file():
            return None
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except (OSError, ValueError):
        return None
