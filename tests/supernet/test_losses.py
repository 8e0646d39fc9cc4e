"""Losses, first weights and rates of the published recipes, each against its formula written out."""

import copy
import math
from collections import OrderedDict

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gantailor.supernet.errors import CheckpointError
from gantailor.supernet.files import load_tensors, save_tensors
from gantailor.supernet.training import losses
from gantailor.supernet.training.image_to_image import ImageToImage
from gantailor.supernet.training.presets import PRESETS
from gantailor.supernet.training.recipe import Recipe
from gantailor.supernet.training.teaching.distillation import FeatureMaps
from gantailor.zoo.data.pairs import Pairs
from gantailor.zoo.discriminators.build import make_discriminator
from tests.supernet.test_trainer import RECIPE, trainer


def maps():
    """Logits of three scales, of two pictures."""
    random = torch.Generator().manual_seed(0)
    return [torch.randn(2, 1, side, side + 1, generator=random) for side in (4, 2, 1)]


FORMULAS = {  # of one logit: real, fake, generator
    "hinge": (lambda x: max(0, 1 - x), lambda x: max(0, 1 + x), lambda x: -x),
    "lsgan": (lambda x: (x - 1) ** 2, lambda x: x**2, lambda x: (x - 1) ** 2),
    "vanilla": (
        lambda x: -math.log(1 / (1 + math.exp(-x))),
        lambda x: -math.log(1 - 1 / (1 + math.exp(-x))),
        lambda x: -math.log(1 / (1 + math.exp(-x))),
    ),
}


@pytest.mark.parametrize("kind", FORMULAS)
@pytest.mark.parametrize("reduction", ["mean", "sum", "score"])
def test_reductions_are_their_formulas(kind, reduction):
    functions = (losses.real_loss, losses.fake_loss, losses.generator_loss)
    for function, formula in zip(functions, FORMULAS[kind], strict=True):
        scales = []
        for scale in maps():
            if reduction == "score":
                values = [formula(sum(map(float, picture.flatten())) / picture.numel()) for picture in scale]
            else:
                values = [formula(float(logit)) for logit in scale.flatten()]
            scales.append(sum(values) / len(values))
        expected = sum(scales) / (1 if reduction == "sum" else 3)
        assert float(function(kind, maps(), reduction)) == pytest.approx(expected, rel=1e-5)
        layers = [[torch.zeros(1), scale] for scale in maps()]  # with the layers before the logits
        assert torch.equal(function(kind, layers, reduction), function(kind, maps(), reduction))


def test_log_loss_is_torchs():
    (x, *_) = maps()
    for function, label in ((losses.real_loss, 1.0), (losses.fake_loss, 0.0), (losses.generator_loss, 1.0)):
        expected = F.binary_cross_entropy_with_logits(x, torch.full_like(x, label))
        torch.testing.assert_close(function("vanilla", x), expected)
        assert torch.equal(function("vanilla", x), function("nonsaturating", x))


def net(width):
    layers = {"body": nn.Conv2d(3, width, 3, padding=1), "act": nn.ReLU(), "head": nn.Conv2d(width, 3, 1)}
    return nn.Sequential(OrderedDict(layers))


def pictures(paired):
    rng = np.random.default_rng(0)
    inputs = rng.integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
    return Pairs(inputs, 255 - inputs if paired else None, tuple(map(str, range(4))), "random")


def squares(a, b):
    return (a - b).square().mean((1, 2, 3))


def mean(scales, formula):
    return [formula(x).mean() for x in scales]


# What each paper minimises, from logits of real and fake (maps of each scale), pictures s(tudent), t(eacher), y (ground
# truth) and the student's features after the 1x1 map beside the teacher's. Discriminator, then generator.
PUBLISHED = {
    "pix2pix": lambda p: {
        "discriminator": 0.5 * (F.relu(1 - p.real[0]).mean() + F.relu(1 + p.fake[0]).mean()),
        "gan": -p.fake[0].mean(),
        "target": 100 * (p.s - p.y).abs().mean(),
        "feature": (p.mapped - p.features).square().mean(),
    },
    "cyclegan": lambda p: {
        "discriminator": 0.5 * (((p.real[0] - 1) ** 2).mean() + (p.fake[0] ** 2).mean()),
        "gan": ((p.fake[0] - 1) ** 2).mean(),
        "output": 10 * (p.s - p.t).abs().mean(),
        "feature": 0.01 * (p.mapped - p.features).square().mean(),
    },
    "spade": lambda p: {
        "discriminator": (
            sum(mean(p.real, lambda x: F.relu(1 - x))) / 2 + sum(mean(p.fake, lambda x: F.relu(1 + x))) / 2
        ),
        "gan": -sum(mean(p.fake, lambda x: x)) / 2,
        "matching": 10 * sum((a - b).abs().mean() for a, b in p.layers) / 2,
        "feature": 10 * (p.mapped - p.features).square().mean(),
    },
    "munit": lambda p: {
        "discriminator": sum(mean(p.real, lambda x: (x - 1) ** 2)) + sum(mean(p.fake, lambda x: x**2)),
        "gan": sum(mean(p.fake, lambda x: (x - 1) ** 2)),
        "output": 10 * (p.s - p.t).abs().mean(),
        "feature": (p.mapped - p.features).abs().mean(),
    },
    "gan-slimming": lambda p: {
        "discriminator": 0.5
        * (((p.real[0].mean((1, 2, 3)) - 1) ** 2).mean() + (p.fake[0].mean((1, 2, 3)) ** 2).mean()),
        "gan": ((p.fake[0].mean((1, 2, 3)) - 1) ** 2).mean(),
        "perceptual": 20 * squares(p.s, p.t).mean(),
    },
    "teacher-pix2pix": lambda p: {
        "discriminator": 0.5
        * (-torch.log(torch.sigmoid(p.real[0])).mean() - torch.log(1 - torch.sigmoid(p.fake[0])).mean()),
        "gan": -torch.log(torch.sigmoid(p.fake[0])).mean(),
        "target": 100 * (p.s - p.y).abs().mean(),
    },
}


class Parts:
    """What a step's formulas are made of, computed beside the task."""

    def __init__(self, task, batch, judge):
        inputs, self.y = batch.inputs, batch.targets
        body = task.generator.body(inputs)
        self.s, self.features = task.generator(inputs), task.teacher.model.body(inputs)
        self.t = task.teacher.model(inputs)
        if task.maps is not None:
            weight, bias = task.maps.maps[0][:, :, 0, 0], task.maps.biases[0]
            self.mapped = torch.einsum("oc,nchw->nohw", weight, body) + bias[:, None, None]
        seen = [torch.cat([inputs, x], 1) if task.recipe.conditional else x for x in (self.target, self.s)]
        real, fake = (judge(x) for x in seen)
        scales = [[x] if isinstance(x, torch.Tensor) else x for x in (real, fake)]
        self.real, self.fake = ([x[-1] if isinstance(x, list) else x for x in each] for each in scales)
        if isinstance(scales[0][0], list):
            self.layers = [pair for a, b in zip(*scales, strict=True) for pair in zip(a[:-1], b[:-1], strict=True)]

    @property
    def target(self):
        return self.t if self.y is None else self.y


@pytest.mark.parametrize("name", PUBLISHED)
def test_one_step_of_a_preset_is_its_formulas(name):
    recipe = Recipe(preset=name, ndf=4, batch=2, kimg=0.008, seed=1)
    torch.manual_seed(0)
    task = ImageToImage(
        net(5),
        pictures(name in ("pix2pix", "spade", "teacher-pix2pix")),
        recipe,
        discriminator=make_discriminator(recipe, input_nc=3, output_nc=3),
        teacher=net(7),
        feature_layers=("body",),
        perceptual=squares,
    )
    if task.maps is not None:
        task.maps.biases[0].data.normal_()
    judge, batch = copy.deepcopy(task.discriminator), task.batches(0)  # spectral norms move with each forward
    found = task.backward(0, batch, 1.0)
    with torch.no_grad():
        expected = PUBLISHED[name](Parts(task, batch, judge))
    assert found.keys() == expected.keys()
    for term, value in expected.items():
        assert float(found[term]) == pytest.approx(float(value), rel=1e-5), term


def test_pool_is_for_the_discriminator_alone():
    task = trainer(RECIPE.model_copy(update={"pool": 3, "conditional": True})).task
    batch = task.batches(0)
    assert task.parts()["pool"] is task.pool and task.pool.pictures.shape == (3, 6, 16, 16)
    plain = task.backward(0, batch, 1.0)  # an empty pool gives back what it is given, and keeps the first three
    assert int(task.pool.filled) == 3 and torch.equal(task.pool.pictures[:, :3], batch.inputs[:3])
    old = torch.zeros(4, 6, 16, 16)
    task.pool.swap = lambda fakes, rng: old
    again = task.backward(0, batch, 1.0)
    assert float(again["gan"]) == float(plain["gan"])
    judged = [task.discriminator(x) for x in (torch.cat([batch.inputs, batch.targets], 1), old)]
    expected = 0.5 * (losses.real_loss("hinge", judged[0]) + losses.fake_loss("hinge", judged[1]))
    torch.testing.assert_close(again["discriminator"], expected.detach())


@pytest.mark.long
def test_resuming_with_a_pool_is_exact(tmp_path):
    recipe, path = RECIPE.model_copy(update={"pool": 3}), tmp_path / "state.safetensors"
    whole = trainer(recipe).run().state_dict()
    trainer(recipe).run(path, stop_after=7)
    resumed = trainer(recipe).run(path).state_dict()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_cosine_is_torchs():
    recipe = Recipe(decay="cosine", decay_from=0, kimg=0.04, batch=4)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, recipe.steps)
    for step in range(recipe.steps):
        assert recipe.decay_at(step) == pytest.approx(schedule.get_last_lr()[0], abs=1e-7)
        optimizer.step()
        schedule.step()
    late = recipe.model_copy(update={"decay_from": 0.5})
    assert [late.decay_at(step) for step in (0, 4, 5)] == [1, 1, 1]
    assert late.decay_at(7) == pytest.approx((1 + math.cos(math.pi * 0.4)) / 2)


def test_first_weights_are_the_papers():
    torch.manual_seed(0)
    normal = FeatureMaps({"a": 100}, {"a": 300})
    xavier = FeatureMaps({"a": 100}, {"a": 300}, init="xavier")
    assert float(normal.maps[0].detach().std()) == pytest.approx(0.02, rel=0.02)
    assert float(xavier.maps[0].detach().std()) == pytest.approx(0.02 * (2 / 400) ** 0.5, rel=0.02)
    assert not normal.biases[0].any() and normal.biases[0].requires_grad
    for name, fan in (("pix2pix", None), ("spade", (6 * 16, 64 * 16))):
        judge = make_discriminator(Recipe(preset=name, ndf=64), input_nc=3, output_nc=3)
        first = next(module for module in judge.modules() if isinstance(module, nn.Conv2d))
        expected = 0.02 if fan is None else 0.02 * (2 / sum(fan)) ** 0.5
        assert float(first.weight.detach().std()) == pytest.approx(expected, rel=0.05)
        assert not first.bias.any()


def test_norms_are_the_papers():
    """pix2pix's patches have batch norms, drawn around 1, behind convolutions without a bias; GAN Slimming's scales."""
    for name, kind in (("teacher-pix2pix", nn.BatchNorm2d), ("gan-slimming", nn.InstanceNorm2d)):
        judge = make_discriminator(Recipe(preset=name), input_nc=3, output_nc=3)
        norms = [module for module in judge.modules() if isinstance(module, kind)]
        assert [norm.num_features for norm in norms] == [128, 256, 512] and all(norm.affine for norm in norms)
        drawn = float(torch.cat([norm.weight.detach() for norm in norms]).std())
        assert drawn == pytest.approx(0.02, rel=0.1) if kind is nn.BatchNorm2d else drawn == 0
        assert (judge.model[2].bias is None) == (kind is nn.BatchNorm2d)


def test_subnets_use_their_columns_of_a_map():
    maps = FeatureMaps({"a": 4}, {"a": 3}, absolute=True)
    maps.biases[0].data.normal_()
    x, y = torch.randn(2, 2, 5, 5), torch.randn(2, 3, 5, 5)
    for kept, columns in ((None, [0, 1]), ({"a": torch.tensor([3, 1])}, [3, 1])):
        made = sum(maps.maps[0][:, c, 0, 0][:, None, None] * x[:, None, k] for k, c in enumerate(columns))
        expected = (made + maps.biases[0][:, None, None] - y).abs().mean()
        torch.testing.assert_close(maps({"a": x}, {"a": y}, kept), expected)


def test_shrunk_is_bilinear():
    """At a quarter of the size it is the mean of the middle four of sixteen, as PyTorch has it without antialiasing."""
    x = torch.arange(2 * 64.0).reshape(1, 2, 8, 8)
    expected = torch.stack(
        [x[0, :, r + 1 : r + 3, c + 1 : c + 3].mean((1, 2)) for r in (0, 4) for c in (0, 4)], 1
    ).reshape(1, 2, 2, 2)
    torch.testing.assert_close(losses.shrunk(x, 2), expected)
    assert losses.shrunk(x, 0) is x and losses.shrunk(x, 8) is x
    assert losses.shrunk(x[:, :, :4], 4).shape == (1, 2, 2, 4)


NEW = (
    "discriminator_norm",
    "decay",
    "gan_reduction",
    "discriminator_weight",
    "pool",
    "init",
    "perceptual_loss",
    "perceptual_size",
)


@pytest.mark.long
def test_checkpoints_of_earlier_versions(tmp_path):
    """What they did not know yet was as it is by default; 1x1 maps without a bias are told in one line."""
    path = tmp_path / "state.safetensors"
    plain = RECIPE.model_copy(update={"feature_loss": "alignment"})
    trainer(plain).run(path, stop_after=2)
    tensors, info = load_tensors(path)
    older = {name: value for name, value in info["recipe"].items() if name not in NEW}
    save_tensors(path, tensors, {**info, "recipe": older})
    run = trainer(plain)
    run.load(path)
    assert run.step == 2
    with pytest.raises(CheckpointError, match="another recipe"):
        trainer(plain.model_copy(update={"gan_reduction": "sum"})).load(path)
    for wrong in ({**older, "gan": "wasserstein"}, {**older, "unknown": 1}, None):
        save_tensors(path, tensors, {**info, "recipe": wrong})
        with pytest.raises(CheckpointError, match="another recipe"):
            trainer(plain).load(path)
    path.unlink()
    trainer(RECIPE).run(path, stop_after=2)
    tensors, info = load_tensors(path)
    save_tensors(path, {name: t for name, t in tensors.items() if not name.startswith("maps.biases")}, info)
    with pytest.raises(CheckpointError, match=r"does not fit the maps: .*biases.*delete it to start anew") as caught:
        trainer(RECIPE).load(path)
    assert len(str(caught.value).splitlines()) == 1


def test_a_preset_that_grew_is_not_an_old_checkpoints():
    """What the preset says now was not yet so when the file was written."""
    now = Recipe(preset="munit")
    written = {name: value for name, value in now.model_dump().items() if name not in NEW}
    assert Recipe.stored(now.model_dump()) == now
    then = Recipe.stored(written)
    assert (then.preset, then.gan_reduction, now.gan_reduction) == ("munit", "mean", "sum")
    assert then != now


def test_lengths_are_epochs_of_the_larger_set():
    """GAN Compression trains on 947 horses and 1,214 zebras, CycleGAN and GAN Slimming on 1,067 and 1,334."""
    assert PRESETS["cyclegan"]["kimg"] == round(400 * max(947, 1214) / 1000)
    for name in ("teacher-cyclegan", "gan-slimming", "gan-slimming-finetune"):
        assert PRESETS[name]["kimg"] == round(200 * max(1067, 1334) / 1000)
