"""Fidelity of a subnet to its teacher."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from gantailor.evaluators.metrics.fidelity import Fidelity, luma
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


class Enlarged(nn.Module):
    """Three times as large, and darker."""

    def forward(self, x):
        return 0.9 * nn.functional.interpolate(x, scale_factor=3.0, mode="bilinear") - 0.05


def tables(made, aim, scale):
    """PSNR and SSIM of two uint8 ``[H, W, 3]`` as super-resolution papers count them, window by window.

    Wang et al. 2004 with their own weights: exp(-(x^2 + y^2) / (2 1.5^2)) over 11 x 11, windows that lie inside.
    """
    one, two = (picture[scale:-scale, scale:-scale].astype(float) for picture in (made, aim))
    grey = [16 + p @ np.array([65.481, 128.553, 24.966]) / 255 for p in (one, two)]
    found = {}
    for name, (a, b) in {"rgb": (one, two), "y": tuple(g[..., None] for g in grey)}.items():
        found[f"psnr_{name}"] = 10 * np.log10(255**2 / ((a - b) ** 2).mean())
        window = np.array([[np.exp(-(x * x + y * y) / 4.5) for x in range(-5, 6)] for y in range(-5, 6)])
        window /= window.sum()
        c1, c2, values = (0.01 * 255) ** 2, (0.03 * 255) ** 2, []
        places = itertools.product(range(a.shape[0] - 10), range(a.shape[1] - 10), range(a.shape[2]))
        for top, left, channel in places:
            p, q = (image[top : top + 11, left : left + 11, channel] for image in (a, b))
            mean_p, mean_q = (window * p).sum(), (window * q).sum()
            var_p, var_q = (window * p * p).sum() - mean_p**2, (window * q * q).sum() - mean_q**2
            both = (window * p * q).sum() - mean_p * mean_q
            top_line = (2 * mean_p * mean_q + c1) * (2 * both + c2)
            values.append(top_line / ((mean_p**2 + mean_q**2 + c1) * (var_p + var_q + c2)))
        found[f"ssim_{name}"] = np.mean(values)
    return found


@pytest.mark.parametrize("taught", [False, True])
def test_the_tables_of_super_resolution(taught):
    random = np.random.default_rng(0)
    small = random.integers(0, 256, (2, 8, 9, 3), dtype=np.uint8)
    large = np.clip(small.repeat(3, 1).repeat(3, 2) + random.integers(-40, 40, (2, 24, 27, 3)), 0, 255).astype(np.uint8)
    pairs = Pairs(small, large, ("a", "b"), "noise")
    teacher = nn.Upsample(scale_factor=3) if taught else None
    names = ("psnr_rgb", "ssim_rgb", "psnr_y", "ssim_y")
    scores = Fidelity(teacher, batch=1, metrics=names)(Enlarged(), pairs)
    seen = [
        np.clip(np.round((Enlarged()(pairs.batch(np.arange(2))[0]).permute(0, 2, 3, 1).numpy() + 1) * 127.5), 0, 255),
        small.repeat(3, 1).repeat(3, 2) if taught else large,
    ]
    expected = [tables(made, aim, 3) for made, aim in zip(*seen, strict=True)]
    for name in names:
        found = scores[name + "[teacher]" * taught].value
        assert found == pytest.approx(np.mean([row[name] for row in expected]), abs=1e-6), name


def test_pictures_that_are_all_border(pairs):
    with pytest.raises(EvaluationError, match="pictures of 8 x 8 are all border, of which 4 pixels are not counted"):
        Fidelity(nn.Upsample(scale_factor=4), metrics=("psnr_y",))(nn.Upsample(scale_factor=4), pairs_of(2))


def pairs_of(side):
    return Pairs(np.zeros((1, side, side, 3), np.uint8), None, ("a",), "black")


def test_black_and_white_luma():
    black, white = luma(-torch.ones(1, 3, 1, 1)), luma(torch.ones(1, 3, 1, 1))
    assert float((black + 1) * 127.5) == pytest.approx(16) and float((white + 1) * 127.5) == pytest.approx(235)
