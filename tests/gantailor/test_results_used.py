"""What a run leaves is used again: exports are scored and loaded, a finished run gets more scores."""

import json
import subprocess

import numpy as np
import pytest
import torch
from PIL import Image

import gantailor
from gantailor.cli.main import main
from gantailor.supernet.errors import GantailorError

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run with a teacher, fine-tuned, exported for two devices; the data lies beside it."""
    folder = tmp_path_factory.mktemp("finished")
    for split, count in (("train", 4), ("test", 3)):
        (folder / "data" / split).mkdir(parents=True)
        for number in range(count):
            pixels = np.random.default_rng([count, number]).integers(0, 255, (32, 64, 3), np.uint8)
            Image.fromarray(pixels).save(folder / "data" / split / f"{number}.png")
    torch.manual_seed(0)
    torch.save(gantailor.build("srvgg", num_feat=8, num_conv=2, upscale=1).state_dict(), folder / "G.pth")
    settings = (
        f"generator: srvgg\noptions: {{}}\nteacher: {folder}/G.pth\n"
        f"data: {{kind: folder, path: {folder}/data, size: 32}}\n"
        "space: uniform\nbudget: 0.5x\ntrain: {kimg: 0}\nfinetune: {kimg: 0.004, batch: 2}\nnarrowing: 0\n"
        "evaluation: {search: l1, final: [l1]}\nsearch: {trials: 1}\ndevices: [onnxruntime-cpu, ncnn]\n"
    )
    (folder / "config.yaml").write_text(settings)
    assert main(["export", str(folder / "config.yaml"), "--out", str(folder / "run")]) == 0
    return folder


def scored(capsys, *arguments):
    """What ``evaluate`` prints as JSON."""
    capsys.readouterr()
    assert main(["evaluate", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def told(capsys, *arguments):
    """The one line of a mistake."""
    capsys.readouterr()
    assert main([*map(str, arguments)]) == 2
    (said,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    return said


def test_exports_score_as_the_run_does(finished, capsys):
    """Weights, ONNX and ncnn, without a word of their architecture; against a teacher too."""
    run, data = finished / "run", ["--data.kind", "folder", "--data.path", finished / "data"]
    known = json.loads((run / "scores.json").read_text())["subnet"]["l1"]
    for name in ("model.safetensors", "onnxruntime-cpu/model.onnx", "ncnn/model.param", "onnxruntime-cpu"):
        found = scored(capsys, "--weights", run / "export" / name, *data, "--metrics", "l1,psnr")
        assert found["l1"]["value"] == pytest.approx(known["value"], abs=1e-4), name
        assert found["l1"]["provenance"]["reference_hash"] == known["provenance"]["reference_hash"]
    beside = ["--teacher", finished / "G.pth", "--metrics", "l1[teacher],l1"]
    both = [
        scored(capsys, "--weights", run / "export" / name, *data, *beside) for name in ("model.safetensors", "ncnn")
    ]
    assert both[0]["l1[teacher]"]["value"] == pytest.approx(both[1]["l1[teacher]"]["value"], abs=1e-4)
    assert both[0]["l1[teacher]"]["value"] != pytest.approx(both[0]["l1"]["value"], rel=0.01)


def test_what_an_export_cannot_be_asked_is_told(finished, capsys):
    export = finished / "run/export"
    line = ["evaluate", "--data.kind", "folder", "--data.path", finished / "data", "--weights"]
    said = told(capsys, *line, export / "model.safetensors", "--generator", "unet_128")
    assert "is an export and says its own generator; leave that out" in said
    said = told(capsys, *line, export / "onnxruntime-cpu/model.onnx", "--metrics", "l1,macs")
    assert "macs are counted in PyTorch; score the model.safetensors of the same export" in said
    said = told(capsys, *line, export / "onnxruntime-cpu/model.onnx", "--data.size", "64")
    assert "is data.size right?" in said


def test_a_run_is_loaded_without_teacher_and_data(finished, tmp_path, capsys):
    """From its export, from its subnet where none was exported, in a process that has nothing else."""
    moved, bare = tmp_path / "moved", tmp_path / "bare"
    for place in (moved, bare):
        subprocess.run(["cp", "-r", finished / "run", place], check=True)
    subprocess.run(["rm", "-r", bare / "export"], check=True)
    x = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    expected = gantailor.open_run(finished / "run").subnet()[1](x)
    places = (moved, bare, moved / "export", moved / "export/model.safetensors")
    for place in places:
        narrow = gantailor.load(place)
        assert not narrow.training and torch.equal(narrow(x), expected), place
    settings = json.loads((bare / "config.json").read_text())
    settings["teacher"]["weights"] = settings["data"]["path"] = str(tmp_path / "gone")
    (bare / "config.json").write_text(json.dumps(settings))
    assert torch.equal(gantailor.load(bare)(x), expected)
    (bare / "subnet.json").unlink()
    with pytest.raises(GantailorError, match="has no searched subnet yet"):
        gantailor.load(bare)
    with pytest.raises(GantailorError, match="is no run folder"):
        gantailor.load(tmp_path)
