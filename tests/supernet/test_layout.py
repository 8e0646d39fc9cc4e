"""Channels innermost: the same values, no copies that can be spared, one decision for a run."""

import copy
import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from gantailor.supernet.training import layout
from gantailor.supernet.training.layout import innermost
from gantailor.supernet.training.losses import l1_loss, mse_loss
from gantailor.supernet.training.task import Adam, inner
from gantailor.supernet.training.teaching.distillation import FeatureMaps
from gantailor.supernet.training.trainer import Trainer
from tests.supernet.test_trainer import RECIPE, trainer


def pictures(*shape, dtype=torch.float64):
    torch.manual_seed(0)
    return torch.randn(shape, dtype=dtype).contiguous(memory_format=torch.channels_last).requires_grad_()


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("affine", [False, True])
def test_instance_norms_keep_the_layout_and_the_values(count, affine):
    norm, x = nn.InstanceNorm2d(5, affine=affine).double(), pictures(count, 5, 6, 7)
    expected = norm(x)
    (slope,) = torch.autograd.grad(expected.square().sum(), x)
    with innermost():
        out = norm(x)
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(out, expected, atol=1e-12)
    assert torch.allclose(torch.autograd.grad(out.square().sum(), x)[0], slope, atol=1e-10)


@pytest.mark.parametrize(
    "norm",
    [nn.InstanceNorm2d(4, track_running_stats=True), nn.InstanceNorm2d(4, track_running_stats=True).eval()],
)
def test_norms_with_statistics_are_pytorchs(norm):
    x, other = pictures(2, 4, 5, 5, dtype=torch.float32), copy.deepcopy(norm)
    expected = norm(x)
    with innermost():
        assert torch.equal(other(x), expected)
    assert torch.equal(other.running_var, norm.running_var)


def test_one_value_a_channel_is_pytorchs_error():
    with innermost(), pytest.raises(ValueError, match="more than 1 spatial"):
        F.instance_norm(pictures(2, 3, 1, 1))


@pytest.mark.parametrize("mode", ["reflect", "replicate"])
def test_pads_stay_in_half_precision(mode):
    x = pictures(2, 3, 5, 5, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        wide = F.pad(x, (1, 2, 1, 1), mode)
        with innermost():
            kept = F.pad(x, (1, 2, 1, 1), mode=mode)
    assert (wide.dtype, kept.dtype) == (torch.float32, torch.bfloat16)
    assert torch.equal(wide, kept.float())
    assert kept.is_contiguous(memory_format=torch.channels_last)


class Copies(TorchDispatchMode):
    """Counts what lies otherwise before and after."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket in (torch.ops.aten.clone, torch.ops.aten._to_copy) and args[0].ndim == 4:
            self.count += out.stride() != args[0].stride()
        return out


def test_no_copy_stands_between_convolutions():
    net = nn.Sequential(nn.ReflectionPad2d(1), nn.Conv2d(8, 8, 3), nn.InstanceNorm2d(8), nn.LeakyReLU(0.2))
    net = nn.Sequential(*net, *copy.deepcopy(net))
    x = pictures(2, 8, 16, 16, dtype=torch.float32)
    counts = []
    for keeping in (False, True):
        with Copies() as copies:
            if keeping:
                with innermost():
                    net(x).sum()
            else:
                net(x).sum()
        counts.append(copies.count)
    assert counts[1] == 0 < counts[0]


def test_teacher_and_discriminator_are_laid_out_and_back():
    task = inner(trainer(RECIPE).task)
    weights = [p for net in (task.teacher.model, task.discriminator) for p in net.parameters() if p.ndim == 4]
    assert any(not p.is_contiguous(memory_format=torch.channels_last) for p in weights)
    task.lay_out(True)
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in weights)
    task.lay_out(False)
    assert all(p.is_contiguous() for p in weights)


@pytest.mark.parametrize("loss", [l1_loss, mse_loss])
def test_losses_leave_gradients_as_pictures_lie(loss):
    made, aim = pictures(2, 3, 5, 4), torch.randn(2, 3, 5, 4, dtype=torch.float64)
    value, plain = loss(made, aim), made.detach().contiguous().requires_grad_()
    (slope,) = torch.autograd.grad(value, made)
    expected = {l1_loss: F.l1_loss, mse_loss: F.mse_loss}[loss](plain, aim)
    assert torch.allclose(value, expected, rtol=1e-14)
    assert torch.allclose(slope, torch.autograd.grad(expected, plain)[0], rtol=1e-14)
    assert slope.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("weights", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("gradients", [torch.channels_last, torch.contiguous_format])
def test_adam_updates_each_weight_by_its_own_gradient(weights, gradients):
    """However the two lie in memory, as PyTorch's plain one does; moments lie as the weights."""
    shapes = [(7, 5, 3, 3), (4, 6, 1, 1), (3, 1, 3, 3), (9,), (5, 4), ()]
    torch.manual_seed(0)
    firsts = [torch.randn(shape) for shape in shapes]
    steps = [[torch.randn(shape) for shape in shapes] for _ in range(3)]

    def laid(tensor, layout):
        return tensor.clone(memory_format=layout) if tensor.dim() == 4 else tensor.clone()

    plain, ours = ([nn.Parameter(laid(first, weights)) for first in firsts] for _ in range(2))
    options = {"lr": 0.01, "betas": (0.5, 0.999), "weight_decay": 0.1}
    optimizers = torch.optim.Adam(plain, foreach=False, fused=False, **options), Adam(ours, **options)
    for step in steps:
        for one, other, gradient in zip(plain, ours, step):
            one.grad, other.grad = gradient, laid(gradient, gradients)
        for optimizer in optimizers:
            optimizer.step()
    for one, other in zip(plain, ours):
        torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-6)
        assert optimizers[1].state[other]["exp_avg"].stride() == other.stride() and other.grad.shape == other.shape


def test_adam_is_given_what_lies_in_one_order():
    """What does not its kernel copies before it counts."""
    weight = nn.Parameter(torch.randn(8, 4, 3, 3).contiguous(memory_format=torch.channels_last))
    weight.grad, seen = torch.randn_like(weight), []

    class Updates(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func.overloadpacket is torch.ops.aten._fused_adam_:
                seen.extend(tensor for tensors in args[:4] for tensor in tensors)
            return func(*args, **(kwargs or {}))

    with Updates():
        Adam([weight]).step()
    assert len(seen) == 4 and all(tensor.is_contiguous() for tensor in seen)
    assert seen[0].data_ptr() == weight.data_ptr() and seen[1].data_ptr() == weight.grad.data_ptr()


def test_feature_maps_compute_as_the_features_do():
    """In their precision and layout, to the rounding of bfloat16; the sum is float32."""
    maps, x = FeatureMaps({"a": 4}, {"a": 6}), pictures(2, 4, 7, 5, dtype=torch.float32)
    taught = {"a": torch.randn(2, 6, 7, 5)}
    wide = maps({"a": x}, taught)
    half = x.detach().bfloat16().requires_grad_()
    loss = maps({"a": half}, taught)
    assert loss.dtype == torch.float32
    assert float(loss.detach()) == pytest.approx(float(wide.detach()), rel=1e-2)
    (slope,) = torch.autograd.grad(loss, half)
    assert slope.dtype == torch.bfloat16
    assert slope.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(slope.float(), torch.autograd.grad(wide, x)[0], atol=2e-2 * float(slope.abs().max()))


@pytest.fixture
def long_enough(monkeypatch, tmp_path):
    monkeypatch.setattr(layout, "WORTH", 2)
    monkeypatch.setenv("GANTAILOR_CACHE", str(tmp_path / "cache"))
    return tmp_path


AUTO = RECIPE.model_copy(update={"channels_last": "auto", "feature_weight": 0.0})


@pytest.mark.long
@pytest.mark.parametrize("faster", [True, False])
def test_auto_is_a_training_with_the_faster_layout(long_enough, monkeypatch, faster):
    """Measuring changes nothing: weights are those of the same training that was told."""
    real = layout._seconds
    monkeypatch.setattr(layout, "_seconds", lambda *args: real(*args) | {faster: 0.0})
    measured = trainer(AUTO).run().state_dict()
    told = trainer(AUTO.model_copy(update={"channels_last": faster})).run().state_dict()
    assert all(torch.equal(measured[name], told[name]) for name in told)
    (kept,) = (long_enough / "cache").glob("layout-*.json")
    assert json.loads(kept.read_text())["channels_last"] is faster
    monkeypatch.setattr(layout, "_seconds", None)  # a second training reads it
    again = trainer(AUTO)
    again.run(stop_after=1)
    assert (inner(again.task).layout is torch.channels_last) is faster


@pytest.mark.long
def test_a_continued_training_keeps_its_layout(long_enough, monkeypatch):
    monkeypatch.setattr(layout, "_seconds", lambda *_: {True: 0.0, False: 1.0})
    file = long_enough / "state.safetensors"
    whole = trainer(AUTO).run().state_dict()
    trainer(AUTO).run(file, stop_after=7)
    for kept in (long_enough / "cache").glob("layout-*.json"):
        kept.unlink()  # another machine
    monkeypatch.setattr(layout, "_seconds", None)
    resumed = trainer(AUTO).run(file).state_dict()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_short_trainings_are_left_alone(monkeypatch):
    monkeypatch.setattr(layout, "_seconds", None)
    run = trainer(AUTO)
    assert isinstance(run, Trainer)
    run.run(stop_after=1)
    assert inner(run.task).layout is torch.contiguous_format
