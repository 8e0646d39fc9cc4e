"""What a run leaves is used again: exports are scored, loaded and described, a finished run gets more scores."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from torch import nn

import gantailor
import gantailor.supernet.files
from gantailor.cli.main import main
from gantailor.evaluators.scoring import Scoring
from gantailor.export.devices import Device
from gantailor.export.export import export_model
from gantailor.handover.interface import FOR_APPS
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
        "evaluation: {search: l1, final: [l1]}\nsearch: {trials: 1}\ndevices: [onnxruntime-cpu, ncnn]\nlicence: CC0\n"
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


def _rows(run):
    return json.loads((run / "scores.json").read_text())


def test_a_finished_run_gets_more_scores(finished, tmp_path, capsys, monkeypatch):
    """Beside the old ones, which stay as they are; what is there is not computed anew; nothing is exported anew."""
    run = tmp_path / "run"
    subprocess.run(["cp", "-r", finished / "run", run], check=True)
    before, model = _rows(run), (run / "export/onnxruntime-cpu/model.onnx").read_bytes()
    printed = scored(capsys, run, "--metrics", "l1,psnr,l1[teacher]")
    after = _rows(run)
    assert set(after) == {"input", "teacher", "subnet"} and set(printed) == {"l1", "psnr", "l1[teacher]"}
    assert set(after["subnet"]) == {"l1", "psnr", "l1[teacher]"} and set(after["teacher"]) == {"l1", "psnr"}
    for name, rows in before.items():
        assert {key: after[name][key] for key in rows} == rows
    assert len({row["provenance"]["reference_hash"] for row in after["subnet"].values()}) == 1

    def refuse(*given, **more):
        raise AssertionError("computed anew")

    with monkeypatch.context() as patch:
        patch.setattr(Scoring, "evaluator", refuse)
        assert scored(capsys, run, "--metrics", "psnr,l1") == {key: after["subnet"][key] for key in ("psnr", "l1")}
    assert main(["export", str(finished / "config.yaml"), "--out", str(run)]) == 0
    assert _rows(run) == after and (run / "export/onnxruntime-cpu/model.onnx").read_bytes() == model


OWN = """
from gantailor.evaluators.metric import Metric
from gantailor.evaluators.scores import provenance_of, render


def make(context):
    def bright(generator, pairs):
        (values,) = [outputs.mean() for _, outputs, _ in render(generator, pairs)]
        return {"bright": BRIGHT.score(float(values) * context.config.threads, provenance_of(pairs))}

    return bright


BRIGHT = Metric(name="bright", unit="of 1", lower_is_better=False, compares="outputs", make=make, reads=("threads",))
"""


def test_settings_of_a_score_are_part_of_it(finished, tmp_path, capsys, monkeypatch):
    """Of other settings it stands beside the first, and each is found by its own; an earlier version said none."""
    (tmp_path / "own_bright.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    run, name = tmp_path / "run", "own_bright:BRIGHT"
    subprocess.run(["cp", "-r", finished / "run", run], check=True)
    scores = _rows(run)
    for rows in scores.values():
        del rows["l1"]["of"]
    (run / "scores.json").write_text(json.dumps(scores))
    first = scored(capsys, run, "--metrics", f"{name},l1")
    assert first["l1"]["value"] == scores["subnet"]["l1"]["value"] and set(first) == {name, "l1"}
    second = scored(capsys, run, "--metrics", f"{name},l1", "--evaluation.threads", "2")
    assert set(second) == {f"{name}[threads 2]", "l1"} and second["l1"] == first["l1"]
    assert second[f"{name}[threads 2]"]["value"] == pytest.approx(2 * first[name]["value"])
    assert second[f"{name}[threads 2]"]["of"]["settings"] == {"threads": 2}
    assert scored(capsys, run, "--metrics", f"{name},l1") == first
    assert _rows(run)["subnet"].keys() == {*first, *second}


def test_scores_of_another_subnet_do_not_stay(finished, tmp_path, capsys):
    run = tmp_path / "run"
    subprocess.run(["cp", "-r", finished / "run", run], check=True)
    scored(capsys, run, "--metrics", "psnr")
    before = _rows(run)["subnet"]
    state, _ = gantailor.supernet.files.load_tensors(run / "subnet.safetensors")
    gantailor.supernet.files.save_tensors(run / "subnet.safetensors", {k: v * 1.5 for k, v in state.items()}, {})
    scored(capsys, run, "--metrics", "l1")
    after = _rows(run)["subnet"]
    assert set(after) == {"l1"} and after["l1"]["value"] != before["l1"]["value"]


@pytest.mark.parametrize(
    ("file", "content"), [("scores.json", '{"subnet": {"l1": {}}}'), ("export/manifest.json", "{}")]
)
def test_damaged_results_are_told_as_that(finished, tmp_path, capsys, file, content):
    run = tmp_path / "run"
    subprocess.run(["cp", "-r", finished / "run", run], check=True)
    (run / "report.html").touch()
    (run / file).write_text(content)
    assert f"{str(run / file)!r} is damaged (KeyError:" in told(capsys, "evaluate", run, "--metrics", "psnr")


def test_a_score_that_cannot_be_had_changes_nothing(finished, capsys):
    run, before = finished / "run", (finished / "run/scores.json").read_bytes()
    assert "metric 'lpips' needs evaluation.lpips_features" in told(capsys, "evaluate", run, "--metrics", "psnr,lpips")
    assert (run / "scores.json").read_bytes() == before


def test_a_manifest_says_what_an_app_needs(finished, tmp_path):
    """First; what the scores are of lies beside it; an ONNX file says the same itself."""
    run = finished / "run"
    whole = json.loads((run / "export/manifest.json").read_text())
    assert list(whole)[:5] == ["inputs", "outputs", "pictures", "licence", "provenance"]
    manifest = json.loads((run / "export/onnxruntime-cpu/manifest.json").read_text())
    assert list(manifest)[: len(FOR_APPS)] == list(FOR_APPS)
    (given,), (made,) = manifest["inputs"], manifest["outputs"]
    for end, name in ((given, "input"), (made, "output")):
        assert end["name"] == name and end["shape"] == [1, 3, 32, 32] and end["layout"] == "NCHW"
        assert end["channels"] == "RGB" and end["range"] == [-1, 1] and end["dtype"] == "float32"
    prepare, back = manifest["pictures"]["prepare"], manifest["pictures"]["read_back"]
    assert prepare["resize"] == "stretch" and prepare["size"] == [32, 32] and prepare["transparent"] == "laid on white"
    pixels = np.arange(256)
    values = pixels * prepare["values"]["times"] + prepare["values"]["plus"]
    assert values.min() == -1 and values.max() == 1
    read = np.rint((values - back["values"]["minus"]) * back["values"]["times"]).clip(*back["clip"])
    np.testing.assert_array_equal(read, pixels)
    assert manifest["licence"] == "CC0" and manifest["provenance"]["teacher"]["file"] == "G.pth"
    assert manifest["provenance"]["teacher"]["sha256"] == hashlib.sha256((finished / "G.pth").read_bytes()).hexdigest()
    digests = manifest["provenance"]["data"]["digests"]
    assert digests == json.loads((run / "trace.json").read_text())["data"]
    file = run / "export/onnxruntime-cpu/model.onnx"
    assert manifest["sha256"] == {"model.onnx": hashlib.sha256(file.read_bytes()).hexdigest()}
    inside = onnxruntime.InferenceSession(file).get_modelmeta().custom_metadata_map
    for name in ("inputs", "outputs", "pictures", "provenance"):
        assert json.loads(inside[name]) == manifest[name]
    assert inside["licence"] == "CC0" and inside["precision"] == "float32"
    ncnn = json.loads((run / "export/ncnn/manifest.json").read_text())
    assert (ncnn["inputs"][0]["name"], ncnn["outputs"][0]["name"]) == ("data", "output")
    for place, name in ((whole, "subnet"), (manifest, "teacher")):
        assert place["scores"][name]["l1"].keys() == {"value", "unit", "lower_is_better"}
    assert json.loads((run / "export/scores.json").read_text()) == _rows(run)


class Halves(nn.Module):
    """A picture and a latent to a picture of half the sides."""

    def __init__(self):
        super().__init__()
        self.conv, self.style = nn.Conv2d(3, 1, 2, 2), nn.Linear(4, 1)

    def forward(self, image, style):
        return torch.tanh(self.conv(image) + self.style(style)[..., None, None])


def test_a_card_lies_beside_the_export(finished, tmp_path, capsys):
    """Its lines run where it lies, its hashes are the files', and it has the scores that were added later."""
    run = tmp_path / "run"
    shutil.copytree(finished / "run", run)
    text = (run / "export/README.md").read_text()
    assert "Licence: CC0." in text and "`G.pth`" in text and "| parameters |" in text
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    script = [sys.executable, "-c", f"{code}\nprint(list(made.shape))"]
    made = subprocess.run(script, cwd=run / "export", capture_output=True, text=True, check=False)
    assert made.stdout.strip() == "[1, 3, 32, 32]", made.stderr
    for name, digest in re.findall(r"\| `(\S+)` \| `([0-9a-f]{64})` \|", text):
        assert hashlib.sha256((run / "export" / name).read_bytes()).hexdigest() == digest
    assert "psnr" not in text
    scored(capsys, run, "--metrics", "psnr")
    assert "| psnr ↑ |" in (run / "export/README.md").read_text()


def test_a_finished_run_is_listed_and_watched(finished, tmp_path, capsys):
    capsys.readouterr()
    assert main(["runs", str(finished), "--where", "finetune.batch=2", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["state"], row["generator"]) == ("finished up to export", "srvgg") and row["host"] and row["command"]
    assert row["macs"] == json.loads((finished / "run/export/manifest.json").read_text())["macs"]["true"]
    assert main(["watch", str(finished / "run"), "--once", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text()
    assert "Finished up to export" in page and "1 subnet evaluated" in page and page.count("<svg") >= 2


def test_free_sides_other_channels_and_several_inputs(tmp_path):
    inputs = (torch.rand(2, 3, 16, 16) * 2 - 1, torch.randn(2, 4))
    profile = Device(name="any", runtime="onnxruntime", size="dynamic", batch="dynamic", size_multiple=2)
    found = export_model(tmp_path, Halves().eval(), inputs, profile)
    image, style = found["inputs"]
    assert image["shape"] == ["batch", 3, "height", "width"] and image["multiple_of"] == 2 and image["name"] == "image"
    assert style["kind"] == "vector" and style["shape"] == ["batch", 4] and style["range"] is None
    (made,) = found["outputs"]
    assert made["shape"] == ["batch", 1, "1/2*height", "1/2*width"] and made["channels"] == "grey"
    assert found["pictures"]["prepare"]["resize"] == "none" and found["licence"] is None
    assert json.loads((tmp_path / "manifest.json").read_text()) == found


def test_a_run_is_packed_without_its_data_and_teacher(finished, tmp_path, monkeypatch):
    """As the pipeline leaves it; the lines for the weights and for ONNX make the packed picture."""
    run = tmp_path / "moved"
    subprocess.run(["cp", "-r", finished / "run", run], check=True)
    settings = json.loads((run / "config.json").read_text())
    settings["teacher"]["weights"] = settings["data"]["path"] = str(tmp_path / "gone")
    (run / "config.json").write_text(json.dumps(settings))
    assert main(["pack", str(run), "--out", str(tmp_path / "handed.zip")]) == 0
    zipfile.ZipFile(tmp_path / "handed.zip").extractall(tmp_path)
    place = tmp_path / "handed"
    assert "x\nfewer than its teacher" in (place / "README.md").read_text()
    assert json.loads((place / "scores.json").read_text()) == _rows(finished / "run")
    for folder in (place, place / "onnxruntime-cpu"):
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", ["apply.py", "input.png", "made.png"])
        exec(compile((folder / "apply.py").read_text(), "apply.py", "exec"), {"__name__": "__main__"})
        made, sample = (np.asarray(Image.open(f"{name}.png")).astype(int) for name in ("made", "output"))
        assert np.abs(made - sample).max() <= 1
