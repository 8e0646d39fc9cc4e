"""Folders of pictures against each other: the right value or one clear message."""

import json
import os
import re

import numpy as np
import pytest
from PIL import Image

from gantailor.cli.main import main
from gantailor.evaluators.config import EvaluationConfig
from gantailor.evaluators.folder import Pictures, evaluate_folders, features_of, score_folders
from gantailor.evaluators.scoring import Scoring
from gantailor.supernet.errors import EvaluationError


class Means:
    """Features that can be counted by hand."""

    name, dims, variant, resize, weights_hash = "means", 3, "", "none", "0" * 64
    calls = 0

    def __call__(self, images):
        self.calls += len(images)
        return images.mean((2, 3))


def pictures(folder, count, *, seed=0, size=(8, 8), mode="RGB"):
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(seed)
    for number in range(count):
        pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).convert(mode).save(folder / f"{number:03d}.png")
    return folder


def test_scores_and_provenance(tmp_path):
    a, b = pictures(tmp_path / "a", 12), pictures(tmp_path / "b", 15, seed=1)
    scores = score_folders(a, b, Means(), ["fid", "kid", "precision", "recall", "density", "coverage"])
    assert list(scores) == [f"{m}[means]" for m in ("fid", "kid", "precision", "recall", "density", "coverage")]
    provenance = scores["fid[means]"].provenance
    assert (provenance["images"], provenance["reference_images"], provenance["resize"]) == (12, 15, "none")
    assert provenance["reference_hash"] == Pictures.of(b).digest[:12]
    assert score_folders(a, a, Means(), ["fid"])["fid[means]"].value == pytest.approx(0, abs=1e-9)


def test_reference_features_are_computed_once(tmp_path):
    a, b = pictures(tmp_path / "a", 6), pictures(tmp_path / "b", 7, seed=1)
    first, second = Means(), Means()
    scores = [score_folders(a, b, e, ["fid"], cache=tmp_path)["fid[means]"].value for e in (first, second)]
    assert scores[0] == scores[1]
    assert (first.calls, second.calls) == (13, 6)
    Image.new("RGB", (8, 8)).save(b / "new.png")  # other contents: other features
    third = Means()
    score_folders(a, b, third, ["fid"], cache=tmp_path)
    assert third.calls == 14


def test_grey_rgba_and_mixed_sizes(tmp_path):
    folder = pictures(tmp_path / "a", 2)
    Image.new("L", (5, 9), 255).save(folder / "grey.png")
    Image.new("RGBA", (4, 4), (255, 0, 0, 128)).save(folder / "rgba.png")
    features = features_of(Pictures.of(folder), Means())
    assert features.shape == (4, 3)
    np.testing.assert_allclose(features[2], [1, 1, 1], atol=1e-6)
    np.testing.assert_allclose(features[3], [1, 127 / 127.5 - 1, 127 / 127.5 - 1], atol=1e-6)  # laid on white


def test_corrupt_files_are_named_and_skipped_when_asked(tmp_path):
    folder = pictures(tmp_path / "a", 3)
    (folder / "001.png").write_bytes((folder / "001.png").read_bytes()[:60])
    with pytest.raises(EvaluationError, match=r"001\.png.*--skip-corrupt"):
        features_of(Pictures.of(folder), Means())
    assert len(features_of(Pictures.of(folder), Means(), skip_corrupt=True)) == 2


def test_floats_and_sixteen_bits_are_no_black_and_white(tmp_path):
    ramp = np.linspace(0, 1, 9, dtype=np.float32)[None]
    Image.fromarray(ramp).save(tmp_path / "float.tif")
    Image.fromarray((ramp * 65535).astype(np.uint16)).save(tmp_path / "sixteen.png")
    np.testing.assert_allclose(features_of(Pictures.of(tmp_path), Means()), 0, atol=1 / 127.5)


@pytest.mark.parametrize("left", [0, 50, -4])
def test_a_features_cache_that_was_cut_short_is_made_again(tmp_path, left):
    folder = tmp_path / "p"
    folder.mkdir()
    for number in range(3):
        Image.new("RGB", (8, 8), (80 * number, 9, 200)).save(folder / f"{number}.png")
    right = features_of(Pictures.of(folder), Means(), cache=tmp_path)
    (file,) = tmp_path.glob("features-*.npy")
    file.write_bytes(file.read_bytes()[:left])
    assert np.array_equal(features_of(Pictures.of(folder), Means(), cache=tmp_path), right)
    assert np.array_equal(np.load(file), right)


def test_features_are_cached_by_background_too(tmp_path):
    folder = tmp_path / "a"
    folder.mkdir()
    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(folder / "x.png")
    for background, value in (("white", 1), ("black", -1), ("white", 1)):
        found = features_of(Pictures.of(folder), Means(), cache=tmp_path, background=background)
        np.testing.assert_allclose(found, value)


def numbered(folder, names, more=0):
    folder.mkdir()
    for name in names:
        shade = int(re.sub("[^0-9]", "", name)) * 10 + more
        Image.new("RGB", (16, 16), (shade,) * 3).save(folder / name)
    return folder


def scored(made, real, **options):
    return evaluate_folders(Scoring(EvaluationConfig()), made, real, ["l1"], **options)["l1"]


def test_names_with_and_without_zeros(tmp_path, caplog):
    made = numbered(tmp_path / "a", [f"{k}.png" for k in range(1, 11)], more=1)
    real = numbered(tmp_path / "b", [f"{k:04}.png" for k in range(1, 11)])
    score = scored(made, real)
    assert score.value == pytest.approx(1 / 127.5) and score.provenance["images"] == 10 and not caplog.records


def test_what_has_no_partner_is_counted(tmp_path, caplog):
    made = numbered(tmp_path / "a", ["1.png", "2.png", "3.png"], more=1)
    real = numbered(tmp_path / "b", ["2.png", "3.jpg", "4.png", "5.png"])
    score = scored(made, real)
    assert score.provenance["images"] == 2
    assert [r.message for r in caplog.records] == [
        f"2 pairs by name; no partner have 1 of {str(made)!r} (1.png) and 2 of {str(real)!r} (4.png, 5.png)"
    ]


def test_mistakes_in_names_sizes_and_files(tmp_path, caplog):
    made, real = numbered(tmp_path / "a", ["1.png", "2.png"]), numbered(tmp_path / "b", ["1.png", "1.bmp"])
    with pytest.raises(EvaluationError, match=r"'1\.bmp' and '1\.png' in .*b' have one name"):
        scored(made, real)
    (real / "1.bmp").rename(real / "2.bmp")
    (made / "2.png").write_bytes(b"")
    with pytest.raises(EvaluationError, match=r"2\.png.*empty file.*--skip-corrupt"):
        scored(made, real)
    assert scored(made, real, skip_corrupt=True).provenance["images"] == 1
    assert "of 4 pictures 1 cannot be read and are left out (2.png)" in caplog.text
    Image.new("RGB", (17, 16)).save(made / "2.png")
    with pytest.raises(EvaluationError, match=r"2\.png' and '.*2\.bmp' are of different sizes, 17x16 and 16x16"):
        scored(made, real)
    with pytest.raises(EvaluationError, match="has the name of one in"):
        scored(made, numbered(tmp_path / "c", ["7.png"]))


def test_hidden_names_and_folders_are_no_pictures(tmp_path):
    folder = pictures(tmp_path / "a", 3)
    (folder / "._000.png").write_bytes(b"Mac OS X")
    (folder / "folder.png").mkdir()
    os.mkfifo(folder / "fifo.png")
    assert [f.name for f in Pictures.of(folder).files] == ["000.png", "001.png", "002.png"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": "empty"}, "holds no pictures"),
        ({"images": "nowhere"}, "does not exist"),
        ({"images": "one"}, "at least 2 images on each side, not 1"),
        ({"metrics": ["fidd"]}, "metric 'fidd' is unknown; allowed are fid"),
    ],
)
def test_mistakes(tmp_path, change, message):
    pictures(tmp_path / "a", 6), pictures(tmp_path / "one", 1)
    (tmp_path / "empty").mkdir()
    images = tmp_path / change.get("images", "a")
    with pytest.raises(EvaluationError, match=message):
        score_folders(images, tmp_path / "a", Means(), change.get("metrics", ["fid"]))


@pytest.mark.long
def test_command_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("GANTAILOR_CACHE", str(tmp_path / "cache"))
    a, b = pictures(tmp_path / "a", 8), pictures(tmp_path / "b", 9, seed=1)
    command = ["evaluate", "--images", str(a), "--reference", str(b), "--metrics", "fid,kid,recall"]
    assert main([*command, "--json"]) == 0
    printed = capsys.readouterr().out
    result = json.loads(printed)
    assert list(result) == [f"{m}[efficientnet-lite0]" for m in ("fid", "kid", "recall")]
    (tmp_path / "before.json").write_text(printed)
    Image.new("RGB", (8, 8)).save(b / "new.png")
    assert main([*command, "--against", str(tmp_path / "before.json")]) == 0
    captured = capsys.readouterr()
    assert "warning: fid[efficientnet-lite0] does not compare: reference_hash" in captured.err
    assert "lower is better" in captured.out
    for wrong, message in (
        (["--reference", str(tmp_path / "none")], "does not exist"),
        (["--extractor", "inception-2015-12-05@768"], "needs --weights FILE"),
        (["--extractor", "vgg"], "extractor 'vgg' is unknown"),
        (["--metrics", "is"], "metric 'is' is unknown"),
    ):
        assert main([*command, *wrong]) == 2
        assert message in capsys.readouterr().err
