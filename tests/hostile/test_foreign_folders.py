"""A run folder from somebody else runs no code, opens nothing outside itself, and is not written through."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

import gantailor
from gantailor.run.config import Config
from gantailor.run.folder import RunFolder
from gantailor.run.loading import names_of_others
from gantailor.run.run import Run, open_run
from gantailor.supernet.errors import CheckpointError, RunError
from gantailor.supernet.received.signature import is_own, key_file, mark

COMMANDS = (
    ["pareto", "run"],
    ["export", "run"],
    ["evaluate", "run"],
    ["compress", "run/config.json", "--out", "run"],
    ["search", "run/config.json", "--dry-run"],
)
EVIL = "open('RAN', 'w').close()\nM = print\n"


def changed(file, **values):
    """A JSON file with other values, by dotted name with ``__``."""
    whole = json.loads(Path(file).read_text())
    for name, value in values.items():
        *sections, leaf = name.split("__")
        part = whole
        for section in sections:
            part = part[section]
        part[leaf] = value
    Path(file).write_text(json.dumps(whole))


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("generator", "os:system"),
        ("generator", "evil:M"),
        ("teacher__generator", "evil:M"),
        ("method", "evil:M"),
        ("ranking", "evil:M"),
        ("region", "evil:M"),
        ("embedding", "evil:M"),
        ("data__kind", "evil:M"),
        ("data__options", {"inner": ["evil:M"]}),
        ("train__task", "evil:M"),
        ("finetune__task", "evil:M"),
        ("search__strategy", "evil:M"),
        ("evaluation__search", "evil:M[teacher]"),
        ("evaluation__final", ["l1", "evil:M"]),
        ("evaluation__segmentation", "evil:M"),
        ("devices", ["run/evil.yaml:one"]),
        ("devices", ["../evil.yml"]),
        ("search__storage", "sqlite:////tmp/elsewhere.db"),
        ("search__storage", "sqlite:///../elsewhere.db"),
        ("search__storage", "postgresql://a:secret@10.1.1.1/x"),
        ("search__storage", "/elsewhere/search.journal"),
        ("search__ray_address", "10.1.1.1:6379"),
    ],
)
def test_what_it_names_is_not_imported(received, refused, command, setting, value):
    for place in ("evil.py", "run/evil.py"):
        (received / place).write_text(EVIL)
    changed("run/config.json", **{setting: value})
    if setting == "generator":
        changed("run/config.json", options={"command": "touch RAN"})
    said = refused(*command)
    assert "--trust-code" in said and setting.replace("__", ".") in said and "secret" not in said
    assert "evil" not in sys.modules


def test_it_is_imported_where_the_user_says_so(received, monkeypatch):
    monkeypatch.syspath_prepend(str(received))
    (received / "trusted_one.py").write_text("from gantailor.search.methods.supernet.method import METHOD as M\n")
    changed("run/config.json", method="trusted_one:M")
    with pytest.raises(RunError, match="method 'trusted_one:M'"):
        open_run("run")
    assert open_run("run", trust_code=True).config.method == "trusted_one:M"


def test_what_the_user_made_is_theirs_until_somebody_changes_it(received, monkeypatch):
    """On another machine, with another key, it is somebody else's."""
    run = Run("mine", Config(teacher="none", method="some:M"))
    RunFolder("mine").lock()
    run.folder.store_config(run.config.model_dump(mode="json"))
    assert open_run("mine").config.method == "some:M"
    shutil.move("mine", "moved")
    assert open_run("moved").config.method == "some:M"
    changed("moved/config.json", seed=1)
    with pytest.raises(RunError, match="not made by you"):
        open_run("moved")
    changed("moved/config.json", seed=0)
    assert open_run("moved")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(received / "another"))
    with pytest.raises(RunError, match="not made by you"):
        open_run("moved")


def test_the_mark_is_of_the_value_and_the_key_is_private(received):
    known = mark({"a": 1, "b": [2]})
    assert is_own({"b": [2], "a": 1}, known) and not is_own({"a": 1, "b": [3]}, known) and not is_own({}, "")
    assert key_file().stat().st_mode & 0o077 == 0 and len(known) == 64
    key_file().write_bytes(b"short")
    assert mark({}) == "" and not is_own({}, "")


def test_settings_that_name_files_are_no_code(received):
    """They look like ``module:name`` and are not."""
    settings = Config(teacher={"weights": "nets.pth:netG"}, supernet="a.b:c", device="cuda:0").model_dump(mode="json")
    settings["data"]["kind"] = "python:0123456789ab"
    assert names_of_others(settings, received / "run") == []
    for inside in ("sqlite:///run/x.db", f"sqlite:///{received}/run/x.db", "run/other.journal"):
        settings["search"]["storage"] = inside
        assert names_of_others(settings, Path("run")) == []


def test_an_exported_file_names_code_as_well(received):
    from torch import nn

    from gantailor.export.weights import write_weights

    origin = {"generator": "evil:M", "options": {}, "config": {}, "input_shapes": [], "decisions": {}}
    (received / "evil.py").write_text(EVIL)
    file = write_weights(received, nn.Linear(1, 1), origin)
    key_file().unlink()
    with pytest.raises(CheckpointError, match=r"not made by you.*--trust-code \(trust_code=True"):
        gantailor.load(file)
    assert not (received / "RAN").exists()


def test_a_trace_cannot_name_another_generator(received):
    """The decisions are the first process's; what is built is the configuration's."""
    import yaml

    run = Run("run", Config(teacher="none", generator="resnet_6blocks", options={"ngf": 4}))
    stored = {"generator": "os:system", "options": yaml.safe_dump({"command": "touch RAN"}), "profiles": {}}
    changed("run/trace.json", input_shapes=[[1, 3, 32, 32]], decisions={}, **stored)
    with pytest.raises(gantailor.supernet.errors.GantailorError, match="no option 'command'"):
        run.replay()
    assert not (received / "RAN").exists()


@pytest.mark.parametrize("link", [".lock", "export", "samples", "export/onnxruntime-cpu", "supernet.ckpt.jsonl"])
def test_nothing_is_written_through_links(received, refused, link):
    """An export claims the folder, and would write there."""
    place = received / "run" / link
    place.parent.mkdir(exist_ok=True)
    place.symlink_to(received / "untouched")
    assert f"'run/{link}' is a link to" in refused("export", "run")
    assert (received / "untouched").read_text() == "as it was"


def test_a_lock_that_is_a_pipe_is_no_lock(received, refused):
    os.mkfifo("run/.lock")
    assert "it is a named pipe" in refused("export", "run")


def test_the_folder_itself_may_be_a_link(received):
    (received / "linked").symlink_to("run")
    folder = RunFolder("linked")
    folder.lock()
    folder.release()
    assert (received / "run/.lock").exists()


@pytest.mark.parametrize("name", ["../../x", "/tmp/x", "a/b", "a\\b", ".x", " ", "x" * 200])
def test_a_device_is_called_by_a_name(received, refused, name):
    (received / "dev.yaml").write_text(json.dumps({name: {"runtime": "onnxruntime"}}))
    refused("export", "run", "--device", f"dev.yaml:{name}")
    refused("export", "run", "--device", "dev.yaml")


def test_a_manifest_names_devices_and_no_places(received):
    from gantailor.pipeline.export import _earlier, made_from

    run = Run("run", Config(teacher="none"))
    (received / "run/export/fine").mkdir(parents=True)
    manifest = {"made_from": made_from(run), "devices": {"../../out": {}, "/tmp": {}, "fine": {}}}
    (received / "run/export/manifest.json").write_text(json.dumps(manifest))
    assert list(_earlier(run)) == ["fine"]


def test_the_matplotlibrc_of_the_folder_is_not_obeyed(received):
    """In a new process, where Matplotlib is not imported yet."""
    import subprocess

    (received / "matplotlibrc").write_text("figure.facecolor: red\nbackend: module://evil\n")
    (received / "evil.py").write_text(EVIL)
    look = "import sys; from gantailor.cli.main import main; main(['papers']); import matplotlib; "
    look += "print(matplotlib.rcParams['figure.facecolor'])"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.splitlines()[-1] == "white" and not (received / "RAN").exists()


def test_an_export_with_a_runtime_of_somebody_elses_is_not_imported(received, refused):
    """By ``run``, ``evaluate`` and ``pack``; nor is a manifest believed that says something else than it should."""
    (received / "evil.py").write_text(EVIL)
    folder = received / "run/export/x"
    folder.mkdir(parents=True)
    manifest = {"device": "x", "runtime": "evil:M", "threads": 1, "file": "m.bin", "shapes": [[1, 3, 8, 8]]}
    manifest |= {"mark": "0" * 64, "inputs": [{"range": [-1, 1]}]}
    (folder / "m.bin").write_bytes(b"")
    (received / "a.png").write_bytes(b"")
    (received / "run/export/model.safetensors").write_bytes(b"")
    for name in (received / "run/export", folder):
        whole = manifest if name == folder else {"outputs": [], "devices": {"x": manifest}}
        (name / "manifest.json").write_text(json.dumps(whole))
    for command in (
        ("run", folder, "a.png", "--out", "made"),
        ("evaluate", "--weights", folder / "m.bin", "--metrics", "l1"),
        ("pack", "run"),
    ):
        assert "names what would be imported: runtime 'evil:M'" in refused(*command)
    for wrong in ({"threads": []}, {"device": None}, {"file": 3}, {"shapes": []}, {"runtime": 7}):
        (folder / "manifest.json").write_text(json.dumps({**manifest, "runtime": "onnxruntime", **wrong}))
        refused("run", folder, "a.png", "--out", "made")
        refused("evaluate", "--weights", folder / "m.bin", "--metrics", "l1")
        refused("pack", "run")
    assert not (received / "RAN").exists()
