"""A run reads its teacher once and traces once."""

from collections import Counter

import numpy as np
import pytest
from PIL import Image

import gantailor
from gantailor.cli.main import main
from gantailor.supernet import supernet as supernet_module
from gantailor.zoo import checkpoints

pytestmark = pytest.mark.long


@pytest.fixture
def counted(monkeypatch):
    """How often a file was read as a checkpoint, by name, and ``trace`` was called."""
    counts = Counter()
    read, trace = checkpoints.read_file, supernet_module.trace

    def reading(path):
        counts[path.name] += 1
        return read(path)

    def tracing(*arguments, **options):
        counts["traces"] += 1
        return trace(*arguments, **options)

    monkeypatch.setattr(checkpoints, "read_file", reading)
    monkeypatch.setattr(supernet_module, "trace", tracing)
    return counts


@pytest.mark.slow
def test_teacher_and_graph_are_made_once(tmp_path, tiny_teacher, counted):
    yaml = tmp_path / "config.yaml"
    yaml.write_text(
        f"options: {{ngf: 8}}\nbudget: 0.5x\nsearch: {{trials: 3}}\nteacher: {tiny_teacher}\ndata: {{size: 32}}\n"
        "train: {kimg: 0.03, batch: 8}\nfinetune: {kimg: 0.03, batch: 8}\n"
    )
    assert main(["compress", str(yaml), "--out", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run/report.html").exists()
    assert counted[tiny_teacher.name] == 1
    assert counted["traces"] == 1


def test_data_that_changed_since_are_told(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for split in ("train", "search", "test"):
        (tmp_path / "data" / split).mkdir(parents=True)
        for name in "abcd":
            picture = rng.integers(0, 256, (16, 32, 3), dtype=np.uint8)
            Image.fromarray(picture).save(tmp_path / "data" / split / f"{name}.png")
    config = {
        "options": {"ngf": 4},
        "teacher": "none",
        "data": {"kind": "folder", "path": str(tmp_path / "data"), "size": 16},
        "budget": "0.5x",
        "space": "uniform",
        "search": {"trials": 1},
        "train": {"kimg": 0},
        "finetune": {"kimg": 0.01, "batch": 2, "ndf": 4, "discriminator_layers": 1},
        "evaluation": {"search": "l1", "final": ["l1"]},
    }
    for times in range(2):
        gantailor.compress(config, out=tmp_path / "run", until="check")
        assert "are others than" not in capsys.readouterr().err, times
    Image.new("RGB", (32, 16)).save(tmp_path / "data/test/b.png")
    gantailor.compress(config, out=tmp_path / "run", until="check")
    assert "the data of test are others than when this run began" in capsys.readouterr().err
