"""From YAML and flags to a configuration: defaults of generator and method beneath, all mistakes reported together.

A paper's run is a YAML file that comes with the package (``gantailor/papers/``) and is read by its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from gantailor.run.config import PLACES, SHORT, Config
from gantailor.search.config import shown
from gantailor.supernet.errors import ConfigError, nearest, shortened, why_of
from gantailor.supernet.received import documents
from gantailor.supernet.received.signature import named_code

PAPERS = Path(__file__).parents[1] / "papers"
# Settings whose text may look like ``module:name`` and names something else.
NO_CODE = {*PLACES, "device", "budget", "search.study"} - {"ranking", "evaluation.labels"}
NO_CODE |= {"teacher.example", "teacher.rename", "teacher.layers", "search.storage", "search.front_cost", "licence"}


def papers() -> dict[str, Path]:
    """The papers' runs, by name."""
    return {file.stem: file for file in sorted(PAPERS.glob("*.yaml"))}


def paper(name: str) -> Path:
    """The file of a paper's run.

    Raises:
        ConfigError: there is none of this name.
    """
    found = papers()
    if name not in found:
        raise ConfigError(f"{name!r} is neither a file nor a paper's run; {nearest(name, found)}")
    return found[name]


def _file(source: str) -> Path:
    """The YAML file; where there is none and the name is no path's, the paper's run that is called so."""
    file = Path(source)
    return file if file.exists() or file.suffix or file.name != source else paper(source)


def read_yaml(path: str) -> dict[str, Any]:
    """The settings of a YAML file, or of a paper's run by its name.

    Raises:
        ConfigError: it cannot be read, or holds no settings.
    """
    file = _file(path)
    try:
        values = documents.read_yaml(file) or {}
    except (OSError, ValueError) as error:
        why = why_of(error)
        raise ConfigError(f"config {path!r} cannot be read: {why}; give a YAML file, as in examples/") from None
    if not isinstance(values, dict):
        raise ConfigError(f"config {path!r} must hold 'name: value' lines")
    return values


def load_config(source: str | Mapping[str, Any] | None, flags: Mapping[str, Any] | None = None) -> Config:
    """The configuration of a YAML file, or of settings as such a file holds, with flags (dotted names) on top.

    Raises:
        ConfigError: every mistake at once.
    """
    from gantailor.run.defaults import beneath  # generators and methods, which load much more

    own = own_settings(source, flags)
    values = beneath(own)
    defaults = Config().model_dump()
    for section in ("train", "finetune"):
        given = values.get(section, {})
        if isinstance(values.get("seed"), int):
            given = {"seed": values["seed"], **given}
        values[section] = given if given.get("preset") else {**defaults[section], **given}
    return _validated(values)


def own_settings(source: str | Mapping[str, Any] | None, flags: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What the user says, nested and valid, without what generator and method set beneath; loads nothing heavy.

    Raises:
        ConfigError: every mistake at once.
    """
    own = _with_flags(read_yaml(source) if isinstance(source, str) else dict(source or {}), flags or {})
    _validated(own)
    return own


def _validated(values: Mapping[str, Any]) -> Config:
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError("\n".join(explain(e, Config) for e in error.errors())) from None


def _with_flags(values: dict[str, Any], flags: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted names put into their sections, which are copied."""
    values = {name: dict(value) if isinstance(value, Mapping) else value for name, value in values.items()}
    for name, leaf in SHORT.items():
        if isinstance(values.get(name), str):
            values[name] = {leaf: values[name]}
    for name, value in flags.items():
        *sections, leaf = name.split(".")
        if not sections and leaf in SHORT and not isinstance(value, Mapping):
            leaf, sections = SHORT[leaf], [leaf]
        target = values
        for section in sections:
            target = target.setdefault(section, {})
            if not isinstance(target, dict):
                raise ConfigError(f"{section} must hold 'name: value' lines, not {target!r}")
        target[leaf] = value
    return values


def explain(error: Any, model: Any) -> str:
    """A mistake that pydantic found in a model's values, with setting, value and what is allowed."""
    where, value = ".".join(str(part) for part in error["loc"]), shortened(repr(error["input"]))
    if error["type"] == "extra_forbidden":
        for part in error["loc"][:-1]:
            model = model.model_fields[part].annotation
        return f"{where} is no setting; {nearest(str(error['loc'][-1]), model.model_fields)}"
    if error["type"] in ("model_type", "dataclass_type", "dict_type"):
        return f"{where} cannot be {value}: give its settings, {{name: value}}, or leave it out"
    if error["type"] == "tuple_type":
        return f"{where} cannot be {value}: give a list" + ("" if error["input"] is None else f", [{error['input']}]")
    return f"{where} cannot be {value}: {error['msg'].removeprefix('Value error, ')}"


def names_in(stored: Mapping[str, Any]) -> list[str]:
    """Every ``module:name`` of stored settings."""
    return [name for _, name in named_code(stored, NO_CODE) if not name.startswith("python:")]


def names_of_others(stored: Mapping[str, Any], folder: Path) -> list[str]:
    """What opening a run would import or connect to outside its folder, as its stored settings name it."""
    found = [f"{setting} {name!r}" for setting, name in named_code(stored, NO_CODE) if not name.startswith("python:")]
    devices = stored.get("devices")
    names = map(str, devices if isinstance(devices, list) else ())
    found += [f"devices {n!r}" for n in names if n.partition(":")[0].endswith((".yaml", ".yml"))]  # they name runtimes
    search = stored.get("search")
    search = search if isinstance(search, Mapping) else {}
    storage = search.get("storage")
    file = str(storage).partition("?")[0].removeprefix("sqlite:///")
    if storage is not None and ("://" in file or not Path(file).resolve().is_relative_to(folder.resolve())):
        found.append(f"search.storage {shown(storage)!r}")
    if search.get("ray_address") is not None:
        found.append(f"search.ray_address {search['ray_address']!r}")
    return list(dict.fromkeys(found))


def stored_config(stored: Mapping[str, Any]) -> Config:
    """The configuration that a run was made with; of a setting that came later it had the default.

    Raises:
        ConfigError: settings that this version does not know.
    """
    whole = Config().model_dump(mode="json")
    for name, value in stored.items():
        section = isinstance(getattr(Config(), name, None), BaseModel) and isinstance(value, Mapping)
        whole[name] = {**whole[name], **value} if section else value
    try:
        return Config.model_validate(whole)
    except ValidationError as error:
        said = "; ".join(explain(e, Config) for e in error.errors())
        raise ConfigError(f"the run was made by another version of gantailor: {said}") from None
