"""Scores on halves of the pictures, and the intervals that they give."""

import json

import numpy as np
import pandas as pd
import pytest
from torch import nn

from gantailor.comparison import fairness
from gantailor.evaluators.config import EvaluationConfig
from gantailor.evaluators.features.extractor import Extractor
from gantailor.evaluators.halves import HALVES, MOST, halves, halves_of_mean, halves_of_sets, interval, shown_interval
from gantailor.evaluators.metrics.distances import frechet_distance, kernel_distance
from gantailor.evaluators.scoring import Scoring, scores_to_json
from gantailor.zoo.data.pairs import Pairs

WANTED = ("l1", "psnr", "ssim_y", "features", "fid", "kid", "recall")


class Means(Extractor):
    """Features of pictures without a network: means of their 64 parts."""

    name, variant, dims, resize, weights_hash = "means", "", 64, "none", "0" * 12

    def __init__(self):
        pass

    def __call__(self, images):
        return nn.functional.adaptive_avg_pool2d(images.float(), 8).mean(1).flatten(1)


def pictures(count, *, kept=None):
    """Noise and brighter noise; of them those in ``kept``."""
    pixels = np.random.default_rng(0).integers(0, 200, (2, count, 24, 24, 3), dtype=np.uint8)
    pixels[1] += np.arange(count, dtype=np.uint8)[:, None, None, None]
    rows = np.arange(count) if kept is None else kept
    return Pairs(pixels[0][rows], pixels[1][rows], tuple(map(str, rows)), "noise")


def scores(pairs, **asked):
    scoring = Scoring(EvaluationConfig(), extractor=Means())
    return scoring.evaluator(WANTED, **asked)(nn.Identity(), pairs)


@pytest.mark.parametrize("total", [2, 3, 16, 17])
def test_halves_lie_beside_their_other_halves(total):
    rows = halves(total)
    assert rows.shape == (HALVES, total // 2) and np.array_equal(rows, halves(total))
    for one, other in zip(rows[::2], rows[1::2], strict=True):
        assert len({*one, *other}) == 2 * (total // 2) and max(*one, *other) < total
    assert total < 16 or (
        len(np.unique(np.sort(rows), axis=0)) > 90 and not np.array_equal(rows, halves(total, seed=1))
    )


@pytest.mark.parametrize("count", [16, 17])
def test_a_half_is_the_score_of_a_set_of_its_pictures(count):
    whole = scores(pictures(count), halves=True)
    for place in (0, 1, 50):
        expected = scores(pictures(count, kept=halves(count)[place]))
        for name, score in whole.items():
            if not name.startswith("recall"):
                assert score.halves[place] == pytest.approx(expected[name].value, rel=1e-4, abs=1e-6), name


def test_they_are_there_only_where_they_are_asked_for():
    plain, asked = scores(pictures(16)), scores(pictures(16), halves=True)
    assert {name: score.value for name, score in plain.items()} == {n: s.value for n, s in asked.items()}
    assert not any(score.halves for score in plain.values()) and not asked["recall[means]"].halves
    rows = scores_to_json(asked)
    assert "halves" not in rows["recall[means]"] and len(json.loads(json.dumps(rows))["l1"]["halves"]) == HALVES
    assert halves_of_mean(np.ones(1)) == ()
    for count in (3, MOST + 1):  # a half of one picture has no KID; those of many take minutes
        assert halves_of_sets(np.ones((count, 2)), np.ones((9, 2)), kernel_distance) == ()


def test_the_spread_of_a_mean_is_its_standard_error():
    values = np.random.default_rng(0).lognormal(size=300)
    assert np.std(halves_of_mean(values)) == pytest.approx(values.std(ddof=1) / np.sqrt(300), rel=0.2)


@pytest.mark.parametrize("distance", [kernel_distance, frechet_distance])
@pytest.mark.parametrize("real", [80, 120])
def test_the_spread_of_a_distance_is_that_over_other_pictures(distance, real):
    rng = np.random.default_rng(1)

    def drawn():
        return 1.3 * rng.normal(0.4, 1, (80, 6)), rng.normal(size=(real, 6))

    truth = np.std([distance(*drawn()) for _ in range(300)])
    told = np.mean([np.std(halves_of_sets(*drawn(), distance)) for _ in range(10)])
    assert 0.75 < told / truth < 1.4


@pytest.mark.parametrize("seeds", [1, 3])
def test_an_interval_holds_the_truth_19_times_of_20(seeds):
    """A difference of 0 with what pictures and seeds add to it; over seeds alone it is missed too often."""
    rng, met, alone = np.random.default_rng(2), 0, 0
    for _ in range(400):
        by_picture = rng.normal(size=200) + 0.3 * rng.normal(size=(seeds, 200)) + rng.normal(0, 0.03, (seeds, 1))
        told = np.array([halves_of_mean(values) for values in by_picture])
        mean, half = interval(by_picture.mean(1), told)
        met += abs(mean) <= half
        alone += abs(mean) <= interval(by_picture.mean(1))[1]
    assert 0.91 < met / 400 <= 0.99 and alone / 400 < 0.85


def test_one_seed_without_halves_has_no_interval():
    assert shown_interval([3.0]) == "+3.0"
    assert shown_interval([3.0], np.array([[2.0, 4.0]])) == "**+3.0 ± 2.8**"  # 1.96 times a deviation of 1.41
    assert shown_interval([3.0, 3.0], np.array([[2.0, 4.0]] * 2)) == "**+3.0 ± 2.8**"


def test_changes_beside_the_teacher_have_the_pictures_in_them():
    frame = pd.DataFrame({"method": ["one", "one"], "budget": "0.1x", "seed": [0, 1], "l1": [0.11, 0.12]})
    taught = fairness.with_teacher(frame, {"l1": 0.1})
    known = {(*fairness.TEACHER, "l1"): np.array([0.10, 0.11])}
    known |= {("one", "0.1x", seed, "l1"): np.array([0.12, 0.11]) for seed in (0, 1)}
    (without,) = fairness.changes(taught, ["l1"])[2:]
    (line,) = fairness.changes(taught, ["l1"], known)[2:]
    assert without == "| one | 0.1x | +15.0 ± 63.5 | 2 |"
    mean, half = interval([10.0, 20.0], np.array([[20.0, 0.0], [20.0, 0.0]]))
    assert line == f"| one | 0.1x | {mean:+.1f} ± {half:.1f} | 2 |" and half != pytest.approx(63.5, abs=0.1)
    del known["one", "0.1x", 1, "l1"]  # a run of an earlier version has none
    assert fairness.changes(taught, ["l1"], known)[2:] == [without]
