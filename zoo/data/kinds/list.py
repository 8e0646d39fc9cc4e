"""Pictures that a table names: CSV or JSON lines with the columns input, target, class and split."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gantailor.evaluators.pictures.reader import tell
from gantailor.supernet.errors import DataError, nearest
from gantailor.zoo.data.class_labels import ClassLabels
from gantailor.zoo.data.config import DataConfig
from gantailor.zoo.data.domains import Domains
from gantailor.zoo.data.fit import Reading
from gantailor.zoo.data.kinds.files import FileItems, read_items, unique
from gantailor.zoo.data.pairs import Pairs
from gantailor.zoo.data.record import FOLDERS, SPLIT_NAMES, DataKind, check_path, shared_out

COLUMNS = ("input", "target", "class", "split")
SUFFIXES = (".csv", ".tsv", ".jsonl")
LONGEST = 1 << 20  # characters of a line: no table of pictures needs more


@dataclass(frozen=True)
class Row:
    """A line of a table.

    Attributes:
        place: the table and the number of the line, for messages.
        name: the input's path as the table has it.
        label: the class: a number, or a name.
        split: train, search, val or test; empty where the table does not say.
    """

    place: str
    name: str
    input: Path
    target: Path | None
    label: str | int | None
    split: str


def table_files(path: Path) -> dict[str, Path]:
    """The tables of a folder by split (train, search, val, test), or the one file under the name of none.

    Raises:
        DataError: there is none, two are of one split, or the file is of another kind.
    """
    if path.is_file():
        if path.suffix.lower() not in SUFFIXES:
            raise DataError(f"data.path {str(path)!r} is no list: give a file ending in {', '.join(SUFFIXES)}")
        return {"": path}
    if not path.is_dir():
        raise DataError(f"data.path {str(path)!r} does not exist; give a list of pictures, or a folder of such lists")
    found: dict[str, Path] = {}
    for split in SPLIT_NAMES:
        files = [file for suffix in SUFFIXES if (file := path / f"{split}{suffix}").is_file()]
        if len(files) > 1:
            raise DataError(f"{files[0].name!r} and {files[1].name!r} in {str(path)!r} are of one split; remove one")
        if files:
            found[split] = files[0]
    if not found:
        raise DataError(f"data folder {str(path)!r} has no list; call it train.csv or train.jsonl, test.csv ...")
    return found


def read_table(file: Path) -> list[Row]:
    """Every line, in order; paths are relative to the file.

    Raises:
        DataError: it is no such table; the line is named.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        said = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise DataError(f"list {str(file)!r} cannot be read ({said}); save it as UTF-8 text") from None
    lines = _json_lines(file, text) if file.suffix.lower() == ".jsonl" else _csv_lines(file, text)
    known = dict.fromkeys(["input"])
    rows, unknown = [], dict[str, None]()
    for number, values in lines:
        unknown |= dict.fromkeys(name for name in values if name and name not in COLUMNS)
        known |= dict.fromkeys(name for name in values if name in COLUMNS)
        rows.append(_row(file, number, values))
    if not rows:
        raise DataError(f"list {str(file)!r} names no pictures; give a line for each, beneath the columns' names")
    if unknown:
        tell(f"list {str(file)!r}: columns {', '.join(unknown)} are not read; those that are: {', '.join(COLUMNS)}")
    for name in known:
        _check_all_or_none(rows, name)
    return rows


def _csv_lines(file: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Numbers of lines and their cells by column; columns are parted by commas, semicolons or tabs."""
    head = text.lstrip("\r\n").partition("\n")[0]
    delimiter = max(",;\t", key=lambda mark: (head.count(mark), mark == ","))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] = []
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if not header:
                header = _header(file, cells)
                continue
            if len(cells) != len(header):
                raise DataError(
                    f"{_place(file, reader.line_num)}: {len(cells)} cells beneath {len(header)} columns; put a value "
                    "with commas in double quotes"
                )
            yield reader.line_num, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise DataError(f"{_place(file, reader.line_num)}: {error}; mend the quotes of this line") from None


def _header(file: Path, cells: list[str]) -> list[str]:
    names = [cell.strip().lower() for cell in cells]
    if "input" not in names:
        raise DataError(
            f"list {str(file)!r} has no column 'input': its first line is {','.join(cells)[:60]!r}; name the columns "
            f"there. {nearest('input', COLUMNS)}"
        )
    if len(set(names)) < len(names):
        raise DataError(f"list {str(file)!r} names a column twice: {', '.join(names)[:80]}; rename one")
    return names


def _json_lines(file: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            values = json.loads(line) if len(line) <= LONGEST else None
        except (ValueError, RecursionError):
            values = None
        if not isinstance(values, dict):
            raise DataError(f'{_place(file, number)}: no JSON object; give one in each line, {{"input": "a.png"}}')
        yield number, {name: value for name, value in values.items() if value is not None}


def _place(file: Path, number: int) -> str:
    return f"list {str(file)!r}, line {number}"


def _row(file: Path, number: int, values: dict[str, Any]) -> Row:
    place = _place(file, number)
    given = {name: values[name] for name in COLUMNS if values.get(name) not in (None, "")}
    for name in ("input", "target", "split"):
        if name in given and not isinstance(given[name], str):
            raise DataError(f"{place}: {name} cannot be {given[name]!r}; give text")
    if not str(given.get("input", "")).strip():
        raise DataError(f"{place}: no input; give the path of a picture")
    target = given.get("target")
    return Row(
        place,
        given["input"].strip(),
        _picture(file, place, given["input"]),
        None if target is None else _picture(file, place, target),
        _label(place, given.get("class")),
        _split(place, given.get("split", "")),
    )


def _picture(file: Path, place: str, text: str) -> Path:
    """The path of a picture that is there; spaces around it and another system's slashes are forgiven."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text.strip()):
        raise DataError(f"{place}: {text.strip()[:120]!r} is an address, and nothing is fetched; give a file")
    for form in dict.fromkeys((text, text.strip(), text.strip().replace("\\", "/"))):
        path = file.parent / form
        if os.path.isfile(path):  # noqa: PTH113 - a name that no file can have is none
            return path
        if os.path.exists(path):  # noqa: PTH110
            raise DataError(f"{place}: {text[:120]!r} is no file; give a picture")
    raise DataError(f"{place}: picture {text[:120]!r} does not exist; paths are relative to the list")


def _label(place: str, value: Any) -> str | int | None:
    if isinstance(value, str) and value.strip():
        text = value.strip()
        number = re.fullmatch(r"([0-9]{1,9})(\.0*)?", text)  # pandas writes 3.0 where a column was once incomplete
        return int(number[1]) if number else text
    if type(value) in (int, float) and 0 <= value < 10**9 and value == int(value):
        return int(value)
    if value is None:
        return None
    raise DataError(f"{place}: class cannot be {value!r}; give a name, or a whole number from 0")


def _split(place: str, text: str) -> str:
    name = text.strip().lower()
    if name and name not in SPLIT_NAMES:
        raise DataError(f"{place}: split cannot be {text!r}; {nearest(name, SPLIT_NAMES)}")
    return name


def _check_all_or_none(rows: list[Row], column: str) -> None:
    """That a column is filled in every line."""
    values = {"input": "input", "target": "target", "class": "label", "split": "split"}
    filled = [getattr(row, values[column]) not in (None, "") for row in rows]
    if any(filled) and not all(filled):
        raise DataError(
            f"{rows[filled.index(False)].place}: no {column}, which other lines have; fill it in, or in none"
        )


def rows_of(tables: dict[str, list[Row]], split: str) -> list[Row]:
    """The lines that a split finds; those of a single table that names no splits are every split's.

    Raises:
        DataError: there are none.
    """
    tables = _by_split(tables)
    found = _found(tables, split)
    if found is None:
        there = ", ".join(name for name in SPLIT_NAMES if tables.get(name))
        raise DataError(
            f"the list has no pictures of {' or '.join(FOLDERS[split])}, which {split} needs; it has {there}"
        )
    return tables[found]


def _by_split(tables: dict[str, list[Row]]) -> dict[str, list[Row]]:
    """The lines of each split; of a single table that names no splits all, under the name of none."""
    rows = tables.get("", [])
    return (
        {name: [row for row in rows if row.split == name] for name in SPLIT_NAMES} if rows and rows[0].split else tables
    )


def _found(tables: dict[str, list[Row]], split: str) -> str | None:
    """Whose lines a split reads."""
    return next((name for name in ("", *FOLDERS[split]) if tables.get(name)), None)


def _read(config: DataConfig, split: str) -> Pairs:
    """Inputs, targets where the list has any, and classes."""
    path = Path(str(config.path))
    tables = {name: read_table(file) for name, file in table_files(path).items()}
    rows = rows_of(tables, split)
    every = [row.label for table in tables.values() for row in table if row.label is not None]
    given = [row.label for row in rows if row.label is not None]
    labels = ClassLabels.of(given, every) if given else None
    items = FileItems(
        unique([row.name for row in rows]),
        tuple(_files(row, config.direction) for row in rows),
        Reading.of(config),
        None if labels is None else np.asarray(labels.values),
    )
    key = "|".join([str(path.resolve()), config.direction, *(str(file) for files in items.files for file in files)])
    source = path.stem if path.is_file() else path.name
    what, splits = f"list {str(path)!r}", _by_split(tables)
    pairs = read_items(items, labels, name="list", what=what, key=key, source=f"{source}/{split}")
    return shared_out(pairs, config, split, lambda name: _found(splits, name))


def _files(row: Row, direction: str) -> tuple[Path, ...]:
    """The picture that is the input, and the target."""
    if direction == "unpaired" or (row.target is None and direction == "AtoB"):
        return (row.input,)
    if row.target is None:
        raise DataError(f"{row.place}: no target, which data.direction BtoA makes the input; give one, or AtoB")
    return (row.input, row.target) if direction == "AtoB" else (row.target, row.input)


LIST = DataKind(name="list", read=_read, domains=lambda config: Domains.of(_read(config, "train")), check=check_path)
