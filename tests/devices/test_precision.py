"""Precisions: what ``auto`` means, and float16's scaled losses against the same training without."""

import pytest
import torch

from gantailor.supernet import device
from gantailor.supernet.device import HOST, find_precision, is_emulated
from gantailor.supernet.errors import ConfigError
from gantailor.supernet.training.trainer import Trainer
from tests.devices.test_trainings import ARMS, cyclegan, image_to_image, munit, stylegan2, task_of


@pytest.mark.parametrize(
    ("fast", "expected"),
    [
        (("float32",), "float32"),
        (("float32", "float16"), "float16"),
        (("float32", "float16", "bfloat16", "tf32"), "bfloat16"),
    ],
)
def test_auto_is_what_the_hardware_has(fast, expected, monkeypatch):
    monkeypatch.setattr(device, "_fast", lambda where: fast)
    assert find_precision("auto", HOST) == expected
    assert find_precision("float32", HOST) == "float32" and find_precision("bfloat16", HOST) == "bfloat16"
    assert is_emulated("bfloat16", HOST) == ("bfloat16" not in fast) and not is_emulated("float32", HOST)


def test_this_processor_is_asked():
    """PyTorch's own answer; none of its kind is emulated in the precision that ``auto`` takes."""
    assert (find_precision("auto", HOST) == "bfloat16") == torch.ops.mkldnn._is_mkldnn_bf16_supported()
    assert not is_emulated(find_precision("auto", HOST), HOST)


@pytest.mark.parametrize(("name", "message"), [("float16", "this processor cannot train in it"), ("tf32", "NVIDIA")])
def test_precisions_that_are_not_here(name, message, monkeypatch):
    monkeypatch.setattr(device, "_fast", lambda where: ("float32",))
    with pytest.raises(ConfigError, match=message):
        find_precision(name, HOST)


def test_autocast_computes_in_it():
    layer, x = torch.nn.Conv2d(2, 2, 1), torch.zeros(1, 2, 2, 2)
    with device.autocast(HOST, "bfloat16"):
        assert layer(x).dtype == torch.bfloat16
    with device.autocast(HOST, "float32"):
        assert layer(x).dtype == torch.float32


def scaled(make, scale=2.0**10):
    """A trainer that scales its losses as float16's does, in float32, where a power of two changes no digit."""
    task, recipe = make(HOST)
    trainer = Trainer(task, recipe)
    trainer.scaling.scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=3)
    return trainer


QUICK = ("path", "slimming, measured", "agents")
METHODS = {which: lambda where, which=which: task_of(which, where) for which in ARMS}
MADE = [pytest.param(made, marks=() if which in QUICK else pytest.mark.slow) for which, made in METHODS.items()]
TASKS = {made.__name__: made for made in (image_to_image, cyclegan, munit, stylegan2)}


@pytest.mark.long
@pytest.mark.parametrize("make", [*TASKS.values(), *MADE], ids=[*TASKS, *METHODS])
def test_scaled_losses_change_no_weight(make):
    plain = Trainer(*make(HOST))
    with_scale = scaled(make)
    for _ in range(4):
        losses = [trainer.train_step() for trainer in (plain, with_scale)]
        assert all(torch.equal(losses[0][name], losses[1][name]) for name in losses[0]), "losses are told unscaled"
    assert with_scale.scaling.scale == 2.0**11, "it grew after three steps"
    for name, part in plain.task.parts().items():
        other = with_scale.task.parts()[name].state_dict()
        assert all(torch.equal(other[key], value) for key, value in part.state_dict().items()), name


@pytest.mark.long
def test_a_step_with_infinite_gradients_is_left_out(tmp_path):
    trainer = scaled(image_to_image, scale=2.0**126)
    before = {name: value.clone() for name, value in trainer.task.generator.state_dict().items()}
    trainer.train_step()
    after = trainer.task.generator.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert trainer.scaling.scale == 2.0**125
    trainer.save(tmp_path / "state.safetensors")
    other = scaled(image_to_image)
    other.load(tmp_path / "state.safetensors")
    assert other.scaling.scale == 2.0**125, "the scale goes on where it was"
