"""StyleGAN2 checkpoints: state dicts in the exact original layouts, and the images that they mean."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gantailor.supernet.errors import CheckpointError
from gantailor.zoo.generators.stylegan2.checkpoint import read_rosinality, read_stylegan2_ada, stylegan2_arguments
from gantailor.zoo.generators.stylegan2.generator import StyleGan2Generator

CHANNELS = {4: 6, 8: 5, 16: 4}
WIDTH, LAYERS = 7, 2


def ada_state(colours: int = 3) -> dict[str, Tensor]:
    """A random generator in NVlabs' layout."""
    torch.manual_seed(0)
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    kernel = torch.outer(taps, taps) / 64
    state = {"synthesis.b4.const": torch.randn(CHANNELS[4], 4, 4)}

    def layer(name: str, inputs: int, outputs: int, kernel_size: int) -> None:
        state[f"{name}.weight"] = torch.randn(outputs, inputs, kernel_size, kernel_size)
        state[f"{name}.bias"] = torch.randn(outputs)
        state[f"{name}.affine.weight"] = torch.randn(inputs, WIDTH)
        state[f"{name}.affine.bias"] = 1 + 0.1 * torch.randn(inputs)

    for side, width in CHANNELS.items():
        block = f"synthesis.b{side}"
        state[f"{block}.resample_filter"] = kernel
        for conv in ("conv1",) if side == 4 else ("conv0", "conv1"):
            layer(f"{block}.{conv}", CHANNELS[side // 2] if conv == "conv0" else width, width, 3)
            state[f"{block}.{conv}.resample_filter"] = kernel
            state[f"{block}.{conv}.noise_const"] = torch.randn(side, side)
            state[f"{block}.{conv}.noise_strength"] = torch.randn(())
        layer(f"{block}.torgb", width, colours, 1)
    for index in range(LAYERS):
        state[f"mapping.fc{index}.weight"] = torch.randn(WIDTH, WIDTH) * 100
        state[f"mapping.fc{index}.bias"] = torch.randn(WIDTH) * 10
    state["mapping.w_avg"] = torch.randn(WIDTH)
    return state


def insert_zeros(x: Tensor, pad: tuple[int, int]) -> Tensor:
    wide = x.new_zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])
    wide[:, :, ::2, ::2] = x
    return F.pad(wide, pad * 2)


def planewise(x: Tensor, kernel: Tensor) -> Tensor:
    return F.conv2d(x.flatten(0, 1).unsqueeze(1), kernel.flip(0, 1)[None, None]).unflatten(0, x.shape[:2])[:, :, 0]


def ada_image(state: dict[str, Tensor], z: Tensor) -> Tensor:
    """What NVlabs' layout means, by its definition: upsample, filter with gain 4, then convolve (flipped)."""
    w = z * (z.square().mean(1, keepdim=True) + 1e-8).rsqrt()
    for index in range(LAYERS):
        weight, bias = (state[f"mapping.fc{index}.{kind}"] for kind in ("weight", "bias"))
        w = F.leaky_relu(w @ weight.T * (0.01 / math.sqrt(WIDTH)) + bias * 0.01, 0.2) * math.sqrt(2)

    def modulated(name: str, x: Tensor, *, demodulate: bool, up: bool = False) -> Tensor:
        weight = state[f"{name}.weight"]
        styles = w @ state[f"{name}.affine.weight"].T / math.sqrt(WIDTH) + state[f"{name}.affine.bias"]
        if not demodulate:
            styles = styles / math.sqrt(weight.shape[1])
        samples = []
        for sample, style in enumerate(styles):
            scaled = weight * style.view(1, -1, 1, 1)
            if demodulate:
                scaled = scaled / (scaled.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
            one = x[sample : sample + 1]
            if up:
                one = planewise(insert_zeros(one, (3, 2)), 4 * state[f"{name}.resample_filter"])
                samples.append(F.conv2d(one, scaled.flip(2, 3)))
            else:
                samples.append(F.conv2d(one, scaled, padding=weight.shape[-1] // 2))
        return torch.cat(samples)

    x, image = state["synthesis.b4.const"].repeat(len(z), 1, 1, 1), None
    for side in CHANNELS:
        block = f"synthesis.b{side}"
        for conv in ("conv1",) if side == 4 else ("conv0", "conv1"):
            name = f"{block}.{conv}"
            x = modulated(name, x, demodulate=True, up=conv == "conv0")
            x = x + state[f"{name}.noise_const"] * state[f"{name}.noise_strength"]
            x = F.leaky_relu(x + state[f"{name}.bias"].view(1, -1, 1, 1), 0.2) * math.sqrt(2)
        rgb = modulated(f"{block}.torgb", x, demodulate=False) + state[f"{block}.torgb.bias"].view(1, -1, 1, 1)
        if image is not None:
            rgb = rgb + planewise(insert_zeros(image, (2, 1)), 4 * state[f"{block}.resample_filter"])
        image = rgb
    assert image is not None
    return image


def load(state: dict[str, Tensor]) -> StyleGan2Generator:
    net = StyleGan2Generator(**stylegan2_arguments(state))
    net.load_state_dict(state)
    return net


def rosinality_state() -> dict[str, Tensor]:
    torch.manual_seed(1)
    net = StyleGan2Generator(size=16, style_dim=WIDTH, n_mlp=LAYERS, channels=CHANNELS)
    return {name: torch.randn_like(v) for name, v in net.state_dict().items() if name != "latent_avg"}


@pytest.mark.parametrize("form", ["shared", "grouped"])
def test_ada_weights_give_the_images_they_mean(form: str) -> None:
    state = {name: value.double() for name, value in ada_state().items()}
    net = load(read_stylegan2_ada(state)).double()
    net.load_state_dict(read_stylegan2_ada(state))  # again, in double precision
    net.modulation = form
    z = torch.randn(2, WIDTH, dtype=torch.float64)
    with torch.no_grad():
        # The epsilon of the demodulation sits beside scaled weights here and beside bare ones there.
        torch.testing.assert_close(net(z), ada_image(state, z), atol=1e-6, rtol=1e-6)
    assert torch.equal(net.latent_avg, state["mapping.w_avg"])


@pytest.mark.parametrize("colours", [1, 4])
def test_grey_and_transparent_pictures(colours: int) -> None:
    state = ada_state(colours)
    net, z = load(read_stylegan2_ada(state)), torch.randn(2, WIDTH)
    with torch.no_grad():
        assert net(z).shape == (2, colours, 16, 16)
        torch.testing.assert_close(net(z), ada_image(state, z), atol=1e-4, rtol=1e-4)


def test_ada_without_noise() -> None:
    state = {name: value for name, value in ada_state().items() if ".noise_" not in name}
    net, z = load(read_stylegan2_ada(state)), torch.randn(1, WIDTH)
    with torch.no_grad():
        assert torch.equal(net(z), net(z, noise=None))


def test_arguments_come_from_shapes() -> None:
    expected = {"size": 16, "style_dim": WIDTH, "n_mlp": LAYERS, "channels": CHANNELS}
    assert stylegan2_arguments(rosinality_state()) == expected
    assert stylegan2_arguments(read_stylegan2_ada(ada_state())) == expected


def test_rosinality_checkpoint() -> None:
    state, average = rosinality_state(), torch.randn(1, WIDTH)
    net = load(read_rosinality({"g_ema": state, "latent_avg": average}))
    assert all(torch.equal(net.state_dict()[name], value) for name, value in state.items())
    assert torch.equal(net.latent_avg, average[0])


def test_rosinality_training_checkpoint(tmp_path: Path) -> None:
    """Without ``latent_avg`` and with the script's arguments, read without running code from the file."""
    state = rosinality_state()
    torch.save({"g": state, "g_ema": state, "args": argparse.Namespace(size=16)}, tmp_path / "000000.pt")
    with torch.serialization.safe_globals([argparse.Namespace]):
        checkpoint = torch.load(tmp_path / "000000.pt", weights_only=True)
    first, second = read_rosinality(checkpoint), read_rosinality(state)
    assert torch.equal(first["latent_avg"], second["latent_avg"])
    net = load(first)
    with torch.no_grad():
        mean = net.mapping(torch.randn(20_000, WIDTH)).mean(0)
    torch.testing.assert_close(net.latent_avg, mean, atol=0.1 * mean.abs().max().item(), rtol=0)


def test_bare_weights_load_strictly() -> None:
    state = rosinality_state()
    net = StyleGan2Generator(**stylegan2_arguments(state))
    net.latent_avg.fill_(2)
    net.load_state_dict(state)
    assert torch.equal(net.latent_avg, torch.full((WIDTH,), 2.0))
    assert "latent_avg" not in state


def test_foreign_checkpoints_are_named() -> None:
    with pytest.raises(CheckpointError, match=r"style\.1\.weight.*only model\.1\.weight"):
        read_rosinality({"model.1.weight": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"mapping\.fc0\.weight"):
        read_stylegan2_ada(rosinality_state())
    with pytest.raises(CheckpointError, match="conditional"):
        read_stylegan2_ada(ada_state() | {"mapping.embed.weight": torch.zeros(1)})
    with pytest.raises(CheckpointError, match="'resnet'"):
        read_stylegan2_ada(ada_state() | {"synthesis.b8.skip.weight": torch.zeros(1)})
    original = {name: value for name, value in ada_state().items() if not name.startswith("synthesis.b8.torgb")}
    with pytest.raises(CheckpointError, match=r"synthesis\.b8\.torgb\.weight"):
        read_stylegan2_ada(original)
