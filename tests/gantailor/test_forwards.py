"""Forwards that an exporter cannot follow as they are: they write into their module, or insist on float32."""

import pytest
import torch
from torch import nn

from gantailor.export.devices import device
from gantailor.export.errors import ExportError
from gantailor.export.export import export_model
from gantailor.export.rewrites import rewritten
from gantailor.export.rewriting.functions import as_onnx_has_it
from gantailor.export.rewriting.still import Still
from gantailor.export.target import find_target
from gantailor.supernet.supernet import Supernet

ONNXRUNTIME = find_target("onnxruntime")


class Merged(nn.Module):
    """SPAN, ECBSR: a kernel computed from others and written into a layer, and a copy of it kept beside it."""

    def __init__(self, write):
        super().__init__()
        self.first, self.second = nn.Conv2d(6, 10, 1, bias=False), nn.Conv2d(10, 7, 3, bias=False)
        self.layer, self.kept, self.write = nn.Conv2d(6, 7, 3, padding=1), None, write

    def forward(self, x):
        self.kept = torch.einsum("omhw,mi->oihw", self.second.weight.data, self.first.weight.data[:, :, 0, 0])
        self.write(self.layer.weight, self.kept, x)
        return self.layer(x)


def replace(weight, kernel, x):
    weight.data = kernel


def copy_into(weight, kernel, x):
    weight.data.copy_(kernel)


def copy_a_part(weight, kernel, x):
    weight.data[:, :, 1:] = kernel[:, :, 1:]


def scale_by_input(weight, kernel, x):
    weight.data = kernel * x.mean()


def net(write):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3), Merged(write), nn.BatchNorm2d(7), nn.ReLU(), nn.Conv2d(7, 3, 3)).eval()


def picture(side=12):
    return torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.long
@pytest.mark.parametrize("runtime", ["onnxruntime-cpu", "torchscript"])
def test_weights_that_a_forward_writes_are_written_before(runtime, tmp_path):
    model = net(replace)
    before = [weight.clone() for weight in model.parameters()]
    assert export_model(tmp_path, model, picture(), device(runtime))["max_difference"] < 1e-5
    assert all(torch.equal(one, other) for one, other in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize("write", [replace, copy_into, copy_a_part])
@torch.no_grad()
def test_what_is_written_is_left_alone_afterwards(write):
    model, x = net(write), picture()
    made = rewritten(model, ONNXRUNTIME, x)
    assert isinstance(made, Still)
    weights = {name: (weight.data_ptr(), weight._version) for name, weight in made.named_parameters()}
    assert (made(x) - model(x)).abs().max() < 1e-6
    assert {name: (weight.data_ptr(), weight._version) for name, weight in made.named_parameters()} == weights
    assert made.model[1].kept is None


def test_a_net_that_writes_nothing_is_not_wrapped():
    made = rewritten(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 3, 3)), ONNXRUNTIME, picture())
    assert isinstance(made, nn.Sequential)


def test_what_depends_on_the_input_is_refused():
    with pytest.raises(ExportError, match=r"writes '1\.layer\.weight', another value for each input, which no file"):
        rewritten(net(scale_by_input), ONNXRUNTIME, picture())


class Narrow(nn.Module):
    """Refuses float64, as NVlabs' operators do, or makes float32 of what comes."""

    def __init__(self, cast):
        super().__init__()
        self.cast, self.first, self.last = cast, nn.Conv2d(3, 5, 3), nn.Conv2d(5, 3, 1)
        self.register_buffer("filter", torch.ones(1, 1, 2, 2) / 4)

    def forward(self, x):
        assert self.cast or self.filter.dtype == torch.float32
        x = self.first(x.to(torch.float32) if self.cast else x)
        b, c, h, w = x.shape
        x = nn.functional.conv2d(x.reshape(b * c, 1, h, w), self.filter).view(b, c, h - 1, w - 1)
        return self.last(x.relu())


@pytest.mark.long
@pytest.mark.parametrize("cast", [False, True])
def test_a_generator_of_float32_is_exported(cast, tmp_path):
    supernet = Supernet(Narrow(cast).eval(), picture())
    narrow = supernet.extract({width.name: width.size // 2 for width in supernet.graph.widths})
    assert export_model(tmp_path, narrow, picture(), device("torchscript"))["max_difference"] < 1e-5


class Squeezing(nn.Module):
    """AutoVC: an axis is squeezed that has one element in some inputs only."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv1d(4, 6, 3), nn.Conv1d(6, 4, 3)

    def forward(self, x):
        return self.last(torch.squeeze(self.first(x.squeeze(1).transpose(2, 1)), dim=-1))


class Adaptive(nn.Module):
    """FUNIT: the instance norm of a batch as a batch norm by the statistics of its input."""

    def __init__(self):
        super().__init__()
        self.first, self.last, self.style = nn.Conv1d(9, 6, 2), nn.Conv1d(6, 3, 1), nn.Linear(4, 12)
        self.register_buffer("mean", torch.zeros(6))

    def forward(self, x):
        y, (scale, shift) = self.first(x), self.style(x.mean(1)).chunk(2, 1)
        flat = y.reshape(1, -1, y.shape[2])
        mean, variance = self.mean.repeat(len(x)), self.mean.repeat(len(x)) + 1
        flat = nn.functional.batch_norm(flat, mean, variance, scale.flatten(), shift.flatten(), True, 0.1, 1e-4)
        return self.last(flat.view(y.shape))


class Residual(nn.Module):
    """VAR: what is left of features that others explain, by tensors' ``data``."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = nn.Conv1d(9, 5, 1), nn.Conv1d(5, 5, 1), nn.Conv1d(5, 3, 1)

    def forward(self, x):
        x = self.first(x)
        y = x.data * self.second.weight.data.mean() + self.second(x)
        return self.last((y.data - x).add_(x.data))


@pytest.mark.long
@pytest.mark.parametrize("kind", [Squeezing, Adaptive, Residual])
def test_functions_that_onnx_has_not(kind, tmp_path):
    torch.manual_seed(0)
    x = torch.randn(1, 9, 4)
    assert export_model(tmp_path, kind().eval(), x, device("onnxruntime-cpu"))["max_difference"] < 1e-5


@pytest.mark.parametrize("shape", [(2, 3, 5), (2, 3, 4, 5), (7, 3), (2, 3, 2, 3, 4)])
def test_functions_are_the_same(shape):
    torch.manual_seed(0)
    x, scale, shift = torch.randn(shape), torch.randn(3), torch.randn(3)
    expected = nn.functional.batch_norm(x, None, None, scale, shift, True)
    kept = nn.functional.batch_norm(x, torch.ones(3), torch.ones(3))
    with as_onnx_has_it():
        assert torch.allclose(nn.functional.batch_norm(x, None, None, scale, shift, True), expected, atol=1e-6)
        assert torch.equal(nn.functional.batch_norm(x, torch.ones(3), torch.ones(3)), kept)


def test_squeezes_that_do_something_stay():
    with as_onnx_has_it():
        assert torch.zeros(2, 1, 3).squeeze(1).shape == (2, 3)
        assert torch.zeros(2, 1, 3).squeeze().shape == torch.squeeze(torch.zeros(2, 1, 3), dim=-2).shape == (2, 3)
        assert torch.zeros(2, 1, 3).squeeze(0).shape == (2, 1, 3) and torch.zeros(()).squeeze(0).shape == ()
