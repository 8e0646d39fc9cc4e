"""Run folders listed without being opened: what a row says, filters, and folders that are broken or somebody else's."""

import json
import os
import sys
import threading

import pytest

from gantailor.cli.main import main
from gantailor.records.listing import find_runs, matching, text_of
from gantailor.records.stages import stages_of, state_of
from gantailor.records.starts import commit, note_start
from gantailor.records.summary import Summary
from gantailor.run.config import Config
from gantailor.run.folder import RunFolder


@pytest.fixture
def several(made, tmp_path):
    made.finished(tmp_path / "good")
    made.begun(tmp_path / "deep/er/training", generator="spade", options={}, train={"kimg": 6, "batch": 4})
    made.write(tmp_path / "foreign", "config.json", {"model_type": "bert"})
    made.write(tmp_path / "twice", "config.json", '{"generator": 1, "generator": 2}')
    made.write(tmp_path / "half", "trace.json", {"macs_full": made.macs})
    (tmp_path / "pictures").mkdir()
    return tmp_path


def test_a_row_says_what_came_out(several):
    rows = {row.folder.removeprefix(f"{several}/"): row for row in find_runs(several)}
    assert list(rows) == ["deep/er/training", "foreign", "good", "half", "twice"]
    good, training = rows["good"], rows["deep/er/training"]
    assert (good.state, good.macs, good.teacher_macs) == ("finished", 480, 1000)
    assert good.scores == {"l1": 0.125, "fid": 31.0, "psnr": 20.0} and good.settings["train"]["lr"] == 1e-3
    assert (training.state, training.generator, training.macs) == ("stopped in train (40%)", "spade", None)
    assert "no generator, method, data, budget" in rows["foreign"].reason
    assert "'generator' stands twice" in rows["twice"].reason and "no config.json" in rows["half"].reason
    text = text_of(list(rows.values()), several)
    assert "480 (2.08x fewer)" in text and "l1 0.125, fid 31" in text and "psnr" not in text
    assert all(name in text for name in rows) and text.count("unreadable: ") == 3


def test_before_the_export_the_table_of_subnets_tells_the_costs(made, tmp_path):
    folder = made.finished(tmp_path)
    (folder / "export/manifest.json").unlink()
    row = Summary.read(folder)
    assert (row.state, row.macs, row.teacher_macs) == ("stopped in export", 470, 1000)


def test_stages_begin_anew_behind_one_that_is_not_done(made, tmp_path):
    folder = made.finished(tmp_path)
    (folder / "subnet.safetensors").unlink()
    stages = stages_of(RunFolder(folder), json.loads((folder / "config.json").read_text()))
    assert [stage.state for stage in stages] == ["done"] * 3 + ["stopped"] + ["waiting"] * 3
    assert stages[3].left == pytest.approx(12 * 1000 / 20)  # as quick as the training before it
    assert state_of(stages) == "stopped in finetune"
    (folder / "supernet.safetensors").unlink()
    train = stages_of(RunFolder(folder), json.loads((folder / "config.json").read_text()), "train")[1]
    assert (train.done, train.total, train.left) == (2.4, 6, pytest.approx(180))


def test_a_run_that_was_told_to_stop_early_is_finished(made, tmp_path):
    folder = made.finished(tmp_path)
    (folder / "export/manifest.json").unlink()
    note_start(RunFolder(folder), "evaluate")
    note_start(RunFolder(folder), None)  # scores were added later
    assert Summary.read(folder).state == "finished up to evaluate"


def test_a_teacher_has_one_stage(made, tmp_path):
    made.write(tmp_path, "config.json", Config(train={"kimg": 4}).model_dump(mode="json"))
    made.write(tmp_path, "teacher.ckpt.jsonl", made.lines({"step": 9, "kimg": 1.0, "images_per_second": 10.0}))
    assert Summary.read(tmp_path).state == "stopped in teacher (25%)"
    (stage,) = stages_of(RunFolder(tmp_path), {"train": {"kimg": 4}})
    assert stage.left == pytest.approx(300)
    made.write(tmp_path, "teacher.safetensors", "any")
    assert Summary.read(tmp_path).state == "finished"


def test_each_start_is_noted(made, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["gantailor", "train", "--search.storage", "postgresql://me:secret@host/runs"])
    folder = RunFolder(made.begun(tmp_path / "run"))
    folder.starts.write_text('{"date": "cut sho')
    note_start(folder, "train")
    row = Summary.read(folder.path)
    assert "secret" not in folder.starts.read_text() and row.command.endswith("postgresql://me:***@host/runs'")
    assert row.host and row.date[:2] == "20" and row.gantailor
    (only,) = map(json.loads, folder.starts.read_text().splitlines())
    assert {"processor", "threads", "commit", "torch", "until"} <= set(only)


def test_the_commit_is_read_from_a_checkout(made, tmp_path):
    assert commit(tmp_path) is None
    git, tree = tmp_path / ".git", tmp_path / "tree"
    made.write(git, "HEAD", "ref: refs/heads/main\n")
    made.write(git, "packed-refs", "# pack-refs\n" + "a" * 40 + " refs/heads/main\n")
    assert commit(tmp_path) == "a" * 40
    made.write(git, "refs/heads/main", "b" * 40 + "\n")
    assert commit(tmp_path) == "b" * 40
    made.write(git / "worktrees/tree", "HEAD", "ref: refs/heads/main\n")
    made.write(git / "worktrees/tree", "commondir", "../..\n")
    made.write(tree, ".git", f"gitdir: {git}/worktrees/tree\n")
    assert commit(tree) == "b" * 40
    made.write(git, "refs/heads/main", "ref: refs/heads/main\n")  # of itself: no end
    assert commit(tmp_path) is None


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (["generator=spade"], ["training"]),
        (["train.kimg=6.0"], ["good", "training"]),
        (["train.kimg=6", "train.batch=4"], ["training"]),
        (["state=finished"], ["good"]),
        (["state=stopped in train"], ["training"]),
        (["devices=onnxruntime-cpu"], ["good", "training"]),
        (["space=default"], ["good", "training"]),
        (["teacher=null"], ["good", "training"]),
        (["tensorboard=false"], ["good", "training"]),
        (["seed=false"], []),
        (["budget=0.5x"], []),
    ],
)
def test_filters(several, wanted, found):
    assert sorted(row.folder.rpartition("/")[2] for row in matching(find_runs(several), wanted)) == found


def test_the_command(several, capsys):
    assert main(["runs", str(several), "--where", "generator=spade", "--json"]) == 0
    out, err = capsys.readouterr()
    (row,) = json.loads(out)
    assert row["settings"]["train"]["batch"] == 4 and "3 folders cannot be read" in err
    assert main(["runs", str(several), "--where", "train.kimgs=4"]) == 2
    assert "did you mean 'train.kimg'" in capsys.readouterr().err
    assert main(["runs", str(several), "--where", "spade"]) == 2
    assert "--where train.kimg=6" in capsys.readouterr().err
    assert main(["runs", str(several / "nothing")]) == 2
    assert "does not exist" in capsys.readouterr().err
    assert main(["runs", str(several / "pictures")]) == 0
    assert "no run below" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["pipe", "deep", "number", "list", "binary", "folder"])
def test_settings_of_any_kind_are_a_row(made, tmp_path, kind):
    folder = made.begun(tmp_path / "run")
    (file := folder / "config.json").unlink()
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "folder":
        file.mkdir()
        made.write(folder, ".mark", "x")
    else:
        nested = '{"generator": ' + "[" * 100 + "]" * 100 + "}"
        file.write_bytes({"deep": nested.encode(), "number": b"1", "list": b"[]", "binary": b"\xff\xfe"}[kind])
    (row,) = find_runs(tmp_path)
    assert row.reason and row.state == "unreadable" and "Traceback" not in text_of([row], tmp_path)


@pytest.mark.parametrize("name", ["trace.json", "scores.json", "export/manifest.json", "subnet.json", "starts.jsonl"])
@pytest.mark.parametrize("content", ["[]", "{", '{"subnet": 3, "macs": [1], "true": "x", "date": {}}', "\0"])
def test_other_damage_leaves_a_row(made, tmp_path, name, content):
    made.write(made.finished(tmp_path), name, content)
    (row,) = find_runs(tmp_path)
    assert not row.reason and row.state == "finished"
    assert text_of([row], tmp_path) and json.dumps(row.to_json())


def test_nothing_of_a_folder_is_run_or_written(made, tmp_path, monkeypatch):
    folder = made.finished(tmp_path / "run", generator="evil_of_the_folder:make", options={})
    made.write(folder, "evil_of_the_folder.py", "raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.chdir(folder)
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}
    (row,) = find_runs(tmp_path)
    assert row.generator == "evil_of_the_folder:make" and row.state == "finished"
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")} == before


def test_a_terminal_is_left_alone(made, tmp_path):
    made.write(
        made.begun(tmp_path / "red\x1b[31m"),
        "starts.jsonl",
        made.lines({"host": "a\x1b]0;title\x07\nb", "date": "2026"}),
    )
    text = text_of(find_runs(tmp_path), tmp_path)
    assert "\x1b" not in text and "\x07" not in text and len(text.splitlines()) == 2


def test_a_run_in_progress(made, tmp_path):
    folder = RunFolder(made.begun(tmp_path / "run"))
    folder.lock()
    assert Summary.read(folder.path).state == "running: train (40%)"
    folder.release()
    assert Summary.read(folder.path).state == "stopped in train (40%)"


def test_a_look_does_not_keep_a_run_from_beginning(made, tmp_path):
    """Who lists and watches asks for the lock as well, again and again."""
    folder, over = made.begun(tmp_path / "run"), threading.Event()

    def look():
        while not over.wait(0.005):
            assert RunFolder(folder).free in (True, False)

    lookers = [threading.Thread(target=look) for _ in range(2)]
    for looker in lookers:
        looker.start()
    try:
        for _ in range(50):
            held = RunFolder(folder)
            held.lock()
            held.release()
    finally:
        over.set()
        for looker in lookers:
            looker.join()
