"""A run folder that somebody else made: enough of one for what opens it, and nothing in it is true."""

import json
import os
import signal
from contextlib import contextmanager
from pathlib import Path

import pytest

from gantailor.cli.main import main
from gantailor.run.config import Config

LIMIT = 20  # seconds after which a command hangs, on a machine that does much else


@contextmanager
def _in_time():
    def hang(number, frame):
        raise TimeoutError(f"no end after {LIMIT} seconds")

    before = signal.signal(signal.SIGALRM, hang)
    signal.alarm(LIMIT)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture
def received(tmp_path, monkeypatch):
    """The current folder, with ``run/`` in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.json").write_text(json.dumps(Config(teacher="none").model_dump(mode="json")))
    (tmp_path / "run/trace.json").write_text(json.dumps({"made_in": str(tmp_path)}))
    (tmp_path / "run/subnet.json").write_text(json.dumps({"model.1": 4}))
    (tmp_path / "untouched").write_text("as it was")
    return tmp_path


@pytest.fixture
def refused(capfd):
    """Runs a command that must end with status 2 and one line, in time, and leave nothing behind; the line."""

    def run(*argv):
        (Path.cwd() / "home").mkdir(exist_ok=True)
        before = sorted(os.listdir("."))
        with _in_time():
            status = main([str(one) for one in argv])
        said = capfd.readouterr()
        lines = [
            line
            for line in said.err.splitlines()
            if line.strip() and not line.lstrip().startswith(("proof ", "== check"))
        ]
        assert status == 2, said
        assert len(lines) == 1, said.err
        assert (
            lines[0].startswith("error: ") and "Traceback" not in said.err and "a bug of gantailor" not in lines[0]
        ), lines
        assert sorted(os.listdir(".")) == before, "a refused command writes nothing"
        return lines[0]

    return run
