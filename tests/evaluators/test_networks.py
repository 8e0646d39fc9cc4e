"""The FID Inception, LPIPS and Gram features: key layouts, folding, formulas, wrong files."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gantailor.evaluators.config import EvaluationConfig
from gantailor.evaluators.features.gram import GramLoss
from gantailor.evaluators.features.inception import FidInception, _layers
from gantailor.evaluators.metrics.perceptual import Lpips, pairwise_diversity
from gantailor.evaluators.scoring import Scoring
from gantailor.evaluators.weights import weights_digest
from gantailor.supernet.errors import ConfigError, EvaluationError


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Random weights in pytorch-fid's layout."""
    torch.manual_seed(0)
    state = {"fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}
    for name, module in nn.ModuleDict(_layers()).named_modules():
        if isinstance(module, nn.Conv2d):
            layer, width = name.removesuffix(".conv"), module.out_channels
            fan = module.weight[0].numel()
            state[f"{layer}.conv.weight"] = torch.randn_like(module.weight) * (2 / fan) ** 0.5
            state[f"{layer}.bn.weight"], state[f"{layer}.bn.bias"] = torch.rand(width) + 0.5, torch.randn(width) / 10
            state[f"{layer}.bn.running_mean"] = torch.randn(width) / 10
            state[f"{layer}.bn.running_var"] = torch.rand(width) + 0.5
    path = tmp_path_factory.mktemp("weights") / "pt_inception.pth"
    torch.save(state, path)
    return path


def test_layout_is_the_originals(weights):
    """Layer counts and some shapes of the published network: 94 convolutions, 21,785,568 weights and norms."""
    state = torch.load(weights, weights_only=True)
    assert sum(name.endswith("conv.weight") for name in state) == 94
    assert sum(v.numel() for n, v in state.items() if "running" not in n and "fc" not in n) == 21_785_568
    assert state["Mixed_6b.branch7x7dbl_2.conv.weight"].shape == (128, 128, 7, 1)
    assert state["Mixed_7b.branch3x3dbl_3b.conv.weight"].shape == (384, 384, 3, 1)
    assert state["Mixed_7c.branch1x1.conv.weight"].shape == (320, 2048, 1, 1)


@pytest.mark.long
def test_folding_and_dimensions(weights):
    x = torch.rand(1, 3, 299, 299) * 2 - 1
    for dims in (64, 192, 768, 2048):
        extractor = FidInception(weights, dims=dims)
        assert extractor(x).shape == (1, dims)
    state = torch.load(weights, weights_only=True)

    def literal(y, layer, **options):
        y = F.conv2d(y, state[f"{layer}.conv.weight"], **options)
        names = ("running_mean", "running_var", "weight", "bias")
        return F.relu(F.batch_norm(y, *(state[f"{layer}.bn.{name}"] for name in names), eps=1e-3))

    y = literal(literal(literal(x, "Conv2d_1a_3x3", stride=2), "Conv2d_2a_3x3"), "Conv2d_2b_3x3", padding=1)
    y = F.max_pool2d(y, 3, 2)
    torch.testing.assert_close(FidInception(weights, dims=64)(x), y.mean((2, 3)), rtol=1e-4, atol=1e-5)


def test_wrong_files_are_named(weights, tmp_path):
    with pytest.raises(EvaluationError, match="do not exist; give pytorch-fid's"):
        FidInception(tmp_path / "none.pth")
    with pytest.raises(EvaluationError, match="no features of 1024 dimensions"):
        FidInception(weights, dims=1024)
    named = tmp_path / "pt_inception-2015-12-05-6726825d.pth"
    named.write_bytes(weights.read_bytes())
    with pytest.raises(EvaluationError, match="not 6726825d as it is named"):
        FidInception(named)
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "alex.pth")
    with pytest.raises(EvaluationError, match="is not the FID Inception"):
        FidInception(tmp_path / "alex.pth")
    (tmp_path / "half.pth").write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(EvaluationError, match="cannot be read"):
        FidInception(tmp_path / "half.pth")


def test_tensorflow_resize_is_its_definition(weights):
    """TensorFlow 1's kernel, written out: source = i * in / out, the right neighbour clamped."""
    from gantailor.evaluators.features.inception import RESIZES

    x = torch.rand(1, 1, 7, 64, dtype=torch.float64)
    made = RESIZES["tensorflow"](x)
    for row, column in ((0, 0), (5, 298), (298, 3), (150, 151), (298, 298)):
        y, z = row * 7 / 299, column * 64 / 299
        top, left = int(y), int(z)
        bottom, right = min(top + 1, 6), min(left + 1, 63)
        a, b = (x[0, 0, r, left] * (1 - z + left) + x[0, 0, r, right] * (z - left) for r in (top, bottom))
        assert made[0, 0, row, column] == pytest.approx(float(a * (1 - y + top) + b * (y - top)), rel=1e-12)
    assert FidInception(weights, dims=64, resize="tensorflow").resize == "tensorflow 299, no antialiasing"
    with pytest.raises(EvaluationError, match="allowed are bilinear, tensorflow"):
        FidInception(weights, dims=64, resize="lanczos")


@pytest.fixture(scope="module")
def lpips(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("lpips")
    shapes = {0: (64, 3, 11), 3: (192, 64, 5), 6: (384, 192, 3), 8: (256, 384, 3), 10: (256, 256, 3)}
    alex = {}
    for number, (outputs, inputs, kernel) in shapes.items():
        alex[f"features.{number}.weight"] = torch.randn(outputs, inputs, kernel, kernel) / (inputs * kernel**2) ** 0.5
        alex[f"features.{number}.bias"] = torch.randn(outputs) / 10
    heads = {f"lin{k}.model.1.weight": torch.rand(1, w, 1, 1) for k, w in enumerate((64, 192, 384, 256, 256))}
    torch.save(alex, folder / "alex.pth")
    torch.save(heads, folder / "heads.pth")
    return folder


VGG = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512)
TAPPED = ("features.2", "features.7", "features.14", "features.21", "features.28")  # conv1_2, 2_2, 3_3, 4_3, 5_3


@pytest.fixture(scope="session")
def vgg(tmp_path_factory):
    """Random weights of VGG16 in torchvision's layout, its classifier's too, and heads."""
    random = torch.Generator().manual_seed(0)
    folder, state, number, inputs = tmp_path_factory.mktemp("vgg"), {}, 0, 3
    for width in VGG:
        if width == "M":
            number += 1
            continue
        weight = torch.randn(width, inputs, 3, 3, generator=random)
        state[f"features.{number}.weight"] = weight * (2 / (9 * inputs)) ** 0.5
        state[f"features.{number}.bias"] = torch.randn(width, generator=random) / 10
        number, inputs = number + 2, width
    state["classifier.0.weight"] = torch.zeros(1)
    widths = (64, 128, 256, 512, 512)
    heads = {f"lin{k}.model.1.weight": torch.rand(1, w, 1, 1, generator=random) for k, w in enumerate(widths)}
    torch.save(state, folder / "vgg.pth")
    torch.save(heads, folder / "heads.pth")
    return folder


def literal_vgg(state, x):
    """What comes behind the ReLU of each tapped convolution."""
    taps, number = [], 0
    for width in VGG:
        if width == "M":
            x, number = F.max_pool2d(x, 2, 2), number + 1
            continue
        x = F.relu(F.conv2d(x, state[f"features.{number}.weight"], state[f"features.{number}.bias"], padding=1))
        taps += [x] if f"features.{number}" in TAPPED else []
        number += 2
    return taps


def test_lpips_with_vgg_is_its_formula(vgg):
    distance = Lpips(vgg / "vgg.pth", vgg / "heads.pth", network="vgg")
    state, heads = (torch.load(vgg / f, weights_only=True) for f in ("vgg.pth", "heads.pth"))
    random = torch.Generator().manual_seed(1)
    a, b = (torch.rand(2, 3, 32, 48, generator=random) * 2 - 1 for _ in range(2))
    shift, scale = (torch.tensor(v).view(1, 3, 1, 1) for v in ([-0.030, -0.088, -0.188], [0.458, 0.448, 0.450]))
    taps = [literal_vgg(state, (x - shift) / scale) for x in (a, b)]
    expected = torch.zeros(2)
    for k, (x, y) in enumerate(zip(*taps, strict=True)):
        squares = (F.normalize(x, dim=1) - F.normalize(y, dim=1)) ** 2
        expected += (squares * heads[f"lin{k}.model.1.weight"]).sum(1).mean((1, 2))
    torch.testing.assert_close(distance(a, b), expected, rtol=1e-5, atol=0)
    assert distance.name == "vgg-v0.1" and torch.equal(distance(a, a), torch.zeros(2))


def test_gram_loss_is_its_formula(vgg):
    loss, state = GramLoss(vgg / "vgg.pth"), torch.load(vgg / "vgg.pth", weights_only=True)
    random = torch.Generator().manual_seed(2)
    a, b = (torch.rand(2, 3, 32, 24, generator=random) * 2 - 1 for _ in range(2))
    taps = [literal_vgg(state, (x + 1) / 2)[:4] for x in (a, b)]
    for n in range(2):
        expected = (taps[0][0][n] - taps[1][0][n]).abs().mean()
        for x, y in zip(*taps, strict=True):
            _, channels, height, width = x.shape
            grams = [torch.einsum("chw,dhw->cd", f[n], f[n]) / (channels * height * width) for f in (x, y)]
            expected += 1e5 * ((grams[0] - grams[1]) ** 2).sum() / channels**2
        assert float(loss(a, b)[n]) == pytest.approx(float(expected), rel=1e-4)
    made = a.clone().requires_grad_(True)
    assert torch.autograd.grad(loss(made, b).sum(), made)[0].abs().sum() > 0
    assert not any(p.requires_grad for p in loss.network.parameters())
    assert float(loss(a, a).sum()) == 0


def test_weights_of_another_network_are_told(vgg, lpips, tmp_path):
    """In one line, with what is wrong and what to give."""
    state = torch.load(vgg / "vgg.pth", weights_only=True)
    torch.save({**state, "features.28.weight": torch.zeros(512, 256, 3, 3)}, tmp_path / "shape.pth")
    torch.save({name.removeprefix("features."): t for name, t in state.items()}, tmp_path / "names.pth")
    cases = [
        (lambda: Lpips(lpips / "alex.pth", vgg / "heads.pth", network="vgg"), "is not LPIPS's VGG16: it has no feat"),
        (lambda: Lpips(vgg / "vgg.pth", lpips / "heads.pth", network="vgg"), r"lin1.* has shape \[1, 192, 1, 1\], not"),
        (
            lambda: Lpips(vgg / "vgg.pth", vgg / "vgg.pth", network="vgg"),
            "has no lin0.*needs the official heads, .*vgg",
        ),
        (lambda: Lpips(vgg / "vgg.pth", vgg / "heads.pth"), "is not LPIPS's AlexNet: .*LPIPS needs AlexNet's weights"),
        (lambda: GramLoss(tmp_path / "shape.pth"), r"28.weight has shape \[512, 256, 3, 3\], not \[512, 512, 3, 3\]"),
        (lambda: GramLoss(tmp_path / "names.pth"), "is not the Gram loss's VGG16: it has no features.0.weight"),
        (lambda: GramLoss(tmp_path / "none.pth"), "do not exist; the Gram loss needs VGG16's weights in torchvision's"),
    ]
    for make, message in cases:
        with pytest.raises(EvaluationError, match=message) as caught:
            make()
        assert len(str(caught.value).splitlines()) == 1


def test_scoring_reads_the_configured_network(vgg):
    files = {"lpips_features": str(vgg / "vgg.pth"), "lpips_heads": str(vgg / "heads.pth")}
    scoring = Scoring(EvaluationConfig(**files, lpips_network="vgg"))
    assert scoring.perceptual("lpips") is scoring.lpips() and scoring.lpips().name == "vgg-v0.1"
    assert scoring.lpips().weights_hash == weights_digest(vgg / "vgg.pth", vgg / "heads.pth")
    assert isinstance(scoring.perceptual("gram"), GramLoss)
    for config in (EvaluationConfig(**files), EvaluationConfig(lpips_network="vgg")):
        with pytest.raises(ConfigError, match="gram needs VGG16's weights: set evaluation"):
            Scoring(config).perceptual("gram")


def test_lpips_is_its_formula(lpips):
    distance = Lpips(lpips / "alex.pth", lpips / "heads.pth")
    a, b = torch.rand(2, 3, 64, 64) * 2 - 1, torch.rand(2, 3, 64, 64) * 2 - 1
    assert torch.equal(distance(a, a), torch.zeros(2))
    torch.testing.assert_close(distance(a, b), distance(b, a))
    state, heads = (torch.load(lpips / f, weights_only=True) for f in ("alex.pth", "heads.pth"))
    expected = 0.0
    xs = [(x[:1] - torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1)) for x in (a, b)]
    xs = [x / torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1) for x in xs]
    settings = {0: (4, 2), 3: (1, 2), 6: (1, 1), 8: (1, 1), 10: (1, 1)}
    for k, (number, (stride, padding)) in enumerate(settings.items()):
        if number in (3, 6):
            xs = [F.max_pool2d(x, 3, 2) for x in xs]
        weight, bias = (state[f"features.{number}.{part}"] for part in ("weight", "bias"))
        xs = [F.relu(F.conv2d(x, weight, bias, stride=stride, padding=padding)) for x in xs]
        units = [F.normalize(x, dim=1) for x in xs]
        expected += ((units[0] - units[1]) ** 2 * heads[f"lin{k}.model.1.weight"]).sum(1).mean()
    assert distance(a, b)[0] == pytest.approx(float(expected), rel=1e-5)


def test_diversity_and_mistakes(lpips):
    distance = Lpips(lpips / "alex.pth", lpips / "heads.pth")
    one = torch.rand(1, 3, 64, 64)
    assert pairwise_diversity(distance, one.repeat(4, 1, 1, 1), pairs=8) == 0
    assert pairwise_diversity(distance, torch.rand(4, 3, 64, 64), pairs=8) > 0
    with pytest.raises(EvaluationError, match="of one size"):
        distance(one, one[..., :32])
    with pytest.raises(EvaluationError, match="is not LPIPS's AlexNet"):
        Lpips(lpips / "heads.pth", lpips / "heads.pth")
    assert np.isfinite(float(distance(one, one.roll(1, 3))))
