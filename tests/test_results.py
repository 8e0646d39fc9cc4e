"""The tables of the results pages are what the committed CSVs say."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SPEC = importlib.util.spec_from_file_location("results_tables", ROOT / "benchmarks" / "tables.py")
tables = importlib.util.module_from_spec(SPEC)
sys.modules[SPEC.name] = tables  # dataclasses look their module up
SPEC.loader.exec_module(tables)
README = ROOT / "README.md"


@pytest.mark.parametrize("page", tables.PAGES, ids=lambda page: page.name)
def test_tables_are_made_of_their_csvs(page):
    assert tables.written(page.read_text()) == page.read_text(), "make results"


@pytest.mark.parametrize("page", [page for page in tables.PAGES if page != README], ids=lambda page: page.name)
def test_every_table_of_results_is_made(page):
    assert "\n|" not in tables.PLACE.sub("", page.read_text())


@pytest.mark.parametrize("page", tables.PAGES, ids=lambda page: page.name)
def test_a_digit_that_is_deleted_is_noticed(page):
    text = page.read_text()
    for place in tables.PLACE.finditer(text):
        lines = place[0].splitlines()[3:-1]
        for number in (0, len(lines) // 2, len(lines) - 1):
            broken = re.sub(r"\d", "", lines[number], count=1)
            other = text.replace(lines[number], broken, 1)
            assert broken != lines[number] and tables.written(other) == text


def test_worse_than_no_generator_is_marked():
    lines = tables.TABLES["compare"].lines()
    known = {line.split("|")[2].strip(): line for line in lines if line.startswith("| 0.1x")}
    assert known["hypernetwork"].count(tables.WORSE) == 3 and tables.WORSE not in known["slimming"]
