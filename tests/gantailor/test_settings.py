"""The settings as the command line shows them: a reference that is up to date, help on one screen, no flag unread."""

import argparse
from pathlib import Path

import pytest

from gantailor.cli.flags import settings
from gantailor.cli.parser import parser
from gantailor.cli.settings import reference
from gantailor.run.loading import own_settings
from gantailor.supernet.errors import ConfigError

ROOT = Path(__file__).parents[2]
LINES, COLUMNS = 45, 100
WHOLE_RUN = ("demo", "compress", "train", "search", "finetune", "export")
READS = "This command reads "

(SUBPARSERS,) = (action for action in parser()._actions if isinstance(action, argparse._SubParsersAction))
COMMANDS = SUBPARSERS.choices


def test_the_reference_is_up_to_date():
    assert (ROOT / "docs/settings.md").read_text() == reference(), "run: make docs"


def test_the_reference_describes_every_setting():
    assert [name for name, field in settings() if not field.description] == []
    text = reference()
    assert [name for name, _ in settings() if f"`{name}`" not in text] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_one_screen(name, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(COLUMNS))
    lines = COMMANDS[name].format_help().splitlines()
    assert len(lines) <= LINES
    assert max(map(len, lines)) <= COLUMNS


@pytest.mark.parametrize("name", COMMANDS)
def test_flags_are_of_the_sections_that_are_read(name):
    """A command says which sections it reads, and takes all settings of these and no others."""
    command = COMMANDS[name]
    taken = {action.dest.removeprefix("set:") for action in command._actions if action.dest.startswith("set:")}
    said = (command.epilog or "").partition(READS)[2]
    if not said:
        every = {setting for setting, _ in settings()}
        assert taken == ((every - {"device"} if name == "export" else every) if name in WHOLE_RUN else set())
        return
    sections = said.split(", ")
    assert taken == {setting for setting, _ in settings() if setting.partition(".")[0] in sections}


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("train", None, "train cannot be None: give its settings, {name: value}, or leave it out"),
        ("options", None, "options cannot be None: give its settings, {name: value}, or leave it out"),
        ("search", 60, "search cannot be 60: give its settings, {name: value}, or leave it out"),
        ("devices", None, "devices cannot be None: give a list"),
    ],
)
def test_a_section_without_lines_is_told_without_pythons_words(setting, value, said):
    with pytest.raises(ConfigError) as error:
        own_settings({setting: value})
    assert str(error.value) == said
