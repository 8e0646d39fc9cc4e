"""Leading a whole net down to its widths while it trains."""

import numpy as np
import pytest
import torch

import gantailor
from gantailor.supernet.graph import SubnetConfig
from gantailor.supernet.subnets.copying import copied
from gantailor.supernet.training.image_to_image import ImageToImage
from gantailor.supernet.training.narrowing import Narrowing, NarrowingTask
from gantailor.supernet.training.recipe import Recipe
from gantailor.supernet.training.task import counterparts
from gantailor.supernet.training.trainer import Trainer
from gantailor.zoo.data.pairs import Pairs


def supernet():
    torch.manual_seed(0)
    return gantailor.Supernet(gantailor.build("resnet_6blocks", ngf=6).eval(), (torch.randn(1, 3, 16, 16),))


def target(net, share=0.4):
    full = net.full_config()
    return SubnetConfig(
        {name: max(1, round(size * share) - number % 2) for number, (name, size) in enumerate(full.items())}
    )


def training(net, steps=10, share=0.6, **more):
    pictures = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)
    pairs = Pairs(pictures, pictures[::-1].copy(), ("x",) * 8, "noise")
    recipe = Recipe(kimg=steps * 0.002, batch=2, gan="none", output_weight=10, precision="float32", **more)
    model = Narrowing(net, target(net))
    layers = ("model.10", "model.13") if recipe.feature_weight else ()
    task = ImageToImage(model, pairs, recipe, teacher=copied(net).generator, feature_layers=layers)
    return NarrowingTask(task, model, steps=share * steps), model, recipe


@pytest.mark.parametrize("convention", ["true", "published"])
def test_the_cost_falls_along_a_line_in_its_logarithm(convention):
    net = supernet()
    model = Narrowing(net, target(net), convention=convention)
    full, end = net.full_config(), target(net)
    assert dict(model.at(0)) == dict(full) and dict(model.at(1)) == dict(model.at(2)) == dict(end)
    before = full
    for share in np.linspace(0.05, 0.95, 19):
        now = model.at(share)
        costs = [net.macs(one, convention=convention) for one in (full, now, end)]
        allowed = costs[0] ** (1 - share) * costs[2] ** share
        assert costs[1] <= allowed * (1 + 1e-9) or dict(now) == dict(end)
        assert all(end[name] <= now[name] <= before[name] for name in full), "never wider again"
        wider = {}
        for name in full:  # a channel of the widest more, and all others by the same share of theirs
            most = max(full[n] - end[n] for n in full)
            part = min(
                k for k in range(most + 1) if all(end[n] + k * (full[n] - end[n]) // most >= now[n] for n in full)
            )
            wider[name] = end[name] + min(most, part + 1) * (full[name] - end[name]) // most
        assert net.macs(wider, convention=convention) > allowed or dict(now) == dict(full)
        before = now


def test_it_ends_as_the_net_that_it_runs():
    net = supernet()
    task, model, recipe = training(net, steps=6, ema_kimg=0)
    trained = Trainer(task, recipe).run()
    assert dict(model.config) == dict(model.target)
    inputs = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(trained.narrow().eval()(inputs), trained(inputs), atol=1e-6, rtol=1e-5)


def test_the_last_steps_train_nothing_but_the_narrow_net():
    net = supernet()
    task, model, recipe = training(net, steps=6, share=0.5, ema_kimg=0)
    trainer = Trainer(task, recipe)
    for _ in range(4):
        trainer.train_step()
    ones = {name: torch.ones_like(tensor) for name, tensor in net.tensors.items()}
    kept = {**ones, **net.sliced(model.target, ones)}
    trainer.train_step()
    reached = 0
    for name, tensor in net.tensors.items():
        if tensor.grad is not None:
            count = int((tensor.grad != 0).sum())
            assert count <= kept[name].numel(), name
            reached += count < tensor.numel()
    assert reached > 10


@pytest.mark.long
@pytest.mark.parametrize("more", [{}, {"ema_kimg": 0, "feature_weight": 1.0}])
def test_resuming_is_exact(more, tmp_path):
    task, _, recipe = training(supernet(), **more)
    whole = Trainer(task, recipe).run().narrow().state_dict()
    for stop in (4, None):
        task, _, recipe = training(supernet(), **more)
        resumed = Trainer(task, recipe).run(tmp_path / "state.safetensors", stop_after=stop)
    assert all(torch.equal(whole[name], value) for name, value in resumed.narrow().state_dict().items())


def test_features_are_those_of_the_narrow_net():
    net = supernet()
    model = Narrowing(net, target(net))
    model.config = target(net)
    axis = net.graph.activations["model.10"]
    expected = axis.kept(net.graph.masks(model.config))
    features = {"model.10": torch.randn(1, len(expected), 4, 4)}
    same, numbers = model.open_features(features)
    assert same["model.10"] is features["model.10"] and numbers["model.10"].tolist() == expected.tolist()


def test_what_stands_around_a_task_hides_none_of_its_networks():
    """The way back of a CycleGAN is averaged also where the task is wrapped."""
    task, _, _ = training(supernet())
    back = torch.nn.Conv2d(3, 3, 1)
    task.task.counterparts = {"BtoA": back}
    assert counterparts(task) == {"BtoA": back} and task.parts() == task.task.parts()
    assert task.batches is task.task.batches and task.optimizers is task.task.optimizers
