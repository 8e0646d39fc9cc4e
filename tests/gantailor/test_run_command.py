"""``gantailor run``: exported models on pictures and frames, whole and by tiles, and what it refuses."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

import gantailor
from gantailor.cli.main import main
from gantailor.evaluators.pictures.rgb import shades
from gantailor.export.devices import Device
from gantailor.export.export import export_model
from gantailor.export.weights import write_weights
from gantailor.inference.files import input_files
from gantailor.inference.models import PictureModel, open_model
from gantailor.inference.tiles import Tiling, cuts
from gantailor.supernet.errors import GantailorError

pytestmark = pytest.mark.long
RADIUS = 3  # pixels that an output of ``Enlarges`` depends on, on each side


class Enlarges(nn.Module):
    """As the compact generators of super-resolution: convolutions with PReLU, a pixel shuffle, the input enlarged."""

    def __init__(self, scale=4, channels=3):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(
            nn.Conv2d(channels, 8, 3, padding=1),
            nn.PReLU(8),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.PReLU(8),
            nn.Conv2d(8, channels * scale**2, 3, padding=1),
        )
        self.scale = scale

    def forward(self, x):
        return F.pixel_shuffle(self.body(x), self.scale) + F.interpolate(x, scale_factor=float(self.scale))


class Shrinks(nn.Conv2d):
    size_multiple = 2

    def __init__(self):
        torch.manual_seed(0)
        super().__init__(3, 3, 4, stride=2, padding=1)


def exported(folder, model, *, side=16, channels=3, runtime="onnxruntime", **settings):
    profile = Device(name=folder.name, runtime=runtime, **settings)
    example = torch.rand(1, channels, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1
    export_model(folder, model.eval(), example, profile)
    return folder


@pytest.fixture(scope="module")
def free(tmp_path_factory):
    """Four times as large, of any size."""
    return exported(tmp_path_factory.mktemp("free"), Enlarges(), size="dynamic")


@pytest.fixture(scope="module")
def fixed(tmp_path_factory):
    """Four times as large, of 16 pixels."""
    return exported(tmp_path_factory.mktemp("fixed"), Enlarges())


def pixels(height, width, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def floats(picture):
    return np.ascontiguousarray(picture.transpose(2, 0, 1)).astype(np.float32) / 127.5 - 1


def reference(model, picture):
    """By PyTorch, as a file has it: uint8 ``[H, W, C]``."""
    with torch.no_grad():
        made = model.eval()(torch.from_numpy(floats(picture))[None])
    return shades(made)[0].permute(1, 2, 0).numpy().astype(np.uint8)


def nearly(made, expected):
    """Rounded alike, but for what lies between two shades."""
    assert made.shape == expected.shape
    assert np.abs(made.astype(int) - expected).max() <= 1 and (made == expected).mean() > 0.999


def told(capsys, *arguments):
    assert main(["run", *map(str, arguments)]) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if not line.endswith("pictures")]  # what is run
    assert len(said) == 1 and said[0].startswith("error: "), said
    return said[0]


def test_a_video_frame_whole_and_by_tiles(free):
    """640 x 360, enlarged four times: everywhere the same, at the borders too, where tiles end as the picture does."""
    model, frame = open_model(free), floats(pixels(360, 640))
    whole = Tiling(model=model, tile=0)(frame)
    assert whole.picture.shape == (3, 1440, 2560) and whole.tiles == 1
    with torch.no_grad():
        expected = Enlarges()(torch.from_numpy(frame)[None])[0].numpy()
    assert np.abs(whole.picture - expected).max() <= 1e-5
    for tile, overlap in ((128, 8), (100, RADIUS)):
        tiled = Tiling(model=model, tile=tile, overlap=overlap)(frame)
        assert tiled.tiles == {128: 4 * 6, 100: 4 * 7}[tile] and tiled.seam <= 1e-5
        assert np.abs(tiled.picture - whole.picture).max() <= 1e-5
    short = Tiling(model=model, tile=128, overlap=1)(frame)
    assert np.abs(short.picture - whole.picture).max() > 1e-3 and short.seam > 1e-3


@pytest.mark.parametrize("grain", [1, 4])
def test_tiles_cover_a_side(grain):
    """Every pixel is kept once, and tiles see the overlap beyond what is kept of them, or the picture's end."""
    for length in range(1, 90):
        for side, overlap in ((16, 0), (16, 3), (24, 7), (32, 12)):
            found = cuts(length, side, overlap, grain)
            end = max(-(-length // grain) * grain, side)
            assert [one.first for one in found] == [0, *(one.last for one in found[:-1])] and found[-1].last == end
            for one in found:
                assert (
                    one.end - one.start == side and one.start % grain == one.first % grain == 0 and one.first < one.last
                )
                assert one.first - one.start > overlap or one.start == one.first == 0
                assert one.end - one.last >= overlap or one.end == one.last == end


def test_a_fixed_size_goes_by_tiles_of_that_size(fixed, tmp_path):
    picture = pixels(37, 50)
    Image.fromarray(picture).save(tmp_path / "a.png")
    assert main(["run", str(fixed), str(tmp_path / "a.png"), "--out", str(tmp_path / "out"), "--overlap", "3"]) == 0
    nearly(np.asarray(Image.open(tmp_path / "out/a.png")), reference(Enlarges(), picture))
    small = floats(pixels(9, 50))  # lower than a tile: mirrored below
    made = Tiling(model=open_model(fixed), overlap=RADIUS)(small).picture
    with torch.no_grad():
        expected = Enlarges()(torch.from_numpy(small)[None])[0].numpy()
    assert made.shape == (3, 36, 200)
    assert np.abs(made - expected)[:, : 4 * (9 - RADIUS)].max() <= 1e-5


def test_a_smaller_output_and_sides_in_multiples(tmp_path):
    model = open_model(exported(tmp_path / "half", Shrinks(), size="dynamic"))
    assert model.multiple == 2
    picture = floats(pixels(60, 45))
    with torch.no_grad():
        expected = Shrinks()(F.pad(torch.from_numpy(picture)[None], (0, 1, 0, 0), "reflect"))[0].numpy()
    for tile in (0, 16):
        made = Tiling(model=model, tile=tile, overlap=2)(picture).picture
        assert made.shape == (3, 30, 23)
        assert np.abs(made - expected).max() <= 1e-5
    with pytest.raises(GantailorError, match=r"--tile 15: '.*half' takes multiples of 2$"):
        Tiling(model=model, tile=15)
    alone = open_model(exported(tmp_path / "alone", Shrinks()))  # of 16 pixels; nobody says that 2 is a multiple
    assert np.abs(Tiling(model=alone, overlap=2)(picture).picture[:, :, :22] - expected[:, :, :22]).max() <= 1e-5


@pytest.mark.parametrize("runtime", ["openvino", "executorch", "torch-export", "torchscript", "ncnn"])
def test_every_runtime(runtime, tmp_path):
    pytest.importorskip(runtime.partition("-")[0].replace("torchscript", "torch"))
    picture = pixels(30, 20)
    model = open_model(exported(tmp_path / runtime, Enlarges(), runtime=runtime), threads=2)
    made = Tiling(model=model, overlap=RADIUS)(floats(picture)).picture
    with torch.no_grad():
        expected = Enlarges()(torch.from_numpy(floats(picture))[None])[0].numpy()
    assert np.abs(made - expected).max() <= 1e-5


def test_pictures_of_every_kind_keep_their_alpha(free, tmp_path, capsys):
    """Colours go through as they are stored, under alpha too; alpha is enlarged by itself."""
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    rgba = pixels(12, 10, 4)
    rgba[..., 3] = np.linspace(0, 255, 10).astype(np.uint8)
    Image.fromarray(rgba).save(folder / "clear.png")
    Image.fromarray(rgba[..., :3]).save(folder / "plain.bmp")
    Image.fromarray(rgba[..., 0]).save(folder / "grey.png")
    (folder / "notes.txt").write_text("no picture")
    assert main(["run", str(free), str(folder), "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("3 pictures in ") and "3/3" in said.err
    assert sorted(file.name for file in out.iterdir()) == ["clear.png", "grey.png", "plain.png"]
    expected = reference(Enlarges(), rgba[..., :3])
    nearly(np.asarray(Image.open(out / "plain.png")), expected)
    clear = np.asarray(Image.open(out / "clear.png"))
    nearly(clear[..., :3], expected)
    alpha = Image.fromarray(rgba[..., 3]).resize((40, 48), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(clear[..., 3], np.asarray(alpha))
    nearly(np.asarray(Image.open(out / "grey.png")), reference(Enlarges(), np.repeat(rgba[..., :1], 3, 2)))


def test_models_of_one_channel_and_of_four(tmp_path):
    rgba = pixels(12, 10, 4)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    four = exported(tmp_path / "four", Enlarges(2, 4), size="dynamic", channels=4)
    assert main(["run", str(four), str(tmp_path / "a.png"), "--out", str(tmp_path / "out4")]) == 0
    nearly(np.asarray(Image.open(tmp_path / "out4/a.png")), reference(Enlarges(2, 4), rgba))
    one = exported(tmp_path / "one", Enlarges(2, 1), size="dynamic", channels=1)
    Image.fromarray(rgba[..., :3]).save(tmp_path / "b.png")
    assert main(["run", str(one), str(tmp_path / "b.png"), "--out", str(tmp_path / "out1")]) == 0
    grey = np.asarray(Image.fromarray(rgba[..., :3]).convert("L"))[..., None]
    nearly(np.asarray(Image.open(tmp_path / "out1/b.png"))[..., None], reference(Enlarges(2, 1), grey))


def test_a_range_from_black_to_white(tmp_path):
    unit = exported(tmp_path / "unit", Enlarges(), size="dynamic", picture_range=(0, 1))
    picture = pixels(8, 9)
    Image.fromarray(picture).save(tmp_path / "a.png")
    assert main(["run", str(unit), str(tmp_path / "a.png"), "--out", str(tmp_path / "out")]) == 0
    nearly(np.asarray(Image.open(tmp_path / "out/a.png")), reference(Enlarges(), picture))


def test_numbered_frames_go_on_where_they_were(free, tmp_path, capsys):
    for number in (2, 10, 1):
        Image.fromarray(pixels(8, 9, seed=number)).save(tmp_path / f"f{number}.png")
    (tmp_path / "fx.png").write_bytes(b"")
    pattern, out = str(tmp_path / "f%d.png"), tmp_path / "out"
    assert [file.name for file in input_files([pattern])] == ["f1.png", "f2.png", "f10.png"]
    assert main(["run", str(free), pattern, "--out", str(out)]) == 0
    capsys.readouterr()
    before = (out / "f2.png").read_bytes()
    (out / "f2.png").write_bytes(b"cut short")
    assert main(["run", str(free), pattern, "--out", str(out)]) == 0
    assert capsys.readouterr().out.startswith("1 pictures in ") and (out / "f2.png").read_bytes() == before
    Image.fromarray(pixels(8, 9, seed=7)).save(tmp_path / "f10.png")
    assert main(["run", str(free), pattern, "--out", str(out)]) == 0
    assert ", 2 lay there already" in capsys.readouterr().out
    nearly(np.asarray(Image.open(out / "f10.png")), reference(Enlarges(), pixels(8, 9, seed=7)))
    assert main(["run", str(free), pattern, "--out", str(out), "--tile", "8"]) == 0
    assert "already" not in capsys.readouterr().out  # other tiles, another picture perhaps


def test_tiles_that_differ_where_they_meet_are_told(tmp_path, capsys):
    """Norms over the picture make another thing of a tile."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.InstanceNorm2d(4), nn.Conv2d(4, 3, 1), nn.Tanh())
    folder = exported(tmp_path / "normed", model, size="dynamic")
    picture = pixels(40, 40) // 8
    picture[:, 20:] += 200
    Image.fromarray(picture).save(tmp_path / "a.png")
    line = ["run", str(folder), str(tmp_path / "a.png"), "--out", str(tmp_path / "out")]
    assert main(line) == 0 and "neighbouring" not in capsys.readouterr().err
    assert main([*line, "--tile", "16"]) == 0
    assert "neighbouring tiles differ by up to " in capsys.readouterr().err


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """What a run leaves of its export: the weights, and files for two devices."""
    folder = tmp_path_factory.mktemp("finished")
    torch.manual_seed(0)
    options, inputs = {"ngf": 4}, torch.zeros(1, 3, 32, 32)
    whole = gantailor.Supernet(gantailor.build("resnet_6blocks", **options).eval(), inputs)
    config = {width.name: width.size // 2 for width in whole.graph.widths}
    narrow = whole.extract(config)
    origin = {"generator": "resnet_6blocks", "options": options, "config": config, "input_shapes": [[1, 3, 32, 32]]}
    write_weights(folder, narrow, {**origin, "decisions": whole.decisions.to_json()})
    devices = {"onnxruntime-cpu": {"size": "fixed"}, "any": {"size": "dynamic"}}
    for name, settings in devices.items():
        exported(folder / "export" / name, narrow, side=32, **settings)
    (folder / "model.safetensors").replace(folder / "export/model.safetensors")
    (folder / "export/manifest.json").write_text(json.dumps({"devices": devices}))
    (folder / "config.json").write_text("{}")
    return folder


def test_a_run_folder_and_what_lies_in_it(finished, tmp_path, capsys):
    """The device of any size first; a named one; the weights by PyTorch: all the same picture."""
    picture = pixels(32, 32)
    Image.fromarray(picture).save(tmp_path / "a.png")
    made = {}
    for place, more, name in (
        (finished, [], "export/any: any size"),
        (finished / "export", ["--device", "onnxruntime-cpu"], "export/onnxruntime-cpu: 32 x 32"),
        (finished, ["--device", "torch"], "model.safetensors: any size"),
        (finished / "export/onnxruntime-cpu/model.onnx", [], "export/onnxruntime-cpu: 32 x 32"),
        (finished / "export/model.safetensors", [], "model.safetensors: any size"),
    ):
        out = tmp_path / str(len(made))
        assert main(["run", str(place), str(tmp_path / "a.png"), "--out", str(out), *more]) == 0
        assert name in capsys.readouterr().err
        made[out] = np.asarray(Image.open(out / "a.png"))
    first, *others = made.values()
    for other in others:
        nearly(other, first)
    said = told(capsys, finished, tmp_path / "a.png", "--out", tmp_path / "x", "--device", "onxruntime-cpu")
    assert "has no export for --device 'onxruntime-cpu'; did you mean 'onnxruntime-cpu'" in said


def test_what_cannot_be_run_is_one_line(free, fixed, tmp_path, capsys):
    picture, out = tmp_path / "in" / "a.png", tmp_path / "out"
    picture.parent.mkdir()
    Image.fromarray(pixels(20, 30)).save(picture)
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.json").write_text("{}")
    (tmp_path / "none").mkdir()
    for name, devices in (("null", "null"), ("list", '["onnxruntime-cpu"]')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text(f'{{"devices": {devices}}}')
    (tmp_path / "b.png").write_text("no picture")
    Image.fromarray(pixels(4, 4)).save(tmp_path / "a.bmp")
    for given, said in (
        ((tmp_path / "nowhere", picture), "does not exist; give a run folder, its export/DEVICE, or a file there"),
        ((tmp_path / "run", picture), f"holds no export; run: gantailor export {tmp_path / 'run'} --device"),
        ((tmp_path / "null", picture), "is damaged (TypeError: 'NoneType' object is not iterable); make it again"),
        ((tmp_path / "list", picture), "is damaged (TypeError: list indices must be"),
        ((free, tmp_path / "none"), "holds no pictures; allowed are files ending in .png"),
        ((free, tmp_path / "nothing"), "does not exist; give a picture, a folder of pictures, or numbered frames"),
        ((free, tmp_path / "f%04d.png"), "no frame has a name like"),
        ((free, tmp_path / "b.png"), "cannot be read (no picture, or a broken one); mend or remove it, or pass --skip"),
        ((free, picture, tmp_path / "a.bmp"), "would both be written as a.png; rename one"),
        (
            (free, picture, "--overlap", "256"),
            "--overlap 256: of a tile of 512 pixels nothing is left between two of it",
        ),
        ((fixed, picture, "--tile", "32"), "takes 16 x 16 alone; leave --tile out, it goes by tiles of that size"),
        ((fixed, picture, "--tile", "0"), "the picture has 20 x 30 pixels, '" + str(fixed) + "' takes 16 x 16 alone"),
    ):
        assert said in told(capsys, *given, "--out", out)
    assert "is the folder of the inputs, which would be overwritten" in told(
        capsys, free, picture, "--out", tmp_path / "in"
    )
    assert "is a file; name a folder" in told(capsys, free, picture, "--out", tmp_path / "b.png")
    assert not out.exists()
    assert main(["run", str(free), str(picture), str(tmp_path / "b.png"), "--out", str(out), "--skip-corrupt"]) == 0
    assert "1 cannot be read and are left out (b.png)" in capsys.readouterr().err


def test_models_that_are_not_from_picture_to_picture(free, tmp_path, capsys):
    Image.fromarray(pixels(4, 4)).save(tmp_path / "a.png")
    manifest = json.loads((free / "manifest.json").read_text())
    one_hot = {"name": "input", "range": [0, 1]}
    for number, (change, said) in enumerate(
        (
            ({"shapes": [[1, 16]]}, "takes [1, 16]"),
            ({"shapes": [[1, 35, 64, 64]]}, "takes [1, 35, 64, 64]"),
            ({"inputs": [one_hot, one_hot]}, "takes 2 inputs"),
            ({"inputs": [one_hot]}, "takes values in [0, 1]"),
        )
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "manifest.json").write_text(json.dumps({**manifest, **change}))
        message = told(capsys, folder, tmp_path / "a.png", "--out", tmp_path / "out")
        assert said in message and "it is not from one picture to one" in message
    (tmp_path / "4").mkdir()
    (tmp_path / "4/manifest.json").write_text(json.dumps(manifest))
    assert "lacks model.onnx; copy the whole folder" in told(
        capsys, tmp_path / "4", tmp_path / "a.png", "--out", tmp_path / "out"
    )
    with pytest.raises(GantailorError, match=r"^'made up' makes \[1, 5, 4, 4\]: it is not from one picture to one"):
        PictureModel(name="made up", run=lambda x: np.zeros((1, 5, 4, 4)), channels=3)(floats(pixels(4, 4)))
    with pytest.raises(GantailorError, match="makes 14 x 14 of a tile of 16 x 16, neither"):
        Tiling(model=PictureModel(name="valid", run=lambda x: x[..., 1:-1, 1:-1], channels=3), tile=16)(
            floats(pixels(40, 40))
        )
    with pytest.raises(GantailorError, match=r"^'fails' cannot take 4 x 4 pixels: no; try another --tile$"):
        PictureModel(name="fails", run=_fails, channels=3)(floats(pixels(4, 4)))


def _fails(x):
    raise ValueError("no")
