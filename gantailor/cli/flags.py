"""Flags from the configuration: every setting has one, each command takes those of the settings that it reads.

``argparse`` on purpose, and not one of the libraries that make flags from models: see docs/architecture.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from gantailor.run.config import SHORT, Config
from gantailor.run.loading import load_config, own_settings
from gantailor.supernet.errors import ConfigError, UnreadableError, shortened
from gantailor.supernet.received.documents import parse_yaml

WITHOUT_SECTION = ("search.strategy", "search.trials", "search.workers", "search.ray_address")  # --trials as well
SHOWN = ("generator", "options", "teacher", "method", "data.kind", "data.path", "data.size", "budget", "device", "seed")


def settings(model: type[BaseModel] = Config, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Dotted setting names with their fields; ``space.name`` is called ``space``, ``teacher.weights`` ``teacher``."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
            yield prefix + name, field
            continue
        for dotted, inner in settings(kind, f"{prefix}{name}."):
            short = dotted == f"{prefix}{name}.{SHORT.get(name)}"
            yield (prefix + name if short else dotted), inner


def add_settings(
    parser: argparse.ArgumentParser,
    sections: Sequence[str] = (),
    *,
    shown: Sequence[str] = SHOWN,
    without: Sequence[str] = (),
) -> None:
    """Add a flag for every setting of these sections; of a whole run by default.

    Args:
        shown: settings that ``--help`` lists; the others are in ``gantailor settings``.
        without: settings that the command has a flag of its own for.
    """
    parser.usage = f"{parser.format_usage().removeprefix('usage: ').rstrip()} [--SETTING VALUE ...]"
    parser.epilog = (
        "Every setting of the YAML file is a flag too, its name with dots: --train.kimg 20. All of them, with "
        "their defaults: gantailor settings" + (f". This command reads {', '.join(sections)}" if sections else "")
    )
    group = parser.add_argument_group("settings")
    for name, field in settings():
        if name in without or (sections and name.partition(".")[0] not in sections):
            continue
        short = [f"--{name.partition('.')[2].replace('_', '-')}"] if name in WITHOUT_SECTION else []
        text = (field.description or "").replace("%", "%%") if name in shown else argparse.SUPPRESS
        group.add_argument(f"--{name}", *short, dest=f"set:{name}", metavar="VALUE", help=text)


def add_budget(parser: argparse.ArgumentParser) -> None:
    """Other ways to write a budget."""
    parser.add_argument("--target", metavar="SHARE", help="share of the generator's MACs, 0.1: --budget 0.1x")
    parser.add_argument("--latency", metavar="MS@PROFILE", help="the same as --budget 'latency_ms<=MS@PROFILE'")


def _limits(arguments: argparse.Namespace) -> str:
    """What ``--target`` and ``--latency`` say, as a budget."""
    target, latency = (vars(arguments).get(name) for name in ("target", "latency"))
    parts = [f"{target}x"] if target is not None else []
    try:
        reachable = target is None or 0 < float(target) <= 1
    except ValueError:
        reachable = False
    if not reachable:
        raise ConfigError(
            f"--target {target!r} cannot be read; write a share of the generator's MACs above 0 and up to 1, as 0.1"
        )
    return ", ".join([*parts, f"latency_ms<={latency}"] if latency is not None else parts)


def flag_value(name: str, text: str) -> Any:
    """A flag's value, written as in YAML.

    Raises:
        ConfigError: it is not YAML.
    """
    try:
        return parse_yaml(text, f"--{name}")
    except UnreadableError as error:
        told = f"--{name} {shortened(text)!r} cannot be read ({error.why})"
        raise ConfigError(f"{told}; write a mapping as '{{ngf: 32}}'") from None


def given_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """The settings that flags give, by dotted name.

    Raises:
        ConfigError: one cannot be read, or two of them say the same.
    """
    flags: dict[str, Any] = {}
    for name, value in vars(arguments).items():
        if name.startswith("set:") and value is not None:
            setting = name[4:]
            flags[setting] = value if setting == "budget" else flag_value(setting, value)
    if limits := _limits(arguments):
        if "budget" in flags:
            raise ConfigError(f"--target and --latency set the budget, {limits!r}: give them or --budget, not both")
        flags["budget"] = limits
    return flags


def check_settings(arguments: argparse.Namespace) -> None:
    """That the settings which file and flags give are valid by themselves, before a command loads what it needs.

    Raises:
        ConfigError: every mistake at once.
    """
    file = vars(arguments).get("config")
    if file and Path(file).name == "config.json" and Path(file).is_file() and not vars(arguments).get("trust_code"):
        from gantailor.run.folder import RunFolder
        from gantailor.run.run import check_own

        folder = RunFolder(Path(file).parent)
        check_own(folder, folder.stored_config())
    if any(name.startswith("set:") for name in vars(arguments)) and not (file and Path(file).is_dir()):
        own_settings(file, given_settings(arguments))


def places_of(given: dict[str, Any]) -> dict[str, Any]:
    """Of the settings that flags give those that say where something of a run lies now, taken out of the others."""
    from gantailor.records.places import as_place

    return {name: given.pop(name) for name in list(given) if as_place(name) and not name.startswith("evaluation.")}


def config_of(arguments: argparse.Namespace, base: dict[str, Any] | None = None) -> Config:
    """The config that file and flags give, above ``base``.

    Raises:
        ConfigError: every mistake at once.
    """
    file = vars(arguments).get("config")
    if file and Path(file).name == "config.json" and Path(file).is_file():
        from gantailor.records.modules import find_modules
        from gantailor.run.folder import RunFolder

        find_modules(RunFolder(Path(file).parent))
    return load_config(vars(arguments).get("config"), {**(base or {}), **given_settings(arguments)})
