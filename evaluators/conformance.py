"""The tests that every metric and every evaluator passes, one's own too.

    class TestSharpness(MetricConformance):
        metric = "my_metrics:sharpness"

``pytest`` runs them. Override ``config`` where the metric needs settings, ``generators`` where another generator is the
better one, ``generator`` and ``pairs`` where it needs others. An evaluator without a record inherits
``EvaluatorConformance`` and says what makes it:

    class TestMine(EvaluatorConformance):
        def evaluator(self):
            return MyEvaluator()
"""

from __future__ import annotations

import copy
import json
import math

import numpy as np
import torch
from torch import Tensor, nn

from gantailor.evaluators.config import EvaluationConfig
from gantailor.evaluators.metric import find_metric, metric_of
from gantailor.evaluators.metrics import TEACHER_MARK
from gantailor.evaluators.pictures.rgb import as_seen
from gantailor.evaluators.scores import Evaluator, Pairs
from gantailor.evaluators.scoring import Scoring
from gantailor.supernet.errors import EvaluationError


class Noise:
    """A small data set: random inputs ``[count, 3, size, size]`` and softened ones as targets, of 8 bits."""

    source = "noise"

    def __init__(self, count: int = 10, size: int = 64) -> None:
        self.inputs = as_seen(torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1)
        self.targets = as_seen(nn.functional.avg_pool2d(self.inputs, 3, 1, 1))

    def __len__(self) -> int:
        return len(self.inputs)

    def batch(self, indices: np.ndarray) -> tuple[Tensor, Tensor | None]:
        return self.inputs[indices], self.targets[indices]

    def digest(self) -> str:
        return f"noise-{len(self)}"


class NoiseLatents(Noise):
    """Latents ``[count, 8]`` in place of the inputs."""

    def __init__(self, count: int = 10) -> None:
        super().__init__(count)
        self.inputs = torch.randn(count, 8, generator=torch.Generator().manual_seed(1))


class Painter(nn.Module):
    """Pictures ``[N, 3, 64, 64]`` of latents ``[N, 8]``: one picture, and as much of the latents as ``share`` says."""

    def __init__(self, share: float = 1.0) -> None:
        super().__init__()
        self.share, self.norm, self.dropout = share, nn.BatchNorm2d(3), nn.Dropout(0.5)
        random = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(8, 3 * 8 * 8, generator=random) / 8)
        self.bias = nn.Parameter(torch.randn(3 * 8 * 8, generator=random) / 2)

    def forward(self, z: Tensor) -> Tensor:
        small = (self.bias + self.share * (z @ self.weight)).reshape(-1, 3, 8, 8)
        return torch.tanh(nn.functional.interpolate(self.dropout(self.norm(small)), scale_factor=8, mode="bilinear"))


class Broken(nn.Module):
    """Gives NaN."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.nan


class Faded(nn.Module):
    """Washes out what a generator makes: little contrast, too bright."""

    def forward(self, x: Tensor) -> Tensor:
        return 0.05 * x + 0.8


class ChannelMeans:
    """An extractor without weights: features ``[N, 3]``, the mean of each channel."""

    name, dims, variant, resize, weights_hash = "means", 3, "", "none", "0" * 64

    def __call__(self, images: Tensor) -> Tensor:
        return images.mean((2, 3))


class EvaluatorConformance:
    """Inherit and say which evaluator.

    Attributes:
        exact: twice the same generator gives twice the same figures (a timing does not).
        looks: the scores depend on the pictures (a cost does not).
    """

    exact = True
    looks = True

    def evaluator(self) -> Evaluator:
        """What is tested; each subclass says which."""
        raise NotImplementedError("say which evaluator")

    def sees_pictures(self) -> bool:
        """Whether pictures that are broken or missing must be told."""
        return self.looks

    def generator(self) -> nn.Module:
        """With batch norm and dropout, in training mode: what an evaluator must leave as it was."""
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Dropout(0.5), nn.Conv2d(8, 3, 1)
        ).train()

    def pairs(self) -> Pairs:
        """Inputs and targets to score with."""
        return Noise()

    def test_scores_are_whole(self) -> None:
        """Finite, with unit, direction and provenance, and JSON."""
        scores = self.evaluator()(self.generator(), self.pairs())
        assert scores, "an evaluator gives at least one score"
        for name, score in scores.items():
            assert math.isfinite(score.value), name
            assert score.unit, f"{name} has no unit"
            assert isinstance(score.lower_is_better, bool), name
            assert {"reference", "reference_hash", "images"} <= set(score.provenance), name
            json.loads(json.dumps(score.to_dict(), allow_nan=False))

    def test_same_again(self) -> None:
        """A second call says the same, exactly where the evaluator is exact."""
        evaluator, generator = self.evaluator(), self.generator()
        first, second = (evaluator(generator, self.pairs()) for _ in range(2))
        assert {n: (s.unit, s.provenance) for n, s in first.items()} == {
            n: (s.unit, s.provenance) for n, s in second.items()
        }
        if self.exact:
            assert {n: s.value for n, s in first.items()} == {n: s.value for n, s in second.items()}

    def test_generator_is_left_as_it_was(self) -> None:
        """Weights, modes, gradients and the global random state."""
        generator = self.generator()
        state = {name: tensor.clone() for name, tensor in generator.state_dict().items()}
        modes = [module.training for module in generator.modules()]
        random = torch.get_rng_state()
        self.evaluator()(generator, self.pairs())
        assert all(torch.equal(tensor, state[name]) for name, tensor in generator.state_dict().items())
        assert [module.training for module in generator.modules()] == modes
        assert all(p.grad is None and p.requires_grad for p in generator.parameters())
        assert torch.equal(torch.get_rng_state(), random), "the global random state was used"
        assert torch.is_grad_enabled(), "gradients stayed switched off"

    def test_mode_does_not_matter(self) -> None:
        """A generator in training mode is scored as one in evaluation mode."""
        if self.exact:
            generator = self.generator()
            training = self.evaluator()(generator, self.pairs())
            still = self.evaluator()(copy.deepcopy(generator).eval(), self.pairs())
            assert {n: s.value for n, s in training.items()} == {n: s.value for n, s in still.items()}

    def test_nan_pictures_are_one_clear_error(self) -> None:
        """NaN never becomes a score."""
        if not self.sees_pictures():
            return
        try:
            self.evaluator()(Broken(), self.pairs())
        except EvaluationError as error:
            assert "NaN" in str(error)
        else:
            raise AssertionError("NaN pictures got a score")

    def test_empty_data_is_one_clear_error(self) -> None:
        """No pictures, no score."""
        if not self.sees_pictures():
            return
        try:
            self.evaluator()(self.generator(), Noise(0))
        except EvaluationError as error:
            assert "empty" in str(error)
        else:
            raise AssertionError("no pictures got a score")


class MetricConformance(EvaluatorConformance):
    """Inherit and say which metric; also what an evaluator's conformance asks, of the evaluator that it makes.

    Attributes:
        metric: its name, as ``evaluation.search`` takes it: a built-in's, or ``module:name``.
    """

    metric = ""

    def config(self) -> EvaluationConfig:
        """The settings that the metric needs."""
        return EvaluationConfig()

    def scoring(self, teacher: nn.Module | None = None) -> Scoring:
        """What makes its evaluator; features are the means of the channels, so that no weights are wanted."""
        return Scoring(self.config(), teacher=teacher, extractor=ChannelMeans())

    def generators(self) -> tuple[nn.Module, nn.Module] | None:
        """A generator that the metric must find better, and a worse one; ``None`` where it cannot tell.

        Of pictures the better is what ``Noise`` was made with, where outputs are compared with targets, and the inputs
        themselves elsewhere; the worse is washed out. Of the generator itself the better is the smaller, of those that
        take latents the one whose pictures change less with them.
        """
        compares = find_metric(self.metric).compares
        if compares == "latents":
            return Painter(0.1), Painter()
        if compares == "generator":
            wide = nn.Sequential(nn.Conv2d(3, 128, 5, padding=2), nn.Conv2d(128, 3, 5, padding=2))
            return nn.Sequential(nn.Conv2d(3, 2, 1), nn.Conv2d(2, 3, 1)), wide
        best = nn.AvgPool2d(3, 1, 1) if compares in ("sets", "pictures") else nn.Identity()
        return best, nn.Sequential(best, Faded())

    def generator(self) -> nn.Module:
        """One that takes latents where the metric draws them."""
        return Painter().train() if find_metric(self.metric).compares == "latents" else super().generator()

    def pairs(self) -> Pairs:
        """Latents in place of the inputs where the metric draws them."""
        return NoiseLatents() if find_metric(self.metric).compares == "latents" else super().pairs()

    def evaluator(self) -> Evaluator:
        """As a run makes it, by the metric's name."""
        return self.scoring().evaluator([self.metric])

    def sees_pictures(self) -> bool:
        """A cost does not."""
        return find_metric(self.metric).compares != "generator"

    def test_record_says_all(self) -> None:
        """A name that scores can begin with, a unit, a direction, and nothing that is missing here."""
        record = find_metric(self.metric)
        assert record.name.isidentifier() and record.unit
        assert isinstance(record.lower_is_better, bool)
        assert record.missing(self.config()) is None

    def test_scores_are_the_records(self) -> None:
        """Their names lead to the record again, and their unit and direction are its own."""
        record, scores = find_metric(self.metric), self.evaluator()(self.generator(), self.pairs())
        for name, score in scores.items():
            assert name.startswith(self.metric)
            assert metric_of(name) == record
            assert (score.unit, score.lower_is_better) == (record.unit, record.lower_is_better)

    def test_better_is_better(self) -> None:
        """A degraded generator is on the side that the record calls worse: the search would follow it."""
        found = self.generators()
        if found is None:
            return
        sign, evaluator = 1 if find_metric(self.metric).lower_is_better else -1, self.evaluator()
        better, worse = (evaluator(generator, self.pairs()) for generator in found)
        assert better.keys() == worse.keys()
        for name in better:
            assert sign * better[name].value < sign * worse[name].value, name

    def test_teacher_is_the_aim(self) -> None:
        """Where pictures are compared one by one, the teacher's can be the aim; its own outputs come out best."""
        if find_metric(self.metric).compares != "pictures":
            return
        teacher, name = nn.Identity(), self.metric + TEACHER_MARK
        evaluator = self.scoring(teacher).evaluator([name])
        sign = 1 if find_metric(self.metric).lower_is_better else -1
        best, worse = (evaluator(generator, self.pairs()) for generator in (nn.Identity(), Faded()))
        for key in best:
            assert "teacher" in key and metric_of(key) == find_metric(self.metric)
            assert best[key].provenance["reference"].startswith("teacher on ")
            assert sign * best[key].value < sign * worse[key].value, key
