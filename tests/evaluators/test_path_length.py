"""Perceptual path length against the published procedure written out; what it is asked of, and what it is not."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import gantailor
from gantailor.evaluators.config import EvaluationConfig
from gantailor.evaluators.conformance import Noise, NoiseLatents, Painter
from gantailor.evaluators.metrics.path_length import PathLength, slerp
from gantailor.evaluators.scoring import Scoring
from gantailor.supernet.errors import EvaluationError
from gantailor.zoo.data.latents import Latents
from tests.evaluators.test_networks import vgg  # noqa: F401  a fixture


class Squares:
    """A distance in place of LPIPS, large enough for float32."""

    name, weights_hash = "squares", "0" * 64

    def __init__(self):
        self.sides = []

    def __call__(self, a, b):
        self.sides.append(tuple(a.shape[1:]))
        return 1e4 * (a - b).square().mean((1, 2, 3))


def stylegan2(size=16):
    torch.manual_seed(1)
    channels = {2**k: 4 for k in range(2, size.bit_length())}
    return gantailor.build("stylegan2", size=size, style_dim=8, n_mlp=2, channels=channels).eval()


def latents(count=3):
    return Latents(np.zeros((count, 16, 16, 3), np.uint8), 8, 0, "none")


def published(generator, distance, *, space, count, batch, crop=False):
    """Karras et al. 2019, appendix C; 2020: in w at t = 0 without a crop. One path at a time."""
    random, found, epsilon = torch.Generator().manual_seed(0), [], 1e-4
    while len(found) < count:
        rows = min(batch, count - len(found))
        ends, where = torch.randn(2 * rows, 8, generator=random), torch.rand(rows, 1, generator=random)
        for n in range(rows):
            a, b, t = ends[n], ends[rows + n], float(where[n])
            if space == "w":
                w = generator.mapping(torch.stack([a, b]))
                points = torch.stack([w[0], w[0] + (w[1] - w[0]) * epsilon])
            else:
                a, b = a / a.norm(), b / b.norm()
                angle = torch.acos((a * b).sum())
                sines = [(torch.sin((1 - s) * angle) * a + torch.sin(s * angle) * b) for s in (t, t + epsilon)]
                points = generator.mapping(torch.stack(sines) / torch.sin(angle) * math.sqrt(8))
            images = generator.synthesis(points)
            side = images.shape[2]
            if crop:
                images = images[:, :, side // 8 * 3 : side // 8 * 7, side // 8 * 2 : side // 8 * 6]
            found.append(float(distance(images[:1], images[1:])) / epsilon**2)
    low, high = np.percentile(found, 1, method="lower"), np.percentile(found, 99, method="higher")
    return np.mean([value for value in found if low <= value <= high])


@pytest.mark.parametrize(("space", "crop"), [("w", False), ("z", False), ("z", True)])
@torch.no_grad()
def test_it_is_the_published_procedure(space, crop):
    net = stylegan2()
    scores = PathLength(Squares(), [space], samples=11, batch=4, crop=crop)(net, latents())
    (score,) = scores.values()
    assert list(scores) == [f"ppl_{space}[squares]"]
    expected = published(net, Squares(), space=space, count=11, batch=4, crop=crop)
    assert score.value == pytest.approx(expected, rel=3e-3)  # differences of 1e-4 of a path, in float32
    assert score.lower_is_better
    wanted = {"paths": 11, "space": space, "sampling": "end" if space == "w" else "full", "crop": crop}
    assert wanted.items() <= score.provenance.items()


@torch.no_grad()
def test_of_a_linear_painter_it_is_a_formula():
    """Of 201 paths the two shortest and the two longest are left out."""
    random = torch.Generator().manual_seed(0)
    first, last = torch.randn(2 * 201, 8, generator=random).chunk(2)
    net = nn.Sequential(nn.Linear(8, 3 * 4 * 4), nn.Unflatten(1, (3, 4, 4)))
    lengths = sorted((1e4 * ((last - first) @ net[0].weight.T).square().mean(1)).tolist())
    found = PathLength(Squares(), ["w"], samples=201, batch=201)(net, NoiseLatents())["ppl_w[squares]"]
    assert found.value == pytest.approx(np.mean(lengths[2:-2]), rel=1e-3)
    assert found.provenance["space"] == "latents, as there is no mapping network"


def test_arcs_are_on_the_sphere():
    a, b = torch.randn(2, 5, 7, dtype=torch.float64)
    middle = slerp(a, b, torch.full((5, 1), 0.5, dtype=torch.float64))
    torch.testing.assert_close(middle, F.normalize(F.normalize(a, dim=1) + F.normalize(b, dim=1), dim=1))
    torch.testing.assert_close(slerp(a, b, torch.ones(5, 1, dtype=torch.float64)), F.normalize(b, dim=1))


@torch.no_grad()
def test_large_pictures_are_pooled_to_256():
    """By means over squares, at the whole picture's factor also where it is cropped; grey ones get three channels."""

    class Large(nn.Module):
        def forward(self, z):
            return z[:, :1, None, None].expand(-1, 1, 1024, 1024)

    for crop, side in ((False, 256), (True, 128)):
        distance = Squares()
        PathLength(distance, ["z"], samples=2, batch=2, crop=crop)(Large(), NoiseLatents())
        assert distance.sides == [(3, side, side)]


def test_it_wants_latents():
    with pytest.raises(EvaluationError, match="moves latents, and this generator takes pictures") as caught:
        PathLength(Squares(), ["w"])(nn.Identity(), Noise(2))
    assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(EvaluationError, match="compares pictures"):
        PathLength(Squares(), ["z"], samples=2)(nn.Identity(), NoiseLatents())


def test_network_and_settings_are_named(vgg):  # noqa: F811
    files = {"lpips_features": str(vgg / "vgg.pth"), "lpips_heads": str(vgg / "heads.pth"), "lpips_network": "vgg"}
    config = EvaluationConfig(**files, path_samples=3, path_crop=True)
    scores = Scoring(config).evaluator(["ppl_z", "ppl_w"])(Painter().eval(), NoiseLatents())
    assert list(scores) == ["ppl_z[vgg-v0.1]", "ppl_w[vgg-v0.1]"]
    for score in scores.values():
        assert (score.provenance["paths"], score.provenance["crop"]) == (3, True)
        assert len(score.provenance["weights"]) == 12 and score.value > 0
