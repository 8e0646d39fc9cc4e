"""One's own of every kind, from a file outside the packages, through the pipeline: docs/extending.md as it stands."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

import gantailor
from gantailor.cli.main import main
from gantailor.pipeline.compress import compress
from gantailor.run.loading import load_config
from gantailor.run.run import Run

DOCS = (Path(__file__).parents[2] / "docs" / "extending.md").read_text()
WRITES_A_NUMBER = '''
import torch
from torch import nn


class Net(nn.Module):
    """The width in the middle stands as a number in the forward: only the proof finds that it cannot be narrowed."""

    size_multiple = 2

    def __init__(self, width=8):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, 16, 3, padding=1)
        self.c, self.d = nn.Conv2d(16, width, 3, padding=1), nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, x):
        y = torch.relu(self.b(torch.relu(self.a(x))))
        y = y.view(len(y), 16, -1).view(len(y), 16, *x.shape[2:])
        return torch.tanh(self.d(torch.relu(self.c(y))))
'''


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", DOCS, re.DOTALL)


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The current folder, with the documentation's module and configuration, and a teacher."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("mine", "numbered", "bare"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    (tmp_path / "mine.py").write_text("\n\n".join(blocks("python")))
    (tmp_path / "numbered.py").write_text(WRITES_A_NUMBER)
    (tmp_path / "own.yaml").write_text("own: {runtime: 'mine:STORED'}\n")
    (tmp_path / "config.yaml").write_text(blocks("yaml")[-1])
    for name in ("mine:NET", "numbered:Net"):
        torch.manual_seed(0)
        torch.save(gantailor.build(name).state_dict(), tmp_path / f"{name.partition(':')[0]}.pt")
    (tmp_path / "mine.pt").rename(tmp_path / "teacher.pt")
    yield tmp_path
    for name in ("mine", "numbered", "bare"):
        sys.modules.pop(name, None)


def test_examples_are_short():
    assert all(len(block.splitlines()) <= 40 for block in blocks("python"))
    assert len(blocks("python")) == 7


@pytest.mark.long
def test_every_kind_of_record_through_the_pipeline(own):
    assert main(["compress", "config.yaml", "--out", "run"]) == 0
    scores = json.loads((own / "run/scores.json").read_text())
    assert not scores["subnet"]["mine:BRIGHTNESS"]["lower_is_better"]
    manifest = json.loads((own / "run/export/manifest.json").read_text())
    assert manifest["devices"]["own"]["delegated"] == "all of it stored"
    assert json.loads((own / "run/ranking.json").read_text())["criterion"] == "mine:LAST_FIRST"
    assert manifest["macs"]["true"] < manifest["teacher_macs"]["true"], "the method took the middle of the space"
    assert pd.read_csv(own / "run/front.csv")["origin"].tolist() == ["mine:MIDDLE"]
    narrow = gantailor.load("run/export/model.safetensors")
    config, same = gantailor.open_run("run").subnet()
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(narrow(x), same(x)) and dict(config) == manifest["config"]


@pytest.mark.long
def test_a_strategy_and_a_metric_of_ones_own_are_searched_by(own):
    searched = [
        "--method",
        "supernet",
        "--train.kimg",
        "0.02",
        "--train.batch",
        "4",
        "--trials",
        "20",
        "--space",
        "default",
        "--space.multiple",
        "1",
    ]
    assert main(["search", "config.yaml", "--out", "run", *searched]) == 0
    frame = pd.read_csv(own / "run/front.csv")
    assert set(frame["origin"]) == {"start", "mine:cheapest"}
    assert (own / "run/subnet.json").exists()
    best = frame["mine:BRIGHTNESS"].max()
    chosen = json.loads((own / "run/subnet.json").read_text())
    row = frame[(frame[list(chosen)] == pd.Series(chosen)).all(axis=1)]
    assert row["mine:BRIGHTNESS"].item() == best, "larger is better, as the record says"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--method", "mine:NET"], "is a Generator; give a Method"),
        (["--ranking", "mine:MIDDLE"], "is a Method; give a Criterion"),
        (["--data.kind", "mine:nothing"], "cannot be imported"),
        (["--evaluation.search", "mine:make_brightness"], "Metric record is expected"),
        (["--generator", "mine:BRIGHTNESS"], "is a Metric"),
    ],
)
def test_a_wrong_record_is_told_in_a_line(own, capsys, flags, said):
    assert main(["compress", "config.yaml", "--out", "other", *flags]) == 2
    message = capsys.readouterr().err.removeprefix("== check\n")
    assert said in message and len(message.strip().splitlines()) == 1, message


def spawned(*arguments):
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.slow
def test_a_repaired_trace_is_remembered_by_everybody(own):
    """A generator that writes a number of channels in its forward: what the proof froze holds in every process."""
    config = ["config.yaml", "--generator", "numbered:Net", "--teacher", "numbered.pt", "--method", "supernet"]
    config += ["--train.kimg", "0.02", "--train.batch", "4", "--train.ndf", "4", "--finetune.ndf", "4"]
    config += [
        "--budget",
        "0.6x",
        "--trials",
        "4",
        "--space.multiple",
        "1",
        "--evaluation.search",
        "features",
        "--devices",
        "onnxruntime-cpu",
    ]
    assert main(["compress", *config, "--out", "run"]) == 0
    decisions = json.loads((own / "run/trace.json").read_text())["decisions"]
    assert decisions["whole"], "the proof froze the width whose number stands in the forward"
    assert main(["compress", *config, "--out", "run"]) == 0
    assert main(["pareto", "run", "--budget", "0.7x"]) == 0
    assert main(["export", "run", "--device", "torch-export"]) == 0
    spawned("-m", "gantailor.cli", "search", *config, "--trials", "8", "--workers", "2", "--out", "run")
    assert len(pd.read_csv(own / "run/front.csv")) == 8, "no worker's trial failed"
    torchrun = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "gantailor.cli")
    spawned(*torchrun, "compress", *config, "--out", "spread")
    assert json.loads((own / "spread/trace.json").read_text())["decisions"] == decisions
    narrow = gantailor.load("spread/export/model.safetensors")
    assert narrow(torch.zeros(1, 3, 32, 32)).shape == (1, 3, 32, 32)


def test_a_kind_of_data_that_fails_is_told_in_a_line(own, capsys):
    assert main(["compress", "config.yaml", "--out", "other", "--data.options", "{cuont: 3}", "--dry-run"]) == 2
    message = capsys.readouterr().err
    assert "failed at train with KeyError('count')" in message and "mine.py, line" in message
    assert len(message.strip().splitlines()) == 1


def test_what_is_no_export_is_told(own):
    with pytest.raises(gantailor.GantailorError, match=r"gantailor\.load_teacher"):
        gantailor.load("teacher.pt")


@pytest.mark.long
def test_features_of_ones_own_are_compared(own, capsys):
    """Without ``feature_layers``: layers are proposed and told, trained with, and others can be set."""
    (own / "bare.py").write_text((own / "mine.py").read_text().replace("    feature_layers =", "    no_layers ="))
    config = (own / "config.yaml").read_text().replace("mine:NET", "bare:NET")
    (own / "config.yaml").write_text(config.replace("method: mine:MIDDLE", "train: {kimg: 0, batch: 4}"))
    assert main(["compress", "config.yaml", "--out", "run", "--dry-run"]) == 0
    assert "features are compared behind first, middle, proposed from the graph" in capsys.readouterr().err
    flags = {"search.trials": 1, "search.strategy": "random", "budget": "0.6x"}
    run = Run("run", load_config("config.yaml", flags))
    run.claim()
    compress(run, until="finetune")
    (*_, last) = (own / "run/subnet.ckpt.jsonl").read_text().splitlines()
    assert json.loads(last)["feature"] > 0
    assert main(["compress", "config.yaml", "--out", "run", "--dry-run", "--teacher.layers", "[first]"]) == 2
    assert "other settings (teacher" in capsys.readouterr().err
    for value in ("first", ["first"], {"first": "first"}):
        run = Run("x", load_config("config.yaml", {"teacher.layers": value}))
        assert dict(run.setup.layers) == {"first": "first"} and not run.setup.proposed_layers
    assert main(["compress", "config.yaml", "--out", "new", "--dry-run", "--teacher.layers", "frist"]) == 2
    assert "did you mean 'first'" in capsys.readouterr().err
    assert main(["compress", "config.yaml", "--out", "new", "--dry-run", "--teacher.layers", "[1, 2]"]) == 2
    assert "give a list of the names of modules" in capsys.readouterr().err
