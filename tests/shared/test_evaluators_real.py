"""Evaluators with the real weights beside the project; skipped where they are not."""

from pathlib import Path

import pytest
from torch import nn

from gantailor.evaluators.features.extractor import make_extractor
from gantailor.evaluators.metrics.distribution import Distribution
from gantailor.evaluators.metrics.perceptual import Lpips, Perceptual
from gantailor.zoo.data.kinds.folder import folder_pairs

SHARED = Path(__file__).parents[3] / "shared" / "data"
pytestmark = [pytest.mark.long, pytest.mark.skipif(not SHARED.is_dir(), reason=f"{SHARED} is not here")]


class Right(nn.Module):
    """Gives the wanted pictures, blurred."""

    def __init__(self, blur):
        super().__init__()
        self.blur = nn.AvgPool2d(blur, 1, blur // 2, count_include_pad=False)

    def forward(self, x):
        return self.blur(x)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    mp = pytest.MonkeyPatch()
    mp.setenv("GANTAILOR_CACHE", str(tmp_path_factory.mktemp("cache")))
    pairs = folder_pairs(SHARED / "facades" / "val", size=128)
    yield type(pairs)(pairs.inputs, pairs.inputs, pairs.names, pairs.source)
    mp.undo()


def test_fid768_of_the_true_inception(photos):
    folder = SHARED / "fid_inception_2015"
    extractor = make_extractor("inception-2015-12-05@768", str(next(folder.glob("*.pth"))))
    fid = Distribution(extractor, ("fid", "precision"))
    values = [fid(Right(blur), photos)["fid768[inception-2015-12-05]"].value for blur in (1, 3, 5)]
    assert values[0] == pytest.approx(0, abs=1e-4)
    assert values[0] < values[1] < values[2]


def test_lpips_of_the_true_alexnet(photos):
    folder = SHARED / "lpips"
    lpips = Perceptual(Lpips(folder / "alex_features_torchvision.pth", folder / "lin_v0.1_alex.pth"), diversity=20)
    scores = [lpips(Right(blur), photos) for blur in (1, 3, 5)]
    values = [score["lpips[alex-v0.1]"].value for score in scores]
    assert values[0] == 0
    assert 0.02 < values[1] < values[2] < 0.6
    assert 0.5 < scores[0]["diversity[alex-v0.1]"].value < 0.9  # facades differ about as much as the original's pairs
