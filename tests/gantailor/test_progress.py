"""Progress: a line every ten seconds where no terminal is, a bar on one."""

import logging
import os
import pickle
import re
import sys
import time

import pytest
import tqdm.std

from gantailor.run.progress import LARGEST, Reporter
from gantailor.supernet.training.trainer import Progress


@pytest.fixture
def clock(monkeypatch):
    """Time that passes when a test says so."""
    now = [1000.0]
    monkeypatch.setattr(tqdm.std, "time", lambda: now[0])

    def passes(seconds):
        now[0] += seconds

    return passes


def test_lines(clock, capsys):
    report = Reporter()
    report.stage("train")
    with report.training("supernet") as listener:
        for step in range(1, 31):
            clock(1)
            listener(Progress(step, 30, step * 0.01, 10.0, {"gan": 0.5, "l1": 2.0}))
    with report.counting("search", 4) as listener:
        for done in (2, 3, 4):
            listener(done, 0.25)
            clock(4)
    report.note("done")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "== train"
    assert lines[1].startswith("supernet 1/30 (3%), 10 img/s, gan 0.5 l1 2, ")
    assert lines[2] == "supernet 11/30 (37%), 10 img/s, gan 0.5 l1 2, 00:19 left"
    assert [re.split("[ /]", line)[1] for line in lines[1:5]] == ["1", "11", "21", "30"]
    assert lines[5].startswith("search 2/4, best 0.25, ")
    assert lines[6:] == ["search 4/4, best 0.25, 00:00 left", "done"]


def test_pictures_that_take_no_time_need_no_line(clock, capsys):
    listener = Reporter().pictures("pictures")
    for _ in range(2):
        for done in range(1, 6):
            listener(done, 5)
    assert capsys.readouterr().err == ""
    for done in range(1, 6):
        listener(done, 5)
        clock(4)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(", ")[0] for line in lines] == ["pictures 4/5", "pictures 5/5"]
    assert all(re.fullmatch(r" *[0-9.]+ pictures/s", line.split(", ")[1]) for line in lines)


def test_quiet(capsys):
    report = Reporter(quiet=True)
    report.stage("train")
    with report.counting("search", 2) as listener:
        listener(1, 0.5)
        listener(2, 0.5)
    assert capsys.readouterr().err == ""


def test_bar_on_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Reporter().counting("search", 3) as listener:
        for done in (1, 2, 3):
            listener(done, 0.5)
            time.sleep(0.6)
    shown = capsys.readouterr().err.split("\r")
    assert any(part.startswith("search 2/3, best 0.5, ") for part in shown)
    assert "█" in shown[-1] and shown[-1].endswith("\n")


def test_a_runs_log(tmp_path, capsys):
    """What was told, with times, quiet or not; warnings too, which still reach the terminal."""
    log, report = tmp_path / "gantailor.log", Reporter(quiet=True)
    report.stage("check")
    report.keep(log)
    report.note("two\nlines")
    logging.getLogger("gantailor.zoo").warning("a picture is missing")
    pickle.dumps(report)
    report.end()
    report.note("of another run")
    logging.getLogger("gantailor.zoo").warning("later")
    lines = log.read_text().splitlines()
    assert [line.partition(" ")[2] for line in lines] == ["== check", "two", " lines", "warning: a picture is missing"]
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d |  lines", line) for line in lines)
    assert "later" not in log.read_text() and capsys.readouterr().out == ""


def test_a_runs_log_is_bounded_and_no_reason_to_stop(tmp_path):
    log, report = tmp_path / "gantailor.log", Reporter(quiet=True)
    log.write_text("".join(f"line {number}\n" for number in range(LARGEST // 8)))
    report.keep(log)
    report.note("new")
    kept = log.read_text().splitlines()
    assert log.stat().st_size < 0.6 * LARGEST and re.fullmatch(r"line \d+", kept[0]) and kept[-1].endswith(" new")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to(log)
    for other in (tmp_path, tmp_path / "fifo", tmp_path / "link"):
        report.keep(other)
        report.note("nobody reads this")
        report.end()
    assert "nobody" not in log.read_text()
