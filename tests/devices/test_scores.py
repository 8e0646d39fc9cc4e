"""Scores, rankings and whole runs on a stand-in for a card are the CPU's; a tensor that stays behind is an error."""

import json
import shutil

import numpy as np
import pytest
import torch
from torch import nn

import gantailor
from gantailor.cli.main import main
from gantailor.evaluators.config import EvaluationConfig
from gantailor.evaluators.conformance import ChannelMeans, MetricConformance, Noise, NoiseLatents, Painter
from gantailor.evaluators.metric import find_metric
from gantailor.evaluators.metrics import METRICS
from gantailor.evaluators.scores import render
from gantailor.evaluators.scoring import Scoring
from gantailor.supernet.calibration import recalibrate
from gantailor.supernet.device import HOST, computed, device_of, find_device, find_precision, placed
from gantailor.supernet.errors import ConfigError, EvaluationError
from gantailor.supernet.graph import SubnetConfig
from gantailor.supernet.importance import CRITERIA
from gantailor.supernet.importance.ranking import criterion_scores
from gantailor.supernet.supernet import Supernet
from tests.devices.card import NAME, plugged_in
from tests.evaluators.test_metrics import nearest
from tests.evaluators.test_networks import lpips  # noqa: F401  a fixture
from tests.gantailor.conftest import tiny_teacher  # noqa: F401  a fixture


class Softened(nn.Module):
    """A small generator of pictures, with something to move."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x):
        return torch.tanh(x + 0.1 * self.layer(x))


@pytest.fixture
def config(lpips, tmp_path):  # noqa: F811
    torch.save(nearest().state_dict(), tmp_path / "nearest.pth")
    return EvaluationConfig(
        lpips_features=str(lpips / "alex.pth"),
        lpips_heads=str(lpips / "heads.pth"),
        segmentation="tests.evaluators.test_metrics:nearest",
        segmentation_weights=str(tmp_path / "nearest.pth"),
        path_samples=20,
    )


def scored(metric, config, device):
    torch.manual_seed(0)
    latents, record = find_metric(metric).compares == "latents", find_metric(metric)
    generator, teacher = (Painter() if latents else Softened()).eval(), Softened().eval()
    pairs, found = (NoiseLatents() if latents else Noise()), {}
    if metric in ("miou", "pixel_accuracy"):
        labels = MetricConformance()
        labels.metric = metric
        pairs, generator = labels.pairs(), labels.generator()
    names = [metric, f"{metric}[teacher]"] if record.compares == "pictures" else [metric]
    evaluator = Scoring(config, teacher=teacher, extractor=ChannelMeans()).evaluator(names)
    generator = generator.to(device)
    for number in range(2):  # the second time everything is where it should be
        found = evaluator(generator, pairs)
        assert number or found
    assert device_of(teacher) == HOST, "what is shared is not moved"
    return {name: score.value for name, score in found.items()}


@pytest.mark.long
@pytest.mark.parametrize("metric", [name for name in METRICS if not name.startswith("latency")])
def test_every_metric(metric, config, monkeypatch):
    expected = scored(metric, config, HOST)
    with plugged_in(monkeypatch) as card:
        assert scored(metric, config, card) == expected


@pytest.mark.parametrize("extractor", ["efficientnet-lite0"])
def test_extractors(extractor, monkeypatch):
    pytest.importorskip("efficientnet_lite_pytorch")
    pairs = Noise()
    torch.manual_seed(0)
    net = Softened().eval()
    score = Scoring(EvaluationConfig(extractor=extractor)).evaluator(["fid", "features"])
    expected = {name: one.value for name, one in score(net, pairs).items()}
    with plugged_in(monkeypatch) as card:
        score = Scoring(EvaluationConfig(extractor=extractor)).evaluator(["fid", "features"])
        assert {name: one.value for name, one in score(net.to(card), pairs).items()} == expected


def test_pictures_stay_where_the_generator_is(monkeypatch):
    with plugged_in(monkeypatch) as card:
        parts = [one for batch in render(Softened().to(card), Noise(5), batch=2) for one in batch]
        assert {part.device.type for part in parts} == {NAME} and len(parts) == 9
        assert computed(Softened().to(card), Noise(2).inputs).device == HOST


class Hungry(nn.Module):
    """Holds no more than so many pictures."""

    def __init__(self, most):
        super().__init__()
        self.most, self.seen = most, []

    def forward(self, x):
        if len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.seen.append(len(x))
        return x * 0.5


@pytest.mark.parametrize("most", [1, 2, 3, 5, 32])
def test_less_memory_gives_the_same_pictures(most):
    net = Hungry(most)
    found = [outputs for _, outputs, _ in render(net, Noise(10), batch=4)]
    assert [len(one) for one in found] == [4, 4, 2] and max(net.seen) <= most
    assert torch.equal(torch.cat(found), torch.cat([o for _, o, _ in render(Hungry(99), Noise(10), batch=4)]))
    fits = min(most, 4)
    assert sum(net.seen) == 10 and len(net.seen) <= -(-4 // fits) * 3 + 3, "it is not tried anew with each batch"


def test_no_memory_for_a_picture_is_told():
    with pytest.raises(EvaluationError, match=r"out of memory with a single picture on cpu; lower data\.size"):
        list(render(Hungry(0), Noise(4)))


@pytest.mark.parametrize("name", CRITERIA)
def test_rankings(name, monkeypatch):
    torch.manual_seed(0)
    net = gantailor.build("resnet_6blocks", ngf=4).eval()
    inputs, targets = torch.rand(6, 3, 32, 32) * 2 - 1, torch.rand(6, 3, 32, 32) * 2 - 1
    supernet = Supernet(net, (inputs[:1],))
    supernet.generator.requires_grad_(True)

    def scores(device):
        found = criterion_scores(placed(supernet, device), name, inputs.to(device), targets=targets.to(device))
        return {width: np.asarray(values) for width, values in found.items()}

    expected = scores(HOST)
    with plugged_in(monkeypatch) as card:
        found = scores(card)
    assert all(np.array_equal(found[width], values) for width, values in expected.items())


def test_a_candidate_of_a_search(monkeypatch):
    """Extracted, its statistics made anew, and scored."""
    torch.manual_seed(0)
    net = gantailor.build("resnet_6blocks", ngf=4)
    supernet, pairs = Supernet(net.eval(), (torch.zeros(1, 3, 64, 64),)), Noise()
    config = SubnetConfig({width.name: max(1, width.size // 2) for width in supernet.graph.widths})

    def score(device):
        narrow = nn.Sequential(supernet.extract(config), nn.BatchNorm2d(3)).to(device)
        recalibrate(narrow, [pairs.batch(np.arange(4))[0].to(device)])
        evaluator = Scoring(EvaluationConfig(), extractor=ChannelMeans()).evaluator(["features", "l1"])
        return {name: one.value for name, one in evaluator(narrow, pairs).items()}

    expected = score(HOST)
    with plugged_in(monkeypatch) as card:
        assert score(card) == expected


RUN = """
generator: resnet_6blocks
options: {ngf: 8}
teacher: {weights: TEACHER}
data: {size: 32}
budget: 0.3x
METHOD
finetune: {kimg: 0.008, batch: 4, ndf: 8, feature_weight: 1, output_weight: 1}
evaluation: {search_images: 4, final: [l1, psnr, features]}
devices: [onnxruntime-cpu]
"""
METHODS = {
    "path": "space: path\ntrain: {kimg: 0.024, batch: 4, ndf: 4, watch_kimg: 0.012}\nsearch: {trials: 2}",
    "searched": "ranking: taylor\ntrain: {kimg: 0.008, batch: 4, gan: none}\nsearch: {trials: 3, tuning_kimg: 0.004}",
    "slimming": "method: slimming\ntrain: {kimg: 0.024, batch: 4, ndf: 4, bits: 8}",
}


@pytest.mark.slow
@pytest.mark.parametrize("which", METHODS)
def test_runs(which, tiny_teacher, tmp_path, monkeypatch):  # noqa: F811
    """From the check to the report, in one process: weights, scores and pictures are the CPU's."""
    yaml = tmp_path / "run.yaml"
    yaml.write_text(RUN.replace("TEACHER", str(tiny_teacher)).replace("METHOD", METHODS[which]))
    precise = ["--train.precision", "float32", "--finetune.precision", "float32"]
    assert main(["compress", str(yaml), "--out", str(tmp_path / "cpu"), "--device", "cpu", *precise]) == 0
    with plugged_in(monkeypatch):
        assert main(["compress", str(yaml), "--out", str(tmp_path / "card"), "--device", "auto", *precise]) == 0
    for name in ("subnet.json", "subnet.safetensors", "supernet.safetensors"):
        one, other = (tmp_path / where / name for where in ("cpu", "card"))
        assert one.read_bytes() == other.read_bytes(), name
    scores = [json.loads((tmp_path / where / "scores.json").read_text()) for where in ("cpu", "card")]
    for row, values in scores[0].items():
        for name, score in values.items():
            assert scores[1][row][name]["value"] == score["value"]
    assert (tmp_path / "card" / "report.html").exists() and (tmp_path / "card" / "export").is_dir()
    shutil.rmtree(tmp_path / "card")


def test_a_module_on_a_card_is_exported(tmp_path, monkeypatch):
    """With its example there or here, and one that a gradient belongs to."""
    with plugged_in(monkeypatch) as card:
        net, inputs = Softened().to(card), Noise(2).inputs.requires_grad_()
        for number, example in enumerate((inputs, inputs.detach().to(card))):
            made = gantailor.export(net, tmp_path / str(number), devices="torch-export", example_inputs=example)
            assert made["devices"]["torch-export"]["max_difference"] <= 1e-4
        assert next(net.parameters()).device == card


def test_which_device(monkeypatch):
    assert find_device("auto") == HOST == find_device("cpu")
    with plugged_in(monkeypatch) as card:
        assert find_device("auto") == card == find_device(NAME) == find_device(f"{NAME}:0")
        assert find_precision("auto", card) == "float32"
        with pytest.raises(ConfigError, match=rf"device '{NAME}:1' is not here; .* sees 1 cpu, 1 {NAME}: choose"):
            find_device(f"{NAME}:1")
    for name in ("cuda", "cuda:3", "mps", "openvino"):
        with pytest.raises(ConfigError, match=f"device '{name}' is not here; PyTorch .* sees 1 cpu"):
            find_device(name)


@pytest.mark.parametrize("flags", [["--device", "cuda"], ["--train.precision", "tf32"]])
def test_what_is_not_here_is_told_before_anything(flags, tmp_path, capsys):
    (tmp_path / "run.yaml").write_text("data: {size: 32}")
    arguments = ["compress", str(tmp_path / "run.yaml"), "--out", str(tmp_path / "run"), "--dry-run", *flags]
    assert main(arguments) == 2
    told = capsys.readouterr().err.strip()
    assert told.startswith("error: ") and "\n" not in told and not (tmp_path / "run").exists()
