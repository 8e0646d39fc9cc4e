"""Unpaired students: real pictures are the other domain's, and MUNIT's styles are theirs on odd steps."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import gantailor
from gantailor.supernet.calling import as_tuple
from gantailor.supernet.training.batches import PairBatches
from gantailor.supernet.training.image_to_image import ImageToImage
from gantailor.supernet.training.recipe import Recipe
from gantailor.supernet.training.trainer import Trainer
from gantailor.supernet.traits import traits_of
from gantailor.zoo.data.config import DataConfig
from gantailor.zoo.data.pairs import Pairs
from gantailor.zoo.data.read import read_split
from gantailor.zoo.data.vectors import fitted_to
from gantailor.zoo.discriminators.build import make_discriminator
from gantailor.zoo.generators.record import find_generator
from gantailor.zoo.tasks.munit import MUNIT, MunitStudent
from gantailor.zoo.tasks.training import StudentContext

SIDE = 32


def unpaired(count=5, others=3):
    """B's pictures are 100 + their number all over, A's are noise."""
    rng = np.random.default_rng(0)
    inputs = rng.integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)
    b = np.stack([np.full((SIDE, SIDE, 3), 100 + number, np.uint8) for number in range(others)])
    return Pairs(inputs, None, tuple(map(str, range(count))), "unpaired", others=b)


def settings(preset, **changes):
    return Recipe(preset=preset, **{"kimg": 0.012, "batch": 2, "ndf": 4, "discriminator_layers": 2, **changes})


@pytest.mark.parametrize("conditional", [False, True])
def test_every_real_picture_is_one_of_b(conditional):
    recipe = settings("cyclegan", feature_weight=0, conditional=conditional)
    torch.manual_seed(0)
    judge, seen = make_discriminator(recipe, input_nc=3, output_nc=3), []
    judge.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().clone()))
    teacher = nn.Conv2d(3, 3, 3, padding=1)
    task = ImageToImage(nn.Conv2d(3, 3, 1), unpaired(), recipe, discriminator=judge, teacher=teacher)
    trainer, counted = Trainer(task, recipe), {100: 0, 101: 0, 102: 0}
    for step in range(recipe.steps):
        batch = task.batches(step)
        trainer.train_step()
        real, _ = seen[-2:]
        if conditional:  # a picture of B belongs to no input: a pair is an input with the teacher's output
            torch.testing.assert_close(real, torch.cat([batch.inputs, teacher(batch.inputs)], 1))
            continue
        assert torch.equal(real, batch.others)
        for picture in real:
            (value,) = ((picture + 1) * 127.5).round().unique().tolist()
            counted[int(value)] += 1
    if not conditional:
        assert sum(counted.values()) == 2 * recipe.steps == len(seen) and all(counted.values())


def test_others_are_a_function_of_seed_and_step():
    rng = np.random.default_rng(1)
    data = replace(unpaired(), others=rng.integers(0, 256, (7, SIDE, SIDE, 3), dtype=np.uint8))
    recipe = settings("cyclegan", batch=4, shift=3)
    batches = PairBatches(data, recipe)
    for step in range(3):
        whole = batches(step).others
        assert torch.equal(whole, torch.cat([batches(step, part, 2).others for part in range(2)]))
        alone = PairBatches(replace(data, others=None), recipe)(step)
        assert alone.others is None and torch.equal(alone.inputs, batches(step).inputs)
    assert not torch.equal(batches(0).others, batches(1).others)
    cropped = PairBatches(replace(data, crop=(16, 24)), recipe)(0).others
    assert cropped.shape == (4, 3, 16, 24)


def test_domains_have_the_others(tmp_path):
    for side, value in (("A", 10), ("B", 200)):
        (tmp_path / f"train{side}").mkdir()
        for number in range(2):
            Image.new("RGB", (SIDE, SIDE), (value + number,) * 3).save(tmp_path / f"train{side}" / f"{number}.png")
    found = read_split(DataConfig(kind="domains", path=str(tmp_path), size=SIDE), "train")
    assert isinstance(found, Pairs) and not found.paired
    assert sorted(found.others[np.arange(2)][:, 0, 0, 0].tolist()) == [200, 201]
    assert found.digest() != replace(found, others=None).digest()


def munit():
    torch.manual_seed(1)
    net = gantailor.build("munit", ngf=4, mlp_dim=8, n_res=1, style_dim=3)
    for parameter in net.parameters():
        nn.init.normal_(parameter, 0, 0.3)
    return net.eval()


@pytest.mark.parametrize("step", [0, 1, 2, 3])
@pytest.mark.parametrize("paired", [False, True])
def test_munits_step_is_the_published_one(step, paired):
    """Random styles on even steps; on odd ones those of B's pictures, of each network's own encoder, and compared."""
    recipe = settings("munit", precision="float32")
    teacher = munit()
    student = copy.deepcopy(teacher)
    for parameter in student.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape)
    pictures = unpaired()
    if paired:
        pictures = replace(pictures, targets=255 - pictures.inputs, others=None)
    data = fitted_to(pictures, traits_of(teacher), 0)
    judge = make_discriminator(recipe, input_nc=3, output_nc=3)
    task = MunitStudent(
        student, data, recipe, discriminator=judge, teacher=teacher, feature_layers=teacher.feature_layers
    )
    batch = task.batches(step)
    picture, drawn = as_tuple(batch.inputs)
    b = batch.targets if paired else batch.others
    nets = (student, teacher)
    terms = task.backward(step, batch, 1.0)
    with torch.no_grad():
        styles = [net.enc_style(b) if step % 2 else drawn for net in nets]
        contents = [net.enc_content(picture) for net in nets]
        fake, taught = (net.decode(*codes) for net, *codes in zip(nets, contents, styles, strict=True))
        mapped = nn.functional.conv2d(contents[0], task.maps.maps[0], task.maps.biases[0])
        expected = {
            "output": 10 * (fake - taught).abs().mean(),
            "feature": (mapped - contents[1]).abs().mean(),
            "gan": sum(((x - 1) ** 2).mean() for x in judge(fake)),
            "discriminator": sum(((x - 1) ** 2).mean() for x in judge(b)) + sum((x**2).mean() for x in judge(fake)),
        }
        if step % 2:
            expected["style"] = (styles[0] - styles[1]).abs().mean()
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        assert float(terms[name]) == pytest.approx(float(value), rel=1e-4), name


def test_munits_supernet_trains_so_too():
    """The style encoder of a subnet is sliced as the rest is, and gets gradients on odd steps alone."""
    teacher = munit()
    shapes = (torch.randn(1, 3, SIDE, SIDE), torch.randn(1, 3))
    supernet = gantailor.Supernet(copy.deepcopy(teacher), shapes)
    half = {width.name: -(-width.size // 2) for width in supernet.graph.widths}
    recipe = settings("munit", precision="float32")
    assert find_generator("mobile_munit").training(teacher) is MUNIT
    task = MUNIT.student_task()(
        supernet,
        fitted_to(unpaired(), traits_of(teacher), 0),
        recipe,
        StudentContext(whole=teacher, teacher=teacher, sample=lambda rng, step, position: half),
    )
    assert isinstance(task, MunitStudent)
    for step in (0, 1):
        task.optimizers["generator"].zero_grad()
        terms = task.backward(step, task.batches(step), 1.0)
        moved = task.generator.generator.enc_style.model[0].conv.weight.grad
        assert (moved is not None and bool(moved.any())) == bool(step % 2)
        assert ("style" in terms) == bool(step % 2)
    narrow = supernet.extract(half).eval()
    with torch.no_grad():
        picture, reference = torch.randn(2, 1, 3, SIDE, SIDE)
        sliced = supernet(picture, shapes[1], reference=reference, config=half)
        torch.testing.assert_close(narrow(picture, narrow.enc_style(reference)), sliced, rtol=1e-4, atol=1e-5)
