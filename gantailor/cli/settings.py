"""Commands ``settings`` and ``papers``: every setting, made from the configuration itself; those of the papers."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic.fields import FieldInfo

from gantailor.cli.flags import settings
from gantailor.run.config import Config
from gantailor.run.loading import paper, papers
from gantailor.supernet.errors import ConfigError, nearest


def show_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """Print the settings, or those of one section.

    Raises:
        ConfigError: there is no such section.
    """
    found, section = list(settings()), arguments.section
    if section is not None:
        found = [(name, field) for name, field in found if name.partition(".")[0] == section]
        if not found:
            raise ConfigError(f"there is no section {section!r}; {nearest(section, Config.model_fields)}")
    print("\n".join(_markdown(found) if arguments.markdown else _text(found)))
    return {
        name: {"default": _default(field), "allowed": _allowed(field), "what": field.description}
        for name, field in found
    }


def show_papers(arguments: argparse.Namespace) -> dict[str, Any]:
    """List the papers' runs, or print the file of one.

    Raises:
        ConfigError: there is no such run.
    """
    if arguments.name is not None:
        text = paper(arguments.name).read_text(encoding="utf8")
        print(text, end="")
        return {"name": arguments.name, "settings": yaml.safe_load(text)}
    found = papers()
    width = max(map(len, found))
    titles = {n: file.read_text(encoding="utf8").splitlines()[0].removeprefix("# ") for n, file in found.items()}
    print("\n".join(f"{name:<{width}}  {title}" for name, title in titles.items()))
    return titles


def reference() -> str:
    """The content of ``docs/settings.md``."""
    return "\n".join(_markdown(list(settings()))) + "\n"


def _text(found: list[tuple[str, FieldInfo]]) -> Iterator[str]:
    width = max(len(name) for name, _ in found)
    for name, field in found:
        lines = textwrap.wrap(_described(field), max(40, 118 - width)) or [""]
        yield f"{name:<{width}}  {lines[0]}"
        yield from (f"{'':<{width}}  {line}" for line in lines[1:])


def _described(field: FieldInfo) -> str:
    return f"{field.description or ''} [{_default(field)}]"


def _default(field: FieldInfo) -> str:
    """The default as YAML writes it."""
    value: Any = list(field.default) if isinstance(field.default, tuple) else field.default
    text: str = yaml.safe_dump(value, default_flow_style=True, width=1000).strip()
    return text.removesuffix("...").strip()


def _allowed(field: FieldInfo) -> str:
    """What the type allows, as a reader of YAML says it."""
    kind = field.annotation
    if get_args(kind)[1:] == (type(None),) and get_origin(get_args(kind)[0]) is Literal:
        kind = get_args(kind)[0]  # or null, which is the default
    if get_origin(kind) is Literal:
        return ", ".join(map(str, get_args(kind)))
    words = [part for part in get_args(kind) if get_origin(part) is Literal]
    if words and (other := [part for part in get_args(kind) if part not in words]):
        return ", ".join([*(part.__name__ for part in other), *(str(w) for part in words for w in get_args(part))])
    return str(getattr(kind, "__name__", kind)).replace(" | None", "")


def _markdown(found: list[tuple[str, FieldInfo]]) -> Iterator[str]:
    yield "# Settings"
    yield ""
    yield "Made by `gantailor settings --markdown`. In YAML, dots are sections; on the command line each is a flag."
    section = None
    for name, field in found:
        if name.partition(".")[0] != section:
            section = name.partition(".")[0]
            yield from ("", f"## {section}", "", "| setting | default | allowed | what it is |", "|---|---|---|---|")
        cells = [f"`{name}`", f"`{_default(field)}`", _allowed(field), field.description or ""]
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
