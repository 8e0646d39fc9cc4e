"""One's own of every kind, from a file outside the packages, through the whole pipeline."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

import gantailor
from gantailor.cli.main import main

MODULE = '''
import numpy as np
import torch
from torch import nn

from gantailor.evaluators.metric import Metric
from gantailor.evaluators.scores import provenance_of, render
from gantailor.export.target import Target
from gantailor.search.methods.method import Method, Trained, sampled_training
from gantailor.supernet.importance.ranking import Criterion
from gantailor.zoo.data.pairs import Pairs
from gantailor.zoo.data.record import DataKind
from gantailor.zoo.generators.record import Generator


class Net(nn.Module):
    """Writes a number of its channels into its forward: a width that only the proof finds."""

    size_multiple = 2

    def __init__(self, width=8):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, 16, 3, padding=1)
        self.c, self.d = nn.Conv2d(16, width, 3, padding=1), nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, x):
        y = torch.relu(self.b(torch.relu(self.a(x))))
        y = y * torch.sigmoid(y.sum((2, 3), keepdim=True) / 16 / y.shape[2] / y.shape[3])
        y = torch.cat([y[:, 8:16], y[:, 0:8]], 1)
        return torch.tanh(self.d(torch.relu(self.c(y))))


NET = Generator(name="net", build=Net, defaults=lambda own: {"train": {"ndf": 4}, "finetune": {"ndf": 4}})


def read(config, split):
    rng = np.random.default_rng(len(split))
    pictures = rng.integers(0, 256, (config.options.get("count", 8), config.size, config.size, 3), dtype=np.uint8)
    return Pairs(pictures, 255 - pictures, tuple(map(str, range(len(pictures)))), f"negatives of {split}")


NEGATIVES = DataKind(name="negatives", read=read)


def make_brightness(context):
    def brightness(generator, pairs):
        values = [outputs.mean() for _, outputs, _ in render(generator, pairs)]
        return {"brightness": BRIGHTNESS.score(float(torch.stack(values).mean()), provenance_of(pairs))}

    return brightness


BRIGHTNESS = Metric(name="brightness", unit="of 1", lower_is_better=False, compares="outputs", make=make_brightness)


def select(context, task, model):
    space = context.space
    config = space.to_config((space.smallest + space.largest) // 2)
    return Trained(weights=model.generator.state_dict(), config=config, notes=("half of everything",))


HALF = Method(
    name="half",
    defaults=lambda own: {"ranking": "mine:NORM", "train": {"kimg": 0.02, "batch": 4}},
    searches=False,
    select=select,
)
NORM = Criterion(lambda supernet: {w.name: np.arange(w.size, dtype=float) for w in supernet.graph.widths})


def write(model, example, path, device):
    torch.save({"output": model(example), "weights": model.state_dict()}, path)
    return "all of it stored"


def load(path, device):
    stored = torch.load(path, weights_only=True)
    return lambda x: stored["output"].numpy()


STORED = Target(name="stored", file="model.pt", extra="onnx", write=write, load=load)
'''

CONFIG = """
generator: mine:NET
options: {width: 8}
teacher: teacher.pt
method: mine:HALF
budget: 1x
data: {kind: "mine:NEGATIVES", size: 16, options: {count: 8}}
finetune: {kimg: 0.02, batch: 4}
evaluation: {search: "mine:BRIGHTNESS", final: [l1, "mine:BRIGHTNESS"], search_images: 4}
devices: [onnxruntime-cpu, "own.yaml:own"]
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder with a module of one's own records, a teacher and a configuration; the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    (tmp_path / "mine.py").write_text(MODULE)
    (tmp_path / "own.yaml").write_text("own: {runtime: 'mine:STORED'}\n")
    (tmp_path / "config.yaml").write_text(CONFIG)
    torch.manual_seed(0)
    torch.save(gantailor.build("mine:NET").state_dict(), tmp_path / "teacher.pt")
    yield tmp_path
    sys.modules.pop("mine", None)


def test_every_kind_of_record_through_the_pipeline(own):
    assert main(["compress", "config.yaml", "--out", "run"]) == 0
    scores = json.loads((own / "run/scores.json").read_text())
    assert "mine:BRIGHTNESS" in scores["subnet"] and not scores["subnet"]["mine:BRIGHTNESS"]["lower_is_better"]
    manifest = json.loads((own / "run/export/manifest.json").read_text())
    assert manifest["devices"]["own"]["delegated"] == "all of it stored"
    assert json.loads((own / "run/ranking.json").read_text())["criterion"] == "mine:NORM"
    full = json.loads((own / "run/trace.json").read_text())["macs_full"]["true"]
    assert manifest["macs"]["true"] < full, "the method chose the middle of the space"
    assert "half of everything" not in (own / "run/report.html").read_text()[:200]
    narrow = gantailor.load("run/export/model.safetensors")
    kept, same = gantailor.open_run("run").subnet()
    x = torch.rand(2, 3, 16, 16)
    assert torch.equal(narrow(x), same(x)) and kept == manifest["config"]


def test_all_mistakes_of_a_record_are_one_line(own, capsys):
    for flags, said in (
        (["--method", "mine:NET"], "is a Generator; give a Method"),
        (["--ranking", "mine:HALF"], "is a Method; give a Criterion"),
        (["--data.kind", "mine:nothing"], "cannot be imported"),
        (["--evaluation.search", "mine:make_brightness"], "Metric record is expected"),
    ):
        assert main(["compress", "config.yaml", "--out", "other", *flags]) == 2
        message = capsys.readouterr().err
        assert said in message and len(message.strip().splitlines()) == 1, message


REPAIRED = ("compress", "compress again", "pareto", "export", "workers", "torchrun")


def test_a_repaired_trace_is_remembered_by_everybody(own, capsys):
    """A generator that writes a number of channels in its forward: what the proof froze holds in every process."""
    config = ["config.yaml", "--method", "supernet", "--train.kimg", "0.02", "--train.batch", "4", "--budget", "0.6x"]
    config += ["--trials", "4", "--evaluation.search", "features", "--devices", "onnxruntime-cpu"]
    assert main(["compress", *config, "--out", "run"]) == 0
    decisions = json.loads((own / "run/trace.json").read_text())["decisions"]
    assert decisions["whole"], "the proof froze the width whose number stands in the forward"
    assert main(["compress", *config, "--out", "run"]) == 0
    assert main(["pareto", "run", "--budget", "0.7x"]) == 0
    assert main(["export", "run", "--device", "torch-export"]) == 0
    more = [*config, "--trials", "8", "--workers", "2", "--out", "run"]
    done = subprocess.run(
        [sys.executable, "-m", "gantailor.cli", "search", *more],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    frame = np.loadtxt(own / "run/front.csv", delimiter=",", skiprows=1, usecols=0)
    assert len(frame) == 8, "no worker's trial failed"
    spread = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "gantailor.cli", "compress"]
    done = subprocess.run(
        [*spread, *config, "--out", "spread"], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((own / "spread/trace.json").read_text())["decisions"] == decisions
