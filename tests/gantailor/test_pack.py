"""``gantailor pack``: what is handed over runs where there is nothing but the runtime, numpy and Pillow."""

import json
import re
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import gantailor
from gantailor.cli.main import main
from gantailor.export.devices import Device
from gantailor.export.export import export_model
from gantailor.export.weights import write_weights
from gantailor.handover.code import program
from gantailor.zoo.data.fit import fitted

pytestmark = pytest.mark.long

# Nothing of ours and no PyTorch can be imported by what runs behind this.
ALONE = """
import sys


class Refuses:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("gantailor", "torch", "supernet", "zoo"):
            raise ImportError(f"{name} is not here")


sys.meta_path.insert(0, Refuses())
exec(compile(sys.stdin.read(), "README.md", "exec"))
"""


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """An export of a narrow generator for onnxruntime, ncnn and TorchScript, packed and unpacked elsewhere."""
    folder = tmp_path_factory.mktemp("packed") / "mine"
    torch.manual_seed(0)
    options = {"num_feat": 8, "num_conv": 2, "upscale": 1}
    generator = gantailor.build("srvgg", **options).eval()
    generator.picture_range = (-1, 1)
    shown = torch.randint(0, 256, (2, 3, 24, 32), generator=torch.Generator().manual_seed(0)) / 127.5 - 1
    whole = gantailor.Supernet(generator, shown[:1])
    config = {width.name: width.size // 2 for width in whole.graph.widths}
    narrow = whole.extract(config)
    origin = {"generator": "srvgg", "options": options, "config": config, "input_shapes": [[1, 3, 24, 32]]}
    profiles = [
        Device(name="onnxruntime-cpu", runtime="onnxruntime"),
        Device(name="any", runtime="onnxruntime", size="dynamic", size_multiple=4, picture_range=(0, 1)),
        Device(name="ncnn", runtime="ncnn"),
        Device(name="program", runtime="torchscript"),
    ]
    about = {"licence": "MIT", "provenance": {"gantailor": gantailor.__version__}}
    devices = {p.name: export_model(folder / "export" / p.name, narrow, shown, p, about=about) for p in profiles}
    for name, found in devices.items():
        file = folder / "export" / name / "manifest.json"
        file.write_text(json.dumps({**found, "sha256": dict.fromkeys(_files(found["file"]), "")}))
    write_weights(folder / "export", narrow, {**origin, "decisions": whole.decisions.to_json()})
    said = devices["onnxruntime-cpu"]
    whole_manifest = {name: said[name] for name in ("inputs", "outputs", "pictures", "licence", "provenance")}
    whole_manifest |= {"generator": "srvgg", "macs": {"true": 10}, "teacher_macs": {"true": 40}, "parameters": 5}
    (folder / "export/manifest.json").write_text(json.dumps({**whole_manifest, "devices": devices}))
    assert main(["pack", str(folder)]) == 0
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    zipfile.ZipFile(folder.with_name("mine.zip")).extractall(elsewhere)
    return folder, elsewhere / "mine"


def _files(model):
    return [model, "model.bin"] if model == "model.param" else [model]


def lines_of(readme, device):
    """The program that a README has for a device."""
    (code,) = re.findall(rf"## `{re.escape(device)}`\n\n```python\n(.*?)```", readme, re.DOTALL)
    return code


def run_here(code, folder, *given):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["apply.py", *map(str, given)])
        exec(compile(code, "apply.py", "exec"), {"__name__": "__main__"})


def run_alone(code, folder, *given):
    command = [sys.executable, "-I", "-c", ALONE, *given]
    done = subprocess.run(command, input=code, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("device", ["onnxruntime-cpu", "any", "ncnn"])
def test_a_png_becomes_a_png_by_the_lines_of_the_readme(packed, device):
    """Where neither gantailor nor torch can be imported."""
    _, place = packed
    code = lines_of((place / "README.md").read_text(), device)
    assert code.strip() == (place / device / "apply.py").read_text().strip()
    body = [line for line in code.splitlines() if line and not line.startswith(("import", "from"))]
    assert len(body) == {"onnxruntime-cpu": 10, "any": 10, "ncnn": 16}[device]
    run_alone(code, place / device, "input.png", "made.png")
    made, sample = (np.asarray(Image.open(place / device / f"{name}.png")).astype(int) for name in ("made", "output"))
    assert made.shape == sample.shape == (24, 32, 3) and np.abs(made - sample).max() <= 1


def test_weights_and_other_runtimes_too(packed):
    """These need PyTorch: the weights by gantailor, all else by the runtime.py beside the model."""
    _, place = packed
    for folder in (place, place / "program"):
        run_here((folder / "apply.py").read_text(), folder, "input.png", "made.png")
        made, sample = (np.asarray(Image.open(folder / f"{name}.png")).astype(int) for name in ("made", "output"))
        assert np.abs(made - sample).max() <= 1
        expected = np.asarray(Image.open(place / "onnxruntime-cpu/output.png")).astype(int)
        assert np.abs(sample - expected).max() <= 1


def test_other_shapes_transparent_and_grey_files(packed, tmp_path):
    """Are brought to size as the manifest says, and laid on its background."""
    _, place = packed
    code = (place / "onnxruntime-cpu/apply.py").read_text()
    shades = np.random.default_rng(0).integers(0, 256, (50, 40, 4), dtype=np.uint8)
    Image.fromarray(shades).save(tmp_path / "clear.png")
    Image.fromarray(shades[..., 0]).save(tmp_path / "grey.png")
    for name in ("clear", "grey"):
        run_here(code, place / "onnxruntime-cpu", tmp_path / f"{name}.png", tmp_path / f"{name}_made.png")
        read = Image.open(tmp_path / f"{name}.png").convert("RGBA")
        read = Image.alpha_composite(Image.new("RGBA", read.size, "white"), read).convert("RGB")
        x = np.asarray(read.resize((32, 24), Image.Resampling.BICUBIC), np.float32).transpose(2, 0, 1)[None] / 127.5 - 1
        with torch.no_grad():
            y = gantailor.load(place / "model.safetensors")(torch.from_numpy(x))
        expected = ((y[0] + 1) * 127.5).round().clip(0, 255).permute(1, 2, 0).numpy()
        made = np.asarray(Image.open(tmp_path / f"{name}_made.png")).astype(int)
        assert np.abs(made - expected).max() <= 1
    run_here((place / "any/apply.py").read_text(), place / "any", tmp_path / "grey.png", tmp_path / "free.png")
    assert Image.open(tmp_path / "free.png").size == (40, 48)  # sides in multiples of 4


def test_the_same_export_is_the_same_file(packed, tmp_path):
    folder, place = packed
    for name in ("a", "b"):
        assert main(["pack", str(folder / "export"), "--out", str(tmp_path / f"{name}/mine.zip")]) == 0
    assert (tmp_path / "a/mine.zip").read_bytes() == (tmp_path / "b/mine.zip").read_bytes()
    names = {str(file.relative_to(place)) for file in place.rglob("*") if file.is_file()} - {"README.md"}
    assert {"model.safetensors", "manifest.json", "apply.py", "ncnn/model.bin", "any/bench.py", "input.png"} <= names
    assert "Licence: MIT" in (place / "README.md").read_text()


class Styled(nn.Module):
    """A picture and a latent to a grey picture."""

    def __init__(self):
        super().__init__()
        self.conv, self.style = nn.Conv2d(3, 1, 3, padding=1), nn.Linear(4, 1)

    def forward(self, image, style):
        return torch.tanh(self.conv(image) + self.style(style)[..., None, None])


@pytest.mark.parametrize("runtime", ["onnxruntime", "ncnn"])
def test_what_takes_more_than_a_picture_reads_its_inputs(runtime, tmp_path):
    torch.manual_seed(0)
    inputs = (torch.rand(1, 3, 8, 12) * 2 - 1, torch.randn(1, 4))
    found = export_model(tmp_path, Styled().eval(), inputs, Device(name="x", runtime=runtime))
    np.savez(tmp_path / "input.npz", image=inputs[0].numpy(), style=inputs[1].numpy())
    run_here(program(found), tmp_path, "input.npz", "made.png")
    expected = (np.load(tmp_path / "check.npz")["output"][0, 0] + 1) * 127.5
    made = np.asarray(Image.open(tmp_path / "made.png"))
    assert made.shape == (8, 12) and np.abs(made - expected).max() <= 1


@pytest.mark.parametrize("rule", ["stretch", "crop", "scale-and-crop", "pad"])
def test_pictures_of_other_shapes_are_brought_to_size_as_the_data_was(packed, rule, tmp_path):
    """By the lines that are written for the rule, as ``data.fit`` does it."""
    _, place = packed
    manifest = json.loads((place / "onnxruntime-cpu/manifest.json").read_text())
    manifest["pictures"]["prepare"] |= {"resize": rule, "transparent": "laid on #ff0000"}
    shades = np.random.default_rng(0).integers(0, 256, (40, 80, 3), dtype=np.uint8)
    Image.fromarray(shades).save(tmp_path / "a.png")
    run_here(program(manifest), place / "onnxruntime-cpu", tmp_path / "a.png", tmp_path / "made.png")
    sized = fitted(shades, (24, 32), rule, fill=np.array([255, 0, 0], np.uint8))
    Image.fromarray(sized).save(tmp_path / "sized.png")
    run_here(program(manifest), place / "onnxruntime-cpu", tmp_path / "sized.png", tmp_path / "expected.png")
    made, expected = (np.asarray(Image.open(tmp_path / f"{n}.png")).astype(int) for n in ("made", "expected"))
    assert made.shape == (24, 32, 3) and np.abs(made - expected).mean() < 2


def test_what_cannot_be_packed_is_one_line(tmp_path, capsys):
    (tmp_path / "run/export").mkdir(parents=True)
    for given, said in (
        ([str(tmp_path / "run")], "holds no export; run: gantailor export"),
        ([str(tmp_path / "run"), "--out", "x.tar"], "must end with .zip"),
    ):
        assert main(["pack", *given]) == 2
        assert said in capsys.readouterr().err
    (tmp_path / "run/export/manifest.json").write_text('{"devices": {}}')
    assert main(["pack", str(tmp_path / "run")]) == 2
    assert "was exported by an earlier version; export anew" in capsys.readouterr().err
