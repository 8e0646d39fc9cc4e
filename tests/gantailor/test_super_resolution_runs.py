"""Real-ESRGAN's generators through the whole pipeline: four lines of YAML, pairs, small pictures alone, two stages."""

from __future__ import annotations

import json

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

import gantailor
from gantailor.cli.main import main
from gantailor.run.loading import load_config
from gantailor.run.run import open_run
from gantailor.zoo.data.super_resolution.pictures import Degraded, WholePictures
from tests.zoo.test_super_resolution import photo

OPTIONS = {"srvgg": {"num_feat": 8, "num_conv": 2}, "rrdbnet": {"num_feat": 8, "num_block": 1, "num_grow_ch": 4}}
SHORT = {"train.kimg": 0.04, "finetune.kimg": 0.04, "train.batch": 4, "finetune.batch": 4, "data.size": 16}
FLAGS = [part for name, value in SHORT.items() for part in (f"--{name}", str(value))]


def write(folder, sizes, scale=1):
    folder.mkdir(parents=True)
    for number, (height, width) in enumerate(sizes):
        large = Image.fromarray(photo(height, width, seed=number))
        large.resize((width // scale, height // scale), Image.Resampling.BICUBIC).save(folder / f"{number}.png")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a teacher's checkpoint of each family, and large pictures in data/."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GANTAILOR_CACHE", str(tmp_path / "cache"))
    for name, options in OPTIONS.items():
        torch.manual_seed(0)
        net = gantailor.build(name, **options)
        torch.save({"params_ema": net.state_dict()}, f"{name}.pth")
    write(tmp_path / "data" / "train", [(70, 90), (64, 64), (130, 68), (90, 70)])
    write(tmp_path / "data" / "test", [(67, 81), (80, 64), (65, 65)])
    return tmp_path


@pytest.mark.slow
def test_four_lines(here, capsys):
    """Generator, teacher, data, budget: a report and ONNX of any size, in the pictures' range of every run."""
    (here / "dynamic.yaml").write_text("any: {runtime: onnxruntime, size: dynamic}")
    (here / "c.yaml").write_text("generator: srvgg\nteacher: srvgg.pth\ndata: {path: data}\nbudget: 0.3x\n")
    assert main(["compress", "c.yaml", "--out", "run", *SHORT, "--devices", "dynamic.yaml:any"]) == 0, (
        capsys.readouterr().err
    )
    scores = json.loads((here / "run/scores.json").read_text())
    assert list(scores)[:4] == ["input, nearest", "input, enlarged", "teacher", "subnet"]
    assert list(scores["subnet"]) == ["psnr_y[teacher]", "ssim_y[teacher]", "psnr_y", "ssim_y"]
    assert (here / "run/report.html").stat().st_size > 10_000

    narrow = gantailor.load(here / "run/export/model.safetensors")
    session = onnxruntime.InferenceSession(str(here / "run/export/any/model.onnx"))
    x = torch.rand(1, 3, 21, 34) * 2 - 1
    (made,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    with torch.no_grad():
        assert np.abs(made - narrow(x).numpy()).max() < 1e-4 and made.shape == (1, 3, 84, 136)
        narrow.picture_range = (0, 1)  # as it was published
        assert np.abs(made - (2 * narrow((x + 1) / 2) - 1).numpy()).max() < 1e-4

    teacher = gantailor.load_teacher("srvgg.pth", generator="srvgg")
    run = open_run(here / "run")
    assert isinstance(run.setup.data("test"), WholePictures)
    errors = []
    for number in range(3):  # the whole pictures, as the tables of super-resolution count
        small, large = run.setup.data("test").whole(number)
        with torch.no_grad():
            aim = (255 * teacher((small + 1) / 2)).round().clamp(0, 255).double()
        nearest = (127.5 * (F.interpolate(small, scale_factor=4.0) + 1)).round().double()
        assert aim.shape == large.shape and tuple(aim.shape[2:]) == [(64, 80), (80, 64), (64, 64)][number]
        luma = torch.tensor([65.481, 128.553, 24.966]).double().reshape(1, 3, 1, 1) / 255
        error = ((aim - nearest) * luma).sum(1)[:, 4:-4, 4:-4]
        errors.append(10 * np.log10(255**2 / float(error.square().mean())))
    assert scores["input, nearest"]["psnr_y[teacher]"]["value"] == pytest.approx(np.mean(errors), abs=1e-3)


@pytest.mark.slow
def test_two_stages_of_real_esrgan(here):
    """realesrnet, then realesrgan, on its degradation, of an RRDBNet; stopped and gone on with."""
    real = {"degradation": "realesrgan", "second_blur_prob": 0.5}
    config = {
        "generator": "rrdbnet",
        "teacher": "rrdbnet.pth",
        "budget": "0.5x",
        "data": {"path": "data", "load": 17, "options": real},
        "train": {"preset": "realesrnet", "watch_kimg": 0},
        "finetune": {"preset": "realesrgan", "ndf": 4, "watch_kimg": 0.02},
        "search": {"trials": 2},
        **SHORT,
    }
    for until in ("train", "finetune"):
        gantailor.compress(config, out="run", until=until)
    run = open_run(here / "run")
    assert isinstance(run.setup.data("train"), Degraded)
    assert (run.config.train.gan, run.config.finetune.gan, run.config.finetune.target_weight) == ("none", "vanilla", 1)
    steps = [json.loads(line) for line in (here / "run/subnet.ckpt.jsonl").read_text().splitlines()]
    assert {"target", "output", "gan", "discriminator"} <= set(steps[-1])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pairs", "small pictures alone"])
def test_other_data(here, kind):
    """Folders LR and HR matched by name; and small pictures, whose targets are the teacher's outputs."""
    for split, sizes in (("train", [(64, 64)] * 4), ("test", [(64, 64)] * 2)):
        write(here / "pairs" / split / "LR", sizes, 4)
        write(here / "pairs" / split / "HR", sizes)
        write(here / "small" / split, sizes, 4)
    data = {"kind": "folders", "sides": ["LR", "HR"], "path": "pairs"}
    if kind != "pairs":
        data = {"kind": "folder", "direction": "unpaired", "path": "small"}
    config = {"generator": "srvgg", "teacher": "srvgg.pth", "budget": "0.5x", "data": data, **SHORT}
    gantailor.compress(config, out="run", until="evaluate")
    scores = json.loads((here / "run/scores.json").read_text())
    expected = ["psnr_y[teacher]", "ssim_y[teacher]"]
    assert list(scores["subnet"]) == expected + (["psnr_y", "ssim_y"] if kind == "pairs" else [])


def test_a_path_beside_the_teacher_alone_goes_by_a_ranking():
    """The whole net has no loss to the teacher that it is: its gradients order nothing."""
    own = {"generator": "srvgg", "teacher": "x.pth"}
    config = load_config(None, own)
    assert (config.space.name, config.ranking, config.train.method_options) == ("path", "taylor", {"order": "ranking"})
    for other in (
        {"train.target_weight": 1.0},
        {"train.gan": "vanilla"},
        {"ranking": "l1"},
        {"train.method_options": {"order": "measured"}},
        {"method": "slimming"},
        {"space": "uniform"},
    ):
        found = load_config(None, {**own, **other})
        assert "order" not in found.train.method_options or found.train.method_options["order"] == "measured", other
    assert load_config(None, {}).train.method_options == {}
    front = load_config(None, {**own, "search.front": True})
    assert (front.ranking, front.train.method_options["order"]) == ("taylor", "ranking")


def test_settings_beneath_the_users():
    config = load_config(None, {"generator": "srvgg", "teacher": "x.pth"})
    assert (config.data.kind, config.train.gan, config.train.output_weight) == ("super_resolution", "none", 1)
    assert config.options == {} and config.evaluation.search == "psnr_y[teacher]"
    alone = load_config(None, {"generator": "rrdbnet", "teacher": "none"})
    assert (alone.train.target_weight, alone.train.output_weight) == (1, 0)
    assert alone.evaluation.final == ("psnr_y", "ssim_y")
    staged = load_config(None, {"generator": "srvgg", "teacher": "x.pth", "finetune.preset": "realesrgan"}).finetune
    assert (staged.gan, staged.gan_weight, staged.target_weight, staged.output_weight) == ("vanilla", 0.1, 1, 1)
    assert staged.perceptual_weight == 0, "the files of its network are not named"
    files = {"evaluation.lpips_features": "a.pth", "evaluation.lpips_heads": "b.pth"}
    named = {"generator": "srvgg", "teacher": "x.pth", "finetune.preset": "realesrgan", **files}
    assert load_config(None, named).finetune.perceptual_weight == 1
