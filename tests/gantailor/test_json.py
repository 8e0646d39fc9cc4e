"""``--json``: every command's result as one JSON document on stdout, and nothing else there."""

import json

import pytest

from gantailor.cli.main import _plain, main
from gantailor.supernet.graph import SubnetConfig


@pytest.fixture
def result(capsys):
    """Runs a command with ``--json``; its document."""

    def run(*argv):
        assert main([*map(str, argv), "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return run


def test_commands_that_look(result, tmp_path):
    found = result("inspect", "resnet_6blocks", "--options", "{ngf: 4}", "--input", "1,3,16,16")
    assert found["widths"]["model.1"] == 4 and found["costs"]["full"]["macs_true"] > 0 and found["proof"] is None
    assert result("settings", "search")["search.trials"]["allowed"] == "int"
    assert "gan-compression-horse2zebra" in result("papers")
    assert result("papers", "gan-compression-horse2zebra")["settings"]["generator"]
    assert result("--version").keys() == {"version"}


def test_commands_that_work(result, tmp_path, tiny_teacher, pairs):
    given = ["--options", "{ngf: 8}", "--teacher", tiny_teacher, "--generator", "resnet_6blocks", "--data.path", pairs]
    given += ["--data.size", 16, "--data.kind", "folder"]
    assert result("rank", *given, "--criterion", "l1", "--out", tmp_path / "rank")["widths"]["model.1"]["channels"] == 8
    none = ["--train.kimg", 0.004, "--train.batch", 4, "--train.gan", "none", "--finetune.gan", "none"]
    run = ["train", *given, *none, "--budget", "0.5x", "--out", tmp_path / "run"]
    assert result(*run, "--dry-run")["settings"]["budget"] == "0.5x"
    found = result(*run)
    assert found["stage"] == "train" and found["supernet"].endswith("supernet.safetensors") and found["report"] is None


def test_mistakes_are_no_document(capsys, tmp_path):
    assert main(["compress", str(tmp_path / "none.yaml"), "--json"]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("error: ")


def test_what_json_has_no_word_for():
    import numpy as np

    values = {"a": np.float32(0.5), 1: np.arange(2), "b": float("nan"), "c": (float("inf"), {2}), "d": True}
    values["e"] = SubnetConfig({"x": 4})
    expected = {"a": 0.5, "1": [0, 1], "b": None, "c": [None, [2]], "d": True, "e": {"x": 4}}
    assert json.loads(json.dumps(_plain(values))) == expected
