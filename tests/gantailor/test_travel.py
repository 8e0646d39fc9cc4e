"""Run folders travel: moved, without what they were made of, or read-only, they open, report, export and score."""

import hashlib
import json
import os
import shutil
import sys
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from PIL import Image

import gantailor
from gantailor.cli.main import main
from gantailor.records.places import located
from gantailor.run.config import Config
from gantailor.run.folder import RunFolder
from gantailor.run.loading import load_config, stored_config
from gantailor.supernet.errors import ConfigError, RunError
from gantailor.zoo import DEMO_SUPERNET, WEIGHTS

pytestmark = pytest.mark.long

OWN = """
from torch import nn

def build(width: int = 8) -> nn.Module:
    layers = [nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(width, 3, 3, padding=1), nn.Tanh())
"""
SETTINGS = """
generator: travelling:build
options: {width: 8}
teacher: teacher.pth
data: {kind: folder, path: pairs, size: 32}
budget: 0.5x
space: uniform
train: {kimg: 0}
search: {trials: 1}
finetune: {kimg: 0.008, batch: 4, ndf: 4, discriminator_layers: 1, watch_kimg: 0}
evaluation: {search: l1, search_images: 4, final: [l1]}
"""


@contextmanager
def standing_in(folder):
    """As a new process there: nothing of one's own is imported yet, and Python looks nowhere else."""
    sys.modules.pop("travelling", None)
    gantailor.supernet.plugins._ELSEWHERE.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", list(sys.path))
        patch.chdir(folder)
        yield


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder with pictures, a teacher, a module, and a run that was made of them by relative names."""
    home = tmp_path_factory.mktemp("project")
    rng = np.random.default_rng(0)
    for split in ("train", "search", "test"):
        (home / "pairs" / split).mkdir(parents=True)
        for number in range(4):
            picture = rng.integers(0, 256, (32, 64, 3), dtype=np.uint8)
            Image.fromarray(picture).save(home / "pairs" / split / f"{number}.png")
    (home / "travelling.py").write_text(OWN)
    (home / "config.yaml").write_text(SETTINGS)
    with standing_in(home):
        torch.manual_seed(0)
        torch.save(gantailor.build("travelling:build").state_dict(), "teacher.pth")
        assert main(["compress", "config.yaml", "--out", "runs/made"]) == 0
    return home


@pytest.fixture
def away(project, tmp_path):
    """A copy of the run alone, what it was made of being nowhere but in ``kept/``, with a place to stand beside it."""
    shutil.copytree(project / "runs/made", tmp_path / "run")
    (tmp_path / "here").mkdir()
    hidden = project.with_name(f"{project.name}-kept")
    project.rename(hidden)
    (tmp_path / "kept").symlink_to(hidden)
    with standing_in(tmp_path / "here"):
        yield tmp_path
    hidden.rename(project)


def state_of(folder):
    return {file: file.stat().st_mtime_ns for file in folder.rglob("*")}


@pytest.fixture
def with_module(away, monkeypatch):
    """The same where the module can be imported."""
    monkeypatch.syspath_prepend(str(away / "kept"))
    return away


def test_no_path_of_what_is_shipped_is_in_the_folder(project):
    place = str(WEIGHTS.parents[1]).encode()
    holding = [
        file.name for file in (project / "runs/made").rglob("*") if file.is_file() and place in file.read_bytes()
    ]
    assert holding == []


def test_no_export_holds_a_path_of_this_machine(tmp_path):
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 3, padding=1), torch.nn.Tanh())
    gantailor.export(net, tmp_path, example_inputs=torch.rand(1, 3, 16, 16), devices=["torch-export", "torchscript"])
    place = str(torch.__path__[0]).encode()
    assert not [file for file in tmp_path.rglob("*") if file.is_file() and place in file.read_bytes()]


@pytest.mark.parametrize("name", [DEMO_SUPERNET.stem, "openmoji_stylegan2_discriminator"])
def test_shipped_weights_are_stored_by_name(name):
    file = str(WEIGHTS / f"{name}.safetensors")
    elsewhere = f"/gone/site-packages/gantailor/zoo/weights/{name}.safetensors"
    for given in (f"shipped:{name}", file, elsewhere):
        config = load_config({"supernet": given, "discriminator": given, "teacher": given})
        assert (config.supernet, config.discriminator, config.teacher.weights) == (file,) * 3
        stored = config.model_dump(mode="json")
        assert stored["supernet"] == stored["discriminator"] == stored["teacher"]["weights"] == f"shipped:{name}"
        assert stored_config(stored) == config


def test_weights_that_are_not_shipped_are_told():
    with pytest.raises(ConfigError, match="supernet cannot be 'shipped:openmoji_super': no such weights are shipped"):
        load_config({"supernet": "shipped:openmoji_super"})
    for odd in ("shipped:../x", "shipped:", "shipped:/etc/passwd"):
        with pytest.raises(ConfigError, match="no such weights"):
            load_config({"supernet": odd})


def test_all_moved_together(project, tmp_path, capsys):
    """With the module, the teacher and the pictures beside it, where nobody stands; each command."""
    shutil.copytree(project, tmp_path / "new")
    hidden = project.with_name("hidden")
    project.rename(hidden)
    (tmp_path / "here").mkdir()
    config = (tmp_path / "new/runs/made/config.json").read_bytes()
    try:
        with standing_in(tmp_path / "here"):
            run = "../new/runs/made"
            assert gantailor.load(run) and gantailor.open_run(run).subnet()
            for command in (
                ["runs", run],
                ["pareto", run, "--pictures", "1"],
                ["evaluate", run, "--metrics", "psnr"],
                ["pack", run],
                ["export", run, "--device", "torchscript"],
                ["compress", f"{run}/config.json", "--out", run],
            ):
                assert main(command) == 0, capsys.readouterr().err
            with pytest.MonkeyPatch.context() as patch:  # the file itself, from its own folder
                patch.chdir(tmp_path / "new")
                assert main(["compress", "config.yaml", "--out", "runs/made"]) == 0
    finally:
        hidden.rename(project)
    assert (tmp_path / "new/runs/made/config.json").read_bytes() == config


def test_alone_it_is_looked_at_exported_and_packed(with_module, capsys):
    """Neither data nor teacher are needed for that, and looking writes nothing."""
    before = state_of(with_module / "run")
    run = gantailor.open_run("../run")
    narrow = run.subnet()[1]
    whole = gantailor.load("../run")
    x = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(narrow(x), whole(x))
    assert main(["runs", ".."]) == 0 and "finished" in capsys.readouterr().out
    assert main(["watch", "../run", "--once", "page.html"]) == 0
    assert main(["pack", "../run", "--out", "run.zip"]) == 0
    assert main(["pareto", "../run", "--out", "drawn"]) == 0
    assert main(["export", "../run", "--device", "torchscript", "--out", "exported"]) == 0
    assert state_of(with_module / "run") == before
    made, known = (
        json.loads(file.read_text())
        for file in (with_module / "here/exported/manifest.json", with_module / "run/export/manifest.json")
    )
    assert made["sha256"] == known["sha256"] and made["provenance"]["teacher"] == known["provenance"]["teacher"]
    assert made["macs"] == known["macs"] and made["provenance"]["data"] == known["provenance"]["data"]
    torch.testing.assert_close(gantailor.load("exported/model.safetensors")(x), narrow(x))


def test_what_is_missing_is_asked_for_by_name(with_module, project, capsys):
    kept = with_module / "kept"
    digest = hashlib.sha256((kept / "teacher.pth").read_bytes()).hexdigest()[:12]
    at = project / "pairs"
    for command in (
        ["evaluate", "../run"],
        ["compress", "../run/config.json", "--out", "../run"],
        ["compress", str(kept / "config.yaml"), "--out", "../run", "--data.path", str(kept / "pairs")],
    ):
        assert main(command) == 2
        said = capsys.readouterr().err.splitlines()[-1]
        if command[-1] == str(kept / "pairs"):
            assert f"needs its teacher.weights (sha256 {digest})" in said and "--teacher PATH" in said
        else:
            assert f"needs its data.path, and there is nothing at 'pairs', '{at}', " in said, said
            assert "--data.path PATH" in said
    with pytest.raises(RunError, match=r"where=\{'teacher.weights': PATH\}"):
        _ = gantailor.open_run("../run").setup.teacher
    assert main(["export", "../run", "--device", "onnxruntime-cpu-int8", "--out", "eight"]) == 2
    assert "needs its data.path" in capsys.readouterr().err


def test_given_anew_it_scores_and_goes_on(with_module, capsys):
    """Where things are now is no other setting; the folder remembers what ``compress`` was told."""
    kept = with_module / "kept"
    now = ["--data.path", str(kept / "pairs"), "--teacher", str(kept / "teacher.pth")]
    assert main(["evaluate", "../run", "--metrics", "psnr", *now]) == 0
    opened = gantailor.open_run("../run", where={"data.path": kept / "pairs", "teacher": kept / "teacher.pth"})
    assert opened.setup.taught and len(opened.setup.data("test")) == 4
    assert main(["compress", "../run/config.json", "--out", "../run", *now]) == 0
    capsys.readouterr()
    (with_module / "other").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(with_module / "other")
        assert main(["evaluate", "../run", "--metrics", "l1"]) == 0
    with pytest.raises(ConfigError, match="'seed' of a run cannot be given anew"):
        gantailor.open_run("../run", where={"seed": 1})


def test_what_changed_is_refused(with_module, capsys):
    torch.manual_seed(1)
    torch.save(gantailor.build("travelling:build").state_dict(), "other.pth")
    shutil.copytree(with_module / "kept/pairs", "others")
    Image.new("RGB", (64, 32)).save("others/test/0.png")
    kept = with_module / "kept"
    for other, setting in (
        (["--data.path", "others", "--teacher", str(kept / "teacher.pth")], "data.path"),
        (["--data.path", str(kept / "pairs"), "--teacher", "other.pth"], "teacher.weights"),
    ):
        for command in (["evaluate", "../run"], ["compress", "../run/config.json", "--out", "../run"]):
            assert main([*command, *other]) == 2
            assert f"began with another {setting}, " in capsys.readouterr().err


def test_of_two_files_the_one_of_the_content_is_meant(tmp_path, monkeypatch):
    """A ranking that lies where one stands is another than the run's."""
    (tmp_path / "a").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "rank.json").write_text("{}")
    (tmp_path / "a/rank.json").write_text('{"other": 1}')
    monkeypatch.chdir(tmp_path)
    config, folder = Config(teacher="none", ranking="rank.json"), RunFolder(tmp_path / "run")
    from gantailor.records.places import noted

    folder.config.write_text(json.dumps(config.model_dump(mode="json")))
    folder.trace.write_text(json.dumps({"places": noted(config, folder)}))
    assert located(config, folder).ranking == "rank.json"
    monkeypatch.chdir(tmp_path / "a")
    assert located(config, folder).ranking == str(tmp_path / "rank.json")
    assert located(config.model_copy(update={"ranking": "new.json"}), folder).ranking == "new.json", "the user's word"


@pytest.mark.parametrize("places", [[], {"data.path": 3}, {"data.path": {"at": 1, "beside": "x\0"}}, "x"])
def test_what_was_noted_may_be_anything(tmp_path, places):
    folder = RunFolder(tmp_path)
    config = Config(teacher="none", data={"kind": "folder", "path": "nowhere"})
    folder.config.write_text(json.dumps(config.model_dump(mode="json")))
    folder.trace.write_text(json.dumps({"places": places, "modules": places}))
    assert located(config, folder) == config
    assert gantailor.open_run(tmp_path).config == config


def test_a_run_of_an_earlier_version_opens(away, capsys):
    """It has absolute paths, the folder it was made in, and no inputs of its own."""
    file = away / "run/trace.json"
    trace = json.loads(file.read_text())
    del trace["places"], trace["modules"]
    file.write_text(json.dumps({**trace, "made_in": str(away / "kept")}))
    (away / "run/shown.safetensors").unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(away / "kept"))
        assert main(["evaluate", "../run", "--metrics", "l1"]) == 0
        (away / "kept").unlink()
        assert main(["evaluate", "../run", "--metrics", "psnr"]) == 2
        assert (
            f"needs its data.path, and there is nothing at 'pairs', '{away / 'kept/pairs'}'" in capsys.readouterr().err
        )


def test_a_module_is_the_same_file_or_none(away, project, capsys):
    """Beside the moved folder it is found; changed, or marked by nobody, it is not imported."""
    assert main(["export", "../run", "--out", "x"]) == 2
    said = capsys.readouterr().err
    assert f"'{project / 'travelling.py'}'" in said and "PYTHONPATH" in said
    file = (away / "run").resolve().parent.parent / "travelling.py"  # as far from the run as it was
    file.write_text(OWN)
    try:
        assert gantailor.open_run("../run").subnet()
        sys.modules.pop("travelling")
        file.write_text(OWN + "open('RAN', 'w').close()\n")
        with pytest.raises(ConfigError, match="cannot be imported"):
            gantailor.open_run("../run")
        trace = json.loads((away / "run/trace.json").read_text())
        trace["modules"]["files"]["travelling"]["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
        (away / "run/trace.json").write_text(json.dumps(trace))
        gantailor.supernet.plugins._ELSEWHERE.clear()
        with pytest.raises(ConfigError, match="cannot be imported"):
            gantailor.open_run("../run")
    finally:
        file.unlink()
    assert not os.path.exists("RAN")


def test_read_only_it_says_where_to_write(with_module, monkeypatch, capsys):
    """The user may be root here, who can write anywhere: the system is asked and says no."""
    run = (with_module / "run").resolve()
    plain = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK or run != type(run)(path).resolve())
    before = state_of(run)
    assert plain(run, os.R_OK)
    for command in (
        ["pareto", "../run"],
        ["export", "../run"],
        ["compress", "../run/config.json", "--out", "../run"],
        ["search", "../run/config.json", "--out", "../run"],
    ):
        assert main(command) == 2
        assert "--out" in capsys.readouterr().err
    kept = with_module / "kept"
    now = ["--data.path", str(kept / "pairs"), "--teacher", str(kept / "teacher.pth")]
    assert main(["evaluate", "../run", "--metrics", "l1,psnr", *now]) == 0
    assert main(["pareto", "../run", "--out", "drawn", "--pictures", "1"]) == 0
    assert state_of(run) == before
