"""Distances against literal references and another library's formula."""

import numpy as np
import pytest
from scipy.linalg import sqrtm

from gantailor.evaluators.metrics.distances import (
    Gaussian,
    frechet,
    frechet_distance,
    kernel_distance,
    kernel_distance_subsets,
)
from gantailor.evaluators.metrics.distribution import score_features
from gantailor.evaluators.metrics.manifold import density_coverage, precision_recall
from gantailor.supernet.errors import EvaluationError


def sets(n, m, d=24, seed=0):
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(d, d))
    return rng.normal(size=(n, d)) @ mix, rng.normal(0.3, 1.4, size=(m, d)) @ mix


@pytest.mark.parametrize(("n", "m"), [(200, 300), (10, 300), (300, 10), (10, 12), (24, 25)])
def test_frechet_equals_the_matrix_square_root(n, m):
    a, b = sets(n, m)
    covariances = [np.cov(x, rowvar=False) for x in (a, b)]
    root = sqrtm(covariances[0] @ covariances[1] + 0j).real
    expected = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(covariances[0] + covariances[1] - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)


def test_frechet_of_a_set_with_itself_is_zero():
    a, _ = sets(100, 2)
    fit = Gaussian.fit(a.astype(np.float32))
    assert frechet(fit, fit) == pytest.approx(0, abs=1e-6 * fit.trace)
    constant = Gaussian.fit(np.ones((5, 8)))
    assert frechet(constant, Gaussian.fit(np.zeros((3, 8)))) == pytest.approx(8)


def test_slabs_are_the_covariance():
    a = np.random.default_rng(0).normal(5, 1, size=(9000, 6))
    np.testing.assert_allclose(Gaussian.fit(a).full, np.cov(a, rowvar=False), rtol=1e-10)


@pytest.mark.parametrize("broken", [np.zeros((1, 4)), np.array([[0.0, np.nan], [1, 2], [3, 4]])])
def test_what_cannot_be_fitted_is_named(broken):
    with pytest.raises(EvaluationError, match=r"at least 2 images|1 of 3 images"):
        Gaussian.fit(broken)


def test_kernel_distance_is_its_formula():
    a, b = sets(7, 9, d=5)

    def k(x, y):
        return (x @ y / 5 + 1) ** 3

    aa = np.mean([k(x, y) for i, x in enumerate(a) for j, y in enumerate(a) if i != j])
    bb = np.mean([k(x, y) for i, x in enumerate(b) for j, y in enumerate(b) if i != j])
    ab = np.mean([k(x, y) for x in a for y in b])
    assert kernel_distance(a, b) == pytest.approx(aa + bb - 2 * ab)


def test_kernel_subsets_average_to_the_whole():
    a, b = sets(60, 60, d=6)
    mean, spread = kernel_distance_subsets(a, b, subsets=300, size=40)
    assert abs(mean - kernel_distance(a, b)) < 3 * spread / np.sqrt(300) * 2
    with pytest.raises(EvaluationError, match="subsets of 1000 do not fit 60"):
        kernel_distance_subsets(a, b)


def test_neighbours_equal_brute_force():
    real, fake = sets(40, 50, d=3)

    def radius(points, i, k):
        return sorted(np.linalg.norm(points - points[i], axis=1))[k]

    def inside(centres, points, k):
        return np.array(
            [[np.linalg.norm(p - c) <= radius(centres, i, k) for i, c in enumerate(centres)] for p in points]
        )

    found = precision_recall(real, fake) | density_coverage(real, fake)
    by3, by5 = inside(real, fake, 3), inside(real, fake, 5)
    assert found["precision"] == by3.any(1).mean()
    assert found["recall"] == inside(fake, real, 3).any(1).mean()
    assert found["density"] == pytest.approx(by5.sum(1).mean() / 5)
    assert found["coverage"] == by5.any(0).mean()
    with pytest.raises(EvaluationError, match="3 neighbours need more than 3 images"):
        precision_recall(real[:3], fake)


@pytest.mark.long
def test_scores_equal_torch_fidelity():
    """Figures of torch-fidelity 0.4.0 on these features (kid: 100 subsets of 1,000, seed 2020; prc: 3 neighbours).

    They were computed by its ``*_features_to_metric`` functions in an environment of their own: it needs torchvision.
    """
    rng = np.random.default_rng(0)
    fake, real = rng.gamma(1, 0.4, (1300, 256)), rng.gamma(1.1, 0.4, (1500, 256))
    ours = score_features(fake, real, ["fid", "kid", "precision", "recall"])
    assert ours["fid"] == pytest.approx(4.6281918716234, rel=1e-3)
    assert ours["kid"] == pytest.approx(0.008922770023345947, rel=1e-3)
    assert ours["precision"] == pytest.approx(0.5407692193984985, abs=1e-7)
    assert ours["recall"] == pytest.approx(0.20666666328907013, abs=1e-7)
