"""Real-ESRGAN's discriminator and stages: published names and numbers, a literal forward, one step of training."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import gantailor
from gantailor.supernet.errors import ConfigError
from gantailor.supernet.training.image_to_image import ImageToImage
from gantailor.supernet.training.recipe import Recipe
from gantailor.zoo.data.pairs import Pairs
from gantailor.zoo.discriminators.build import make_discriminator
from gantailor.zoo.discriminators.unet import UnetDiscriminator


def test_names_and_shapes_are_the_published():
    """Those of RealESRGAN_x4plus_netD.pth."""
    with torch.device("meta"):
        net = UnetDiscriminator()
    shapes = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    expected = {"conv0.weight": (64, 3, 3, 3), "conv0.bias": (64,), "conv9.weight": (1, 64, 3, 3), "conv9.bias": (1,)}
    sizes = [(128, 64, 4), (256, 128, 4), (512, 256, 4), (256, 512, 3), (128, 256, 3), (64, 128, 3), *[(64, 64, 3)] * 2]
    for number, (made, taken, side) in enumerate(sizes, 1):
        expected |= {f"conv{number}.weight_orig": (made, taken, side, side), f"conv{number}.weight_u": (made,)}
        expected[f"conv{number}.weight_v"] = (taken * side * side,)
    assert shapes == expected
    assert sum(value.numel() for value in net.parameters()) == 4_376_897


@torch.no_grad()
def test_a_literal_forward():
    torch.manual_seed(0)
    net = UnetDiscriminator(ndf=4).double()
    pictures = torch.rand(2, 3, 24, 16, dtype=torch.float64)
    for _ in range(400):  # the power iteration finds the largest singular value
        net(pictures)
    net.eval()
    state = net.state_dict()
    weights = {0: state["conv0.weight"], 9: state["conv9.weight"]}
    for number in range(1, 9):
        weight = state[f"conv{number}.weight_orig"]
        weights[number] = weight / np.linalg.svd(weight.flatten(1).numpy())[1][0]

    def layer(number, x, **options):
        made = F.conv2d(x, weights[number], padding=1, **options)
        return torch.where(made > 0, made, 0.2 * made)

    def twice(x):
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)

    x0 = layer(0, pictures, bias=state["conv0.bias"])
    x1 = layer(1, x0, stride=2)
    x2 = layer(2, x1, stride=2)
    x3 = layer(3, x2, stride=2)
    x4 = layer(4, twice(x3)) + x2
    x5 = layer(5, twice(x4)) + x1
    x6 = layer(6, twice(x5)) + x0
    expected = F.conv2d(layer(8, layer(7, x6)), weights[9], state["conv9.bias"], padding=1)
    assert torch.allclose(net(pictures), expected, atol=1e-6) and expected.shape == (2, 1, 24, 16)
    with pytest.raises(ConfigError, match="takes sides that are multiples of 8, not 12 x 16"):
        net(pictures[:, :, :12])


def test_the_stages_have_the_published_numbers():
    first, second = Recipe(preset="realesrnet"), Recipe(preset="realesrgan")
    for recipe in (first, second):
        assert (recipe.batch, recipe.beta1, recipe.beta2, recipe.target_weight) == (48, 0.9, 0.99, 1)
        assert recipe.decay_at(recipe.steps - 1) == 1 and recipe.shift == 0 and recipe.mirror
        assert 0.5 ** (48 / (1000 * recipe.ema_kimg)) == pytest.approx(0.999, abs=2e-6)
    assert (first.steps, first.lr, first.gan) == (1_000_000, 2e-4, "none")
    assert (second.steps, second.lr, second.gan, second.gan_weight) == (400_000, 1e-4, "vanilla", 0.1)
    assert (second.perceptual_weight, second.discriminator, second.discriminator_weight) == (1, "unet", 1)


@pytest.mark.long
def test_a_step_has_every_loss():
    """L1 to truth and teacher, the adversarial loss at a tenth, and the discriminator's two halves."""
    random = np.random.default_rng(0)
    large = random.integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    pairs = Pairs(np.ascontiguousarray(large[:, ::4, ::4]), large, ("a", "b", "c"), "noise")
    recipe = Recipe(preset="realesrgan", batch=3, ndf=4, perceptual_weight=0, output_weight=1, kimg=1)
    torch.manual_seed(0)
    net, teacher = (gantailor.build("srvgg", num_feat=4, num_conv=1) for _ in range(2))
    judge = make_discriminator(recipe, input_nc=3, output_nc=3)
    task = ImageToImage(net, pairs, recipe, teacher=teacher.eval(), discriminator=judge)
    batch = task.batches(0)
    terms = task.backward(0, batch, 1.0)
    assert set(terms) == {"discriminator", "gan", "target", "output"}
    with torch.no_grad():
        made = net(batch.inputs)
        fresh = make_discriminator(recipe, input_nc=3, output_nc=3)
        real, fake = fresh(batch.targets), fresh(made)
        log_loss = F.binary_cross_entropy_with_logits
        halves = log_loss(real, torch.ones_like(real)) + log_loss(fake, torch.zeros_like(fake))
        assert float(terms["gan"]) == pytest.approx(0.1 * float(log_loss(fake, torch.ones_like(fake))), rel=1e-4)
        assert float(terms["discriminator"]) == pytest.approx(float(halves), rel=1e-4)
        assert float(terms["target"]) == pytest.approx(float((made - batch.targets).abs().mean()), rel=1e-5)
        assert float(terms["output"]) == pytest.approx(float((made - teacher(batch.inputs)).abs().mean()), rel=1e-5)
