"""Wrapping never changes the caller's model: weights that are computed from others are made plain in a copy alone."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import orthogonal, spectral_norm, weight_norm

import gantailor
from gantailor.supernet.subnets.folding import folded


class Double(nn.Module):
    """A parametrization of the user's own, with a weight of its own that is parametrised too."""

    def __init__(self, nested=False):
        super().__init__()
        self.scale = nn.Linear(1, 1, bias=False)
        if nested:
            weight_norm(self.scale)

    def forward(self, weight):
        return 2 * weight + self.scale.weight.sum()


class Block(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner, self.norm = inner, nn.BatchNorm2d(8)

    def forward(self, x):
        return x + self.norm(self.inner(x))


class Tied(nn.Module):
    """Two convolutions whose weights are computed from one tensor, and a third that holds this tensor itself."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = conv(), conv(), conv()
        self.b.weight = self.c.weight = self.a.weight
        shared = Double()
        for one in (self.a, self.b):
            parametrize.register_parametrization(one, "weight", shared)

    def forward(self, x):
        return self.c(self.b(torch.relu(self.a(x))))


def conv(**options):
    return nn.Conv2d(8, 8, 3, padding=1, **options)


def own(nested=False):
    layer = conv()
    parametrize.register_parametrization(layer, "weight", Double(nested))
    return layer


def two_on_one():
    layer = spectral_norm(own())
    parametrize.register_parametrization(layer, "bias", Double())
    return layer


def old(norm):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return norm(conv())


def old_after_a_step():
    """Its weight is the result of a computation: ``copy.deepcopy`` refuses it."""
    layer = old(nn.utils.spectral_norm)
    layer.train()(torch.randn(1, 8, 4, 4))
    return layer


def masked():
    return nn.utils.prune.ln_structured(nn.utils.prune.random_unstructured(conv(), "bias", 2), "weight", 0.5, 1, 0)


def shared_buffer():
    layer = nn.BatchNorm2d(8)
    parametrize.register_parametrization(layer, "running_mean", nn.Softplus())
    return layer


LAYERS = {
    "weight norm": lambda: weight_norm(conv()),
    "spectral norm": lambda: spectral_norm(conv()),
    "orthogonal": lambda: nn.Sequential(nn.Flatten(2), orthogonal(nn.Linear(64, 64)), nn.Unflatten(2, (8, 8))),
    "own": own,
    "own, nested": lambda: own(nested=True),
    "two on one": two_on_one,
    "several layers": lambda: nn.Sequential(weight_norm(conv()), nn.ReLU(), spectral_norm(conv()), weight_norm(conv())),
    "nested modules": lambda: nn.Sequential(Block(Block(weight_norm(conv()))), Block(spectral_norm(conv()))),
    "tied": Tied,
    "a buffer": shared_buffer,
    "old weight norm": lambda: old(nn.utils.weight_norm),
    "old spectral norm": lambda: old(nn.utils.spectral_norm),
    "old spectral norm after a step": old_after_a_step,
    "masks": masked,
}
CASES = [(name, training) for name in LAYERS for training in (True, False)]


def model(name):
    torch.manual_seed(0)
    made = nn.Sequential(weight_norm(nn.Conv2d(3, 8, 1)), LAYERS[name](), nn.LeakyReLU(), nn.Conv2d(8, 3, 1))
    return made.double()


def picture():
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def appearance(net):
    """All that a caller sees without running it."""
    modules = {
        name: (type(m), id(type(m)), m.training, parametrize.is_parametrized(m), len(m._forward_pre_hooks))
        for name, m in net.named_modules()
    }
    tensors = {name: (id(t), t.requires_grad) for name, t in (*net.named_parameters(), *net.named_buffers())}
    return modules, tensors


@pytest.mark.parametrize(("name", "training"), CASES)
def test_the_callers_model_is_the_same_and_trains_on(name, training):
    net = model(name).train(training)
    before, state = appearance(net), {k: v.clone() for k, v in net.state_dict().items()}
    with torch.no_grad():
        expected = copy.deepcopy(model(name)).eval()(picture()) if "old" not in name and name != "masks" else None
    supernet = gantailor.Supernet(net, (picture(),))
    gantailor.verify(supernet)
    supernet.extract({"0": 3})
    assert appearance(net) == before
    assert net.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[k]) for k, value in net.state_dict().items())
    with torch.no_grad():
        output = net.eval()(picture())
    if expected is not None:
        assert torch.equal(output, expected)
        assert appearance(copy.deepcopy(net))[0].keys() == before[0].keys()
    torch.testing.assert_close(supernet.eval()(picture()), output, rtol=1e-12, atol=1e-12)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    net.train()(picture()).square().mean().backward()
    optimizer.step()
    moved = [k for k, value in net.state_dict().items() if not torch.equal(value, state[k])]
    assert {"0.parametrizations.weight.original0", "3.weight"} <= set(moved)


@pytest.mark.parametrize("name", LAYERS)
def test_folded_weights_are_plain(name):
    net = model(name).train()
    plain = folded(net)
    assert not any(parametrize.is_parametrized(module) for module in plain.modules())
    assert not any(module._forward_pre_hooks for module in plain.modules())
    assert not any(type(module).__name__.startswith("Parametrized") for module in plain.modules())
    copy.deepcopy(plain)
    assert all(p.is_leaf and p.requires_grad for p in plain.parameters())
    with torch.no_grad():
        torch.testing.assert_close(plain.eval()(picture()), net.eval()(picture()), rtol=1e-12, atol=1e-12)


def test_ties_stay():
    tied = folded(Tied())
    assert tied.a.weight is tied.b.weight and tied.a.weight is not tied.c.weight


def test_frozen_weights_stay_frozen_parameters():
    net = weight_norm(conv()).requires_grad_(False)
    plain = folded(net)
    assert isinstance(plain.weight, nn.Parameter) and not plain.weight.requires_grad


def test_a_buffer_stays_a_buffer():
    assert "running_mean" in dict(folded(shared_buffer()).named_buffers())


class Keeps(nn.Module):
    """Its forward leaves what it computed in attributes, which ``copy.deepcopy`` refuses."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = weight_norm(nn.Conv2d(3, 8, 1)), nn.Conv2d(8, 3, 1)
        self.last, self.features, self.named = None, [], {}

    def forward(self, x):
        self.last = torch.relu(self.stem(x))
        self.features, self.named = [self.last], {"stem": (self.last, 1)}
        return self.head(self.last)


def test_a_generator_that_keeps_its_features_can_be_used_while_it_trains():
    net = Keeps()
    net(torch.randn(2, 3, 8, 8)).mean().backward()
    supernet = gantailor.Supernet(net, torch.randn(2, 3, 8, 8))
    supernet(torch.randn(2, 3, 8, 8)).mean().backward()
    gantailor.verify(supernet)
    assert supernet.branches == frozenset()
    supernet(torch.randn(2, 3, 8, 8), config={"stem": 3}).mean().backward()
    narrow, other = supernet.extract({"stem": 3}), supernet.with_weights(supernet.generator.state_dict())
    assert narrow.stem.weight.shape == (3, 3, 1, 1)
    assert other.generator.last is other.generator.features[0] and other.generator.last.is_leaf
    assert supernet.generator.last.grad_fn is not None
    assert net.last.grad_fn is not None
