"""The tests that every evaluator passes, one's own too.

    class TestMine(EvaluatorConformance):
        def evaluator(self):
            return MyEvaluator()

``pytest`` runs them. Override ``generator`` and ``pairs`` where yours needs others.
"""

from __future__ import annotations

import copy
import json
import math

import numpy as np
import torch
from torch import Tensor, nn

from gantailor.evaluators.scores import Evaluator, Pairs
from gantailor.supernet.errors import EvaluationError


class Noise:
    """A small data set: random inputs ``[count, 3, size, size]`` and softened ones as targets, in [-1, 1]."""

    source = "noise"

    def __init__(self, count: int = 10, size: int = 64) -> None:
        self.inputs = torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
        self.targets = nn.functional.avg_pool2d(self.inputs, 3, 1, 1)

    def __len__(self) -> int:
        return len(self.inputs)

    def batch(self, indices: np.ndarray) -> tuple[Tensor, Tensor | None]:
        return self.inputs[indices], self.targets[indices]

    def digest(self) -> str:
        return f"noise-{len(self)}"


class Broken(nn.Module):
    """Gives NaN."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.nan


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
        if not self.looks:
            return
        try:
            self.evaluator()(Broken(), self.pairs())
        except EvaluationError as error:
            assert "NaN" in str(error)
        else:
            raise AssertionError("NaN pictures got a score")

    def test_empty_data_is_one_clear_error(self) -> None:
        """No pictures, no score."""
        if not self.looks:
            return
        try:
            self.evaluator()(self.generator(), Noise(0))
        except EvaluationError as error:
            assert "empty" in str(error)
        else:
            raise AssertionError("no pictures got a score")
