"""Real-ESRGAN's generators: the published names, a literal forward, ways in which their checkpoints are saved."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy.signal import correlate
from torch import nn

import gantailor
from gantailor.supernet.errors import CheckpointError, ConfigError
from gantailor.supernet.traits import traits_of, with_signed_pictures

SRVGG = {"num_feat": 6, "num_conv": 3}
RRDB = {"num_feat": 6, "num_block": 2, "num_grow_ch": 3}


def built(generator="srvgg", seed=0, **options):
    torch.manual_seed(seed)
    return gantailor.build(generator, **({**(SRVGG if generator == "srvgg" else RRDB), **options})).eval()


def conv_names(*layers):
    return [f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")]


def test_names_and_shapes_are_the_published():
    """Those of realesr-animevideov3.pth and RealESRGAN_x4plus.pth, and their parameters."""
    with torch.device("meta"):
        compact, dense = gantailor.build("srvgg"), gantailor.build("rrdbnet")
    shapes = {name: tuple(value.shape) for name, value in compact.state_dict().items()}
    expected = {"body.0.weight": (64, 3, 3, 3), "body.0.bias": (64,), "body.1.weight": (64,)}
    for layer in range(2, 34, 2):
        expected |= {f"body.{layer}.weight": (64, 64, 3, 3), f"body.{layer}.bias": (64,)}
        expected[f"body.{layer + 1}.weight"] = (64,)
    assert shapes == expected | {"body.34.weight": (48, 64, 3, 3), "body.34.bias": (48,)}
    assert sum(value.numel() for value in compact.parameters()) == 621_424
    blocks = [f"body.{block}.rdb{part}.conv{conv}" for block in range(23) for part in (1, 2, 3) for conv in range(1, 6)]
    after = ["conv_body", "conv_up1", "conv_up2", "conv_hr", "conv_last"]
    assert list(dense.state_dict()) == conv_names("conv_first", *blocks, *after)
    assert sum(value.numel() for value in dense.parameters()) == 16_697_987
    assert dense.state_dict()["body.3.rdb2.conv4.weight"].shape == (32, 160, 3, 3)


def conv(x, state, name):
    """A 3x3 convolution, zeros around, in float64 by scipy."""
    weight, bias = (state[f"{name}.{kind}"].double().numpy() for kind in ("weight", "bias"))
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    return np.stack([correlate(padded, w, "valid")[0] + b for w, b in zip(weight, bias, strict=True)])


def leaky(x, slope=0.2):
    return np.where(x > 0, x, slope * x)


def literal_srvgg(state, x, scale):
    y = x
    for layer in (0, 2, 4, 6):
        y = conv(y, state, f"body.{layer}")
        y = leaky(y, state[f"body.{layer + 1}.weight"].double().numpy()[:, None, None])
    y, (channels, height, width) = conv(y, state, "body.8"), x.shape
    y = y.reshape(channels, scale, scale, height, width).transpose(0, 3, 1, 4, 2)
    return y.reshape(channels, scale * height, scale * width) + x.repeat(scale, 1).repeat(scale, 2)


def literal_rrdbnet(state, x, scale):
    small = {4: 1, 2: 2, 1: 4}[scale]
    channels, height, width = x.shape
    x = x.reshape(channels, height // small, small, width // small, small).transpose(0, 2, 4, 1, 3)
    x = conv(x.reshape(-1, height // small, width // small), state, "conv_first")
    y = x
    for block in range(2):
        z = y
        for part in (1, 2, 3):
            seen = z
            for number in range(1, 5):
                seen = np.concatenate([seen, leaky(conv(seen, state, f"body.{block}.rdb{part}.conv{number}"))])
            z = z + 0.2 * conv(seen, state, f"body.{block}.rdb{part}.conv5")
        y = y + 0.2 * z
    x = x + conv(y, state, "conv_body")
    for name in ("conv_up1", "conv_up2"):
        x = leaky(conv(x.repeat(2, 1).repeat(2, 2), state, name))
    return conv(leaky(conv(x, state, "conv_hr")), state, "conv_last")


@pytest.mark.parametrize(("generator", "scale"), [("srvgg", 2), ("srvgg", 4), *(("rrdbnet", s) for s in (1, 2, 4))])
@torch.no_grad()
def test_a_literal_forward(generator, scale):
    net = built(generator, **{"upscale" if generator == "srvgg" else "scale": scale}).double()
    picture = np.random.default_rng(0).random((3, 8, 12))
    expected = (literal_srvgg if generator == "srvgg" else literal_rrdbnet)(net.state_dict(), picture, scale)
    made = net(torch.from_numpy(picture)[None])[0].numpy()
    assert made.shape == (3, 8 * scale, 12 * scale) and np.abs(made - expected).max() < 1e-12


@pytest.mark.parametrize("generator", ["srvgg", "rrdbnet"])
@torch.no_grad()
def test_a_run_has_signed_pictures(generator):
    net, signed = built(generator).double(), with_signed_pictures(built(generator)).double()
    x = torch.rand(2, 3, 9, 10, dtype=torch.float64)
    assert traits_of(net).picture_range == (0, 1) and traits_of(signed).picture_range == (-1, 1)
    assert torch.allclose(signed(2 * x - 1), 2 * net(x) - 1, atol=1e-12)


def old_esrgan(state, blocks=2):
    """The names of the code before ESRGAN's own: numbered layers."""
    names = {"conv_first": "model.0", "conv_body": f"model.1.sub.{blocks}"}
    names |= {"conv_up1": "model.3", "conv_up2": "model.6", "conv_hr": "model.8", "conv_last": "model.10"}
    found = {}
    for name, value in state.items():
        layer, _, kind = name.rpartition(".")
        if match := re.fullmatch(r"body\.(\d+)\.rdb(\d)\.conv(\d)", layer):
            names[layer] = f"model.1.sub.{match[1]}.RDB{match[2]}.conv{match[3]}.0"
        found[f"{names[layer]}.{kind}"] = value
    return found


def esrgan(state):
    names = {"conv_body": "trunk_conv", "conv_up1": "upconv1", "conv_up2": "upconv2", "conv_hr": "HRconv"}
    found = {}
    for name, value in state.items():
        layer, _, kind = name.rpartition(".")
        layer = names.get(layer, layer.replace("body.", "RRDB_trunk.").replace("rdb", "RDB"))
        found[f"{layer}.{kind}"] = value
    return found


def prefixed(state, prefix="module."):
    return {prefix + name: value for name, value in state.items()}


def half(state):
    return {name: value.half() for name, value in state.items()}


SAVED = {
    "bare": lambda state, other: state,
    "params": lambda state, other: {"params": state},
    "params_ema before params": lambda state, other: {"params": other, "params_ema": state},
    "DataParallel": lambda state, other: prefixed(state),
    "DataParallel in params_ema": lambda state, other: {"params_ema": prefixed(state)},
    "nested": lambda state, other: {"iter": 7, "model": {"params_ema": state, "params": other}},
    "state_dict of Lightning": lambda state, other: {"epoch": 3, "state_dict": prefixed(state, "net_g.")},
    "compiled": lambda state, other: {"params": prefixed(state, "_orig_mod.")},
    "half": lambda state, other: {"params_ema": half(state)},
}


@pytest.mark.parametrize("saved", SAVED)
@pytest.mark.parametrize("generator", ["srvgg", "rrdbnet"])
@torch.no_grad()
def test_ways_of_saving(tmp_path, generator, saved):
    net = built(generator)
    if saved == "half":
        net.load_state_dict(half(net.state_dict()))
    torch.save(SAVED[saved](net.state_dict(), built(generator, 1).state_dict()), tmp_path / "net.pth")
    read = gantailor.load_teacher(tmp_path / "net.pth", generator=generator)
    x = torch.rand(1, 3, 9, 10)
    assert torch.equal(read(x), net(x))


@pytest.mark.parametrize("generator", ["srvgg", "rrdbnet"])
@torch.no_grad()
def test_safetensors_and_the_other_weights(tmp_path, generator):
    net, other, x = built(generator), built(generator, 1), torch.rand(1, 3, 9, 10)
    save_file(dict(net.state_dict()), tmp_path / "net.safetensors")
    assert torch.equal(gantailor.load_teacher(tmp_path / "net.safetensors", generator=generator)(x), net(x))
    torch.save({"params": other.state_dict(), "params_ema": net.state_dict()}, tmp_path / "net.pth")
    assert torch.equal(gantailor.load_teacher(f"{tmp_path}/net.pth:params", generator=generator)(x), other(x))


@pytest.mark.parametrize("layout", [esrgan, old_esrgan])
@torch.no_grad()
def test_older_layouts(tmp_path, layout):
    net, x = built("rrdbnet"), torch.rand(1, 3, 9, 10)
    torch.save(layout(net.state_dict()), tmp_path / "esrgan.pth")
    assert torch.equal(gantailor.load_teacher(tmp_path / "esrgan.pth", generator="rrdbnet")(x), net(x))


@pytest.mark.parametrize(
    ("generator", "options"),
    [
        ("srvgg", {"num_feat": 5, "num_conv": 0, "upscale": 1}),
        ("srvgg", {"num_conv": 1, "upscale": 2, "num_in_ch": 1, "num_out_ch": 1}),
        ("srvgg", {"upscale": 4, "num_in_ch": 1}),
        ("rrdbnet", {"num_feat": 4, "num_block": 1, "scale": 2}),
        ("rrdbnet", {"num_grow_ch": 2, "scale": 1}),
        ("rrdbnet", {"num_in_ch": 1, "num_out_ch": 1}),
    ],
)  # fmt: skip
def test_sizes_are_read_from_the_file(tmp_path, generator, options):
    net = built(generator, **options)
    torch.save({"params": net.state_dict()}, tmp_path / "net.pth")
    read = gantailor.load_teacher(tmp_path / "net.pth", generator=generator)
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in read.state_dict().items())
    scale = net.upscale if generator == "srvgg" else options.get("scale", 4)
    x = torch.rand(1, options.get("num_in_ch", 3), 8, 8)
    assert read(x).shape[-1] == 8 * scale and torch.equal(read(x), net(x))


def _without(state, name):
    return {key: value for key, value in state.items() if key != name}


REFUSED = {
    "another width": ("srvgg", lambda net: net, {"num_feat": 7}, "num_feat is 7, the file has 6"),
    "another scale": ("rrdbnet", lambda net: net, {"scale": 2}, "scale is 2, the file has 4"),
    "the other family": ("rrdbnet", lambda net: built("srvgg").state_dict(), {}, "belongs to another architecture"),
    "a layer is missing": ("srvgg", lambda net: _without(net, "body.4.bias"), {}, "missing: body.4.bias"),
    "a wrong shape": ("srvgg", lambda net: net | {"body.2.bias": torch.ones(5)}, {}, "body.2.bias is (5,), not (6,)"),
    "no PReLU": ("srvgg", lambda net: built(act_type="relu").state_dict(), {}, "missing: body.1.weight"),
    "whole numbers": ("srvgg", lambda net: net | {"body.2.bias": torch.ones(6).int()}, {}, "holds whole numbers"),
    "NaN": ("rrdbnet", lambda net: net | {"conv_hr.bias": torch.full((6,), torch.nan)}, {}, "holds NaN"),
    "a discriminator": ("srvgg", lambda net: nn.Conv2d(3, 4, 3).state_dict(), {}, "belongs to another architecture"),
    "an ESRGAN of scale 2": (
        "rrdbnet",
        lambda net: _without(_without(old_esrgan(net), "model.10.weight"), "model.10.bias"),
        {},
        "this is an older ESRGAN that does not enlarge twice by two (its last layer is model.8",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_the_reason(tmp_path, case):
    generator, change, options, said = REFUSED[case]
    torch.save({"params_ema": change(dict(built(generator).state_dict()))}, tmp_path / "net.pth")
    with pytest.raises(CheckpointError) as error:
        gantailor.load_teacher(tmp_path / "net.pth", generator=generator, **options)
    assert said in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("generator", "options", "said"),
    [
        ("srvgg", {"act_type": "gelu"}, "act_type 'gelu' is unknown"),
        ("srvgg", {"num_in_ch": 4}, "num_in_ch 4 cannot be"),
        ("srvgg", {"upscale": 0}, "upscale 0 and num_conv 16 cannot be"),
        ("rrdbnet", {"scale": 3}, "scale cannot be 3; rrdbnet enlarges 4, 2 or 1 times"),
    ],
)
def test_options_that_cannot_be(generator, options, said):
    with pytest.raises(ConfigError, match=re.escape(said)):
        gantailor.build(generator, **options)
