"""Hypernetworks: weights against a literal loop, couplings, and materialisation."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import gantailor
from gantailor.search.budget import Budget
from gantailor.search.limits import parse_budget
from gantailor.search.methods.hypernetwork.method import HYPERNETWORK
from gantailor.search.methods.hypernetwork.task import Hypernetwork, hypernetwork_task
from gantailor.search.spaces.space import space
from gantailor.supernet.errors import RunError
from gantailor.supernet.training.image_to_image import ImageToImage
from gantailor.supernet.training.recipe import Recipe
from gantailor.supernet.training.trainer import Trainer
from gantailor.zoo.data.pairs import Pairs
from gantailor.zoo.discriminators.build import make_discriminator

CASES = {"resnet_6blocks": 32, "unet_128": 128, "mobile_resnet_6blocks": 32}


def supernet(name="resnet_6blocks"):
    torch.manual_seed(0)
    size = CASES[name]
    return gantailor.Supernet(gantailor.build(name, ngf=8), (torch.randn(1, 3, size, size),)).eval()


@pytest.mark.parametrize("name", CASES)
def test_weights_are_the_literal_formula(name):
    model = Hypernetwork(supernet(name), seed=1).double()
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for parameter in model.makers.parameters():
            parameter.normal_()
    made = model.tensors()
    graph, starts = model.supernet.graph, model.gates.places.starts
    latents = model.gates.values.tolist()
    for index in rng.choice(len(model.names), 4, replace=False):
        weight, maker, key = made[model.names[index]], model.makers[index], model.names[index]
        owns = [iter(own.tolist()) for own in maker.own]
        z = []
        for dimension in (0, 1):
            axis = graph.axes.get(key, {}).get(dimension)
            z.append([])
            for i in range(weight.shape[dimension]):
                shared = axis is not None and axis.width[i] >= 0
                z[-1].append(latents[starts[axis.width[i]] + axis.unit[i]] if shared else next(owns[dimension]))
        flat = weight.reshape(*weight.shape[:2], -1)
        for i, j in zip(rng.integers(0, weight.shape[0], 5), rng.integers(0, weight.shape[1], 5), strict=True):
            product = z[0][i] * z[1][j] + maker.offset[i, j].item()
            e = [
                product * w + b
                for w, b in zip(maker.embed[i, j].tolist(), maker.embed_offset[i, j].tolist(), strict=True)
            ]
            for t in range(flat.shape[2]):
                k = sum(w * x for w, x in zip(maker.explicit[i, j, t].tolist(), e, strict=True))
                expected = k + maker.explicit_offset[i, j, t].item()
                assert float(flat[i, j, t]) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_materialised_equals_masked(name):
    model = Hypernetwork(supernet(name), seed=1).double().eval()
    rng = np.random.default_rng(0)
    kept = rng.random(len(model.gates.values)) < 0.5
    kept[model.gates.places.starts[:-1]] = True
    model.gates.open.copy_(torch.from_numpy(kept))
    inputs = torch.randn(2, 3, CASES[name], CASES[name], dtype=torch.float64)
    expected = model(inputs)
    narrow = model.supernet.extract(model.gates.places.selection(kept), model.tensors())
    torch.testing.assert_close(narrow.eval()(inputs), expected, atol=1e-6, rtol=1e-5)
    assert not any(isinstance(module, Hypernetwork) for module in narrow.modules())
    torch.testing.assert_close(narrow.float()(inputs.float()), model.float()(inputs.float()), atol=1e-4, rtol=1e-3)


def test_size_and_scale():
    """About eleven times the weights; weights start with the variance that a convolution wants."""
    net = gantailor.Supernet(gantailor.build("resnet_9blocks", ngf=32), (torch.randn(1, 3, 32, 32),))
    model = Hypernetwork(net)
    made = {name: tensor for name, tensor in model.tensors().items() if name in model.names}
    makers = sum(p.numel() for p in model.makers.parameters())
    assert 10 < makers / sum(t.numel() for t in made.values()) < 12
    for name, tensor in made.items():
        fan_in = tensor[0].numel()
        if fan_in > 500 and not isinstance(
            net.generator.get_submodule(name.removesuffix(".weight")), nn.ConvTranspose2d
        ):
            assert 0.5 < float(tensor.var()) * fan_in < 2, name


def test_only_pictures_have_latents_of_their_own():
    model = Hypernetwork(supernet())
    own = {name: [len(o) for o in maker.own] for name, maker in zip(model.names, model.makers, strict=True)}
    assert own[model.names[0]] == [0, 3] and own[model.names[-1]] == [3, 0]
    assert all(sizes == [0, 0] for name, sizes in own.items() if name not in (model.names[0], model.names[-1]))


def training(steps=30, **options):
    net = supernet()
    pictures = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    pairs = Pairs(pictures, pictures[::-1].copy(), ("x",) * 8, "noise")
    recipe = Recipe(kimg=steps * 0.002, batch=2, ndf=4, discriminator_layers=2, ema_kimg=0, precision="float32")
    recipe = recipe.model_copy(update={"method_options": options})
    model = Hypernetwork(net)
    full = net.full_config()
    macs = {"macs": net.macs(full), "params": net.parameter_count(full)}
    budget = Budget(space("every", net), parse_budget("0.5x", full=macs))
    judge = make_discriminator(recipe, input_nc=3, output_nc=3)
    inner = ImageToImage(model, pairs, recipe, discriminator=judge)
    return hypernetwork_task(inner, model, recipe, usage=budget.usage), model, recipe, budget


@pytest.mark.long
def test_training_meets_the_budget_without_a_teacher():
    task, model, recipe, budget = training()
    before = model.gates.values.detach().clone()
    Trainer(task, recipe).run()
    selection = task.selection()
    sizes = np.array([[len(selection[w.name]) for w in model.supernet.graph.widths]])
    assert 0.98 < budget.usage(sizes)[0] <= 1 and sizes.min() >= 4
    assert task.control.closed and float((model.gates.values.detach() - before).abs().max()) > 0.01
    assert not model.supernet.tensors[model.names[0]].requires_grad
    assert task.outcome().endswith("of the cost is left, target 0.5")


def test_a_short_training_arrives_too():
    task, model, recipe, budget = training(4)
    assert "not at its end yet" in task.outcome()
    Trainer(task, recipe).run()
    assert "left, target 0.5, in 3 steps that each closed 21% of what was left" in task.outcome(), "and says so"
    assert 0.98 < budget.usage(model.gates.places.sizes(model.gates.open.numpy())[None])[0] <= 1


@pytest.mark.long
def test_resuming_is_exact(tmp_path):
    task, _, recipe, _ = training(12)
    whole = Trainer(task, recipe).run().state_dict()
    path = tmp_path / "state.safetensors"
    for stop in (7, None):
        task, _, recipe, _ = training(12)
        resumed = Trainer(task, recipe).run(path, stop_after=stop).state_dict()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_cycle_is_not_finetuned_without_its_other_half():
    """As in the folder of an earlier version, which had another name for it."""
    context = SimpleNamespace(config=SimpleNamespace(finetune=Recipe(task="cyclegan")))
    with pytest.raises(RunError, match=r"no BtoA.json .* called them back.json"):
        HYPERNETWORK.finetune(context, nn.Identity(), {})


@pytest.mark.parametrize("name", ["resnet_6blocks", "mobile_resnet_6blocks"])
def test_slopes_are_autograds(name):
    """Of a factor on every channel, at 1, where some are closed."""
    model = Hypernetwork(supernet(name), seed=1).double()
    rng = torch.Generator().manual_seed(0)
    model.gates.open.copy_(torch.rand(len(model.gates.open), generator=rng) < 0.7)
    factors = torch.ones(len(model.gates.open), dtype=torch.float64, requires_grad=True)
    images = torch.randn(1, 3, CASES[name], CASES[name], generator=rng).double()
    made = model.gates.places.apply(model.tensors(), factors)
    model.supernet.call_with(made, (images,), {}).square().mean().backward()
    model.zero_grad()
    model(images).square().mean().backward()
    found = model.slopes()
    assert found[model.gates.open].abs().min() > 0 and not found[~model.gates.open].any()
    torch.testing.assert_close(found, factors.grad, rtol=1e-8, atol=1e-14)


@pytest.mark.long
def test_measured_channels_are_learned(monkeypatch):
    """The smallest by the running mean of squared slopes close; the order of the first latents does not matter."""
    task, model, recipe, budget = training(12)
    seen, take = [], task.slopes
    monkeypatch.setattr(task, "slopes", lambda: seen.append(take()) or seen[-1])
    trainer = Trainer(task, recipe)
    for _ in range(4):
        trainer.train_step()
    torch.testing.assert_close(task.measured.importance, torch.stack(seen).square().mean(0).float())
    assert not torch.equal(model.gates.values[model.gates.open], task.first[model.gates.open]), "latents are trained"
    trainer.run()
    assert 0.98 < budget.usage(model.gates.places.sizes(model.gates.open.numpy())[None])[0] <= 1
    overlap, chance = (float(text.rstrip("%)")) for text in task.learned().split() if "%" in text)
    assert overlap < 95 and chance < 70, "not the first latents alone; at first weights are in proportion to them"


@pytest.mark.long
def test_frozen_latents_decide_by_their_first_values():
    task, model, recipe, _ = training(12, ablation="frozen")
    before = model.gates.values.detach().clone()
    Trainer(task, recipe).run()
    assert torch.equal(model.gates.values[model.gates.open], before[model.gates.open])
    assert "100.0% of the kept channels are those" in task.learned()
