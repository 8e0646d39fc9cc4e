"""StyleGAN2: original names, both modulation forms, slow references, golden counts, slicing, export."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gantailor.supernet.errors import ConfigError
from gantailor.zoo.discriminators.stylegan2 import StyleGan2Discriminator, append_deviation
from gantailor.zoo.generators.stylegan2.generator import StyleGan2Generator
from gantailor.zoo.generators.stylegan2.layers import Blur, EqualLinear, ModulatedConv2d, Upsample

SMALL = {4: 6, 8: 5, 16: 4}


def small_net(modulation: str = "shared") -> StyleGan2Generator:
    torch.manual_seed(0)
    net = StyleGan2Generator(size=16, style_dim=7, n_mlp=2, channels=SMALL, modulation=modulation).eval()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith("bias") or ".noise." in name:
                parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return net


def generator_layout(channels: dict[int, int], style_dim: int, n_mlp: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of rosinality's Generator."""
    shapes: dict[str, tuple[int, ...]] = {"input.input": (1, channels[4], 4, 4)}

    def conv(name: str, outputs: int, inputs: int, kernel: int) -> None:
        shapes[f"{name}.conv.weight"] = (1, outputs, inputs, kernel, kernel)
        shapes[f"{name}.conv.modulation.weight"] = (inputs, style_dim)
        shapes[f"{name}.conv.modulation.bias"] = (inputs,)
        shapes[f"{name}.bias" if kernel == 1 else f"{name}.activate.bias"] = (1, 3, 1, 1) if kernel == 1 else (outputs,)
        if kernel == 3:
            shapes[f"{name}.noise.weight"] = (1,)

    for layer in range(1, n_mlp + 1):
        shapes |= {f"style.{layer}.weight": (style_dim, style_dim), f"style.{layer}.bias": (style_dim,)}
    conv("conv1", channels[4], channels[4], 3)
    conv("to_rgb1", 3, channels[4], 1)
    shapes["noises.noise_0"] = (1, 1, 4, 4)
    for level, side in enumerate(sorted(channels)[1:]):
        conv(f"convs.{2 * level}", channels[side], channels[side // 2], 3)
        conv(f"convs.{2 * level + 1}", channels[side], channels[side], 3)
        conv(f"to_rgbs.{level}", 3, channels[side], 1)
        shapes |= {f"convs.{2 * level}.conv.blur.kernel": (4, 4), f"to_rgbs.{level}.upsample.kernel": (4, 4)}
        shapes |= {f"noises.noise_{2 * level + half}": (1, 1, side, side) for half in (1, 2)}
    return shapes


def upfirdn(image: np.ndarray, kernel: np.ndarray, up: int, pad: tuple[int, int]) -> np.ndarray:
    """Insert zeros, pad, filter by the flipped kernel: one plane, literally."""
    height, width = image.shape
    wide = np.zeros((height * up + sum(pad), width * up + sum(pad)))
    for row in range(height):
        for column in range(width):
            wide[pad[0] + row * up, pad[0] + column * up] = image[row, column]
    side = kernel.shape[0]
    out = np.zeros((wide.shape[0] - side + 1, wide.shape[1] - side + 1))
    for row in range(out.shape[0]):
        for column in range(out.shape[1]):
            out[row, column] = (wide[row : row + side, column : column + side] * kernel[::-1, ::-1]).sum()
    return out


def modulated(conv: ModulatedConv2d, x: np.ndarray, style: np.ndarray) -> np.ndarray:
    """One sample: scale, demodulate, then convolve the (upsampled) planes."""
    weight = conv.weight[0].detach().double().numpy().copy()
    outputs, inputs, side, _ = weight.shape
    for o in range(outputs):
        for i in range(inputs):
            weight[o, i] *= style[i] / np.sqrt(inputs * side * side)
        if conv.demodulate:
            weight[o] /= np.sqrt((weight[o] ** 2).sum() + 1e-8)
    planes = []
    for o in range(outputs):
        plane = 0
        for i in range(inputs):
            if conv.blur is None:
                plane = plane + upfirdn(x[i], weight[o, i, ::-1, ::-1], 1, (side // 2, side // 2))
            else:  # the transposed convolution, then the filter
                full = upfirdn(x[i], weight[o, i], 2, (side - 1, side - 2))
                plane = plane + upfirdn(full, conv.blur.kernel.double().numpy(), 1, (1, 1))
        planes.append(plane)
    return np.stack(planes)


@pytest.mark.parametrize(
    ("arguments", "channels"),
    [
        ({"size": 256}, dict.fromkeys((4, 8, 16, 32, 64), 512) | {128: 256, 256: 128}),
        ({"size": 128, "channel_multiplier": 1}, dict.fromkeys((4, 8, 16, 32), 512) | {64: 256, 128: 128}),
        ({"size": 16, "channels": SMALL}, SMALL),
    ],
)
def test_generator_names_and_shapes_are_the_originals(arguments: dict, channels: dict[int, int]) -> None:
    with torch.device("meta"):
        net = StyleGan2Generator(**arguments)
    shapes = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    assert shapes.pop("latent_avg") == (512,)
    assert shapes == generator_layout(channels, 512, 8)
    assert net.n_latent == 2 * len(channels)
    assert all(name in dict(net.named_modules()) for name in net.feature_layers)


def test_discriminator_names_and_shapes_are_the_originals() -> None:
    with torch.device("meta"):
        net = StyleGan2Discriminator(size=16, channels=SMALL)
    expected: dict[str, tuple[int, ...]] = {"convs.0.0.weight": (4, 3, 1, 1), "convs.0.1.bias": (4,)}
    for block, (inputs, outputs) in {"convs.1": (4, 5), "convs.2": (5, 6)}.items():
        expected |= {f"{block}.conv1.0.weight": (inputs, inputs, 3, 3), f"{block}.conv1.1.bias": (inputs,)}
        expected |= {f"{block}.conv2.0.kernel": (4, 4), f"{block}.skip.0.kernel": (4, 4)}
        expected |= {f"{block}.conv2.1.weight": (outputs, inputs, 3, 3), f"{block}.conv2.2.bias": (outputs,)}
        expected |= {f"{block}.skip.1.weight": (outputs, inputs, 1, 1)}
    expected |= {"final_conv.0.weight": (6, 7, 3, 3), "final_conv.1.bias": (6,)}
    expected |= {"final_linear.0.weight": (6, 96), "final_linear.0.bias": (6,)}
    expected |= {"final_linear.1.weight": (1, 6), "final_linear.1.bias": (1,)}
    assert {name: tuple(value.shape) for name, value in net.state_dict().items()} == expected


@pytest.mark.parametrize("padding", [1, 2])
def test_blur_against_loops(padding: int) -> None:
    torch.manual_seed(1)
    blur, x = Blur(padding=padding), torch.randn(1, 2, 5, 6, dtype=torch.float64)
    torch.nn.init.normal_(blur.kernel)  # a lopsided filter shows the flip
    expected = [upfirdn(plane.numpy(), blur.kernel.double().numpy(), 1, (padding, padding)) for plane in x[0]]
    np.testing.assert_allclose(blur.double()(x)[0].numpy(), np.stack(expected), atol=1e-12)


def test_upsample_against_loops() -> None:
    torch.manual_seed(1)
    upsample, x = Upsample(), torch.randn(1, 2, 3, 4, dtype=torch.float64)
    assert upsample.kernel.sum().item() == pytest.approx(4)
    torch.nn.init.normal_(upsample.kernel)
    expected = [upfirdn(plane.numpy(), upsample.kernel.double().numpy(), 2, (2, 1)) for plane in x[0]]
    np.testing.assert_allclose(upsample.double()(x)[0].numpy(), np.stack(expected), atol=1e-12)


@pytest.mark.parametrize("form", ["shared", "grouped"])
@pytest.mark.parametrize("settings", [{"kernel": 3}, {"kernel": 3, "up": True}, {"kernel": 1, "demodulate": False}])
def test_modulated_convolution_against_loops(form: str, settings: dict) -> None:
    torch.manual_seed(2)
    conv = ModulatedConv2d(2, 3, style_dim=4, **settings).double()
    conv.form = form
    x, w = torch.randn(2, 2, 3, 4, dtype=torch.float64), torch.randn(2, 4, dtype=torch.float64)
    style = w @ (conv.modulation.weight / 2).T + conv.modulation.bias
    expected = [modulated(conv, a.numpy(), s.detach().numpy()) for a, s in zip(x, style, strict=True)]
    np.testing.assert_allclose(conv(x, w).detach().numpy(), np.stack(expected), atol=1e-12)


def test_equal_linear_carries_its_learning_rate() -> None:
    layer, x = EqualLinear(9, 2, lr=0.01), torch.randn(3, 9)
    torch.nn.init.normal_(layer.bias)
    expected = x @ (layer.weight * 0.01 / 3).T + layer.bias * 0.01
    torch.testing.assert_close(layer(x), expected)


def test_forms_are_equal_in_float32() -> None:
    z = torch.randn(3, 7)
    with torch.no_grad():
        shared, grouped = small_net()(z), small_net("grouped")(z)
    assert (shared - grouped).abs().max() < 1e-5
    net = small_net()
    net.modulation = "grouped"
    assert {m.form for m in net.modules() if isinstance(m, ModulatedConv2d)} == {"grouped"}
    with torch.no_grad():
        assert torch.equal(net(z), grouped)


def count_macs(net: StyleGan2Generator) -> int:
    """Convolutions (upsampling ones at input resolution), mapping and style affines of one image."""
    total = 0

    def hook(module: nn.Module, inputs: tuple[Tensor, ...], _output: Tensor) -> None:
        nonlocal total
        pixels = inputs[0].shape[2:].numel() if isinstance(module, ModulatedConv2d) else 1
        total += module.weight.numel() * pixels

    for module in net.modules():
        if isinstance(module, ModulatedConv2d | EqualLinear):
            module.register_forward_hook(hook)
    assert net(torch.empty(1, 512, device="meta")).shape == (1, 3, net.size, net.size)
    return total


@pytest.mark.parametrize(("pruned", "golden"), [(False, 45_124_673_536), (True, 4_123_578_080)])
def test_ffhq_macs_are_golden(pruned: bool, golden: int) -> None:
    kept = {512: 154, 256: 77, 128: 39}
    published = dict.fromkeys((4, 8, 16, 32, 64), 512) | {128: 256, 256: 128}
    channels = {side: kept[width] for side, width in published.items()} if pruned else None
    with torch.device("meta"):
        net = StyleGan2Generator(size=256, channels=channels)
    assert count_macs(net) == golden


def groups(sides: list[int]) -> list[tuple[list[str], list[str]]]:
    """Producers and consumers of each prunable width, as DCP-GAN's masks have them: const, conv1, convs..."""
    names = ["conv1"] + [f"convs.{index}" for index in range(2 * len(sides) - 2)]
    rgbs = ["to_rgb1"] + [f"to_rgbs.{index}" for index in range(len(sides) - 1)]
    found: list[tuple[list[str], list[str]]] = [(["input"], ["conv1"])]
    for position, name in enumerate(names):
        consumers = names[position + 1 : position + 2]
        found.append(([name], consumers + ([rgbs[position // 2]] if position % 2 == 0 else [])))
    return found


@pytest.mark.parametrize("form", ["shared", "grouped"])
def test_sliced_equals_zeroed_at_the_consumers(form: str) -> None:
    full, narrow = small_net(form).double(), small_net(form).double()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for (producer,), consumers in groups(sorted(SMALL)):
            made = narrow.get_submodule(producer)
            width = made.input.shape[1] if producer == "input" else made.conv.weight.shape[1]
            keep = torch.randperm(width, generator=generator)[: width // 2 + 1]
            zero = torch.ones(width).index_fill_(0, keep, 0.0).bool()
            if producer == "input":
                made.input = nn.Parameter(made.input[:, keep])
            else:
                made.conv.weight = nn.Parameter(made.conv.weight[:, keep])
                made.activate.bias = nn.Parameter(made.activate.bias[keep])
            for name in consumers:
                conv = narrow.get_submodule(name).conv
                conv.weight = nn.Parameter(conv.weight[:, :, keep])
                conv.modulation.weight = nn.Parameter(conv.modulation.weight[keep])
                conv.modulation.bias = nn.Parameter(conv.modulation.bias[keep])
                full.get_submodule(name).conv.weight[:, :, zero] = 0
        assert narrow.conv1.conv.weight.shape == (1, 4, 4, 3, 3)
        z = torch.randn(2, 7, dtype=torch.float64)
        torch.testing.assert_close(narrow(z), full(z), atol=1e-12, rtol=0)


def test_w_of_each_layer() -> None:
    net, z = small_net(), torch.randn(2, 7)
    with torch.no_grad():
        w = net.mapping(z)
        image = net(z)
        assert torch.equal(net.synthesis(w), image)
        layered = w.unsqueeze(1).repeat(1, net.n_latent, 1)
        torch.testing.assert_close(net.synthesis(layered), image)
        features: list[Tensor] = []
        net.convs[-1].register_forward_hook(lambda _module, _inputs, y: features.append(y))
        net.synthesis(layered)
        layered[:, -1] += 1  # the last toRGB alone
        assert (net.synthesis(layered) - image).abs().max() > 0.1
        assert torch.equal(*features)


def test_noise() -> None:
    net, z = small_net(), torch.randn(2, 7)
    with torch.no_grad():
        fixed = net(z)
        assert torch.equal(net(z), fixed)
        assert torch.equal(net(z, noise=list(net.noises.buffers())), fixed)
        assert not torch.equal(net(z, noise="random"), net(z, noise="random"))
        silent = net(z, noise=None)
        assert not torch.equal(silent, fixed)
        for name, parameter in net.named_parameters():
            if name.endswith("noise.weight"):
                parameter.zero_()
        torch.testing.assert_close(net(z), silent)


def test_truncation() -> None:
    net, z = small_net(), torch.randn(3, 7)
    net.latent_avg.copy_(torch.randn(7))
    other = torch.randn(7)
    with torch.no_grad():
        w = net.mapping(z)
        assert torch.equal(net(z, truncation=1.0), net(z))
        torch.testing.assert_close(net(z, truncation=0.0), net.synthesis(net.latent_avg.repeat(3, 1)))
        half = net(z, truncation=0.5, truncation_latent=other)
        torch.testing.assert_close(half, net.synthesis((w + other) / 2))


@pytest.mark.long
@pytest.mark.parametrize("form", ["shared", "grouped"])
def test_exports_to_onnx(tmp_path: Path, form: str) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    net, z = small_net(form), torch.randn(2, 7)
    torch.onnx.export(net, (z,), tmp_path / "net.onnx", dynamo=True, verbose=False)
    session = runtime.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
    (image,) = session.run(None, {session.get_inputs()[0].name: z.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(image, net(z).numpy(), atol=1e-4)


@pytest.mark.parametrize("batch", [1, 2, 3, 4, 6, 8])
def test_discriminator_gives_a_logit_for_each(batch: int) -> None:
    torch.manual_seed(0)
    net = StyleGan2Discriminator(size=16, channels=SMALL)
    logits = net(torch.randn(batch, 3, 16, 16))
    assert logits.shape == (batch, 1)
    assert torch.isfinite(logits).all()


def test_deviation_against_loops() -> None:
    x = torch.randn(6, 2, 3, 3, dtype=torch.float64)
    y = append_deviation(x)
    assert torch.equal(y[:, :2], x)
    for member in range(2):  # six samples make groups of three: 0, 2, 4 and 1, 3, 5
        expected = np.sqrt(x[member::2].numpy().var(axis=0) + 1e-8).mean()
        np.testing.assert_allclose(y[member::2, 2].numpy(), expected)


def test_gradient_penalty_reaches_the_weights() -> None:
    """R1 differentiates twice."""
    net, x = StyleGan2Discriminator(size=8, channels=SMALL), torch.randn(2, 3, 8, 8, requires_grad=True)
    (gradient,) = torch.autograd.grad(net(x).sum(), x, create_graph=True)
    gradient.square().sum().backward()
    assert net.convs[0][0].weight.grad.abs().sum() > 0


@pytest.mark.parametrize("size", [4, 48, 100])
def test_impossible_sizes_are_named(size: int) -> None:
    for network in (StyleGan2Generator, StyleGan2Discriminator):
        with pytest.raises(ConfigError, match=f"size {size} .*powers of two"):
            network(size=size)


def test_mistakes_are_named() -> None:
    with pytest.raises(ConfigError, match="resolution 8"):
        StyleGan2Generator(size=16, channels={4: 3, 16: 3})
    with pytest.raises(ConfigError, match=r"'fused'.*grouped, shared"):
        small_net("fused")
    net = small_net()
    with pytest.raises(ConfigError, match=r"\[2, 8\].*\[N, 7\]"):
        net(torch.randn(2, 8))
    for shape in ((2, 8), (2, 5, 7), (7,)):
        with pytest.raises(ConfigError, match=r"\[N, 6, 7\]"):
            net.synthesis(torch.randn(shape))
    with pytest.raises(ConfigError, match="did you mean 'fixed'"):
        net(torch.randn(2, 7), noise="fix")
    with pytest.raises(ConfigError, match="Allowed: 5, one for each"):
        net(torch.randn(2, 7), noise=[torch.zeros(1, 1, 4, 4)])
