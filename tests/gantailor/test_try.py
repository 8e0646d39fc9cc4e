"""The page to try a model on: the pixels of ``gantailor run``, and mistakes in words."""

import sys

import numpy as np
import pytest
from PIL import Image

from gantailor.cli.main import main
from gantailor.inference.models import PictureModel
from gantailor.inference.page import make_page, tried
from gantailor.inference.tiles import Tiling
from gantailor.supernet.errors import ConfigError, DataError, GantailorError


def negative(run=lambda x: -x, channels=3):
    return Tiling(model=PictureModel(name="negative", run=run, channels=channels))


def broken(x):
    raise RuntimeError("no such kernel")


@pytest.fixture
def picture(tmp_path):
    rng = np.random.default_rng(0)
    file = tmp_path / "picture.png"
    Image.fromarray(rng.integers(0, 256, (12, 10, 3), dtype=np.uint8)).save(file)
    return file


def test_it_makes_what_run_makes(picture):
    with Image.open(picture) as opened:
        assert np.array_equal(tried(negative(), str(picture)), 255 - np.asarray(opened))
    grey = tried(negative(channels=1), str(picture))
    assert grey.shape == (12, 10, 3) and np.array_equal(grey[..., 0], grey[..., 2])


def test_mistakes_are_words(picture, tmp_path, monkeypatch, capsys):
    with pytest.raises(GantailorError, match="no such kernel"):
        tried(negative(broken), picture)
    (tmp_path / "no.png").write_bytes(b"no picture")
    with pytest.raises(DataError):
        tried(negative(), str(tmp_path / "no.png"))
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(ConfigError, match=r"gantailor\[page\]"):
        make_page(negative())
    assert main(["try", str(tmp_path / "nothing")]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_the_page_answers(picture):
    gradio = pytest.importorskip("gradio")
    page = make_page(negative())
    assert np.array_equal(page.fn(str(picture)), tried(negative(), str(picture))) and page.fn(None) is None
    with pytest.raises(gradio.Error, match="no such kernel"):
        make_page(negative(broken)).fn(str(picture))
