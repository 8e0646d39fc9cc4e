"""SPADE's generator, its mobile form, the reader of its original format, and its discriminator."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from fvcore.nn import FlopCountAnalysis
from torch import Tensor, nn

from gantailor.supernet.errors import CheckpointError, ConfigError
from gantailor.zoo.discriminators.multiscale import MultiscaleDiscriminator
from gantailor.zoo.generators.separable import SeparableConv2d
from gantailor.zoo.generators.spade.checkpoint import read_spade
from gantailor.zoo.generators.spade.generator import SpadeGenerator
from gantailor.zoo.generators.spade.layers import SpadeNorm

BLOCKS = ("head_0", "G_middle_0", "G_middle_1", "up_0", "up_1", "up_2", "up_3")
FACTORS = (16, 16, 16, 8, 4, 2, 1)


def conv_macs(model: nn.Module, inputs: Tensor) -> int:
    """Multiply-accumulates of all convolutions in one forward; tensors may lie on the meta device."""
    macs = 0

    def count(module: nn.Conv2d, _: object, output: Tensor) -> None:
        nonlocal macs
        macs += module.weight.numel() * output.shape[2] * output.shape[3] * output.shape[0]

    handles = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, nn.Conv2d)]
    with torch.no_grad():
        model(inputs)
    for handle in handles:
        handle.remove()
    return macs


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def label_map(count: int, channels: int, height: int, width: int) -> Tensor:
    labels = torch.randint(0, channels, (count, height // 8, width // 8))
    return F.interpolate(F.one_hot(labels, channels).permute(0, 3, 1, 2).float(), scale_factor=8)


def small(**options: object) -> SpadeGenerator:
    """A seeded generator of 4 base channels with statistics that are not those of initialisation."""
    torch.manual_seed(0)
    model = SpadeGenerator(**{"label_channels": 5, "ngf": 4, "size": (64, 128)} | options)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.3)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 2)
    return model.eval()


def narrow(model: SpadeGenerator, channels: list[int]) -> None:
    """Cut to leading channels in place, as GAN Compression does: hidden width ``2 * c`` in each block."""

    def cut(conv: nn.Conv2d, outputs: int, inputs: int | None = None) -> None:
        conv.weight = nn.Parameter(conv.weight[:outputs, :inputs].detach().clone())
        if conv.bias is not None:
            conv.bias = nn.Parameter(conv.bias[:outputs].detach().clone())

    def cut_norm(norm: SpadeNorm, width: int, hidden: int) -> None:
        cut(norm.mlp_shared[0], hidden)
        for mlp in (norm.mlp_gamma, norm.mlp_beta):
            assert isinstance(mlp, SeparableConv2d)
            cut(mlp.conv[0], hidden)
            mlp.conv[0].groups = hidden
            cut(mlp.conv[2], width, hidden)
        for name, buffer in norm.param_free_norm.named_buffers():
            if buffer.ndim:
                setattr(norm.param_free_norm, name, buffer[:width].clone())

    stream = channels[0] * 16
    cut(model.fc, stream)
    for name, base, factor in zip(BLOCKS, channels[1:], FACTORS, strict=True):
        block, inner = model.get_submodule(name), base * factor
        outputs = inner if block.learned_shortcut else stream
        cut(block.conv_0, inner, stream)
        cut(block.conv_1, outputs, inner)
        cut_norm(block.norm_0, stream, 2 * base)
        cut_norm(block.norm_1, inner, 2 * base)
        if block.learned_shortcut:
            cut(block.conv_s, outputs, stream)
            cut_norm(block.norm_s, stream, 2 * base)
        stream = outputs
    cut(model.conv_img, 3, stream)


@pytest.mark.long
def test_golden_full() -> None:
    with torch.device("meta"):
        model, labels = SpadeGenerator().eval(), torch.empty(1, 36, 256, 512)
    assert parameters(model) == 93_048_003
    assert conv_macs(model, labels) == 281_276_612_608


def test_golden_mobile_subnet() -> None:
    with torch.device("meta"):
        model, labels = SpadeGenerator(separable=True).eval(), torch.empty(1, 36, 256, 512)
    assert parameters(model) == 70_680_771
    narrow(model, [32, 32, 32, 48, 32, 24, 24, 32])
    assert parameters(model) == 20_174_275
    assert conv_macs(model, labels) == 31_155_085_312


@pytest.mark.parametrize("separable", [False, True])
def test_macs_agree_with_fvcore(separable: bool) -> None:
    model, labels = small(separable=separable), label_map(1, 5, 64, 128)
    analysis = FlopCountAnalysis(model, labels).unsupported_ops_warnings(False)
    assert conv_macs(model, labels) == analysis.by_operator()["conv"]


def test_a_narrowed_net_runs_in_the_same_forward() -> None:
    model, labels = small(separable=True), label_map(2, 5, 64, 128)
    narrow(model, [3, 2, 4, 3, 2, 3, 1, 2])
    with torch.no_grad():
        assert model(labels).shape == (2, 3, 64, 128)


@pytest.mark.parametrize("separable", [False, True])
@pytest.mark.parametrize("norm", ["batch", "instance"])
@pytest.mark.parametrize(("upsampling", "size"), [("normal", (64, 32)), ("more", (64, 128)), ("most", (128, 256))])
def test_shape_and_range(upsampling: str, size: tuple[int, int], norm: str, separable: bool) -> None:
    model = small(upsampling=upsampling, size=size, norm=norm, separable=separable)
    with torch.no_grad():
        image = model(label_map(2, 5, *size))
    assert image.shape == (2, 3, *size)
    assert image.abs().max() <= 1
    assert image.std() > 0
    assert all(side % model.size_multiple == 0 for side in size)


def test_another_size_is_answered_in_its_own() -> None:
    with torch.no_grad():
        assert small()(label_map(1, 5, 128, 192)).shape == (1, 3, 128, 192)


def test_feature_layers_exist() -> None:
    model = small()
    assert model.feature_layers == ("head_0", "G_middle_1", "up_1")
    assert set(model.feature_layers) <= dict(model.named_modules()).keys()


def test_hidden_width_is_that_of_each_original() -> None:
    widths = [small(**options).head_0.norm_0.mlp_shared[0].out_channels for options in ({}, {"separable": True})]
    assert widths == [128, 8]


def test_spade_norm_is_its_formula() -> None:
    torch.manual_seed(0)
    norm = SpadeNorm(6, label_channels=5, hidden=7, norm=nn.Identity, separable=False)
    norm.param_free_norm = nn.BatchNorm2d(6, affine=False).train()
    x, labels = torch.randn(2, 6, 8, 8), label_map(2, 5, 8, 8)
    hidden = F.relu(F.conv2d(labels, norm.mlp_shared[0].weight, norm.mlp_shared[0].bias, padding=1))
    gamma, beta = (F.conv2d(hidden, mlp.weight, mlp.bias, padding=1) for mlp in (norm.mlp_gamma, norm.mlp_beta))
    variance, mean = torch.var_mean(x, (0, 2, 3), correction=0, keepdim=True)
    expected = (x - mean) / (variance + 1e-5).sqrt() * (1 + gamma) + beta
    torch.testing.assert_close(norm(x, labels), expected)


def original_layout() -> tuple[SpadeGenerator, dict[str, Tensor]]:
    """A generator with torch's spectral norm on its blocks' convolutions, as NVlabs trains, and its file."""
    model = small()
    for name in BLOCKS:
        block = model.get_submodule(name)
        for conv in ("conv_0", "conv_1", "conv_s"):
            if hasattr(block, conv):
                nn.utils.spectral_norm(getattr(block, conv))
    with torch.no_grad():
        model.train()(label_map(2, 5, 64, 128))  # one power iteration
    return model.eval(), model.state_dict()


def test_original_key_layout() -> None:
    _, state = original_layout()
    norms = {
        f"norm_{norm}.{name}"
        for norm in "01s"
        for name in (
            *(f"param_free_norm.{buffer}" for buffer in ("running_mean", "running_var", "num_batches_tracked")),
            *(f"{conv}.{part}" for conv in ("mlp_shared.0", "mlp_gamma", "mlp_beta") for part in ("weight", "bias")),
        )
    }
    spectral = ("weight_orig", "weight_u", "weight_v")
    convs = {f"{conv}.{part}" for conv in ("conv_0", "conv_1") for part in ("bias", *spectral)}
    up_0 = norms | convs | {f"conv_s.{part}" for part in spectral}
    head_0 = {name for name in norms | convs if not name.startswith("norm_s")}
    ends = {f"{conv}.{part}" for conv in ("fc", "conv_img") for part in ("weight", "bias")}
    expected = {f"{block}.{name}" for block in BLOCKS for name in (up_0 if "up" in block else head_0)}
    assert set(state) == expected | ends


@pytest.mark.parametrize("prefix", ["", "module."])
def test_read_spade_gives_the_output_of_torchs_spectral_norm(prefix: str) -> None:
    model, state = original_layout()
    plain = read_spade({prefix + name: tensor for name, tensor in state.items()})
    folded = SpadeGenerator(label_channels=5, ngf=4, size=(64, 128)).eval()
    folded.load_state_dict(plain)
    labels = label_map(2, 5, 64, 128)
    with torch.no_grad():
        assert torch.equal(folded(labels), model(labels))
    assert not torch.equal(plain["up_0.conv_s.weight"], state["up_0.conv_s.weight_orig"])
    assert read_spade(plain).keys() == plain.keys()


def test_read_spade_refuses_what_it_cannot_read() -> None:
    _, state = original_layout()
    with pytest.raises(CheckpointError, match=r"up_1\.conv_0\.weight_v not found"):
        read_spade({name: tensor for name, tensor in state.items() if name != "up_1.conv_0.weight_v"})
    with pytest.raises(CheckpointError, match="--use_vae"):
        read_spade(state | {"fc.weight": torch.zeros(8, 4)})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"upsampling": "moore"}, r"upsampling 'moore' is unknown: did you mean 'more'\?"),
        ({"norm": "layer"}, "norm 'layer' is unknown: .*Allowed: batch, instance"),
        ({"size": (256, 500)}, r"size \(256, 500\) .*multiples of 64"),
    ],
)
def test_wrong_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SpadeGenerator(**options)


def test_discriminator_gives_features_and_logits_of_each_scale() -> None:
    model = MultiscaleDiscriminator(input_nc=8, ndf=4)
    outputs = model(torch.randn(2, 8, 64, 96))
    assert [[tuple(output.shape[1:]) for output in scale] for scale in outputs] == [
        [(4, 33, 49), (8, 17, 25), (16, 9, 13), (32, 10, 14), (1, 11, 15)],
        [(4, 17, 25), (8, 9, 13), (16, 5, 7), (32, 6, 8), (1, 7, 9)],
    ]
    sum(scale[-1].mean() for scale in outputs).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_discriminator_key_layout() -> None:
    one = ["model0.0.weight", "model0.0.bias"]
    for level in (1, 2, 3):
        one += [f"model{level}.0.0.{part}" for part in ("weight_orig", "weight_u", "weight_v")]
    one += ["model4.0.weight", "model4.0.bias"]
    model = MultiscaleDiscriminator()
    assert list(model.state_dict()) == [f"discriminator_{scale}.{name}" for scale in (0, 1) for name in one]
    assert model.discriminator_0.model3[0][0].weight_orig.shape == (512, 256, 4, 4)
