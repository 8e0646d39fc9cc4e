"""Rounding in training against literal references, values and gradients; gates against extraction."""

import numpy as np
import pytest
import torch
from torch import nn

import gantailor
from gantailor.supernet.gates import GatePlaces, Gates
from gantailor.supernet.quantization.quantisers import (
    ActivationRange,
    Quantised,
    Quantisers,
    quantise_activation,
    quantise_weight,
)


def literal_symmetric(values, top):
    """One number after the other."""
    step = max(abs(v) for v in values) / top
    return [min(top, max(-top, float(np.round(v / step)))) * step for v in values]


@pytest.mark.parametrize("bits", [4, 8])
def test_weights(bits):
    w = torch.randn(3, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    top = 2 ** (bits - 1) - 1
    whole = quantise_weight(w, bits=bits)
    np.testing.assert_allclose(whole.detach().flatten(), literal_symmetric(w.flatten().tolist(), top), atol=1e-12)
    each = quantise_weight(w, bits=bits, channel=1)
    for c in range(2):
        expected = literal_symmetric(w[:, c].flatten().tolist(), top)
        np.testing.assert_allclose(each[:, c].detach().flatten(), expected, atol=1e-12)
    assert len(whole.unique()) <= 2**bits - 1
    (slope,) = torch.autograd.grad((each * torch.arange(12.0).reshape(3, 2, 2)).sum(), w)
    assert torch.equal(slope, torch.arange(12.0, dtype=torch.float64).reshape(3, 2, 2)), "straight through"
    assert float(quantise_weight(torch.zeros(2, 2)).abs().max()) == 0


@pytest.mark.parametrize(("low", "high"), [(0.0, 4.0), (-1.3, 2.2), (-2.0, 0.0)])
def test_inputs(low, high):
    x = torch.linspace(-3, 5, 97, dtype=torch.float64).requires_grad_()
    bounds = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (low, high)]
    made = quantise_activation(x, *bounds)
    step = (high - low) / 255
    zero = round(-low / step)
    expected = [(min(255, max(0, round(v / step) + zero)) - zero) * step for v in x.tolist()]
    np.testing.assert_allclose(made.detach(), expected, atol=1e-12)
    torch_own = torch.fake_quantize_per_tensor_affine(x.detach().float(), step, zero, 0, 255)
    np.testing.assert_allclose(made.detach().float(), torch_own, atol=step)
    slopes = torch.autograd.grad(made.sum(), [x, *bounds])
    inside = (x >= low) & (x <= high)
    assert torch.equal(slopes[0], inside.double())
    assert float(slopes[1]) == (x < low).sum() and float(slopes[2]) == (x > high).sum()


def test_ranges():
    x = torch.tensor([-1.0, 3.0])
    followed = ActivationRange("calibrated", momentum=0.5)
    followed(x)
    followed(2 * x)
    assert (float(followed.low), float(followed.high)) == (-1.5, 4.5)
    followed.eval()(100 * x)
    assert float(followed.high) == 4.5, "evaluation measures nothing"
    learned = ActivationRange("learned")
    learned(x)
    assert (float(learned.low), float(learned.high)) == (-1, 3)
    learned(5 * x).sum().backward()
    assert learned.high.grad == 1 and learned.low.grad == 1
    published = ActivationRange("published")
    assert published(torch.tensor([-1.0, 5.0])).tolist() == [0, 4]


def test_quantised_generator():
    torch.manual_seed(0)
    net = gantailor.build("resnet_6blocks", ngf=8).eval()
    pictures = torch.randn(2, 3, 32, 32)
    for per_channel in (False, True):
        model = Quantised(net, Quantisers(net, per_channel=per_channel))
        model.train()(pictures)
        with torch.no_grad():
            made = model.eval()(pictures)
        error = float((made - net(pictures)).square().mean())
        assert 0 < error < 0.01 * float(net(pictures).var())
    layers = [name for name, layer in net.named_modules() if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)]
    found = model.quantisers.found()
    assert all(list(found[end]) == layers for end in ("input", "output"))
    assert all(low <= 0 <= high for ends in found.values() for low, high in ends.values())
    again = Quantised(net, Quantisers(net, per_channel=True)).eval()
    again.quantisers.set(found)
    assert torch.equal(again(pictures), made), "ranges are all that a quantised training leaves"
    published = Quantisers(net, ranges="published").found()
    assert set(published) == {"input"} and set(published["input"].values()) == {(0.0, 4.0)}
    assert list(published["input"]) == layers[1:], "the picture stays as it is"
    fresh = Quantisers(net)
    assert not any(fresh.found().values()), "nothing has been measured"
    rounded = fresh.weights(dict(net.named_parameters()))
    with torch.no_grad(), fresh.eval().rounding(net):
        assert torch.equal(Quantised(net, fresh)(pictures), torch.func.functional_call(net, rounded, (pictures,)))


@pytest.mark.parametrize("name", ["resnet_6blocks", "unet_128", "cartoongan"])
@torch.no_grad()
def test_zero_gates_are_removal(name):
    torch.manual_seed(0)
    size = 128 if name == "unet_128" else 32
    inputs = torch.randn(2, 3, size, size, dtype=torch.float64)
    supernet = gantailor.Supernet(gantailor.build(name, ngf=4).double(), (inputs,)).eval()
    gates = Gates(supernet.graph).double()
    gates.values.copy_(torch.rand(len(gates.values)) + 0.5)
    rng = np.random.default_rng(0)
    kept = rng.random(len(gates.values)) < 0.6
    kept[gates.places.starts[:-1]] = True
    gates.values.mul_(torch.from_numpy(kept))
    gated = supernet.call_with(gates(supernet.tensors), (inputs,))
    whole = gantailor.Supernet(supernet.generator, (inputs,))
    for tensor_name, tensor in gates(supernet.tensors).items():
        whole.tensors[tensor_name].copy_(tensor)
    selection = gates.places.selection(gates.kept())
    assert gates.places.sizes(kept).tolist() == [len(selection[w.name]) for w in supernet.graph.widths]
    torch.testing.assert_close(whole.extract(selection)(inputs), gated, atol=1e-10, rtol=1e-8)


def test_a_tensor_between_two_layers_is_rounded_once():
    torch.manual_seed(0)
    first, second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 3)
    net = nn.Sequential(first, second)
    quantisers, x = Quantisers(net), torch.randn(2, 3, 8, 8)
    model = Quantised(net, quantisers).train()
    made = model(x)
    ranges = quantisers.found()
    assert ranges["input"]["1"] == ranges["output"]["0"] and ranges["input"]["0"] != ranges["output"]["0"]

    def rounded(values, pair):
        return quantise_activation(values, *map(torch.tensor, pair))

    weights = quantisers.weights(dict(net.named_parameters()))
    inner = nn.functional.conv2d(rounded(x, ranges["input"]["0"]), weights["0.weight"], first.bias)
    outer = nn.functional.conv2d(rounded(inner, ranges["output"]["0"]), weights["1.weight"], second.bias)
    torch.testing.assert_close(made, rounded(outer, ranges["output"]["1"]))


def test_gates_are_literal_products():
    supernet = gantailor.Supernet(gantailor.build("unet_128", ngf=4), (torch.randn(1, 3, 128, 128),))
    places = GatePlaces(supernet.graph)
    values = torch.randn(int(places.starts[-1]))
    made = places.apply(supernet.tensors, values)
    by_width = places.by_width(values.numpy())
    for number, width in enumerate(supernet.graph.widths):
        for name, dimension in supernet.graph.consumers[number]:
            axis, tensor = supernet.graph.axes[name][dimension], supernet.tensors[name]
            for position in range(len(axis)):
                if axis.width[position] == number:
                    factor = float(by_width[width.name][axis.unit[position]])
                    mine = made[name].select(dimension, position)
                    torch.testing.assert_close(mine, tensor.select(dimension, position) * factor)
