"""Looking at a training as it goes, and keeping the best weights beside the last."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import gantailor
from gantailor.pipeline.training.finetune import finetune
from gantailor.pipeline.training.fit import Watcher
from gantailor.run.loading import load_config
from gantailor.run.run import Run
from gantailor.supernet.errors import ConfigError
from gantailor.supernet.files import load_tensors, save_tensors, write_bytes
from gantailor.zoo.data.pairs import Pairs

pytestmark = pytest.mark.long


class Tint(nn.Module):
    """Adds a constant: the nearer to 0.5, the better on this data."""

    def __init__(self, value):
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))

    def forward(self, x):
        return x + self.value


@pytest.fixture
def run(tmp_path):
    torch.manual_seed(0)
    save_tensors(tmp_path / "G.safetensors", gantailor.build("resnet_6blocks", ngf=4).state_dict(), {})
    settings = {"options": {"ngf": 4}, "teacher": str(tmp_path / "G.safetensors"), "data.size": 16}
    settings |= {"evaluation.search": "l1", "evaluation.final": ["l1"], "budget": "0.6x"}
    settings |= {"finetune.kimg": 0.024, "finetune.batch": 4, "finetune.gan": "none", "finetune.watch_kimg": 0.008}
    run = Run(tmp_path / "run", load_config(None, settings))
    inputs = np.random.default_rng(0).integers(0, 100, (8, 16, 16, 3), dtype=np.uint8)
    run.setup._data = dict.fromkeys(
        ("train", "search", "test"), Pairs(inputs, inputs + 64, tuple("abcdefgh"), "tinted")
    )
    run.claim()
    return run


def test_best_weights_are_kept(run):
    watcher = Watcher(run, "finetune", lambda model: {"subnet": model}, best=run.folder.file("best.safetensors"))
    for step, value in ((2, 0.2), (4, 0.5), (6, 0.9)):
        watcher(Tint(value), step)
    tensors, info = load_tensors(run.folder.file("best.safetensors"))
    assert (float(tensors["value"]), info["step"]) == (0.5, 4)
    rows = [json.loads(line) for line in run.folder.file("finetune.watch.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4, 6]
    assert rows[1]["subnet"] == pytest.approx(0, abs=0.01)
    sheet = Image.open(run.folder.file("samples") / "finetune-0000004.png")
    assert sheet.size == (4 * 16 + 3 * 2, 6 * 16 + 5 * 2)  # input, teacher, subnet, real; six pictures


@pytest.mark.parametrize(("pace", "said"), [(0.008, "another each 0.008 kimg"), (0.0, "another at its end")])
def test_it_says_when_the_next_pictures_come(run, pace, said, capsys):
    run.config = run.config.model_copy(update={"finetune": run.config.finetune.model_copy(update={"watch_kimg": pace})})
    Watcher(run, "finetune", lambda model: {"subnet": model}).begin(Tint(0.2))
    assert capsys.readouterr().err.endswith(f"finetune-0000000.png; {said}\n")


def test_finetuning_reports_best_and_last(run):
    config = run.setup.space.to_config(run.setup.space.smallest)
    write_bytes(run.folder.file("subnet.json"), config.to_json().encode())
    save_tensors(run.folder.file("supernet.safetensors"), run.setup.supernet.generator.state_dict(), {})
    finetune(run)
    rows = [json.loads(line) for line in run.folder.file("finetune.watch.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4, 6]
    best = min(rows, key=lambda row: row["subnet"])["step"]
    assert load_tensors(run.folder.file("subnet.safetensors"))[1]["step"] == best
    assert run.folder.file("subnet.last.safetensors").exists() == (best != 6)
    assert (run.last_subnet() is not None) == (best != 6)


def test_tensorboard(run, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from gantailor.supernet.training.trainer import Progress

    with run.report.training("supernet", run.folder.file("tensorboard")) as listener:
        listener(Progress(1, 2, 0.004, 1.0, {"gan": 0.5}))
    events = EventAccumulator(str(run.folder.file("tensorboard") / "supernet")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("supernet/gan")] == [(4, 0.5)]
    for steps in ((1, 2, 3, 4), (3, 4, 5)):  # killed after 4, its last checkpoint was of 2
        with run.report.training("again", run.folder.file("tensorboard")) as listener:
            for step in steps:
                listener(Progress(step, 5, step * 0.004, 1.0, {"gan": float(len(steps))}))
    events = EventAccumulator(str(run.folder.file("tensorboard") / "again")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("again/gan")] == [(4, 4), (8, 4), (12, 3), (16, 3), (20, 3)]
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)
    with (
        pytest.raises(ConfigError, match=r"pip install 'gantailor\[tensorboard\]'"),
        run.report.training("x", run.folder.file("t")),
    ):
        pass
