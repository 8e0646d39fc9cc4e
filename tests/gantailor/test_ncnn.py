"""ncnn's files: 8 bits against whole numbers in numpy, free sides, the public apps' names, a bare environment."""

import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gantailor.export.devices import Device, device
from gantailor.export.errors import ExportError
from gantailor.export.export import Exported, export_model, load_runner
from gantailor.export.targets.ncnn_files import arrays_of, content_of, layers_text, read_layers
from gantailor.export.targets.ncnn_int8 import scale_of

pytest.importorskip("ncnn")
pytest.importorskip("pnnx")
pytestmark = pytest.mark.long


class Enlarges(nn.Module):
    """As the compact generators of super-resolution: convolutions with PReLU, a pixel shuffle, the input enlarged."""

    def __init__(self, scale=4, width=8):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1),
            nn.PReLU(width),
            nn.Conv2d(width, width, 3, padding=1),
            nn.PReLU(width),
            nn.Conv2d(width, 3 * scale**2, 3, padding=1),
        )
        self.scale = scale

    def forward(self, x):
        return F.pixel_shuffle(self.body(x), self.scale) + F.interpolate(x, scale_factor=float(self.scale))


def pictures(count=3, side=16):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(1)) * 2 - 1


def written(folder, model, inputs, **settings):
    """The export's findings, and a runner of the files."""
    profile = Device(name="ncnn", runtime="ncnn", **settings)
    found = export_model(folder, model.eval(), inputs, profile, pictures=inputs)
    return found, load_runner(folder / found["file"], profile)


def whole(values, scales):
    return np.rint(values * scales).clip(-127, 127)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(3, 20, 3, padding=1),  # Winograd's way
        nn.Conv2d(3, 8, 5, stride=2, padding=2, bias=False),
        nn.Conv2d(3, 6, 3, padding=1, groups=3),
        nn.ConvTranspose2d(3, 5, 3, stride=2, padding=1, output_padding=1),
    ],
    ids=["plain", "strided", "grouped", "transposed"],
)
def test_eight_bits_are_sums_of_whole_numbers(layer, tmp_path):
    """The file's own whole numbers and scales, convolved in float64, where such sums are exact."""
    torch.manual_seed(0)
    nn.init.normal_(layer.weight)
    x = pictures()
    found, run = written(tmp_path, nn.Sequential(layer, nn.Tanh()), x, precision="int8")
    layers = read_layers((tmp_path / "model.param").read_text())
    arrays = arrays_of(layers, (tmp_path / "model.bin").read_bytes())
    (name,) = [one.name for one in layers if one.kind.startswith("Convolution")]
    weight, *bias, scales, (scale,) = arrays[name]
    assert weight.dtype == np.int8 and found["weights"]["int8"] == weight.size
    inputs = torch.from_numpy(whole(x[:1].numpy(), scale)).double()
    if isinstance(layer, nn.ConvTranspose2d):  # an output for each cell: 4 x 5 channels, 2 x 2 taps
        kernel = torch.tensor(weight.reshape(20, 3, 2, 2)).double()
        sums = F.conv2d(F.pad(inputs, (0, 1, 0, 1)), kernel).numpy()
    else:
        kernel = torch.tensor(weight.reshape(layer.weight.shape)).double()
        sums = F.conv2d(inputs, kernel, None, layer.stride, layer.padding, 1, layer.groups).numpy()
    each = np.repeat(scales, len(sums[0]) // len(scales))[:, None, None]
    made = sums / (each * scale) + (bias[0][:, None, None] if bias else 0)
    if isinstance(layer, nn.ConvTranspose2d):
        made = F.pixel_shuffle(torch.from_numpy(made), 2).numpy()
    np.testing.assert_allclose(run(x[:1].numpy()), np.tanh(made), atol=2e-6)
    rows = layer.weight.detach().numpy().reshape(len(scales), -1) if layer.weight.shape[0] == len(scales) else None
    if rows is not None:
        np.testing.assert_allclose(scales, 127 / np.abs(rows).max(1), rtol=1e-6)


def test_a_scale_loses_least():
    """Of a few large values among many small ones, against a plain search over fifty times as many scales."""
    values = np.abs(np.random.default_rng(0).standard_normal(5000)) ** 3

    def lost(scale):
        return np.square(np.rint(values * scale).clip(max=127) / scale - values).mean()

    best = min(map(lost, 127 / (values.max() * np.linspace(0.05, 1, 1800))))
    assert lost(scale_of(values)) <= 1.02 * best < lost(127 / values.max())
    assert scale_of(np.zeros(3)) == 1


def test_files_are_read_and_written_alike(tmp_path):
    for precision in ("float32", "float16", "int8"):
        written(tmp_path, Enlarges(), pictures(), precision=precision)
        text, content = (tmp_path / "model.param").read_text(), (tmp_path / "model.bin").read_bytes()
        layers = read_layers(text)
        assert layers_text(layers) == text
        assert content_of(layers, arrays_of(layers, content)) == content
        with pytest.raises(ExportError, match=r"holds 4 bytes of layers unknown here \(.*PixelShuffle.*\)$"):
            arrays_of(layers, content + bytes(4))


class Slices(nn.Module):
    """pnnx takes such slices for nothing when it is given two sizes."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Conv2d(3, 4, 3, padding=3), nn.Conv2d(7, 3, 1)

    def forward(self, x):
        return self.last(torch.cat([self.first(x)[:, :, 2:-2, 2:-2], x], 1))


@pytest.mark.parametrize(
    "model", [Slices(), Enlarges(3), nn.Sequential(nn.ConvTranspose2d(3, 3, 4, stride=2, padding=1))]
)
@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_any_height_and_width(model, precision, tmp_path):
    found, run = written(tmp_path, model, pictures(), size="dynamic", precision=precision)
    assert found["shapes"] == [[1, 3, "height", "width"]] and len(found["proved"]) == 2
    x = pictures(1, 40)[:, :, :17, :]
    expected = model(x).detach().numpy()
    assert run(x.numpy()).shape == expected.shape
    assert np.abs(run(x.numpy()) - expected).max() <= (1e-5 if precision == "float32" else 0.1)


class Deviates(nn.Conv2d):
    """A convolution first: from it pnnx knows which axis is the batch."""

    def forward(self, x):
        x = super().forward(x)
        return (x - x.mean((1, 2, 3), keepdim=True)) / (x.std((1, 2, 3), keepdim=True) + 0.1)


def test_deviations_are_written_for_any_size(tmp_path):
    """What they are divided by depends on the size; a plain picture deviates by nothing."""
    x, model = pictures(1, 24), Deviates(3, 3, 1)
    model.weight.data = torch.eye(3)[..., None, None]
    nn.init.zeros_(model.bias)
    _, run = written(tmp_path, model, pictures(), size="dynamic")
    np.testing.assert_allclose(run(x.numpy()), model(x).detach().numpy(), atol=1e-5)
    np.testing.assert_allclose(run(np.full_like(x.numpy(), 0.5)), 0, atol=1e-5)


def test_files_for_the_apps_of_real_esrgan(tmp_path):
    """They put pictures in [0, 1] of any size into ``data`` and read ``output``, the same number of times as large."""
    import ncnn

    model, profile = Enlarges().eval(), device("realesrgan-ncnn-vulkan")
    found = export_model(tmp_path, model, pictures(), profile)
    assert found["picture_range"] == [0, 1] and {"model.param", "model.bin"} <= {p.name for p in tmp_path.iterdir()}
    assert found["weights"]["float16"] > 50 * found["weights"]["float32"]
    shades = np.random.default_rng(0).integers(0, 256, (3, 20, 30)).astype(np.float32)
    net = ncnn.Net()
    net.load_param(str(tmp_path / "model.param"))
    net.load_model(str(tmp_path / "model.bin"))
    extractor = net.create_extractor()
    given = shades / 255
    extractor.input("data", ncnn.Mat(given).clone())
    made = np.array(extractor.extract("output")[1])
    expected = (model(torch.from_numpy(shades)[None] / 127.5 - 1) + 1) / 2
    assert made.shape == (3, 80, 120)
    np.testing.assert_allclose(made, expected[0].detach().numpy(), atol=2e-3)


def test_an_export_in_another_range_is_scored_as_the_generator_is(tmp_path):
    model, x = Enlarges().eval(), pictures()
    profile = Device(name="unit", runtime="onnxruntime", picture_range=(0, 1))
    found = export_model(tmp_path, model, x, profile)
    run = load_runner(tmp_path / found["file"], profile)
    with torch.no_grad():
        torch.testing.assert_close(Exported(run, picture_range=(0, 1))(x), model(x), atol=1e-5, rtol=0)
        expected = (model(x[:1] * 2 - 1) + 1) / 2
    np.testing.assert_allclose(run(x[:1].numpy()), expected.numpy(), atol=1e-5)
    done = subprocess.run([sys.executable, "bench.py", "--runs", "1"], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0
    with pytest.raises(ExportError, match=r"picture_range \[0, 1\] is for generators of one picture"):
        export_model(tmp_path, nn.Linear(3, 3), torch.zeros(1, 3), profile)


def test_a_generator_that_has_the_range_as_a_setting_is_set(tmp_path):
    """Nothing is computed around it: the convolution reads the input, and writes the output."""

    class Net(nn.Conv2d):
        picture_range = (-1.0, 1.0)

        def forward(self, x):
            low, high = self.picture_range
            unit = x if (low, high) == (0, 1) else (x - low) / (high - low)
            made = super().forward(unit)
            return made if (low, high) == (0, 1) else made * (high - low) + low

    model, x = Net(3, 3, 3, padding=1).eval(), pictures()
    found, run = written(tmp_path, model, x, picture_range=(0, 1))
    assert [layer.kind for layer in read_layers((tmp_path / "model.param").read_text())] == ["Input", "Convolution"]
    expected = (model(x[:1]).detach().numpy() + 1) / 2
    np.testing.assert_allclose(run((x[:1].numpy() + 1) / 2), expected, atol=1e-5)
    assert model.picture_range == (-1, 1) and found["picture_range"] == [0, 1]


def test_what_ncnn_has_no_layer_for_is_named(tmp_path):
    class Inverts(nn.Module):
        def forward(self, x):
            return torch.erfinv(x)

    with pytest.raises(
        ExportError, match=r"^device 'ncnn': ncnn has no layer for 1 \S*erfinv\S*; choose another device"
    ):
        written(tmp_path, Inverts(), pictures() / 2)


ONLY = """
import runpy, sys
kept = ("numpy", "ncnn", *sys.stdlib_module_names)

class Only:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in kept:
            raise ModuleNotFoundError(f"{name} is not among numpy and ncnn", name=name)

sys.meta_path.insert(0, Only())
sys.argv = ["bench.py", "--runs", "2", "--warm-up", "1"]
runpy.run_path("bench.py", run_name="__main__")
"""


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_files_run_where_there_are_numpy_and_ncnn_alone(precision, tmp_path):
    written(tmp_path, Enlarges(), pictures(), precision=precision)
    done = subprocess.run([sys.executable, "-c", ONLY], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"ncnn,{precision},1,2," in done.stdout
