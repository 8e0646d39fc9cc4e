"""Every evaluator passes the same tests; a user's own inherits them in the same way."""

import numpy as np
import pytest
import torch
from torch import nn
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_jaccard_index

from gantailor.evaluators.conformance import EvaluatorConformance, Noise
from gantailor.evaluators.metrics.cost import Cost, Latency, interleaved, measured_macs, stored_bytes
from gantailor.evaluators.metrics.distribution import OF_SETS, Distribution, FeatureError
from gantailor.evaluators.metrics.fidelity import Fidelity
from gantailor.evaluators.metrics.perceptual import Perceptual
from gantailor.evaluators.metrics.segmentation import LabelTable, Segmentation
from gantailor.supernet.errors import EvaluationError
from tests.evaluators.test_networks import lpips  # noqa: F401  a fixture


class Means:
    """Features that can be counted by hand."""

    name, dims, variant, resize, weights_hash = "means", 3, "", "none", "0" * 64

    def __call__(self, images):
        return images.mean((2, 3))


class TestDistribution(EvaluatorConformance):
    def evaluator(self):
        return Distribution(Means(), tuple(OF_SETS))


class TestFeatureError(EvaluatorConformance):
    def evaluator(self):
        return FeatureError(Means())

    def test_value(self):
        pairs = Noise()
        expected = (pairs.inputs.mean((2, 3)) - pairs.targets.mean((2, 3))).square().mean()
        score = self.evaluator()(nn.Identity(), pairs)["features[means]"]
        assert score.value == pytest.approx(float(expected), rel=1e-5)


class TestFeatureErrorToTeacher(EvaluatorConformance):
    def evaluator(self):
        return FeatureError(Means(), nn.AvgPool2d(3, 1, 1))


class TestFidelity(EvaluatorConformance):
    def evaluator(self):
        return Fidelity()

    def test_against_the_real_pictures(self):
        scores = self.evaluator()(nn.AvgPool2d(3, 1, 1), Noise())
        assert (scores["l1"].value, scores["psnr"].value) == (0, 100)


class TestFidelityToTeacher(EvaluatorConformance):
    def evaluator(self):
        return Fidelity(nn.Identity())


class TestCost(EvaluatorConformance):
    looks = False

    def evaluator(self):
        return Cost()

    def test_values(self):
        scores = self.evaluator()(self.generator(), Noise())
        assert (
            scores["macs[true]"].value
            == 64 * 64 * (27 * 8 + 8 * 3)
            == measured_macs(self.generator(), torch.rand(1, 3, 64, 64))
        )
        assert scores["parameters"].value == 27 * 8 + 8 + 2 * 8 + 24 + 3

    def test_bytes(self):
        model = nn.Linear(10, 4)
        assert stored_bytes(model) == {"fp32": 176, "fp16": 88, "int8": 40 + 4 * 4 + 4 * 4}


class TestLatency(EvaluatorConformance):
    exact = looks = False

    def evaluator(self):
        return Latency(warm_up=1, runs=5)

    def test_runs_take_turns_and_protocol_is_stated(self):
        seen = []
        times = interleaved({"a": lambda: seen.append("a"), "b": lambda: seen.append("b")}, warm_up=1, runs=2)
        assert seen == ["a", "b"] * 3
        assert [len(t) for t in times.values()] == [2, 2]
        scores = Latency(batch=2, runs=3)(self.generator(), Noise())
        assert {"batch": 2, "threads": 1, "warm_up": 5, "runs": 3, "input": [2, 3, 64, 64]}.items() <= scores[
            "latency_ms[torch-cpu]"
        ].provenance.items()


@pytest.fixture(scope="class")
def perceptual(lpips, request):  # noqa: F811
    from gantailor.evaluators.metrics.perceptual import Lpips

    request.cls.network = Lpips(lpips / "alex.pth", lpips / "heads.pth")


@pytest.mark.usefixtures("perceptual")
class TestPerceptual(EvaluatorConformance):
    def evaluator(self):
        return Perceptual(self.network, diversity=8)

    def test_values(self):
        pairs = Noise()
        scores = self.evaluator()(nn.Identity(), pairs)
        expected = self.network(pairs.inputs, pairs.targets).mean()
        assert scores["lpips[alex-v0.1]"].value == pytest.approx(float(expected), rel=1e-5)
        assert scores["diversity[alex-v0.1]"].lower_is_better is False


class Nearest(nn.Module):
    """Class scores by distance to the table's colours: a segmentation network that is always right on colours."""

    def __init__(self, table):
        super().__init__()
        keep = table.ids != 255
        colours = torch.from_numpy(table.colours[keep][np.argsort(table.ids[keep])]).float() / 127.5 - 1
        self.register_buffer("colours", colours)

    def forward(self, x):
        return -(x[:, None] - self.colours[None, :, :, None, None]).square().sum(2)


class TestSegmentation(EvaluatorConformance):
    table = LabelTable.read("cityscapes")

    def evaluator(self):
        return Segmentation(Nearest(self.table), self.table, name="nearest")

    def test_against_torchmetrics(self):
        pairs = Noise()
        truth = self.table.labels(pairs.inputs)
        read = Nearest(self.table)(pairs.targets).argmax(1)
        options = {"num_classes": 19, "ignore_index": 255}
        scores = self.evaluator()(nn.AvgPool2d(3, 1, 1), pairs)
        iou = multiclass_jaccard_index(read, truth, average="none", **options)
        present = [c for c in range(19) if ((truth == c) | ((read == c) & (truth != 255))).any()]
        assert scores["miou[nearest]"].value == pytest.approx(100 * float(iou[present].mean()), rel=1e-6)
        accuracy = 100 * float(multiclass_accuracy(read, truth, average="micro", **options))
        assert scores["pixel_accuracy[nearest]"].value == pytest.approx(accuracy, rel=1e-6)

    def test_colours_and_one_hot(self):
        maps = torch.from_numpy(self.table.colours).float().T.reshape(1, 3, 1, -1) / 127.5 - 1
        assert self.table.labels(maps + 0.01)[0, 0].tolist() == self.table.ids.tolist()
        assert self.table.classes[10] == "sky"
        hot = torch.eye(19).T.reshape(1, 19, 1, 19)
        assert self.table.labels(hot)[0, 0].tolist() == list(range(19))

    def test_mistakes(self, tmp_path):
        (tmp_path / "bad.csv").write_text("id,name\n0,road\n")
        for file in ("bad.csv", "none.csv"):
            with pytest.raises(EvaluationError, match=r"columns id,name,red,green,blue.*cityscapes"):
                LabelTable.read(tmp_path / file)
        with pytest.raises(EvaluationError, match="at least 19 classes"):
            Segmentation(nn.Identity(), self.table, name="none")(nn.Identity(), Noise())
