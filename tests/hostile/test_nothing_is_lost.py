"""A kill, or a change of mind, between any two writes: what was made is there, whole, with what made it."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gantailor.pipeline.search.stage import put_back, set_aside
from gantailor.run.config import Config
from gantailor.run.folder import RunFolder, write_config
from gantailor.run.progress import Reporter
from gantailor.run.run import Run
from gantailor.supernet.files import SCRATCH, clear_unfinished, cut_rows, read_rows, write_bytes
from gantailor.supernet.graph import SubnetConfig

A, B = SubnetConfig({"a": 4}), SubnetConfig({"a": 8})
MADE = ("subnet.safetensors", "subnet.ckpt.jsonl", "finetune.watch.jsonl", "export/manifest.json")


def finished(folder, config, text):
    run = Run(folder, Config(teacher="none"), report=Reporter(quiet=True))
    for name in MADE:
        write_bytes(run.folder.file(name), text.encode())
    write_config(run.folder.subnet_config, config)
    return run


def contents(folder):
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(Path(folder).rglob("*")) if f.is_file()}


def test_a_budget_changed_and_changed_back(tmp_path):
    """A, B, A, B: each that was made stays."""
    for number, (config, other) in enumerate([(A, B), (B, A), (A, B), (B, A)]):
        set_aside(finished(tmp_path, config, f"made {number}"), other)
        assert not (tmp_path / "subnet.json").exists() and not (tmp_path / "export").exists()
    kept = [file.read_text() for file in (tmp_path / "earlier").rglob("subnet.safetensors")]
    assert sorted(kept) == [f"made {number}" for number in range(4)]
    assert len(list((tmp_path / "earlier").rglob("manifest.json"))) == 4


@pytest.mark.parametrize("renames", range(6))
def test_a_kill_between_the_renames(tmp_path, monkeypatch, renames):
    """The next start has all of it, or none of it; here the user has changed the budget back."""
    run, left = finished(tmp_path, A, "made"), itertools.count()
    before, rename = contents(tmp_path), Path.rename

    def killed(self, target):
        if next(left) == renames:
            raise KeyboardInterrupt
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", killed)
        try:
            set_aside(run, B)
        except KeyboardInterrupt:
            put_back_and_compare(run, before)
            return
    assert contents(next((tmp_path / "earlier").iterdir())) == before


def put_back_and_compare(run, before):
    run.report = Reporter(quiet=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.undo()
        put_back(run)
    assert contents(run.folder.path) == before


def test_a_torn_last_line_is_dropped_and_not_joined(tmp_path):
    log = tmp_path / "x.ckpt.jsonl"
    log.write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert cut_rows(log, 1) == [{"step": 1}] and log.read_text() == '{"step": 1}\n'
    log.write_bytes(b'{"step": 1}\n[2]\n{"no": 1}\n{"step"')
    assert cut_rows(log, 5) == [{"step": 1}, {"no": 1}] == read_rows(log)


KILLED = """
import os, sys
from pathlib import Path
from gantailor.supernet import files
files.os.fsync = lambda number: os.kill(os.getpid(), 9)
files.write_bytes(Path(sys.argv[1]), b"x" * 1000)
"""


def test_what_a_killed_save_left_is_deleted_at_the_next_start(tmp_path):
    """And what another process is writing just now is not."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED, tmp_path / "supernet.ckpt.safetensors"], env=os.environ, check=False
    )
    assert done.returncode == -9
    (left,) = tmp_path.glob(f".*{SCRATCH}")
    assert left.stat().st_size == 1000
    mine, other = tmp_path / f".x.{os.getppid()}-a{SCRATCH}", tmp_path / f".hand{SCRATCH}"
    mine.write_text(""), other.write_text("")
    folder = RunFolder(tmp_path)
    folder.lock()
    folder.release()
    assert not left.exists() and mine.exists() and other.exists()
    clear_unfinished(tmp_path / "nowhere")


HOLDS = """
import os, sys
from pathlib import Path
from gantailor.search.storage import JournalLock, open_study
os.chdir(sys.argv[1])
open_study(Path("run/search.journal"), name="s")
JournalLock(Path("run/search.journal")).acquire()
os.kill(os.getpid(), 9)
"""


def test_a_kill_that_held_the_journals_lock(tmp_path, monkeypatch):
    """With a relative path Optuna's own lock was waited for without an end."""
    import time

    from gantailor.search.storage import open_study

    (tmp_path / "run").mkdir()
    done = subprocess.run([sys.executable, "-c", HOLDS, tmp_path], env=os.environ, check=False)
    assert done.returncode == -9
    monkeypatch.chdir(tmp_path)
    started = time.monotonic()
    open_study(Path("run/search.journal"), name="other")
    assert time.monotonic() - started < 10, "Optuna's lock is broken after 30 seconds"


def test_the_lock_of_an_earlier_version_is_taken_away(tmp_path):
    (tmp_path / "search.journal.lock").symlink_to("runs/run/search.journal")
    folder = RunFolder(tmp_path)
    folder.lock()
    folder.release()
    assert not os.path.lexists(tmp_path / "search.journal.lock")
