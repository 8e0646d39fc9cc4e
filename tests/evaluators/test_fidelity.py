"""Fidelity of a subnet to its teacher."""

import numpy as np
import pytest
import torch
from torch import nn

from gantailor.evaluators.metrics.fidelity import Fidelity
from gantailor.supernet.errors import EvaluationError
from gantailor.zoo.data.pairs import Pairs


@pytest.fixture(scope="module")
def pairs():
    pixels = np.random.default_rng(0).integers(0, 253, (5, 32, 32, 3), dtype=np.uint8)
    return Pairs(pixels, None, tuple("abcde"), "noise")


class Off(nn.Module):
    """Three of the 255 steps brighter, and a little more, which nobody sees."""

    def forward(self, x):
        return x + 3.3 / 127.5


@pytest.mark.long
def test_values(pairs):
    scores = Fidelity(nn.Identity(), batch=2)(Off(), pairs)
    assert scores["l1[teacher]"].value == pytest.approx(3 / 127.5, rel=1e-5)
    assert scores["psnr[teacher]"].value == pytest.approx(20 * np.log10(255 / 3), rel=1e-4)  # 10 log10(255^2 / 3^2)
    assert 0.99 < scores["ssim[teacher]"].value < 1
    assert [score.lower_is_better for score in scores.values()] == [True, False, False]
    same = Fidelity(nn.Identity())(nn.Identity(), pairs)
    assert (same["l1[teacher]"].value, same["psnr[teacher]"].value) == (0, 100)
    assert same["ssim[teacher]"].value == pytest.approx(1)


def test_batches_do_not_matter(pairs):
    torch.manual_seed(0)
    blurred = nn.AvgPool2d(3, 1, 1)
    one, many = (Fidelity(nn.Identity(), batch=b)(blurred, pairs) for b in (1, 5))
    assert all(one[name].value == pytest.approx(many[name].value, rel=1e-5) for name in one)


def test_other_shapes_are_named(pairs):
    with pytest.raises(EvaluationError, match=r"shape \[3, 16, 16\], the teacher \[3, 32, 32\]"):
        Fidelity(nn.Identity())(nn.AvgPool2d(2), pairs)
