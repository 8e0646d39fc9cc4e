"""Pictures of other channels and sizes: whole runs, and everything that does not fit told before any training."""

import base64
import gc
import io
import json
import re
import time
import warnings
import weakref

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
import yaml
from PIL import Image
from torch import nn

import gantailor
from gantailor.cli.main import main
from gantailor.evaluators.config import EvaluationConfig
from gantailor.evaluators.features.extractor import EfficientNetLite0
from gantailor.evaluators.pictures.modes import composited
from gantailor.evaluators.pictures.rgb import as_rgb
from gantailor.evaluators.scoring import Scoring
from gantailor.pipeline.estimates import Estimate, Saved, about
from gantailor.pipeline.evaluate import Enlarged
from gantailor.run.run import open_run
from gantailor.run.shapes import as_generator_has
from gantailor.supernet.errors import ConfigError, EvaluationError
from gantailor.supernet.training.image_to_image import judged_pictures
from gantailor.supernet.training.losses import l1_loss
from gantailor.supernet.training.recipe import Recipe
from gantailor.supernet.traits import traits_of
from gantailor.zoo.data.config import DataConfig
from gantailor.zoo.data.domains import Domains
from gantailor.zoo.data.pairs import Pairs
from gantailor.zoo.data.pictures import picture_grid, to_rgb
from gantailor.zoo.data.record import DataKind
from gantailor.zoo.tasks.cyclegan import CycleGan


class Plain(nn.Module):
    """Three convolutions; ``scale`` enlarges, ``stride`` shrinks, ``gain`` leaves [-1, 1]."""

    feature_layers = ("body.2",)

    def __init__(self, *, inputs=3, outputs=3, scale=1, stride=1, gain=1.0, least=1, gives="tensor"):
        super().__init__()
        layers = [nn.Conv2d(inputs, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1, stride=stride)]
        layers += [nn.ReLU(), nn.Upsample(scale_factor=scale)]
        self.body = nn.Sequential(*layers, nn.Conv2d(8, outputs, 3, padding=1), nn.Tanh())
        self.gain, self.least, self.gives = gain, least, gives

    def forward(self, x):
        if x.shape[-1] < self.least:
            raise ValueError(f"too small: {x.shape[-1]} of {self.least}")
        made = self.gain * self.body(x)
        return {"tensor": made, "tuple": (made, made), "dict": {"fake": made}}[self.gives]


class Declared(Plain):
    def __init__(self, **options):
        super().__init__(**options)
        self.input_shape = (options["inputs"], 99, 99)


class Masked(Plain):
    """A second input that nothing tells the shape of."""

    def forward(self, x, mask):
        return super().forward(x * mask)


class Split(Plain):
    """Features that are no tensor."""

    feature_layers = ("halves",)

    def __init__(self):
        super().__init__()
        self.halves = Halves()

    def forward(self, x):
        first, second = self.halves(self.body[0](x))
        return self.body[1:](torch.cat([first, second], 1))


class Halves(nn.Module):
    def forward(self, x):
        return x.chunk(2, 1)


class Latent(nn.Module):
    input_shape = (6,)

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 256)

    def forward(self, z):
        return self.linear(z).reshape(-1, 1, 16, 16)


def _small_targets(config, split):
    shades = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    return Pairs(shades, shades[:, ::2, ::2], tuple("abcd"), "own")


SMALL_TARGETS = DataKind(name="small", read=_small_targets)


def _pictures(folder, height, width, mode, *, count=12, scale=1):
    """Side-by-side pairs: ramps, and their negatives; with a scale the file is that much larger."""
    rng = np.random.default_rng(0)
    for split, some in (("train", count), ("search", 4), ("test", 4)):
        (folder / split).mkdir(parents=True)
        for number in range(some):
            y, x = np.mgrid[0 : height * scale, 0 : width * scale]
            slopes = rng.integers(1, 6, (len(mode), 2))
            ramp = np.stack([(y * a + x * b) // scale % 256 for a, b in slopes], -1).astype(np.uint8)
            pair = np.concatenate([ramp, 255 - ramp], 1)
            Image.fromarray(pair[..., 0] if mode == "L" else pair, mode).save(folder / split / f"{number}.png")


AGENTS = {
    "train": {"kimg": 0.05, "batch": 4, "ndf": 8, "method_options": {"discriminator_kimg": 0.01, "neighbours": 2}}
}
AGENTS |= {"finetune": {"kimg": 0.05, "batch": 4, "ndf": 8}}


@pytest.fixture
def run(tmp_path, capsys, monkeypatch):
    """Runs ``compress`` on a generator of this file with options, settings and more flags; status and messages."""
    monkeypatch.chdir(tmp_path)

    def compress(name="Plain", options=None, *flags, size=32, mode="RGB", scale=1, data=None, **settings):
        height, width = (size, size) if isinstance(size, int) else size
        if not (tmp_path / "data").exists():
            _pictures(tmp_path / "data", height, width, mode, scale=scale)
        torch.manual_seed(0)
        net = globals()[name](**(options or {}))
        if "teacher" not in settings:
            torch.save(net.state_dict(), "t.pth")
        short = {"kimg": 0.05, "batch": 4, "ndf": 8, "watch_kimg": 0, "precision": "float32", "feature_weight": 1}
        config = {
            "generator": f"{__name__}:{name}",
            "options": options or {},
            "teacher": "t.pth",
            "budget": "0.5x",
            "data": {"kind": "folder", "path": "data", "size": size, **(data or {})},
            "search": {"trials": 2},
            "evaluation": {"search": "l1", "search_images": 4, "final": ["l1"]},
            "train": short,
            "finetune": short,
            **settings,
        }
        (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
        began = time.process_time()
        status = main(["compress", "c.yaml", "--out", "run", *flags])
        return status, capsys.readouterr(), time.process_time() - began

    return compress


CASES = {
    "grey": ({"inputs": 1, "outputs": 1}, 32, "L", 1),
    "alpha": ({"inputs": 4, "outputs": 4}, 32, "RGBA", 1),
    "wide": ({}, (64, 128), "RGB", 1),
    "super-resolution": ({"scale": 2}, (16, 32), "RGB", 2),
}


@pytest.mark.long
@pytest.mark.parametrize("case", CASES)
def test_whole_runs(case, run, tmp_path):
    """Through training, search, report and ONNX; the exported file gives what PyTorch gives."""
    options, size, mode, scale = CASES[case]
    height, width = (size, size) if isinstance(size, int) else size
    channels, shown = len(mode), (height * scale, width * scale)
    evaluation = {"search_images": 4, "final": ["l1", "fid"]}
    status, said, _ = run("Plain", options, size=size, mode=mode, scale=scale, evaluation=evaluation)
    assert status == 0, said.err
    out = tmp_path / "run"
    stored = json.loads((out / "config.json").read_text())["data"]
    assert stored["channels"] is None and stored["scale"] is None

    opened = open_run(out)
    inputs, targets = opened.setup.data("test").batch(np.arange(4))
    assert inputs.shape == (4, channels, height, width) and targets.shape == (4, channels, *shown)

    x = torch.rand(1, channels, height, width) * 2 - 1
    session = onnxruntime.InferenceSession(str(out / "export/onnxruntime-cpu/model.onnx"))
    (made,) = session.run(None, {"input": x.numpy()})
    with torch.no_grad():
        expected = gantailor.load(out / "export/model.safetensors")(x).numpy()
    assert made.shape == (1, channels, *shown) and np.abs(made - expected).max() < 1e-4

    scores = json.loads((out / "scores.json").read_text())
    row = "input, enlarged" if scale > 1 else "input"
    untouched = F.interpolate(inputs, size=shown, mode="bicubic").clamp(-1, 1) if scale > 1 else inputs
    untouched = ((untouched + 1) * 127.5).round() / 127.5 - 1  # as it would be saved
    before = ["input, nearest", row] if scale > 1 else [row]
    assert list(scores) in ([*before, "teacher", "subnet"], [*before, "teacher", "subnet", "subnet, last step"])
    if scale > 1:
        repeated = inputs.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
        expected = pytest.approx(float((repeated - targets).abs().mean()), abs=1e-6)
        assert scores["input, nearest"]["l1"]["value"] == expected
    assert scores[row]["l1"]["value"] == pytest.approx(float((untouched - targets).abs().mean()), abs=1e-6)

    page = (out / "report.html").read_text()
    found = re.findall(r'<img alt="([a-z]+)" data-row="[^"]*" src="data:image/png;base64,([^"]+)"', page)
    sizes = {name: Image.open(io.BytesIO(base64.b64decode(data))) for name, data in found}
    assert {name: (image.mode, image.size) for name, image in sizes.items()} == {
        "input": ("RGB", (width, height)),
        **dict.fromkeys(("teacher", "subnet", "difference", "real"), ("RGB", shown[::-1])),
    }
    sheet = Image.open(next((out / "samples").glob("finetune-*.png")))  # input, teacher, subnet, real
    assert sheet.size == (4 * (shown[1] + 2) - 2, 4 * (shown[0] + 2) - 2)
    assert "data:image/jpeg" in (out / "front.html").read_text()


@pytest.mark.parametrize(
    ("name", "options", "given", "said"),
    [
        ("Plain", {"outputs": 1}, {"data": {"channels": 3}}, "data.channels is 3, but generator"),
        ("Plain", {"outputs": 1}, {"data": {"channels": 3}}, "makes [1, 1, 32, 32] of [1, 3, 32, 32]: leave it out"),
        ("Plain", {"inputs": 1}, {"data": {"channels": [3, 3]}}, "data.channels is 3, but"),
        ("Plain", {"scale": 2}, {"data": {"scale": 3}}, "data.scale is 3, but"),
        ("Plain", {"scale": 2}, {"data": {"scale": 3}}, "of [1, 3, 32, 32]: leave it out, or set it to 2"),
        ("Plain", {"stride": 2}, {}, "makes [1, 3, 16, 16] of [1, 3, 32, 32]: sides of targets are a whole multiple"),
        ("Plain", {"gives": "tuple"}, {}, "makes a tuple of 2 of [1, 3, 32, 32]; its forward must return one tensor"),
        ("Plain", {"gives": "dict"}, {}, "makes a dict with 'fake' of [1, 3, 32, 32]"),
        ("Plain", {"outputs": 2}, {}, "makes [1, 2, 32, 32] of [1, 3, 32, 32]; wanted are pictures [N, C, H, W]"),
        ("Plain", {"inputs": 2}, {}, "cannot run on [1, 3, 32, 32]: Given groups=1, weight of size [8, 2, 3, 3]"),
        ("Plain", {"inputs": 2}, {}, "Tried were 3, 1, 4 channels; a generator of others declares input_shapes"),
        ("Masked", {}, {}, "missing 1 required positional argument: 'mask'; declare input_shapes on it, a shape for"),
        ("Plain", {"least": 64}, {}, "cannot run on [1, 3, 32, 32]: too small: 32 of 64; is data.size right?"),
        ("Plain", {}, {"data": {"kind": f"{__name__}:SMALL_TARGETS", "path": None}}, "the targets are [2, 3, 16, 16]"),
        ("Plain", {}, {"size": 16}, "discriminator 'patch' of train cannot judge [1, 6, 16, 16], input and"),
        ("Plain", {}, {"size": 16, "method": "agents", **AGENTS}, "'patch' of train cannot judge [1, 6, 16, 16]"),
        ("Plain", {}, {"train": {"batch": 100000}}, "train.batch 100000 is more than the 12 training pictures"),
        ("Plain", {}, {"finetune": {"batch": 13}}, "set finetune.batch 12 or less"),
        ("Plain", {}, {"discriminator": "t.pth"}, "'t.pth'"),
        ("Split", {}, {"budget": "0.9x"}, "features of 'halves' are a tuple in the generator's forward; set"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told_in_a_line(run, tmp_path, name, options, given, said):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # PyTorch's of a loss that broadcasts
        status, told, seconds = run(name, options, "--dry-run", **given)
    assert status == 2 and said in told.err and len(told.err.strip().splitlines()) == 1, told.err
    assert seconds < 5 and not (tmp_path / "run").exists()


def test_a_dry_run_ends_with_what_it_will_take(run):
    status, told, _ = run("Plain", {"outputs": 1}, "--dry-run", "--seed", "7")
    *_, pictures, train, finetune, every, memory = told.err.strip().splitlines()
    assert status == 0 and pictures == "pictures: 12 train, 4 search, 4 test"
    assert re.fullmatch(r"train: 0.05 kimg in 12 steps of 4, 4 epochs, about \d+ seconds?", train)
    assert re.fullmatch(r"in all, with scores, search and export: about \d+ (second|minute)s?", every)
    assert finetune.startswith("finetune: 0.05 kimg") and re.fullmatch(r"memory: at least [\d.]+ GiB on cpu", memory)
    assert "ndf: 8" in told.out and "beta2" not in told.out
    assert "beta2: 0.999" in run("Plain", {"outputs": 1}, "--dry-run", "--verbose")[1].out


def test_a_range_that_is_not_ours_is_noted(run):
    status, told, _ = run("Plain", {"gain": 127.5}, "--dry-run")
    assert status == 0 and re.search(r"pictures lie in -?[\d.]+ to [\d.]+, those of the data in -1 to 1", told.err)


def test_a_teacher_that_makes_nan(run):
    status, told, _ = run("Plain", {"gain": float("inf")}, "--dry-run")
    assert status == 2 and "makes NaN or infinity of training pictures" in told.err


@pytest.mark.parametrize("kind", [Plain, Declared])
@pytest.mark.parametrize(
    ("inputs", "outputs", "scale"), [(1, 1, 1), (3, 3, 1), (4, 4, 1), (1, 3, 1), (3, 1, 2), (4, 3, 3)]
)
def test_channels_and_scale_are_the_generators(kind, inputs, outputs, scale):
    net, asked = kind(inputs=inputs, outputs=outputs, scale=scale), DataConfig(size=(16, 32))
    before = torch.get_rng_state()
    found = as_generator_has(asked, net, traits_of(net), name="x")
    assert (found.channels_of(0), found.channels_of(1), found.scale) == (inputs, outputs, scale)
    assert asked.channels is None and net.training and torch.equal(before, torch.get_rng_state())
    said = DataConfig(size=(16, 32), channels=(inputs, outputs), scale=scale)
    assert as_generator_has(said, net, traits_of(net), name="x") == said


def test_discriminators_of_two_domains_have_their_channels():
    grey, colour = np.zeros((3, 16, 16, 1), np.uint8), np.zeros((3, 16, 16, 3), np.uint8)
    recipe = Recipe(
        gan="lsgan", conditional=False, ndf=4, discriminator_layers=1, batch=2, precision="float32", shift=0
    )
    task = CycleGan(
        Plain(inputs=1, outputs=3),
        Domains(grey, colour),
        recipe.model_copy(update={"task_options": {"identity": 0}}),
        back=Plain(inputs=3, outputs=1),
    )
    assert {name: pool.pictures.shape[1] for name, pool in task.pools.items()} == {"a": 1, "b": 3}
    assert set(task.backward(0, task.batches(0), 1.0)) == {"gan_a", "gan_b", "cycle_a", "cycle_b", "discriminator"}


def test_latents_make_the_channels_and_labels_keep_theirs():
    net, asked = Latent(), DataConfig(size=16)
    assert as_generator_has(asked, net, traits_of(net), name="x").channels == 1
    net.takes, net.input_shape = "labels", (5, 16, 16)
    assert as_generator_has(asked, net, traits_of(net), name="x") is asked


def test_losses_never_broadcast():
    grey, colour = torch.zeros(2, 1, 4, 4), torch.ones(2, 3, 4, 4)
    with pytest.raises(ConfigError, match=r"a loss compares \[2, 1, 4, 4\] with \[2, 3, 4, 4\]"):
        l1_loss(grey, colour)
    assert float(l1_loss(grey.expand(-1, 3, -1, -1), colour)) == 1


def test_a_conditional_discriminator_sees_small_inputs_enlarged():
    recipe, inputs, outputs = Recipe(), torch.rand(2, 1, 4, 6), torch.rand(2, 3, 8, 12)
    seen = judged_pictures(recipe, (inputs, torch.zeros(2, 5)), outputs)
    assert seen.shape == (2, 4, 8, 12) and torch.equal(seen[:, 1:], outputs)
    assert torch.allclose(seen[:, 0, 1, 1], (inputs[:, 0, :2, :2] * torch.tensor([[9, 3], [3, 1]]) / 16).sum((1, 2)))
    assert judged_pictures(recipe.model_copy(update={"conditional": False}), inputs, outputs) is outputs


def test_every_picture_is_rgb_to_networks_and_on_sheets():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 4), np.uint8)
    pixels[0, 0, 0, 3], pixels[0, 0, 1, 3] = 0, 255
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    for background, colour in (("white", (255, 255, 255)), ("#102030", (16, 32, 48))):
        laid = np.stack([composited(picture, colour) for picture in pixels])
        assert np.abs(to_rgb(images, background).astype(int) - laid).max() <= 1  # of ties
    assert (to_rgb(images)[0, 0, 0] == 255).all() and (to_rgb(images)[0, 0, 1] == pixels[0, 0, 1, :3]).all()
    grey = images[:, :1]
    assert torch.equal(as_rgb(grey), torch.cat([grey] * 3, 1)) and as_rgb(images[:, :3]).shape == (2, 3, 5, 7)
    with pytest.raises(EvaluationError, match=r"\[2, 2, 5, 7\] cannot be taken for pictures"):
        as_rgb(images[:, :2])
    sheet = Image.open(io.BytesIO(picture_grid([to_rgb(grey), to_rgb(F.interpolate(images, scale_factor=2))])))
    assert sheet.size == (2 * 16 - 2, 2 * 12 - 2)


def test_features_of_grey_and_of_alpha():
    grey, extractor = torch.rand(2, 1, 32, 32) * 2 - 1, EfficientNetLite0()
    assert torch.equal(extractor(grey), extractor(grey.expand(-1, 3, -1, -1)))
    opaque = torch.cat([grey.expand(-1, 3, -1, -1), torch.ones(2, 1, 32, 32)], 1)
    assert torch.allclose(extractor(opaque), extractor(grey), atol=1e-5)


def test_a_network_of_scores_that_does_not_take_the_pictures():
    class Blocked(nn.Conv2d):
        name = "blocks"

    scoring = Scoring(EvaluationConfig(), extractor=Blocked(3, 4, 40))
    with pytest.raises(
        EvaluationError, match=r"extractor 'blocks' cannot take pictures \[1, 3, 32, 32\]: .*Kernel size"
    ):
        scoring.check(torch.zeros(1, 3, 32, 32), torch.zeros(1, 3, 32, 32))
    scoring.check(torch.zeros(1, 3, 64, 64), torch.zeros(1, 3, 64, 64))


def test_enlarged_inputs():
    picture = torch.rand(1, 3, 4, 4) * 2 - 1
    assert Enlarged((1, 1))(picture) is picture and Enlarged((2, 2))(picture, torch.zeros(1)).shape == (1, 3, 8, 8)
    nearest = Enlarged((3, 2), "nearest")(picture)
    assert torch.equal(nearest, picture.repeat_interleave(3, 2).repeat_interleave(2, 3))


def test_what_autograd_keeps_is_counted_once_and_dropped():
    """``exp`` keeps its output, which ``sin`` keeps as its input; the product keeps the sine."""
    x, saved = torch.randn(1000, requires_grad=True), Saved()
    with saved.counting():
        root = x.exp().sin()
        assert saved.now == saved.most == 4000
        root = (root * root).sum()
        assert saved.now == 8000
        root.backward()
    assert saved.now == 0 and saved.most == 8000


@pytest.mark.parametrize("backward", [False, True])
def test_what_was_counted_can_go(backward):
    """Also of a step whose graph stays: what a layer keeps of its own output must not keep the layer."""
    alive, weight, saved = torch.ones(1), nn.Parameter(torch.ones(1000)), Saved()
    gone = weakref.ref(weight)
    with saved.counting():
        root = (weight.exp() * alive).tanh().sum()
        if backward:
            (slope,) = torch.autograd.grad(root, weight, create_graph=True)
            (slope * slope).sum().backward()
            assert weight.grad is not None and float(weight.grad.abs().sum()) > 0
            weight.grad = slope = None
    del weight, root
    slope = None
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.2, "1 second"), (100, "100 seconds"), (600, "10 minutes"), (7300, "2 hours"), (4e5, "5 days")],
)
def test_times_to_expect(seconds, said):
    assert about(seconds) == f"about {said}"
    assert str(Estimate("train", Recipe(kimg=1, batch=10), 50, seconds, 0)) == (
        f"train: 1 kimg in 100 steps of 10, 20 epochs, about {said}"
    )
