"""Flags and YAML fill the same typed configuration."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import yaml
from pydantic import BaseModel

from gantailor.run.config import Config, load_config
from gantailor.supernet.errors import ConfigError

SHORT = ("search.strategy", "search.trials", "search.workers", "search.ray_address")  # also without their section


def _leaves(model: type[BaseModel], prefix: str = "") -> dict[str, str]:
    """Dotted setting names with their descriptions."""
    found: dict[str, str] = {}
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            inner = _leaves(kind, f"{prefix}{name}.")
            if f"{prefix}{name}.name" in inner:  # ``--space NAME`` is short for ``--space.name NAME``
                found[prefix + name] = inner.pop(f"{prefix}{name}.name")
            found |= inner
        else:
            found[prefix + name] = field.description or ""
    return found


def add_settings(parser: argparse.ArgumentParser, *, without: Sequence[str] = ()) -> None:
    """Add a flag for every setting of a run."""
    parser.add_argument("--out", default="runs/run", help="run folder")
    parser.add_argument("--dry-run", action="store_true", help="check everything, print the plan, train nothing")
    if "budget" not in without:
        parser.add_argument("--target", metavar="SHARE", help="share of the generator's MACs, 0.1: --budget 0.1x")
        parser.add_argument("--latency", metavar="MS@PROFILE", help="the same as --budget 'latency_ms<=MS@PROFILE'")
    parser.usage = f"{parser.format_usage().removeprefix('usage: ').rstrip()} [--SETTING VALUE ...]"
    group = parser.add_argument_group("settings (the same names as in YAML)")
    for name, text in _leaves(Config).items():
        if name in without:
            continue
        short = [f"--{name.partition('.')[2].replace('_', '-')}"] if name in SHORT else []
        group.add_argument(f"--{name}", *short, dest=f"set:{name}", metavar="VALUE", help=text.replace("%", "%%"))


def _limits(arguments: argparse.Namespace) -> str:
    """What ``--target`` and ``--latency`` say, as a budget."""
    target, latency = (getattr(arguments, name, None) for name in ("target", "latency"))
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
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        said = str(error).splitlines()[0]
        raise ConfigError(f"--{name} {text!r} cannot be read ({said}); write a mapping as '{{ngf: 32}}'") from None


def config_of(arguments: argparse.Namespace, base: dict[str, Any] | None = None) -> Config:
    """The config that file and flags give, above ``base``."""
    flags = dict(base or {})
    for name, value in vars(arguments).items():
        if name.startswith("set:") and value is not None:
            setting = name[4:]
            flags[setting] = value if setting == "budget" else flag_value(setting, value)
    if limits := _limits(arguments):
        if "budget" in flags:
            raise ConfigError(f"--target and --latency set the budget, {limits!r}: give them or --budget, not both")
        flags["budget"] = limits
    return load_config(getattr(arguments, "config", None), flags)
