"""A run reads its teacher once and traces once."""

from collections import Counter

import pytest

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
