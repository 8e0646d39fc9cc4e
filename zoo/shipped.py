"""Weights that come with the package, by name: ``shipped:openmoji_supernet`` in settings and in what is stored of them.

A path of this installation would lead nowhere on another machine, or after the next one of this.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer

from gantailor.supernet.errors import nearest
from gantailor.zoo import WEIGHTS

PREFIX = "shipped:"
FOLDER = ("zoo", WEIGHTS.name)  # within every installation


def path_of(value: object) -> object:
    """Where shipped weights lie here: of their name, or of a path into an installation that is gone. Others as given.

    Raises:
        ValueError: none are called so.
    """
    if not isinstance(value, str):
        return value
    known = {file.stem: file for file in WEIGHTS.glob("*.safetensors")}
    if value.startswith(PREFIX):
        name = value.removeprefix(PREFIX)
        if name not in known:
            raise ValueError(f"no such weights are shipped; {nearest(name, known)}")
        return str(known[name])
    place = Path(value)
    if place.parts[-3:-1] == FOLDER and place.stem in known and not place.exists():
        return str(known[place.stem])
    return value


def name_of(value: str | None) -> str | None:
    """``shipped:NAME`` of a path to shipped weights; anything else as it is."""
    if value is None:
        return None
    place = Path(value)
    if place.parts[-3:-1] != FOLDER or place.parent.resolve() != WEIGHTS.resolve():
        return value
    return f"{PREFIX}{place.stem}"


Weights = Annotated[str | None, BeforeValidator(path_of), PlainSerializer(name_of)]  # a file, as a setting
