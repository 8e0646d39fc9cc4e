"""GAN Slimming: the proximal step, the control of the penalty, and what is kept, against literal references."""

import itertools
import re

import numpy as np
import pytest
import torch

import gantailor
from gantailor.search.budget import Budget
from gantailor.search.limits import parse_budget
from gantailor.search.methods.control import strongest
from gantailor.search.methods.l1_sparsity import soft_threshold
from gantailor.search.methods.slimming.task import Slimmed, slimming
from gantailor.search.spaces.space import space
from gantailor.supernet.errors import BudgetError, ConfigError
from gantailor.supernet.gates import Gates
from gantailor.supernet.quantization.quantisers import Quantisers
from gantailor.supernet.training.image_to_image import ImageToImage
from gantailor.supernet.training.recipe import Recipe
from gantailor.supernet.training.teaching.distillation import capture
from gantailor.supernet.training.trainer import Trainer
from gantailor.zoo.data.pairs import Pairs
from gantailor.zoo.discriminators.build import make_discriminator


def supernet(name="resnet_6blocks", size=32):
    torch.manual_seed(0)
    return gantailor.Supernet(gantailor.build(name, ngf=4).eval(), (torch.randn(1, 3, size, size),))


def budget(net, text):
    full = net.full_config()
    limits = parse_budget(text, full={"macs": net.macs(full), "params": net.parameter_count(full)})
    return Budget(space("every", net), limits)


def test_soft_threshold():
    x = torch.tensor([-2.0, -0.3, 0.0, 0.1, 0.5])
    expected = [np.sign(v) * max(abs(v) - 0.25, 0) for v in x.tolist()]
    np.testing.assert_allclose(soft_threshold(x, 0.25), expected, atol=1e-7)


@torch.no_grad()
def test_scales_begin_without_changing_anything():
    net, inputs = supernet(), torch.randn(2, 3, 32, 32)
    before = net(inputs)
    slimmed = Slimmed(net)
    values = slimmed.gates.values
    assert float(values.std()) > 0.01 and float(values.min()) >= 0.05
    torch.testing.assert_close(slimmed(inputs), before, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(net.extract(net.full_config(), slimmed.tensors())(inputs), before, atol=1e-4, rtol=1e-4)


def test_trunk_is_left_alone_on_request():
    net = supernet()
    everything, paper = Slimmed(net), Slimmed(supernet(), trunk=False)
    assert bool(everything.gates.free.all())
    left = [
        w.name
        for w, f in zip(net.graph.widths, paper.gates.places.by_width(paper.gates.free.numpy()).values())
        if not f.any()
    ]
    assert len(left) == 1 and len(net.graph.widths[net.graph.index[left[0]]].layers) > 5
    assert torch.equal(paper.gates.values[~paper.gates.free], torch.ones(16))


@pytest.mark.parametrize("text", ["0.5x", "0.1x", "params<=0.3x", "macs<=0.3x, params<=0.2x"])
def test_strongest_fills_the_budget(text):
    net = supernet()
    limits, gates = budget(net, text), Gates(net.graph)
    magnitudes = np.random.default_rng(0).random(len(gates.values))
    kept = strongest(gates, magnitudes, limits.usage)
    sizes = gates.places.sizes(kept)
    assert 0.9 < float(limits.usage(sizes[None])[0]) <= 1 and (sizes >= 1).all()
    out = np.flatnonzero(~kept)
    for one in out:
        wider = kept.copy()
        wider[one] = True
        assert float(limits.usage(gates.places.sizes(wider)[None])[0]) > 1, "no other one fits any more"
    for width, part in gates.places.by_width(magnitudes).items():
        chosen = gates.places.by_width(kept)[width]
        assert chosen.all() or part[chosen].min() >= part[~chosen].max(), "within a width the strongest stay"


def test_an_unreachable_budget():
    net = supernet()
    gates = Gates(net.graph)
    with pytest.raises(BudgetError, match="of every width cost more already"):
        strongest(gates, np.ones(len(gates.values)), lambda sizes: np.full(len(sizes), 1.5))


def training(net, *, text="0.3x", bits=0, steps=20, branches=(), **options):
    pictures = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    pairs = Pairs(pictures, pictures[::-1].copy(), ("x",) * 8, "noise")
    recipe = Recipe(
        kimg=steps * 0.002,
        batch=2,
        ndf=4,
        discriminator_layers=2,
        output_weight=10,
        bits=bits,
        ema_kimg=0,
        precision="float32",
        decay_from=1.0,
        method_options=options,
    )
    slimmed = Slimmed(net, branches=branches, quantisers=Quantisers(net.generator) if bits else None)
    whole = supernet().generator
    inner = ImageToImage(
        slimmed, pairs, recipe, discriminator=make_discriminator(recipe, input_nc=3, output_nc=3), teacher=whole
    )
    return slimming(inner, slimmed, recipe, usage=budget(net, text).usage), slimmed, recipe


def test_a_step_is_the_published_one():
    """SGD with momentum on the scales, Adam on the weights, the soft threshold; the smallest beyond the plan close."""
    net = supernet()
    task, slimmed, recipe = training(net, strength=0.02, scale_lr=0.5, reach=1.0, steps=100)
    before, starts = slimmed.gates.values.detach().clone(), slimmed.gates.places.starts
    assert all(p is not slimmed.gates.values for g in task.optimizers["generator"].param_groups for p in g["params"])
    Trainer(task, recipe).train_step()
    moved = before - 0.5 * slimmed.gates.values.grad
    expected = [np.sign(v) * max(abs(v) - 0.02 * 0.5, 0) for v in moved.tolist()]
    full = net.macs(net.full_config())
    for threshold in [0.0, *sorted(map(abs, expected))]:  # the lowest that brings the cost down to the plan
        stays = [abs(v) > threshold for v in expected]
        for a, b in itertools.pairwise(starts):  # each width keeps its largest
            stays[a + int(np.argmax(np.abs(expected[a:b])))] = True
        sizes = [sum(stays[a:b]) for a, b in itertools.pairwise(starts)]
        if net.macs_many(np.array([sizes]))[0] / full <= task.control.target ** (1 / 100):
            break
    for unit in np.argsort(-np.abs(expected)):  # and what still fits below it, one after the other
        width = np.searchsorted(starts, unit, "right") - 1
        more = np.array([sizes]) + (np.arange(len(sizes)) == width)
        if not stays[unit] and net.macs_many(more)[0] / full <= task.control.target ** (1 / 100):
            stays[unit], sizes = True, more[0].tolist()
    assert 0 < stays.count(False) < 10 and slimmed.gates.open.tolist() == stays
    values = slimmed.gates.values.detach() * slimmed.gates.open
    np.testing.assert_allclose(values, np.where(stays, expected, 0), atol=1e-6)


def test_the_cost_follows_its_plan():
    task, _, recipe = training(supernet(), steps=30, reach=0.8)
    trainer, control = Trainer(task, recipe), task.control
    for step in range(24):
        trainer.train_step()
        assert control.left <= control.planned(step), "never behind"
        assert control.left > 0.85 * control.planned(step), "a channel or two ahead"
        assert control.closed == (step == 23)
    assert "of the cost is left, target 0.3" in task.outcome()


@pytest.mark.parametrize("bits", [0, 8])
def test_training_meets_the_budget(bits):
    net = supernet()
    task, slimmed, recipe = training(net, bits=bits)
    Trainer(task, recipe).run()
    selection = task.selection()
    limits = budget(net, "0.3x")
    used = limits.usage(np.array([[len(selection[w.name]) for w in net.graph.widths]]))[0]
    assert 0.98 < used <= 1, "within 2% of the request"
    values, opened = slimmed.gates.values.detach(), slimmed.gates.open
    assert (values[~opened] == 0).all() and int((values != 0).sum()) > 0.9 * int(opened.sum())
    slimmed.eval()
    inputs = torch.randn(2, 3, 32, 32)
    slimmed.quantisers = None
    with torch.no_grad():
        expected = slimmed(inputs)
        torch.testing.assert_close(net.extract(selection, slimmed.tensors())(inputs), expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_what_is_closed_is_left_out():
    """The sliced forward is the one whose closed gates are zero, and its features are the open channels of that."""
    net = supernet().double()
    slimmed, inputs = Slimmed(net).double(), torch.randn(2, 3, 32, 32, dtype=torch.float64)
    random = torch.Generator().manual_seed(1)
    gates = slimmed.gates
    gates.open.copy_(torch.rand(len(gates.open), generator=random) < 0.5)
    gates.open[gates.places.starts[:-1]] = True
    gates.values[1::7] = 0  # not closed for good: still computed, but nothing reads it
    layers = ["model.4", "model.10", "model.13"]
    with capture(slimmed.generator, layers) as narrow:
        found = slimmed(inputs)
    with capture(slimmed.generator, layers) as whole:
        expected = net.call_with(slimmed.tensors(), (inputs,))
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-9)
    shown, numbers = slimmed.open_features(narrow)
    assert narrow["model.10"].shape[1] < whole["model.10"].shape[1]
    for name in layers:
        torch.testing.assert_close(shown[name], whole[name][:, numbers[name]], atol=1e-10, rtol=1e-9)
    assert any(shown[name].shape[1] < narrow[name].shape[1] for name in layers), "what is at zero is not read"
    masks = net.graph.masks(gates.places.selection(gates.kept()))
    for name in layers:
        assert numbers[name].tolist() == net.graph.activations[name].kept(masks).tolist()


@pytest.mark.long
@pytest.mark.parametrize("control", ["plan", "measured"])
def test_resuming_is_exact(control, tmp_path):
    task, _, recipe = training(supernet(), bits=8, control=control)
    whole = Trainer(task, recipe).run().state_dict()
    path = tmp_path / "state.safetensors"
    for stop in (9, None):
        task, _, recipe = training(supernet(), bits=8, control=control)
        resumed = Trainer(task, recipe).run(path, stop_after=stop).state_dict()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_space_of_every_size():
    net = supernet()
    every = space("every", net)
    assert every.count == np.prod([float(s) for s in net.full_config().values()])
    assert dict(every.to_config(every.largest)) == dict(net.full_config())
    assert (
        len(space("every", gantailor.Supernet(gantailor.build("resnet_9blocks"), (torch.randn(1, 3, 32, 32),))))
        > 10**18
    )


@pytest.mark.parametrize("bits", [0, 8])
def test_a_branch_may_lose_all(bits):
    """Where that is allowed, a block whose scales are small becomes its last bias; the trunk keeps a channel."""
    net = supernet()
    task, slimmed, recipe = training(net, bits=bits, branches=net.branches, scale_lr=1e-4)
    gone = net.graph.index["model.12.conv_block.1"]
    slimmed.gates.values.data[slimmed.gates.places.starts[gone] :][:16] *= 0.01
    Trainer(task, recipe).run()
    selection = task.selection()
    sizes = [len(selection[w.name]) for w in net.graph.widths]
    assert sizes[gone] == 0 and 0.98 < budget(net, "0.3x").usage(np.array([sizes]))[0] <= 1
    assert all(size > 0 for width, size in enumerate(sizes) if width not in net.branches)
    slimmed.eval()
    slimmed.quantisers = None
    inputs = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        narrow = net.extract(selection, slimmed.tensors())
        torch.testing.assert_close(narrow(inputs), slimmed(inputs), atol=1e-5, rtol=1e-4)
    assert net.macs(selection) < net.macs({**selection, "model.12.conv_block.1": (0,)})


@pytest.mark.parametrize("control", ["penalty", "measured"])
def test_other_controls_meet_the_budget(control):
    task, slimmed, recipe = training(supernet(), control=control, steps=40)
    trainer = Trainer(task, recipe)
    for _ in range(20):
        trainer.train_step()
        closed = bool((~slimmed.gates.open).any())
        if control == "penalty" and not task.control.closed:
            assert not closed, "nothing closes before the budget is met"
    assert task.control.closed and 0.9 < task.control.used(slimmed.gates.open.numpy()) <= 1
    if control == "measured":
        opened = slimmed.gates.open
        assert torch.equal(slimmed.gates.values[opened], task.first[opened]), "nothing shrinks"


def test_a_penalty_of_a_strength_stays_it():
    task, _, recipe = training(supernet(), control="penalty", strength=0.03, steps=10)
    trainer = Trainer(task, recipe)
    for _ in range(4):
        trainer.train_step()
        assert task.control.strength == pytest.approx(0.03)


def test_importance_is_the_mean_of_squared_products():
    """Literally, over the steps before the budget is due; the plan closes by it."""
    task, slimmed, recipe = training(supernet(), control="measured", steps=12, reach=1.0)
    trainer, products = Trainer(task, recipe), []
    for _ in range(5):
        opened = slimmed.gates.open.clone()
        trainer.train_step()
        products.append((task.first * slimmed.gates.values.grad).square())
    mean = torch.stack(products).mean(0)
    torch.testing.assert_close(task.measured.importance, mean, rtol=1e-4, atol=1e-12)
    newly = opened & ~slimmed.gates.open
    assert newly.any()
    for width, part in slimmed.gates.places.by_width(mean.numpy()).items():
        gone, stays = (slimmed.gates.places.by_width(m.numpy())[width] for m in (newly, slimmed.gates.open))
        assert not gone.any() or part[gone].max() <= part[stays].min() * 1.0001


@pytest.mark.parametrize("ablation", ["no-penalty", "frozen"])
def test_ablations_take_away_what_they_say(ablation):
    task, slimmed, recipe = training(supernet(), ablation=ablation, scale_lr=0.5, steps=10, reach=1.0)
    start, trainer = slimmed.gates.values.detach().clone(), Trainer(task, recipe)
    trainer.train_step()
    moved = start - 0.5 * slimmed.gates.values.grad
    expected = start if ablation == "frozen" else moved
    np.testing.assert_allclose(slimmed.gates.values.detach(), expected.detach(), atol=1e-6)
    for _ in range(9):
        trainer.train_step()
    text = task.learned()
    assert ("100.0% of the kept" in text) == (ablation == "frozen"), text


@pytest.mark.parametrize("control", ["plan", "penalty"])
def test_without_a_budget_the_strength_alone_decides(control, monkeypatch):
    """The paper's own way: what the last threshold leaves is kept, nothing is cut and nothing opens again."""
    net, moved = supernet(), []
    task, slimmed, recipe = training(net, text="1x", control=control, strength=1.0, steps=10, reach=1.0)
    after = task.after_step
    monkeypatch.setattr(
        task, "after_step", lambda step: (moved.append(slimmed.gates.values.detach().clone()), after(step))
    )
    trainer = Trainer(task, recipe)
    for _ in range(9):
        trainer.train_step()
    assert not task.control.closed
    opened = slimmed.gates.open.clone()
    trainer.train_step()
    assert task.control.closed and (bool(opened.all()) == (control == "penalty"))
    values, starts = moved[-1].abs(), slimmed.gates.places.starts
    left = (values > 1.0 * 0.1) & opened
    for low, high in itertools.pairwise(starts):
        if not left[low:high].any():  # each width keeps its largest
            left[low + int((values * opened)[low:high].argmax())] = True
    assert torch.equal(slimmed.gates.open, left) and 10 < int(left.sum()) < len(left) - 10
    sizes = [len(task.selection()[width.name]) for width in net.graph.widths]
    assert sizes == [int(left[low:high].sum()) for low, high in itertools.pairwise(starts)]
    share = net.macs_many(np.array([sizes]))[0] / net.macs(net.full_config())
    assert task.outcome() == f"scales: {share:.3g} of the cost is left; no budget below it was asked for"
    assert re.search(r"[\d.]+% of the kept channels are those .* \(chance [\d.]+%\)", task.learned())


def test_a_control_that_is_none():
    for options, said in (
        ({"control": "plans"}, "allowed are plan, penalty, measured"),
        ({"control": "measured", "strength": 0.5}, "strength cannot be 0.5 .* has no penalty: set control to plan"),
        ({"strength": "x"}, "a number"),
    ):
        with pytest.raises(ConfigError, match=said):
            training(supernet(), **options)
    with pytest.raises(ConfigError, match="nothing would close"):
        training(supernet(), control="penalty", ablation="frozen")
