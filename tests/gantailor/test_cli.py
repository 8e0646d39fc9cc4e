"""The command line as a user meets it: the whole job in small, and every mistake with one clear message."""

import json
import os
import pickle
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch
from PIL import Image

import gantailor
from gantailor.cli.main import main
from gantailor.run.config import Config
from gantailor.supernet.files import load_tensors


class Evil:
    def __reduce__(self):
        return print, ("code ran",)


def fails(capsys, *arguments):
    assert main(arguments) == 2
    message = capsys.readouterr().err
    assert "Traceback" not in message
    return message


@pytest.fixture(scope="module")
def small(tmp_path_factory, tiny_teacher):
    """A tiny run on the embedded pictures, from a YAML file, through every stage."""
    folder = tmp_path_factory.mktemp("small")
    yaml = folder / "config.yaml"
    yaml.write_text(
        "generator: resnet_6blocks\noptions: {ngf: 8}\nbudget: 0.5x\nsearch: {trials: 3}\n"
        f"teacher: {tiny_teacher}\n"
        "data: {size: 32}\ntrain: {kimg: 0.03, batch: 8}\nfinetune: {kimg: 0.03, batch: 8}\n"
        "evaluation: {search_images: 16}\n"
    )
    out = folder / "run"
    assert main(["compress", str(yaml), "--out", str(out)]) == 0
    return yaml, out


@pytest.mark.long
def test_every_stage_wrote_its_file(small):
    _, out = small
    for name in ("trace.json", "supernet.safetensors", "subnet.json", "subnet.safetensors", "front.csv", "front.png"):
        assert (out / name).exists(), name
    assert "<img" in (out / "report.html").read_text()
    frame = pd.read_csv(out / "front.csv")
    assert len(frame) == 3
    manifest = json.loads((out / "export/manifest.json").read_text())
    assert frame["macs"].max() <= json.loads((out / "trace.json").read_text())["budget_macs"]
    assert manifest["macs"]["true"] <= 0.5 * manifest["teacher_macs"]["true"]
    assert manifest["devices"]["onnxruntime-cpu"]["max_difference"] <= 1e-4


@pytest.mark.long
def test_report_in_a_browser(small, browser):
    _, out = small
    with browser(out / "report.html", viewport={"width": 1200, "height": 900}) as view:
        top = view.locator("#compare img").nth(1)
        assert "50%" in top.evaluate("picture => getComputedStyle(picture).clipPath")
        view.locator("#slider").fill("20")
        assert "20%" in top.evaluate("picture => getComputedStyle(picture).clipPath")
        before = top.get_attribute("src")
        view.locator(".case").nth(1).focus()
        view.keyboard.press("Enter")
        assert view.locator(".case[aria-pressed=true]").count() == 1
        assert (
            top.get_attribute("src")
            == view.locator(".case").nth(1).locator("[alt=subnet]").get_attribute("src")
            != before
        )
        assert {image.get_attribute("alt") for image in view.locator(".case").first.locator("img").all()} == {
            "input",
            "teacher",
            "subnet",
            "difference",
            "real",
        }
        assert view.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
        box = view.locator("#compare").bounding_box()
        view.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 9)
        view.mouse.down()
        view.mouse.move(box["x"] + 0.75 * box["width"], box["y"] + 9)
        view.mouse.up()
        assert "75%" in top.evaluate("picture => getComputedStyle(picture).clipPath")
        assert view.locator("#slider").input_value() == "75"
        assert "x fewer MACs than the teacher" in view.locator(".said").inner_text()
        assert (
            len(re.findall(r"\d[KM]\b", view.locator("#front svg").first.text_content())) >= 3
        )  # numbers on the axis of MACs
        assert not view.locator("details pre").first.is_visible()
        view.locator("summary").first.click()
        text = view.locator("body").inner_text()
        for part in ("onnxruntime-cpu", "weights in float32", "ratio", "sha256", "thousand images", "fine-tuning"):
            assert part in text
    with browser(out / "report.html", viewport={"width": 768, "height": 900}):
        pass  # its own checks
    with browser(out / "report.html", viewport={"width": 390, "height": 800}, color_scheme="dark") as view:
        assert view.evaluate("getComputedStyle(document.body).colorScheme") != "light"
        assert view.evaluate("getComputedStyle(document.querySelector('.chart svg')).filter").startswith("invert")


@pytest.mark.slow
def test_a_finished_run_is_exported_for_other_devices(small, tmp_path, capsys):
    _, out = small
    own = tmp_path / "phone.yaml"
    own.write_text("phone: {runtime: onnxruntime, batch: dynamic, size: dynamic, threads: 2}\n")
    assert main(["export", str(out), "--device", f"torch-export,onnxruntime-cpu-int8,{own}"]) == 0
    printed = capsys.readouterr().out
    assert "the teacher" in printed
    manifest = json.loads((out / "export/phone/manifest.json").read_text())
    assert manifest["macs"]["true"] < manifest["teacher_macs"]["true"]
    assert manifest["scores"]["subnet"]
    assert manifest["latency_ms"]["subnet"] > 0
    (given,) = manifest["inputs"]
    assert given["shape"] == ["batch", 3, "height", "width"] and given["multiple_of"] == 4
    eight = json.loads((out / "export/onnxruntime-cpu-int8/manifest.json").read_text())
    assert eight["scores"]["subnet, exported"].keys() == manifest["scores"]["subnet"].keys()
    assert "unknown" in fails(capsys, "export", str(out), "--device", "phoen")
    assert "no run folder" in fails(capsys, "export", str(tmp_path))
    assert "a run has its own data.size" in fails(capsys, "export", str(out), "--data.size", "64")
    assert main(["export", str(out), "--device", "openvino", "--dry-run"]) == 0
    assert "would export for openvino" in capsys.readouterr().out and not (out / "export/openvino").exists()


@pytest.mark.long
def test_onnx_equals_the_supernet(small):
    _, out = small
    manifest = json.loads((out / "export/manifest.json").read_text())
    model = gantailor.build("resnet_6blocks", ngf=8)
    supernet = gantailor.Supernet(model, (torch.randn(1, 3, 32, 32),))
    narrow = supernet.extract(manifest["config"])
    narrow.load_state_dict(load_tensors(out / "export/model.safetensors")[0])
    x = torch.rand(1, 3, 32, 32) * 2 - 1
    session = onnxruntime.InferenceSession(str(out / "export/onnxruntime-cpu/model.onnx"))
    with torch.no_grad():
        expected = narrow.eval()(x).numpy()
    assert np.abs(session.run(None, {"input": x.numpy()})[0] - expected).max() < 1e-4


@pytest.mark.slow
def test_again_does_nothing_twice(small):
    yaml, out = small
    before = (out / "subnet.safetensors").stat().st_mtime_ns
    assert main(["compress", str(yaml), "--out", str(out)]) == 0
    assert (out / "subnet.safetensors").stat().st_mtime_ns == before


@pytest.mark.slow
def test_a_setting_that_came_later_is_no_other_setting(small):
    yaml, out = small
    config = json.loads((out / "config.json").read_text())
    del config["space"]["drop_branches"], config["train"]["ranges"], config["seed"]
    (out / "config.json").write_text(json.dumps(config))
    assert main(["compress", str(yaml), "--out", str(out)]) == 0


@pytest.mark.long
def test_another_budget_is_in_the_trace(small, tmp_path):
    """What was decided and proved stays."""
    yaml, out = small
    before = json.loads((out / "trace.json").read_text())
    shutil.copytree(out, tmp_path / "run")
    assert main(["search", str(yaml), "--out", str(tmp_path / "run"), "--budget", "0.6x"]) == 0
    after = json.loads((tmp_path / "run/trace.json").read_text())
    assert after.pop("budget_macs") > before.pop("budget_macs")
    assert after == before and "widths hold" in after["verified"]


@pytest.mark.long
def test_other_settings_need_another_folder(small, capsys):
    yaml, out = small
    assert "other settings" in fails(capsys, "compress", str(yaml), "--out", str(out), "--seed", "5")


@pytest.mark.long
def test_search_again_adds_trials_only(small, tmp_path):
    _, out = small
    assert (out / "search.journal").stat().st_size > 0


def test_unreachable_budget_shows_the_range(tmp_path, capsys):
    message = fails(capsys, "demo", "--out", str(tmp_path / "r"), "--budget", "1K")
    assert "cannot be reached" in message
    assert "'path' goes from 1.255M" in message
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(("flag", "value", "said"), [
    ("--budget", "much", "cannot be read"),
    ("--generator", "resnet_9block", "did you mean 'resnet_9blocks'"),
    ("--data.size", "66", "multiple of 4"),
    ("--generator", "unet_128", "no teacher is shipped for 'unet_128'"),
    ("--device", "gpu", "device 'gpu' is not here; PyTorch"),
    ("--precision", "bfloat16", "did you mean --train.precision or --finetune.precision"),
    ("--train.k", "5", "does not take '--train.k'"),
    ("--options", "{ngf: 3", "cannot be read"),
    ("--target", "10%", "a share of the generator's MACs"),
    ("--ranking", "foo.json", "does not exist"),
    ("--train.kimg", "-1", "train.kimg cannot be -1"),
    ("--options", "{ngff: 3}", "did you mean 'ngf'"),
])  # fmt: skip
def test_wrong_settings(tmp_path, capsys, flag, value, said):
    assert said in fails(capsys, "demo", "--out", str(tmp_path / "r"), flag, value)


def test_all_config_mistakes_at_once(tmp_path, capsys):
    yaml = tmp_path / "c.yaml"
    yaml.write_text("search: {trials: -1}\ntrain: {lrr: 1, batch: 0}\n")
    message = fails(capsys, "compress", str(yaml))
    assert "search.trials cannot be -1" in message
    assert "train.lrr is no setting; did you mean 'lr'" in message
    assert "train.batch cannot be 0" in message


def test_empty_data_folder(tmp_path, capsys):
    (tmp_path / "train").mkdir()
    flags = ["--data.kind", "folder", "--data.path", str(tmp_path), "--out", str(tmp_path / "r")]
    assert "holds no pictures" in fails(capsys, "demo", *flags)


def test_folder_data_is_read(tmp_path):
    from gantailor.zoo.data.kinds.folder import folder_pairs

    for number in range(3):
        Image.new("RGB", (64, 32), (number * 10, 0, 255)).save(tmp_path / f"{number}.png")
    pairs = folder_pairs(tmp_path, size=32)
    assert pairs.size == (32, 32)
    assert len(pairs) == 3


def test_unwritable_run_folder(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert "cannot be used" in fails(capsys, "demo", "--out", str(tmp_path / "file" / "r"))


def test_missing_truncated_and_evil_checkpoints(tmp_path, capsys):
    flags = ["demo", "--out", str(tmp_path / "r"), "--teacher"]
    assert "does not exist" in fails(capsys, *flags, str(tmp_path / "none.pth"))
    whole = tmp_path / "whole.pth"
    torch.save(gantailor.build("resnet_6blocks", ngf=8).state_dict(), whole)
    short = tmp_path / "short.pth"
    short.write_bytes(whole.read_bytes()[:5000])
    assert "not a whole checkpoint" in fails(capsys, *flags, str(short))
    evil = tmp_path / "evil.pth"
    evil.write_bytes(pickle.dumps(Evil(), protocol=2))
    message = fails(capsys, *flags, str(evil))
    assert "refused" in message
    assert "code ran" not in message
    assert "shapes: model.1.weight is (8, 3, 7, 7), not (48, 3, 7, 7)" in fails(capsys, *flags, str(whole))


def test_inspect(capsys):
    assert main(["inspect", "resnet_9blocks", "--input", "1,3,256,256"]) == 0
    text = capsys.readouterr().out
    assert "49,551,507,456" in text
    assert "56,831,770,624" in text
    assert "14 free widths" in text


def test_inspect_of_ones_own(tmp_path, monkeypatch, capsys):
    (tmp_path / "mynet.py").write_text(
        "from torch import nn\n"
        "class Two(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.a, self.b, self.c = nn.Conv2d(3, 8, 3), nn.Conv2d(4, 8, 3), nn.Conv2d(8, 3, 1)\n"
        "    def forward(self, x, y):\n"
        "        return self.c(self.a(x) * self.b(y))\n"
    )
    monkeypatch.chdir(tmp_path)
    assert main(["inspect", "mynet:Two", "--input", "1,3,16,16", "--input", "1,4,16,16"]) == 0
    text = capsys.readouterr().out
    assert "1 free widths" in text
    assert "widths hold" in text  # one's own is proved at once
    assert "give the shape of every input" in fails(capsys, "inspect", "mynet:Two", "--input", "1,3,16,16")
    assert "cannot be imported" in fails(capsys, "inspect", "mynet:Three")


def test_inspect_ends_in_what_to_do(tmp_path, monkeypatch, capsys):
    (tmp_path / "literal.py").write_text(
        "from torch import nn\n"
        "class Fixed(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.a, self.b, self.c = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 3, 1)\n"
        "    def forward(self, x):\n"
        "        x = self.a(x).view(-1, 8, 6, 6)\n"
        "        return self.c(self.b(x))\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    assert main(["inspect", "literal:Fixed", "--input", "1,3,6,6"]) == 0
    *_, last = capsys.readouterr().out.splitlines()
    start = r"\d+% of the MACs go at half of every width \(75% if everything could shrink\); frozen: a, \d+% more"
    assert re.match(start, last)
    assert "view to 8 (literal.py:7) - read that size off x.shape, or keep it as an attribute of the module" in last


WRONG = {  # what a forward does between two convolutions of 8 channels, in line 3, and what inspect says of it
    "y = self.b(x); return self.c(y * torch.linspace(0, 1, 8)[None, :, None, None])": (
        r"b, \d+% more: meets a tensor of fixed size \(wrong.py:9\), which linspace makes \(wrong.py:9\) - make"
    ),
    "return self.c(self.b(torch.erfinv(x.tanh())))": (
        r"a, \d+% more: enters erfinv without a rule \(wrong.py:9\) - give the operation a rule"
    ),
    "y = self.d(x); return self.c(self.b(x) + (self.e(y) if y.shape[1] != x.shape[1] else y))": (
        r"d, \d+% more: fails the proof: a branch of the forward depends on its size: call of e in wrong.py:9 is "
        "left out - decide that once, in __init__"
    ),
    "return self.c(self.b(x[:, [0, 3, 1, 2]].repeat(1, 2, 1, 1)))": r"a, \d+% more: is indexed by a tensor",
    "return self.c(x * torch.tensor(self.b(x).mean((2, 3)).numpy())[:, :, None, None])": (
        r"a, \d+% more: meets a tensor of fixed size \(wrong.py:9\), which tensor makes \(wrong.py:9\)"
    ),
}


@pytest.mark.parametrize("line", WRONG)
def test_inspect_says_what_is_wrong_where_and_what_to_do(line, tmp_path, monkeypatch, capsys):
    (tmp_path / "wrong.py").write_text(
        "import torch\nfrom torch import nn\n"
        "class Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.a, self.b, self.c = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 3, 1)\n"
        "        self.d, self.e = nn.Conv2d(8, 12, 3, padding=1), nn.Conv2d(12, 8, 1)\n"
        f"    def forward(self, x):\n        x = self.a(x); {line}\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "wrong", raising=False)
    assert main(["inspect", "wrong:Net", "--input", "1,3,6,6"]) == 0
    *_, last = capsys.readouterr().out.splitlines()
    assert re.search(WRONG[line], last), last


@pytest.mark.parametrize("given", [{}, {"GOMP_SPINCOUNT": "7"}, {"OMP_WAIT_POLICY": "ACTIVE"}])
def test_threads_wait_asleep_unless_told(given):
    """Set before PyTorch is loaded, and left as it is where the user's environment says it."""
    command = "import os, sys; sys.argv[1:] = ['papers']; before = 'torch' in sys.modules\n"
    command += "from gantailor.cli.main import main; loaded = 'torch' in sys.modules; main()\n"
    command += "print(before, loaded, {n: os.environ.get(n) for n in ('OMP_WAIT_POLICY', 'GOMP_SPINCOUNT')})"
    others = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    ran = subprocess.run(
        [sys.executable, "-c", command], env=others | given, capture_output=True, text=True, check=True
    )
    wanted = {"OMP_WAIT_POLICY": None, "GOMP_SPINCOUNT": None if "OMP_WAIT_POLICY" in given else "1000"} | given
    assert ran.stdout.splitlines()[-1] == f"False False {wanted}"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc")
@pytest.mark.parametrize(("given", "again"), [({}, True), ({"MALLOC_TRIM_THRESHOLD_": "131072"}, False)])
def test_memory_of_large_tensors_is_used_again_unless_told(given, again):
    """Five tensors of 64 MiB, one after the other, after some: pages that the system had to make, in tensors."""
    command = "import resource, sys; from gantailor.cli.main import main; main(['papers']); import torch\n"
    command += "for _ in range(20): torch.ones(2**24)\n"
    command += "before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
    command += "for _ in range(5): torch.ones(2**24)\n"
    command += "made = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before\n"
    command += "print(made * resource.getpagesize() / 2**26)"
    others = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    ran = subprocess.run(
        [sys.executable, "-c", command], env=others | given, capture_output=True, text=True, check=True
    )
    made = float(ran.stdout.splitlines()[-1])
    if again:
        assert made < 2
    elif "[always]" not in Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text():  # pages are of 2 MiB then
        assert made > 4


def test_inspect_knows_native_inputs(capsys):
    assert main(["inspect", "stylegan2", "--options", "{size: 16, style_dim: 32}"]) == 0
    assert "free widths" in capsys.readouterr().out


def test_dry_run_writes_nothing(tmp_path, capsys):
    assert main(["demo", "--dry-run", "--out", str(tmp_path / "r")]) == 0
    assert "budget 124.7M MACs (true)" in capsys.readouterr().out
    searched = ["--strategy", "evolution", "--trials", "40"]
    assert main(["demo", "--dry-run", "--out", str(tmp_path / "r"), *searched]) == 0
    assert capsys.readouterr().err.count("with search.trials 40 it is a random search") == 1
    assert not (tmp_path / "r").exists()


def test_the_demo_has_no_discriminator_unless_told(tmp_path, capsys):
    """Line art decides its picture, so one only costs there; agents prune theirs."""
    flags = ["demo", "--dry-run", "--out", str(tmp_path / "r")]
    told = {}
    for given in ((), ("--finetune.gan", "lsgan"), ("--method", "agents")):
        assert main([*flags, *given]) == 0
        told[given] = capsys.readouterr().out
    assert told[()].count("gan: none") == 2
    assert told["--finetune.gan", "lsgan"].count("gan: none") == 1 and "gan: lsgan" in told["--finetune.gan", "lsgan"]
    assert "gan: none" not in told["--method", "agents"]


def test_a_dry_run_minds_another_run_only_in_a_folder_that_was_named(tmp_path, monkeypatch, capsys):
    """The usual folder was nobody's choice, and a dry run writes nothing there."""
    monkeypatch.chdir(tmp_path)
    config = Config.model_validate({"budget": "0.3x", "seed": 1}).model_dump(mode="json")
    for folder in (Path("runs/run"), Path("runs/named")):
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps(config))
    flags = ["--teacher", "none", "--options", "{ngf: 4}", "--data.size", "32", "--evaluation.final", "[l1]"]
    for command in ("train", "export"):
        assert main([command, "--dry-run", *flags]) == 0
        told = capsys.readouterr()
        assert "'runs/run' holds a run with other settings (" in told.err and "--out runs/run-2" in told.err
        assert "seed 1 -> 0" in told.err and "budget " in told.out
    assert "choose another --out" in fails(capsys, "train", "--dry-run", *flags, "--out", "runs/named")
    assert "choose another --out" in fails(capsys, "train", *flags)
    assert sorted(os.listdir("runs")) == ["named", "run"] and "run-2" not in fails(capsys, "train", *flags)


@pytest.mark.long
@pytest.mark.parametrize("command", ["demo", "teacher"])
def test_one_seed_for_all(command, tmp_path, capsys):
    """It is every training's that names none of its own."""

    def plan(*flags):
        assert main([command, "--dry-run", "--out", str(tmp_path / "r"), *flags]) == 0
        return capsys.readouterr().out.count("seed: 7\n")

    every = plan("--train.seed", "7") if command == "teacher" else 3
    assert plan("--seed", "7") == every and plan("--seed", "7", "--train.seed", "1") == every - 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("compress", "required: config; gantailor compress --help"),
        ("compres c.yaml", "'compres' is no command; did you mean 'compress'"),
        ("", "required: COMMAND"),
        ("export r --device", "argument --device: expected one argument"),
        ("rank --inputs 0", "'0' is no whole number of at least 1"),
        ("profile laptop.json --subnets few", "'few' is no whole number of at least 1"),
    ],
)
def test_a_wrong_line_is_answered_in_one(line, message, capsys):
    assert main(line.split()) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and message in said and len(said.splitlines()) == 1


@pytest.mark.long
def test_a_reader_may_have_seen_enough():
    """``gantailor ... | head`` ends without a word."""
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "gantailor.cli", "inspect", "resnet_6blocks"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, check=False, timeout=120)
    os.close(write)
    assert done.returncode == 141 and b"Pipe" not in done.stderr


@pytest.mark.long
def test_evaluate_a_generator(tmp_path, capsys, monkeypatch):
    """Metrics by name, with their wrong uses."""
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", "--metrics", "macs,bytes,l1,latency_ms", "--split", "search", "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert scores["macs[true]"]["value"] == 1_246_887_936
    assert scores["macs[published]"]["value"] > scores["macs[true]"]["value"]
    assert "compare the checkpoint with itself" in fails(capsys, "evaluate", "--metrics", "l1[teacher]")
    assert {"latency_ms[torch-cpu]", "latency_ms[onnxruntime-cpu]", "bytes[int8]"} <= scores.keys()
    assert scores["latency_ms[torch-cpu]"]["provenance"]["threads"] == 1
    assert not list(tmp_path.iterdir())
    for metrics, message in (
        ("lipps", "did you mean 'lpips'"),
        ("lpips", "evaluation.lpips_features"),
        ("miou", "evaluation.segmentation"),
        ("fid[teacher]", "against real pictures: --metrics fid"),
    ):
        assert main(["evaluate", "--metrics", metrics]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.long
def test_segmentation_network_of_ones_own(tmp_path, capsys, monkeypatch):
    """A module:function and its weights, through the command line."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ownseg.py").write_text("from torch import nn\ndef build():\n    return nn.Conv2d(3, 2, 1)\n")
    (tmp_path / "ink.csv").write_text("id,name,red,green,blue\n0,ink,0,0,0\n1,paper,255,255,255\n")
    weights = {"weight": torch.tensor([-1.0, 1.0]).reshape(2, 1, 1, 1).repeat(1, 3, 1, 1), "bias": torch.zeros(2)}
    torch.save(weights, tmp_path / "seg.pth")
    command = ["evaluate", "--metrics", "miou,pixel_accuracy", "--split", "search", "--json"]
    command += ["--evaluation.segmentation", "ownseg:build", "--evaluation.segmentation_weights", "seg.pth"]
    assert main([*command, "--evaluation.labels", "ink.csv"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert 50 < scores["pixel_accuracy[ownseg.build]"]["value"] <= 100
    assert main([*command, "--evaluation.labels", "streets"]) == 2
    assert "columns id,name,red,green,blue" in capsys.readouterr().err


@pytest.mark.slow
def test_budgets_by_their_other_names(tmp_path, capsys):
    out = str(tmp_path / "r")
    assert main(["demo", "--dry-run", "--out", out, "--target", "0.5"]) == 0
    halved = capsys.readouterr().out
    assert main(["demo", "--dry-run", "--out", out, "--budget", "0.5x"]) == 0
    assert capsys.readouterr().out == halved and "budget 623.4M MACs" in halved
    assert "cannot be read" in fails(capsys, "demo", "--dry-run", "--out", out, "--target", "0.1x")
    assert "nothing.json" in fails(capsys, "demo", "--dry-run", "--out", out, "--latency", f"4@{tmp_path}/nothing.json")
    assert "not both" in fails(capsys, "demo", "--dry-run", "--out", out, "--target", "0.1", "--budget", "0.1x")
