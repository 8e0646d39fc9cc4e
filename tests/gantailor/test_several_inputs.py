"""Generators with several inputs through the whole pipeline: picture and latent, picture and mask, styled MUNIT."""

import copy
import json
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

import gantailor
from gantailor.cli.main import main
from gantailor.evaluators.scores import render
from gantailor.export.checking import psnr
from gantailor.export.devices import Device, device
from gantailor.export.export import Exported, export_model, load_runner
from gantailor.export.target import find_target
from gantailor.export.targets import TARGETS
from gantailor.pipeline.check import find_mistakes
from gantailor.pipeline.compress import compress as run_stages
from gantailor.pipeline.context import RunContext
from gantailor.pipeline.profiling import measure_profile
from gantailor.pipeline.training.teacher import train_teacher
from gantailor.run.config import Config
from gantailor.run.loading import load_config
from gantailor.run.run import Run
from gantailor.supernet.training.image_to_image import ImageToImage
from gantailor.supernet.training.recipe import Recipe
from gantailor.supernet.training.trainer import Trainer
from gantailor.zoo.data.domains import Domains
from gantailor.zoo.data.record import DataKind
from gantailor.zoo.tasks.cyclegan import CycleGan

SIZE, PICTURES = 32, 8
OWN = '''
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from gantailor.zoo.data.class_labels import ClassLabels
from gantailor.zoo.data.pairs import Pairs
from gantailor.zoo.data.domains import Domains
from gantailor.zoo.data.record import DataKind
from gantailor.zoo.tasks.cyclegan import CycleGan


class Styled(nn.Module):
    """A picture, and a latent that is added to every place."""

    input_shapes = ((3, 32, 32), (8,))
    feature_layers = ("b",)

    def __init__(self, width=16):
        super().__init__()
        self.a, self.style = nn.Conv2d(3, width, 3, padding=1), nn.Linear(8, width)
        self.b, self.c = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, image, style):
        x = torch.relu(self.a(image) + self.style(style)[:, :, None, None])
        return torch.tanh(self.c(torch.relu(self.b(x))))


class Masked(nn.Module):
    """A picture and a mask, joined."""

    input_shapes = ((3, 32, 32), (1, 32, 32))
    feature_layers = ("b",)

    def __init__(self, width=16):
        super().__init__()
        self.a, self.norm = nn.Conv2d(4, width, 3, padding=1), nn.BatchNorm2d(width)
        self.b, self.c = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, picture, mask):
        x = torch.relu(self.norm(self.a(torch.cat([picture, mask], 1))))
        return torch.tanh(self.c(torch.relu(self.b(x))))


def _pairs(config, split, more=()):
    rng = np.random.default_rng(len(split))
    inputs = rng.integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    names = tuple(map(str, range(8)))
    masks = tuple(rng.integers(0, 256, (8, 32, 32, channels), dtype=np.uint8) for channels in more)
    return Pairs(inputs, 255 - inputs, names, "random", more=masks)


def classified(config, split):
    return replace(_pairs(config, split), class_labels=ClassLabels(np.arange(8)))


PLAIN = DataKind(name="plain", read=_pairs)
MASKS = DataKind(name="masks", read=lambda config, split: _pairs(config, split, more=(1,)))
TWO_MASKS = DataKind(name="two_masks", read=lambda config, split: _pairs(config, split, more=(1, 1)))
COLOURED = DataKind(name="coloured", read=lambda config, split: _pairs(config, split, more=(3,)))
'''
SMALL = {"batch": 4, "ndf": 4, "kimg": 0.016, "precision": "float32", "ema_kimg": 0.0, "watch_kimg": 0.0}
CASES = {  # generator, options, data, names of the inputs
    "latent": ("several:Styled", {}, "several:PLAIN", ["image", "style"]),
    "mask": ("several:Masked", {}, "several:MASKS", ["picture", "mask"]),
    "munit": ("munit", {"ngf": 4, "mlp_dim": 8, "n_res": 1}, "several:PLAIN", ["image", "style"]),
}


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The current folder, with a module of generators and data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("GANTAILOR_CACHE", str(tmp_path / "cache"))
    (tmp_path / "several.py").write_text(OWN)
    sys.modules.pop("several", None)
    yield tmp_path
    sys.modules.pop("several", None)


def settings(case, **more):
    """A small run, beside a teacher with random weights."""
    generator, options, kind, _ = CASES[case]
    torch.manual_seed(0)
    torch.save(gantailor.build(generator, **options).state_dict(), "teacher.pt")
    wanted = {
        "generator": generator,
        "options": options,
        "teacher": "teacher.pt",
        "data": {"kind": kind, "size": SIZE},
        "method": "supernet",
        "budget": "0.6x",
        "space": {"multiple": 1},
        "train": SMALL,
        "finetune": SMALL,
        "search": {"trials": 3},
        "evaluation": {"search": "l1", "final": ["l1", "ssim"], "search_images": 4},
        "devices": ["onnxruntime-cpu", "torch-export"],
    }
    return {**wanted, **more}


def run_of(case, **more) -> Run:
    return Run("run", load_config(settings(case, **more)))


@pytest.mark.long
@pytest.mark.parametrize("case", CASES)
def test_compress_to_report_and_onnx(own, case):
    run = gantailor.compress(settings(case), out="run")
    names = CASES[case][3]
    manifest = json.loads((own / "run/export/manifest.json").read_text())
    test = run.setup.data("test")
    inputs, _ = test.batch(np.arange(4))
    assert [entry["name"] for entry in manifest["inputs"]] == names
    assert [entry["shape"] for entry in manifest["inputs"]] == [[1, *one.shape[1:]] for one in inputs]
    assert {entry["dtype"] for entry in manifest["inputs"]} == {"float32"}
    assert [entry["range"] for entry in manifest["inputs"]] == [[-1, 1], [-1, 1] if case == "mask" else None]
    session = onnxruntime.InferenceSession(own / "run/export/onnxruntime-cpu/model.onnx")
    assert [end.name for end in session.get_inputs()] == names
    narrow = gantailor.load("run/export/model.safetensors")
    for row in range(4):
        feeds = {name: one[row : row + 1].numpy() for name, one in zip(names, inputs, strict=True)}
        with torch.no_grad():
            expected = narrow(*(one[row : row + 1] for one in inputs)).numpy()
        assert np.abs(session.run(None, feeds)[0] - expected).max() <= 1e-5
    assert manifest["macs"]["true"] < manifest["teacher_macs"]["true"]
    assert (own / "run/report.html").exists() and (own / "run/front.html").exists()
    scores = json.loads((own / "run/scores.json").read_text())
    assert {"teacher", "subnet", "input"} <= set(scores)
    with torch.no_grad():  # the score, computed by hand
        every, targets = test.batch(np.arange(PICTURES))
        seen = ((run.subnet()[1](*every).clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1  # in 8 bits
        by_hand = float((seen - targets).abs().mean())
    assert scores["subnet"]["l1"]["value"] == pytest.approx(by_hand, rel=1e-5)
    program = [sys.executable, "run/export/onnxruntime-cpu/bench.py", "--runs", "2", "--warm-up", "1"]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    header, row = (line.split(",") for line in done.stdout.strip().splitlines())
    assert float(row[header.index("max_difference")]) <= 1e-4


@pytest.mark.long
def test_a_second_run_of_the_same_is_the_same(own):
    """Latents are functions of seed, step and row: nothing of them is kept."""
    first = gantailor.compress(settings("latent"), out="one", until="finetune").subnet()[1].state_dict()
    second = gantailor.compress(settings("latent"), out="two", until="finetune").subnet()[1].state_dict()
    assert all(torch.equal(value, second[name]) for name, value in first.items())


class Recording(nn.Module):
    """Remembers what it was given."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.given = inner, []

    def forward(self, *inputs):
        self.given.append([one.clone() for one in inputs])
        return self.inner(*inputs)


def task_of(run, teacher=None, **changes) -> ImageToImage:
    recipe = Recipe(**{**SMALL, "output_weight": 1.0, "feature_weight": 0.0, "gan": "none", **changes})
    model = copy.deepcopy(run.setup.generator).requires_grad_(True)
    return ImageToImage(Recording(model), run.setup.data("train"), recipe, teacher=teacher)


def test_teacher_and_student_get_the_same_latents_and_others_at_each_step(own):
    run = run_of("latent")
    teacher = Recording(copy.deepcopy(run.setup.teacher))
    task = task_of(run, teacher, accumulate=2)
    Trainer(task, task.recipe).run(stop_after=3)
    mine, theirs = task.generator.given, teacher.given
    assert len(mine) == len(theirs) == 6  # three steps in two parts
    for student, taught in zip(mine, theirs, strict=True):
        assert all(map(torch.equal, student, taught))
    latents = torch.cat([inputs[1] for inputs in mine])
    assert latents.shape == (12, 8) and len(torch.unique(latents, dim=0)) == 12
    whole = task.batches(1).inputs
    parts = [task.batches(1, part, 2).inputs for part in (0, 1)]
    assert all(torch.equal(torch.cat(rows), one) for rows, one in zip(zip(*parts, strict=True), whole, strict=True))
    assert torch.equal(torch.cat([mine[2][1], mine[3][1]]), whole[1]), "step 1 is a function of seed and step"


def test_latents_are_fixed_for_each_picture_where_it_is_scored(own):
    run = run_of("latent")
    splits = {split: run.setup.data(split) for split in ("train", "search", "test")}
    every = {split: data.batch(np.arange(PICTURES))[0][1] for split, data in splits.items()}
    assert torch.equal(splits["test"].batch(np.array([5, 2]))[0][1], every["test"][[5, 2]])
    assert len({data.digest() for data in splits.values()}) == 3
    assert not torch.equal(every["test"], every["search"])
    recorded = Recording(run.setup.generator)
    list(render(recorded, splits["test"], batch=3))
    assert torch.equal(torch.cat([inputs[1] for inputs in recorded.given]), every["test"])


@pytest.mark.parametrize(
    ("case", "kind", "said"),
    [
        (
            "latent",
            "MASKS",
            "the generator takes 2 inputs, 3x32x32 and 8 numbers, the data has 2 inputs, 3x32x32 and 1x",
        ),
        ("mask", "PLAIN", "the generator takes 2 inputs, 3x32x32 and 1x32x32, the data has 1 input, 3x32x32"),
        ("mask", "TWO_MASKS", "the data has 3 inputs, 3x32x32 and 1x32x32 and 1x32x32"),
        (
            "mask",
            "COLOURED",
            "the generator takes 2 inputs, 3x32x32 and 1x32x32, the data has 2 inputs, 3x32x32 and 3x",
        ),
    ],
)
def test_other_inputs_are_one_line(own, capsys, case, kind, said):
    given = settings(case, data={"kind": f"several:{kind}", "size": SIZE})
    (own / "run.yaml").write_text(json.dumps(given))
    assert main(["compress", "run.yaml", "--out", "run", "--dry-run"]) == 2
    message = capsys.readouterr().err
    assert said in message and len(message.strip().splitlines()) == 1, message


def test_one_input_too_many_is_one_line(own):
    config = load_config(settings("mask"))
    torch.save(gantailor.build("resnet_6blocks", ngf=4).state_dict(), "other.pt")
    other = config.model_copy(update={"generator": "resnet_6blocks", "options": {"ngf": 4}})
    run = Run("run", Config.model_validate(other.model_dump() | {"teacher": {"weights": "other.pt"}}))
    with pytest.raises(
        gantailor.GantailorError, match="takes 1 input, 3x256x256, the data has 2 inputs, 3x32x32 and 1"
    ):
        run.setup.data("train")


def test_a_cache_of_what_never_comes_again_is_refused(own):
    for part in ("train", "finetune"):
        with pytest.raises(gantailor.GantailorError, match="latents are drawn anew at each step"):
            find_mistakes(run_of("latent", **{part: {**SMALL, "teacher_cache": "memory", "shift": 0}}))


def test_masks_that_come_again_are_cached(own):
    run = run_of("mask")
    plain = task_of(run, copy.deepcopy(run.setup.teacher), shift=0)
    kept = task_of(run, copy.deepcopy(run.setup.teacher), shift=0, teacher_cache="memory")
    for step in range(4):
        batch = plain.batches(step)
        outputs = [task.teacher(batch.inputs, batch.keys)[0] for task in (plain, kept)]
        assert torch.allclose(*outputs, atol=1e-6)


def test_what_stands_in_is_told(own, capsys):
    given = settings("munit")
    (own / "run.yaml").write_text(json.dumps(given))
    assert main(["compress", "run.yaml", "--out", "run", "--dry-run"]) == 0
    assert "the generator takes image, style; style is a latent, drawn anew" in capsys.readouterr().err


METHODS = {
    "slimming": {"train": {"bits": 0}, "finetune": {"bits": 0}, "devices": []},
    "agents": {"train": {"method_options": {"neighbours": 0, "discriminator_kimg": 0.008}, "kimg": 0.024}},
    "hypernetwork": {"teacher": "none"},
    "diversity": {},
}


@pytest.mark.long
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("case", ["latent", pytest.param("mask", marks=pytest.mark.slow)])
def test_every_method_compresses_it(own, name, case):
    """Each to the end of its training and search, with the picture and the mask before its discriminator."""
    more = copy.deepcopy(METHODS[name])
    for part in ("train", "finetune"):
        more[part] = {**SMALL, **more.get(part, {})}
    config = load_config({**settings(case), "method": name, "budget": "0.7x", **more, "space": {}})
    run = Run("run", config)
    run_stages(run, until="finetune")
    chosen, narrow = run.subnet()
    inputs, _ = run.setup.data("test").batch(np.arange(2))
    assert run.setup.traced.macs(chosen) <= run.setup.budget.macs
    assert narrow(*inputs).shape == (2, 3, SIZE, SIZE)


def test_a_discriminator_sees_masks_and_no_latents(own):
    for case, channels in (("latent", 3 + 3), ("mask", 3 + 1 + 3)):
        run = run_of(case)
        assert RunContext(run).discriminator().example_inputs[0].shape[1] == channels


def several(name):
    """A tiny generator with two inputs, and three of each."""
    module = gantailor.build(CASES[name][0], **CASES[name][1]).eval()
    random = torch.Generator().manual_seed(1)
    second = (3, 1, SIZE, SIZE) if name == "mask" else (3, 8)
    return module, (torch.rand(3, 3, SIZE, SIZE, generator=random) * 2 - 1, torch.randn(second, generator=random))


QUICK = ("onnxruntime", "torch-export")


@pytest.mark.long
@pytest.mark.parametrize(
    ("runtime", "batch"),
    [
        pytest.param(name, batch, marks=() if name in QUICK else pytest.mark.slow)
        for batch in ("static", "dynamic")
        for name in TARGETS
        if (name, batch) != ("coreml", "dynamic")  # which has none
    ],
)
def test_every_runtime_takes_two_inputs(own, runtime, batch):
    target = find_target(runtime)
    for package in target.packages:
        pytest.importorskip(package)
    module, inputs = several("latent")
    for precision in target.precisions:
        profile = Device(name="here", runtime=runtime, precision=precision, batch=batch)
        example = tuple(one[:1] for one in inputs)
        found = export_model(own / precision, module, example, profile, pictures=inputs)
        if not target.here:
            continue
        exported = Exported(load_runner(own / precision / found["file"], profile), batch=3 if batch == "dynamic" else 1)
        made, expected = exported(*inputs).numpy(), module(*inputs).detach().numpy()
        assert psnr(made, expected) >= {"float32": 90, "float16": 50, "int8": 20}[precision]


@pytest.mark.long
def test_munit_is_exported_in_half_precision(own):
    module, inputs = several("munit")
    found = export_model(own, module, tuple(one[:1] for one in inputs), device("onnxruntime-cpu"))
    half = device("onnxruntime-cpu").model_copy(update={"precision": "float16"})
    assert found["max_difference"] <= 1e-4
    assert export_model(own, module, tuple(one[:1] for one in inputs), half)["psnr_to_pytorch"] >= 50
    session = onnxruntime.InferenceSession(own / "model.onnx")
    assert [end.name for end in session.get_inputs()] == ["image", "style"]


@pytest.mark.long
def test_costs_and_latencies_are_of_all_inputs(own):
    final = ["macs", "parameters", "latency_ms"]
    run = run_of("latent", evaluation={"search": "l1", "final": final})
    scores = run.setup.scoring.evaluator(final)(run.setup.generator, run.setup.data("test"))
    assert scores["macs[true]"].value == run.setup.traced.macs(run.setup.traced.full_config())
    assert scores["macs[true]"].provenance["input"] == [[1, 3, SIZE, SIZE], [1, 8]]
    assert all(scores[f"latency_ms[{runtime}]"].value > 0 for runtime in ("torch-cpu", "onnxruntime-cpu"))
    profile, table = measure_profile(run.setup, runtime="torch-cpu", subnets=8, runs=2)
    assert f"1x3x{SIZE}x{SIZE} and 1x8" in profile.device and (table["latency_ms"] > 0).all()


def test_a_run_takes_the_translator_of_a_munit(own):
    torch.manual_seed(0)
    sides = {side: gantailor.build("munit", **CASES["munit"][1]).state_dict() for side in "ab"}
    torch.save(sides, "gen.pt")
    config = load_config({**settings("munit"), "teacher": "gen.pt"})
    teacher = Run("run", config).setup.teacher.state_dict()
    assert torch.equal(teacher["enc_content.model.0.conv.weight"], sides["a"]["enc_content.model.0.conv.weight"])
    assert torch.equal(teacher["dec.model.2.conv.weight"], sides["b"]["dec.model.2.conv.weight"])
    back = load_config({**settings("munit"), "teacher": {"weights": "gen.pt", "side": "b2a"}})
    teacher = Run("run", back).setup.teacher.state_dict()
    assert torch.equal(teacher["enc_content.model.0.conv.weight"], sides["b"]["enc_content.model.0.conv.weight"])
    other = load_config({**settings("latent"), "teacher": {"weights": "gen.pt", "side": "a"}})
    with pytest.raises(gantailor.GantailorError, match="have no side; leave it out"):
        _ = Run("run", other).setup.teacher


def test_a_cyclegan_of_two_inputs_is_refused(own):
    with pytest.raises(gantailor.GantailorError, match="of one picture; a Styled takes more inputs"):
        CycleGan(gantailor.build("several:Styled"), Domains(*np.zeros((2, 4, 32, 32, 3), np.uint8)), Recipe())


@pytest.mark.long
def test_a_teacher_of_two_inputs_is_trained(own):
    given = settings("latent")
    config = {name: given[name] for name in ("generator", "options", "data")} | {"train": SMALL}
    train_teacher(Run("teacher", load_config(config)))
    made = gantailor.load_teacher(own / "teacher/teacher.safetensors", generator="several:Styled")
    assert made(torch.zeros(1, 3, 32, 32), torch.zeros(1, 8)).shape == (1, 3, 32, 32)


def test_classes_of_the_data_are_one_hot(own, monkeypatch):
    config = load_config(settings("latent"))
    kind = "several:CLASSES"
    import several

    monkeypatch.setattr(several, "CLASSES", DataKind(name="classes", read=several.classified), raising=False)
    run = Run("run", config.model_copy(update={"data": config.data.model_copy(update={"kind": kind})}))
    (_, classes), _ = run.setup.data("train").batch(np.array([3, 0]))
    assert torch.equal(classes, torch.eye(8)[[3, 0]])
    assert torch.equal(task_of(run).batches(0).inputs[1].sum(1), torch.ones(4)), "classes are not drawn anew"
