"""The notebooks run from their first cell to the last, and the scripts under other people's loops: shortened."""

import json
import os
import re
import runpy
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

import gantailor

EXAMPLES = Path(__file__).parents[2] / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))
SHORT = {"steps": 12, "trials": 6, "devices": ("torchscript",)}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working folder with what lies beside the notebooks, and this checkout to import from."""
    for script in EXAMPLES.glob("*.py"):
        (tmp_path / script.name).write_text(script.read_text())
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(EXAMPLES.parent), os.environ.get("PYTHONPATH", "")]))
    return tmp_path


def with_values(source, values):
    """The cell of parameters with other values, as papermill replaces them."""
    for name, value in values.items():
        source, count = re.subn(rf"^{name} = .*?(?=  #|$)", f"{name} = {value!r}", source, flags=re.MULTILINE)
        assert count == 1, name
    return source


def executed(name, place, **values):
    """What a notebook shows when it has run in the folder with these parameters: its text, and how many pictures."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    book = nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)
    (cell,) = (cell for cell in book.cells if "parameters" in cell.metadata.get("tags", ()))
    cell.source = with_values(cell.source, values)
    resources = {"metadata": {"path": str(place)}}
    nbclient.NotebookClient(book, timeout=600, kernel_name="python3", resources=resources).execute()
    outputs = [output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]
    pictures = sum("image/png" in output.get("data", {}) for output in outputs)
    return "".join(output.get("text", "") for output in outputs if output.get("name") == "stdout"), pictures


def manifest_of(folder):
    return json.loads((folder / "export/manifest.json").read_text())


def share(manifest):
    """MACs of the narrow net over the teacher's."""
    return manifest["macs"]["true"] / manifest["teacher_macs"]["true"]


def onnx_difference(folder, *inputs):
    """Between the exported file and the narrow generator in PyTorch."""
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(str(folder / "export/onnxruntime-cpu/model.onnx"))
    named = {one.name: given.numpy() for one, given in zip(session.get_inputs(), inputs, strict=True)}
    with torch.no_grad():
        return float(np.abs(session.run(None, named)[0] - gantailor.load(folder)(*inputs).numpy()).max())


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_is_as_it_should_lie_in_the_checkout(file):
    """Without outputs and absolute paths; its first cells say how long it takes, and what can be changed."""
    cells = json.loads(file.read_text())["cells"]
    assert [cell["cell_type"] for cell in cells[:2]] == ["markdown", "code"]
    assert re.search(r"It takes .*minute", "".join(cells[0]["source"]))
    assert cells[1]["metadata"]["tags"] == ["parameters"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell for cell in code if cell["outputs"] or cell["execution_count"]] == []
    assert re.findall(r"""["'(\s](?:/|~|[A-Z]:)\w+/""", file.read_text()) == []
    assert f'executed("{file.stem}"' in Path(__file__).read_text(), "no test runs it"


@pytest.mark.long
def test_quick_start(place):
    pytest.importorskip("resvg_py")
    text, pictures = executed("quick_start", place, KIMG=0.016, SIZE=32)
    run = place / "runs/quick_start"
    manifest = manifest_of(run)
    assert share(manifest) <= 0.1 and f"narrow {manifest['macs']['true']:,}" in text
    assert pictures == 1 and (run / "report.html").is_file()
    assert onnx_difference(run, torch.rand(1, 3, 32, 32) * 2 - 1) < 1e-4


@pytest.mark.long
def test_own_loop(place):
    text, pictures = executed("own_loop", place, STEPS=12, TRIALS=6)
    found, whole = (int(number.replace(",", "")) for number in re.findall(r"([\d,]+) of ([\d,]+) MACs", text)[0])
    assert found <= 0.1 * whole and pictures == 3
    inner = json.loads((place / "runs/own_loop/onnxruntime-cpu/manifest.json").read_text())
    assert inner["max_difference"] < 1e-4


@pytest.mark.slow
def test_own_pix2pix_to_a_phone(place):
    pytest.importorskip("ncnn")
    pytest.importorskip("pnnx")
    text, pictures = executed("own_pix2pix_to_a_phone", place, TEACHER_STEPS=10, KIMG=0.04)
    assert "found: latest_net_G.pth holds a resnet_6blocks, options {ngf: 16}" in text and pictures == 2
    assert share(manifest_of(place / "runs/phone")) <= 0.2
    with zipfile.ZipFile(place / "runs/phone.zip") as packed:
        assert {"phone/ncnn/model.param", "phone/ncnn/model.bin", "phone/ncnn/manifest.json"} <= {*packed.namelist()}
    handed = place / "runs/handed_over/phone/ncnn"
    made, expected = (np.asarray(Image.open(handed / name)).astype(int) for name in ("made.png", "output.png"))
    assert np.abs(made - expected).max() <= 1


@pytest.mark.slow
def test_stylegan2_diversity(place):
    pytest.importorskip("resvg_py")
    text, pictures = executed("stylegan2_diversity", place, LATENTS=5, KIMG=0.016)
    run = place / "runs/stylegan2"
    assert share(manifest_of(run)) <= 0.4 and pictures == 2 and "takes latents" in text
    width = manifest_of(run)["inputs"][0]["shape"][1]
    assert onnx_difference(run, torch.randn(1, width)) < 1e-3


@pytest.mark.slow
def test_front_on_a_ray_cluster(place):
    pytest.importorskip("ray")
    pytest.importorskip("resvg_py")
    _, pictures = executed("front_on_a_ray_cluster", place, TRIALS=12, IMAGES=4, SIZE=32)
    nets = pd.read_csv(place / "runs/front/front.csv")
    assert len(nets) == 12 and nets["l1"].notna().all() and pictures == 1
    assert nets["macs_true"].min() < 0.2 * nets["macs_true"].max()


def main_of(script):
    return runpy.run_path(str(EXAMPLES / script))["main"]


@pytest.mark.long
@pytest.mark.parametrize("framework", ["lightning", "accelerate"])
def test_under_another_loop(framework, place):
    pytest.importorskip(framework)
    options = {"accelerate": {"cpu": True}, "lightning": {"trainer": {"accelerator": "cpu"}}}
    narrow, best = main_of(f"with_{framework}.py")(**SHORT, **options[framework])
    assert (place / f"runs/with_{framework}/torchscript/model.pt").is_file()
    whole = gantailor.Supernet(runpy.run_path(str(EXAMPLES / "own_loop.py"))["generator"](), torch.rand(1, 3, 32, 32))
    assert best.macs <= 0.1 * whole.macs(whole.full_config())
    with torch.no_grad():
        assert narrow(torch.rand(2, 3, 32, 32)).shape == (2, 3, 32, 32)


TWO = """
import sys
import torch
import torch.distributed as dist
import with_ddp
from test_examples import trained_alone

dist.init_process_group("gloo")
torch.save(trained_alone(with_ddp.stepping), f"even-{dist.get_rank()}.pt")
"""


def trained_alone(stepping):
    """The weights after some steps at drawn widths; in float64, where Adam makes no noise larger.

    Without batch norms: these look at the pictures of a process alone.
    """
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 8, 3, padding=1), nn.ReLU()]
    x, y = torch.rand(2, 40, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    supernet = gantailor.Supernet(nn.Sequential(*layers, nn.Conv2d(8, 3, 1)).double(), x[:1]).train()
    space, train = gantailor.space("every", supernet), stepping(supernet, x, y, batch=8)
    for step in range(12):
        train(step, space.sample(np.random.default_rng((0, step)), step=step))
    return supernet.generator.state_dict()


def torchrun(place, *command):
    """Two processes; whatever they say is shown where they fail."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *command]
    done = subprocess.run(launch, cwd=place, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.long
def test_two_processes_are_one(place, monkeypatch):
    """Each trains on its share of a batch; weights are the same in both, and those of a process that has it all."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ["PYTHONPATH"]]))
    (place / "two.py").write_text(TWO)
    torchrun(place, "two.py")
    first, second = (torch.load(place / f"even-{rank}.pt") for rank in range(2))
    alone = trained_alone(runpy.run_path(str(EXAMPLES / "with_ddp.py"))["stepping"])
    assert first.keys() == alone.keys()
    for name, tensor in alone.items():
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=0)
        torch.testing.assert_close(first[name], tensor, rtol=0, atol=1e-5)


TWICE = {  # how each begins, and what its main is given
    "ddp": ("dist.init_process_group('gloo')", {}),
    "accelerate": ("", {"cpu": True}),
    "lightning": ("", {"trainer": {"accelerator": "cpu", "devices": 2, "strategy": "ddp"}}),
}
WHOLE = """
import torch
import torch.distributed as dist
from {script} import main

{begin}
narrow, _ = main(steps=12, trials=6, devices=("torchscript",), **{options})
torch.save(narrow.state_dict(), f"narrow-{{dist.get_rank()}}.pt")
"""


@pytest.mark.long
@pytest.mark.parametrize(
    "framework",
    ["ddp", pytest.param("accelerate", marks=pytest.mark.slow), pytest.param("lightning", marks=pytest.mark.slow)],
)
def test_in_two_processes(framework, place):
    """The whole script; both processes hold the same narrow net, but for the statistics of its batch norms."""
    pytest.importorskip("torch" if framework == "ddp" else framework)
    begin, options = TWICE[framework]
    (place / "whole.py").write_text(WHOLE.format(script=f"with_{framework}", begin=begin, options=options))
    torchrun(place, "whole.py")
    assert (place / f"runs/with_{framework}/torchscript/model.pt").is_file()
    first, second = (torch.load(place / f"narrow-{rank}.pt") for rank in range(2))
    assert first and first.keys() == second.keys()
    for name, tensor in first.items():
        assert "running" in name or torch.equal(tensor, second[name]), name
