"""Scores are of what a person would see: 8 bits, every picture once, a sample of all, never of the thing itself."""

import logging

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from gantailor.evaluators.config import EvaluationConfig
from gantailor.evaluators.conformance import Noise
from gantailor.evaluators.folder import evaluate_folders, score_folders
from gantailor.evaluators.metrics.distribution import Distribution, FeatureError, score_features
from gantailor.evaluators.metrics.fidelity import Fidelity
from gantailor.evaluators.metrics.perceptual import Perceptual
from gantailor.evaluators.metrics.segmentation import LabelTable, Segmentation
from gantailor.evaluators.pictures import reader
from gantailor.evaluators.pictures.rgb import as_rgb, as_seen
from gantailor.evaluators.scores import Subset, provenance_differences, provenance_of, spread
from gantailor.evaluators.scoring import Scoring
from gantailor.supernet.errors import EvaluationError
from gantailor.supernet.traits import Traits
from gantailor.zoo.data.kinds.folder import folder_pairs
from gantailor.zoo.data.kinds.labels import LabelPairs
from gantailor.zoo.data.latents import Latents
from gantailor.zoo.data.pairs import Pairs
from gantailor.zoo.data.pictures import to_float, to_uint8
from gantailor.zoo.data.vectors import fitted_to

EVERY = ("fid", "kid", "precision", "recall", "density", "coverage")


class Corners:
    """Means of the quarters of a picture."""

    name, dims, variant, resize, weights_hash = "corners", 12, "", "none", "0" * 64

    def __call__(self, images):
        return nn.functional.adaptive_avg_pool2d(as_rgb(images), 2).flatten(1)


def saved(folder, *, count=5, seed=0, suffix="png"):
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        pixels = np.random.default_rng((seed, number)).integers(0, 256, (16, 12, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.{suffix}")
    return folder


class Glaring(nn.Module):
    """Outputs far beyond [-1, 1], between the values of 8 bits."""

    def forward(self, x):
        return 1.7 * x + 0.0041


def test_the_values_of_files_stay_to_the_bit():
    every = to_float(np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1))
    assert torch.equal(as_seen(every), every)
    wild = torch.randn(3, 4, 5, 7, generator=torch.Generator().manual_seed(0)) * 3
    assert np.array_equal(to_uint8(as_seen(wild)), to_uint8(wild))
    assert torch.equal(as_seen(as_seen(wild)), as_seen(wild)) and as_seen(wild).abs().max() == 1
    assert as_seen(torch.tensor([-9.0, 9.0, 0.4 / 127.5 - 1])).tolist() == [-1, 1, -1]


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_scores_are_those_of_the_pictures_saved(tmp_path, channels, mode):
    pixels = np.random.default_rng(channels).integers(0, 256, (9, 6, 10, channels), dtype=np.uint8)
    pairs = Pairs(pixels, pixels[::-1].copy(), tuple("abcdefghi"), "noise")
    made = to_uint8(Glaring()(to_float(pixels)))
    for name, pictures in (("made", made), ("real", pairs.targets)):
        (tmp_path / name).mkdir()
        for number, picture in enumerate(pictures):
            Image.fromarray(picture.squeeze(), mode).save(tmp_path / name / f"{number}.png")
    got = Distribution(Corners(), EVERY, batch=4)(Glaring(), pairs)
    saved = score_folders(tmp_path / "made", tmp_path / "real", Corners(), EVERY)
    for name in got:
        assert got[name].value == pytest.approx(saved[name].value, rel=1e-5, abs=1e-7), name
    near = Fidelity(metrics=("l1",))(Glaring(), pairs)["l1"].value
    assert near == pytest.approx(np.abs(made.astype(float) - pairs.targets).mean() / 127.5, rel=1e-6)
    taught = FeatureError(Corners(), Glaring())(nn.Identity(), pairs)["features[corners,teacher]"].value
    features = [Corners()(to_float(one)).double() for one in (made, pixels)]
    assert taught == pytest.approx(float((features[0] - features[1]).square().mean()), rel=1e-4)


@pytest.mark.parametrize(("inputs", "real"), [(9, 31), (31, 9), (40, 41)])
def test_every_picture_of_unequal_sets_counts_once(inputs, real):
    rng = np.random.default_rng(inputs)
    a, b = (rng.integers(0, 256, (count, 4, 6, 3), dtype=np.uint8) for count in (inputs, real))
    pairs = Pairs(a, None, tuple(map(str, range(inputs))), "unequal", others=b)
    expected = score_features(*(Corners()(to_float(one)).numpy() for one in (a, b)), EVERY)
    traits = Traits(takes="pictures", input_shapes=((3, 4, 6), (5,)))
    both = fitted_to(pairs, traits, 0)  # a generator of a picture and a latent

    class First(nn.Module):
        def forward(self, x, *latents):
            return x

    for data in (pairs, both, Subset(pairs, 1000)):
        scores = Distribution(Corners(), EVERY, batch=7)(First(), data)
        for name, value in expected.items():
            assert scores[f"{name}[corners]"].value == pytest.approx(value, rel=1e-6, abs=1e-9), name
        provenance = scores["fid[corners]"].provenance
        assert (provenance["images"], provenance["reference_images"]) == (inputs, real)
    with pytest.raises(EvaluationError, match="compares with real pictures, and the data set has inputs only"):
        FeatureError(Corners())(First(), pairs)
    some = Subset(pairs, 8)
    rows, others = spread(inputs, 8), spread(real, 8)
    few = score_features(*(Corners()(to_float(one)).numpy() for one in (a[rows], b[others])), ("fid",))["fid"]
    assert Distribution(Corners(), ("fid",))(First(), some)["fid[corners]"].value == pytest.approx(few, rel=1e-6)


@pytest.mark.parametrize(("total", "count"), [(600, 128), (129, 128), (10, 3), (7, 7), (5, 9), (1, 1), (0, 4)])
def test_a_sample_is_spread_over_all(total, count):
    rows = spread(total, count)
    assert len(set(rows.tolist())) == min(total, count) and sorted(rows) == rows.tolist()
    for number, row in enumerate(rows.tolist()):  # one of each stretch
        assert number * total // len(rows) <= row < (number + 1) * total // len(rows)
    assert np.array_equal(rows, spread(total, count))


def test_what_repeats_does_not_meet_the_step_of_a_sample():
    kinds = spread(800, 100) % 8  # eight cameras in turn: an even step of 8 would see one
    assert len(set(kinds.tolist())) == 8


def test_a_sample_says_of_how_many():
    latents = Latents(np.zeros((50, 2, 2, 3), np.uint8), 4, 0, "pictures")
    some = Subset(latents, 20)
    assert some.source == "pictures[20 of 50, spread]" and some.digest() == f"{latents.digest()}[20 of 50, spread]"
    assert torch.equal(some.batch(np.arange(20))[0], latents.latents[torch.from_numpy(spread(50, 20))])
    assert Subset(latents, 50).source == "pictures" and len(Subset(latents, 80)) == 50


def test_the_varied_half_of_a_sorted_folder_counts():
    """Diversity keeps a bounded number of outputs: not the first by name, which are all of one picture here."""
    pairs = Noise(60, 4)
    pairs.inputs[:30] = 0

    class Distance:
        name, weights_hash = "stub", "0" * 64

        def __call__(self, a, b):
            return (a - b).abs().mean((1, 2, 3))

    scores = Perceptual(Distance(), distances=False, diversity=10, batch=7)(nn.Identity(), pairs)
    kept = as_seen(pairs.inputs[spread(60, 20)])
    assert 0.1 < scores["diversity[stub]"].value < float((kept[:, None] - kept).abs().mean((2, 3, 4)).max())


class Reads(nn.Module):
    """Scores of ``count`` classes; a picture's red says which, in steps of 13."""

    def __init__(self, count):
        super().__init__()
        self.count = count

    def forward(self, x):
        shade = (x[:, :1] + 1) * 127.5
        return -(shade - 13 * torch.arange(self.count).reshape(1, -1, 1, 1)).abs()


class Paints(nn.Module):
    """The class that each number of a one-hot map means, as ``Reads`` reads it."""

    def __init__(self, meant):
        super().__init__()
        self.shades = torch.tensor([13.0 * meant.get(number, 0) for number in range(max(meant) + 1)]) / 127.5 - 1

    def forward(self, x):
        red = torch.einsum("nchw,c->nhw", x[:, : len(self.shades)], self.shades)
        return red[:, None].expand(-1, 3, -1, -1)


def table(tmp_path, label_ids):
    rows = [f"{k},class {k},{13 * k},0,0,{' '.join(map(str, ids))}" for k, ids in enumerate(label_ids)]
    (tmp_path / "table.csv").write_text("\n".join(["id,name,red,green,blue,label_ids", *rows]))
    return LabelTable.read(tmp_path / "table.csv")


def label_maps(classes, numbers, *, edges=False, key=None):
    maps = np.random.default_rng(0).choice(np.array(numbers, np.uint8), (3, 8, 10, 2 if edges else 1))
    maps[..., 1:] %= 2
    return LabelPairs(maps, np.zeros((3, 8, 10, 3), np.uint8), ("a", "b", "c"), "maps", classes, key)


@pytest.mark.parametrize("edges", [False, True])
@pytest.mark.parametrize(
    ("classes", "label_ids"),
    [
        (6, [[5], [0, 1], [3]]),  # several numbers of one class, one that no pixel has
        (3, [[2], [0], [1]]),  # as many numbers as classes, in another order
        (2, [[1], [0]]),  # one-hot maps of three channels are no colours
    ],
)
def test_numbers_of_label_maps_meet_classes_through_the_table(tmp_path, classes, label_ids, edges):
    meant = {number: k for k, numbers in enumerate(label_ids) for number in numbers}
    evaluator = Segmentation(Reads(len(label_ids)), table(tmp_path, label_ids), name="reads")
    pairs = label_maps(classes, list(meant), edges=edges)
    for data in (pairs, Subset(pairs, 2)):
        values = [score.value for score in evaluator(Paints(meant), data).values()]
        assert values == [100, 100]
    by_position = {number: number % len(label_ids) for number in meant}
    assert evaluator(Paints(by_position), pairs)["pixel_accuracy[reads]"].value < 60


def test_what_no_table_joins_is_refused(tmp_path):
    plain, joined = LabelTable.read("cityscapes"), table(tmp_path, [[5], [0], [3]])
    own = Segmentation(Reads(19), plain, name="own")
    with pytest.raises(EvaluationError, match=r"label maps of 20 numbers and a label table of 19 classes: "):
        own(Paints({0: 0}), label_maps(20, [0]))
    assert own(Paints({0: 0, 18: 18}), label_maps(19, [0, 18]))["miou[own]"].value == 100  # the classes' own numbers
    with pytest.raises(EvaluationError, match=r"hold the number 4, which label_ids of the table does not name"):
        Segmentation(Reads(3), joined, name="three")(Paints({0: 1, 4: 1}), label_maps(6, [0, 4]))
    with pytest.raises(EvaluationError, match=r"wanted are scores .* of 3 classes, those of the label table"):
        Segmentation(Reads(4), joined, name="four")(Paints({0: 1}), label_maps(6, [0]))
    with pytest.raises(EvaluationError, match=r"data\.labels and evaluation\.labels are different tables"):
        own(Paints({0: 0}), label_maps(35, [0], key="another"))
    by_colours = label_maps(35, [0, 7, 18], key=plain.key)  # classes, though there is room for Cityscapes' ids
    assert own(Paints({0: 0, 7: 7, 18: 18}), by_colours)["miou[own]"].value == 100


def test_pictures_are_not_compared_with_themselves(tmp_path, caplog):
    for folder, names in (("a", "xyz"), ("b", "mnop")):
        (tmp_path / folder).mkdir()
        for number, name in enumerate(names):
            Image.new("RGB", (8, 8), (40 * number, 0, 0)).save(tmp_path / folder / f"{name}.png")
    scoring = Scoring(EvaluationConfig(), extractor=Corners())
    with pytest.raises(EvaluationError, match=r"every picture of .*a' is one of .*b' itself"):
        evaluate_folders(scoring, tmp_path / "a", tmp_path / "b", ["fid"])
    Image.new("RGB", (8, 8), "blue").save(tmp_path / "a" / "new.png")
    with caplog.at_level(logging.WARNING):
        assert evaluate_folders(scoring, tmp_path / "a", tmp_path / "b", ["fid"])["fid[corners]"].value > 0
    assert "3 of the 4 pictures are the reference's own" in caplog.text


def test_another_teacher_is_another_reference():
    pairs, teachers = Noise(2, 4), [nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)]
    first, second = (provenance_of(pairs, teacher=teacher) for teacher in teachers)
    (line,) = provenance_differences(first, second)
    assert line.startswith("teacher: ") and not provenance_differences(first, provenance_of(pairs, teacher=teachers[0]))


@pytest.mark.parametrize("suffix", ["bmp", "tiff", "webp"])
def test_a_reference_saved_anew_is_not_scored_against_itself(tmp_path, suffix):
    """Other files, of the same pixels; and one pixel in one picture makes others of them."""
    real, scoring = saved(tmp_path / "real"), Scoring(EvaluationConfig())
    made = tmp_path / "made"
    made.mkdir()
    for file in real.iterdir():
        Image.open(file).save(made / f"{file.stem}.{suffix}", **({"lossless": True} if suffix == "webp" else {}))
    with pytest.raises(EvaluationError, match=r"of the same names, saved anew; .* with themselves"):
        evaluate_folders(scoring, made, real, ("l1",))
    one = Image.open(made / f"3.{suffix}").convert("RGB")
    one.putpixel((2, 2), tuple(255 - value for value in one.getpixel((2, 2))))
    one.save(made / f"3.{suffix}", **({"lossless": True} if suffix == "webp" else {}))
    assert 0 < evaluate_folders(scoring, made, real, ("l1",))["l1"].value < 0.01


def test_pictures_in_folders_inside_are_told(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(reader, "_said", set())
    monkeypatch.setenv("GANTAILOR_CACHE", str(tmp_path / "cache"))
    flat, deep = saved(tmp_path / "flat", seed=1), saved(tmp_path / "deep")
    (flat / "empty").mkdir()
    assert len(folder_pairs(flat, size=16, direction="unpaired")) == 5 and "left out" not in caplog.text
    for name in ("cat", "dog"):
        saved(deep / name, seed=3)
    score = score_folders(deep, flat, Corners(), ["fid"])["fid[corners]"]
    assert score.provenance["images"] == 5
    assert f"folder {str(deep)!r}: the pictures in folders inside it (cat, dog) are left out" in caplog.text
    caplog.clear()
    monkeypatch.setattr(reader, "_said", set())
    assert len(folder_pairs(deep, size=16, direction="unpaired")) == 5 and "(cat, dog) are left out" in caplog.text
