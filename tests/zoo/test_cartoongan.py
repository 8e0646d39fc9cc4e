"""CartoonGAN: the port's names, its norm, narrowed forms, export and the reader."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from gantailor.supernet.errors import CheckpointError
from gantailor.zoo.generators.cartoongan.checkpoint import read_cartoongan
from gantailor.zoo.generators.cartoongan.generator import CartoonGenerator, ScaledInstanceNorm


def port_layout(ngf: int = 64, blocks: int = 8) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the port's state dict, in its order."""
    shapes: dict[str, tuple[int, ...]] = {}

    def conv(name: str, outputs: int, inputs: int, kernel: int, *, transposed: bool = False) -> None:
        first, second = (inputs, outputs) if transposed else (outputs, inputs)
        shapes[f"{name}.weight"] = (first, second, kernel, kernel)
        shapes[f"{name}.bias"] = (outputs,)

    def norm(name: str, channels: int) -> None:
        shapes[f"{name}.scale"] = shapes[f"{name}.shift"] = (channels,)

    conv("conv01_1", ngf, 3, 7)
    norm("in01_1", ngf)
    for number, width in ((2, 2 * ngf), (3, 4 * ngf)):
        conv(f"conv0{number}_1", width, width // 2, 3)
        conv(f"conv0{number}_2", width, width, 3)
        norm(f"in0{number}_1", width)
    for number in range(4, 4 + blocks):
        for half in (1, 2):
            conv(f"conv{number:02d}_{half}", 4 * ngf, 4 * ngf, 3)
            norm(f"in{number:02d}_{half}", 4 * ngf)
    for number, width in ((1, 2 * ngf), (2, ngf)):
        conv(f"deconv0{number}_1", width, 2 * width, 3, transposed=True)
        conv(f"deconv0{number}_2", width, width, 3)
        norm(f"in{3 + blocks + number:02d}_1", width)
    conv("deconv03_1", 3, ngf, 7)
    return shapes


def small_net(**arguments: int) -> CartoonGenerator:
    torch.manual_seed(0)
    return CartoonGenerator(**({"ngf": 4, "blocks": 2} | arguments)).eval()


@pytest.mark.parametrize(("ngf", "blocks"), [(64, 8), (4, 8), (4, 3)])
def test_names_and_shapes_are_the_ports(ngf: int, blocks: int) -> None:
    with torch.device("meta"):
        net = CartoonGenerator(ngf=ngf, blocks=blocks)
    shapes = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    assert shapes.pop("rgb") == (), "tells our files from the port's"
    assert list(shapes.items()) == list(port_layout(ngf, blocks).items())


def test_the_published_depth_has_the_published_last_norms() -> None:
    assert {"conv11_2.weight", "in12_1.scale", "in13_1.shift"} < set(port_layout())


def test_norm_against_loops() -> None:
    torch.manual_seed(1)
    norm = ScaledInstanceNorm(3)
    torch.nn.init.normal_(norm.scale)
    torch.nn.init.normal_(norm.shift)
    x = torch.randn(2, 3, 4, 5) * 3 + 1
    expected = np.empty(x.shape, np.float64)
    for sample in range(2):
        for channel in range(3):
            plane = x[sample, channel].double().numpy()
            unit = (plane - plane.mean()) / np.sqrt(plane.var() + 1e-9)
            expected[sample, channel] = unit * norm.scale[channel].item() + norm.shift[channel].item()
    np.testing.assert_allclose(norm(x).detach().numpy(), expected, atol=1e-5)


@pytest.mark.parametrize(("height", "width", "expected"), [(16, 24, (16, 24)), (17, 23, (20, 24)), (12, 18, (12, 20))])
def test_output_size_and_range(height: int, width: int, expected: tuple[int, int]) -> None:
    with torch.no_grad():
        y = small_net()(torch.rand(2, 3, height, width) * 2 - 1)
    assert y.shape == (2, 3, *expected)
    assert y.abs().max() <= 1


def test_feature_layers_lie_along_the_trunk() -> None:
    net = small_net(blocks=8)
    assert net.feature_layers == ("out03", "out05", "out08", "out11")
    seen: dict[str, tuple[int, ...]] = {}
    for name in net.feature_layers:
        net.get_submodule(name).register_forward_hook(
            lambda _module, _inputs, y, name=name: seen.__setitem__(name, tuple(y.shape))
        )
    net(torch.zeros(1, 3, 16, 16))
    assert seen == dict.fromkeys(net.feature_layers, (1, 16, 4, 4))


def test_sliced_equals_zeroed_at_the_consumers() -> None:
    """Stem and trunk: the forward takes any widths that fit together."""
    full, narrow = small_net(), small_net()
    weights = full.state_dict()
    stem, trunk = torch.tensor([0, 3]), torch.tensor([1, 2, 5, 7, 8, 15])
    zeroed, sliced = dict(weights), dict(weights)

    def mask(width: int, keep: Tensor) -> Tensor:
        return torch.zeros(width).index_fill_(0, keep, 1.0)

    sliced |= {n: sliced[n][stem] for n in ("conv01_1.weight", "conv01_1.bias", "in01_1.scale", "in01_1.shift")}
    sliced["conv02_1.weight"] = sliced["conv02_1.weight"][:, stem]
    zeroed["conv02_1.weight"] = zeroed["conv02_1.weight"] * mask(4, stem).view(1, -1, 1, 1)
    for n in ("conv03_2", "conv04_2", "conv05_2"):
        sliced |= {f"{n}.{kind}": sliced[f"{n}.{kind}"][trunk] for kind in ("weight", "bias")}
    for n in ("in03_1", "in04_2", "in05_2"):
        sliced |= {f"{n}.{kind}": sliced[f"{n}.{kind}"][trunk] for kind in ("scale", "shift")}
    for n in ("conv04_1.weight", "conv05_1.weight"):
        sliced[n] = sliced[n][:, trunk]
        zeroed[n] = zeroed[n] * mask(16, trunk).view(1, -1, 1, 1)
    sliced["deconv01_1.weight"] = sliced["deconv01_1.weight"][trunk]
    zeroed["deconv01_1.weight"] = zeroed["deconv01_1.weight"] * mask(16, trunk).view(-1, 1, 1, 1)
    full.load_state_dict(zeroed)
    for name, value in sliced.items():
        owner, _, kind = name.rpartition(".")
        setattr(narrow.get_submodule(owner), kind, torch.nn.Parameter(value))
    x = torch.rand(1, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(narrow.double()(x.double()), full.double()(x.double()), atol=1e-10, rtol=0)


@pytest.mark.long
def test_exports_to_onnx(tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    net, x = small_net(), torch.rand(1, 3, 16, 16) * 2 - 1
    torch.onnx.export(net, (x,), tmp_path / "cartoon.onnx", dynamo=True, verbose=False)
    session = runtime.InferenceSession(tmp_path / "cartoon.onnx", providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(y, net(x).numpy(), atol=1e-4)


def test_reader_takes_the_ports_layout() -> None:
    state = {name: torch.randn(shape) for name, shape in port_layout(4, 2).items()}
    net = small_net()
    net.load_state_dict(read_cartoongan({f"module.{name}": value for name, value in state.items()}))
    ends = ("conv01_1.weight", "deconv03_1.weight", "deconv03_1.bias")
    assert all(
        torch.equal(value, state[name]) for name, value in net.state_dict().items() if name not in (*ends, "rgb")
    )
    rgb, bgr = torch.rand(1, 3, 16, 16, dtype=torch.float64), small_net()
    bgr.load_state_dict({**state, "rgb": torch.ones(())})
    with torch.no_grad():
        torch.testing.assert_close(net.double()(rgb), bgr.double()(rgb.flip(1)).flip(1), atol=1e-9, rtol=0)
    again = read_cartoongan(net.state_dict())
    assert all(torch.equal(value, again[name]) for name, value in net.state_dict().items()), "ours are RGB already"


def test_mistakes_are_named() -> None:
    with pytest.raises(CheckpointError, match=r"conv01_1\.weight.*only model\.1\.weight"):
        read_cartoongan({"model.1.weight": torch.zeros(1)})
    with pytest.raises(RuntimeError, match="channels"):
        small_net()(torch.zeros(1, 1, 16, 16))
