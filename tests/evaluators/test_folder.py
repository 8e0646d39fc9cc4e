"""Folders of pictures against each other: the right value or one clear message."""

import json

import numpy as np
import pytest
from PIL import Image

from gantailor.cli.main import main
from gantailor.evaluators.folder import Pictures, features_of, score_folders
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
    np.testing.assert_allclose(features[3], [1, -1, -1], atol=1e-6)


def test_corrupt_files_are_named_and_skipped_when_asked(tmp_path):
    folder = pictures(tmp_path / "a", 3)
    (folder / "001.png").write_bytes((folder / "001.png").read_bytes()[:60])
    with pytest.raises(EvaluationError, match=r"001\.png.*--skip-corrupt"):
        features_of(Pictures.of(folder), Means())
    assert len(features_of(Pictures.of(folder), Means(), skip_corrupt=True)) == 2


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
