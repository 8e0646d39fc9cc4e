"""MUNIT's generator, its mobile form, its norms, the reader of its original format, and its discriminator."""

from __future__ import annotations

import pytest
import torch
from fvcore.nn import FlopCountAnalysis
from torch import Tensor, nn

from gantailor.supernet.errors import CheckpointError, ConfigError
from gantailor.supernet.supernet import Supernet
from gantailor.supernet.traits import traits_of
from gantailor.supernet.verify import verify
from gantailor.zoo.discriminators.multiscale import MunitDiscriminator
from gantailor.zoo.generators.munit.checkpoint import read_munit
from gantailor.zoo.generators.munit.generator import MunitGenerator
from gantailor.zoo.generators.munit.layers import AdaIN, LayerNorm


def macs(model: nn.Module, inputs: Tensor, kind: type[nn.Module]) -> int:
    """Multiply-accumulates of all layers of a kind in one forward; tensors may lie on the meta device."""
    total = 0

    def count(module: nn.Module, _: object, output: Tensor) -> None:
        nonlocal total
        total += module.weight.numel() * output[:, 0].numel()

    handles = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, kind)]
    with torch.no_grad():
        model(inputs)
    for handle in handles:
        handle.remove()
    return total


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def small(**options: object) -> MunitGenerator:
    torch.manual_seed(0)
    return MunitGenerator(**{"ngf": 4, "mlp_dim": 8} | options).eval()


def images(count: int = 2, size: int = 32) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.long
def test_golden_full() -> None:
    with torch.device("meta"):
        model, image = MunitGenerator().eval(), torch.empty(1, 3, 256, 256)
    assert parameters(model) == 15_026_187
    assert macs(model, image, nn.Conv2d) == 77_280_053_248
    assert macs(model, image, nn.Linear) == 1_116_160


@pytest.mark.parametrize("separable", [False, True])
def test_macs_agree_with_fvcore(separable: bool) -> None:
    model, image = small(separable=separable), images(1)
    counted = FlopCountAnalysis(model, image).unsupported_ops_warnings(False).by_operator()
    assert macs(model, image, nn.Conv2d) == counted["conv"]
    assert macs(model, image, nn.Linear) == counted["linear"]


def test_separable_are_residual_blocks_and_up_convolutions() -> None:
    with torch.device("meta"):
        model = MunitGenerator(separable=True)
    depthwise = [name for name, m in model.named_modules() if isinstance(m, nn.Conv2d) and m.groups > 1]
    blocks = [f"model.{block}.model.{conv}.conv.conv.0" for block in range(4) for conv in (0, 1)]
    assert depthwise == [
        *(f"enc_content.model.3.{name}" for name in blocks),
        *(f"dec.model.0.{name}" for name in blocks),
        "dec.model.2.conv.conv.0",
        "dec.model.4.conv.conv.0",
    ]


@pytest.mark.parametrize("separable", [False, True])
@pytest.mark.parametrize("n_downsample", [1, 2, 3])
def test_shape_and_range(n_downsample: int, separable: bool) -> None:
    model = small(n_downsample=n_downsample, separable=separable)
    with torch.no_grad():
        content, style = model.encode(images())
        image = model(images())
    assert model.size_multiple == 2**n_downsample
    assert content.shape == (2, 4 * 2**n_downsample, 32 // 2**n_downsample, 32 // 2**n_downsample)
    assert style.shape == (2, 8, 1, 1)
    assert image.shape == (2, 3, 32, 32)
    assert image.abs().max() <= 1
    assert set(model.feature_layers) <= dict(model.named_modules()).keys()


def test_style_is_the_images_own_unless_given() -> None:
    model = small()
    with torch.no_grad():
        content, style = model.encode(images())
        assert torch.equal(model(images()), model.decode(content, style))
        other = torch.randn(2, 8)
        assert torch.equal(model(images(), other), model(images(), other[:, :, None, None]))
        assert not torch.allclose(model(images(), other), model(images()), atol=1e-4)


def test_forms_declare_their_inputs_and_are_the_same() -> None:
    given, own = small(style="input"), small(style="own")
    assert traits_of(given).input_shapes == ((3, 256, 256), (8,))
    assert traits_of(own).input_shapes == ((3, 256, 256),)
    own.load_state_dict(given.state_dict())
    style = torch.randn(2, 8)
    with torch.no_grad():
        assert torch.equal(given(images(), style), own(images(), style))
        assert torch.equal(given(images()), own(images()))
    with pytest.raises(ConfigError, match="style 'inputs' is unknown; did you mean 'input'"):
        small(style="inputs")


@pytest.mark.parametrize("separable", [False, True])
def test_macs_in_given_styles_agree_with_fvcore(separable: bool) -> None:
    """The published count is of the other form: it has the style encoder's."""
    model, both = small(separable=separable), (images(1), torch.randn(1, 8))
    supernet = Supernet(model, both)
    counted = FlopCountAnalysis(model, both).unsupported_ops_warnings(False).by_operator()
    assert supernet.macs(supernet.full_config()) == counted["conv"] + counted["linear"]
    encoder = macs(model.enc_style, images(1), nn.Conv2d)
    assert counted["conv"] == macs(model, images(1), nn.Conv2d) - encoder
    verify(supernet)


def test_a_batch_is_its_samples() -> None:
    model, style = small().double(), torch.randn(2, 8).double()
    before = {name: set(vars(module)) for name, module in model.named_modules()}
    with torch.no_grad():
        both = model(images().double(), style)
        alone = [model(images()[[n]].double(), style[[n]]) for n in (0, 1)]
    torch.testing.assert_close(both, torch.cat(alone))
    assert before == {name: set(vars(module)) for name, module in model.named_modules()}


def test_adain_is_its_formula() -> None:
    torch.manual_seed(0)
    x, shift, scale = torch.randn(2, 3, 5, 4), torch.randn(2, 3), torch.randn(2, 3)
    expected = torch.empty_like(x)
    for n in range(2):
        for c in range(3):
            values = x[n, c]
            variance = ((values - values.mean()) ** 2).mean()
            expected[n, c] = (values - values.mean()) / (variance + 1e-5).sqrt() * scale[n, c] + shift[n, c]
    torch.testing.assert_close(AdaIN()(x, shift, scale), expected)


def test_layer_norm_is_its_formula() -> None:
    torch.manual_seed(0)
    norm, x = LayerNorm(3), torch.randn(2, 3, 5, 4)
    norm.beta.data.normal_()
    expected = torch.empty_like(x)
    for n in range(2):
        mean = x[n].sum() / 60
        deviation = (((x[n] - mean) ** 2).sum() / 59).sqrt()
        for c in range(3):
            expected[n, c] = (x[n, c] - mean) / (deviation + 1e-5) * norm.gamma[c] + norm.beta[c]
    torch.testing.assert_close(norm(x), expected)


def test_adain_parameters_lie_layer_by_layer_shift_before_scale() -> None:
    model = small()
    sizes = model.dec.adain_sizes()
    assert sizes == [16] * 16
    seen: list[Tensor] = []
    for module in model.modules():
        if isinstance(module, AdaIN):
            module.register_forward_hook(lambda _, inputs, __: seen.extend(inputs[1:]))
    with torch.no_grad():
        content, style = model.encode(images())
        model.decode(content, style)
        adain = model.mlp(style)
    assert torch.equal(torch.cat(seen, 1), adain)


def test_a_narrowed_decoder_runs_in_the_same_forward() -> None:
    """Channels whose AdaIN rows are zero add nothing, so the net without them gives the same picture."""
    model = small(n_res=2).double()
    kept, first, second = 11, "dec.model.0.model.1.model.0.conv", "dec.model.0.model.1.model.1.conv"
    rows = torch.arange(sum(model.dec.adain_sizes()))
    removed = (rows // 16 // 4 == 1) & (rows // 16 % 4 < 2) & (rows % 16 >= kept)  # block 1, first AdaIN
    state = dict(model.state_dict())
    for part in ("weight", "bias"):
        state[f"mlp.model.2.fc.{part}"][removed] = 0
    with torch.no_grad():
        expected = model(images().double())
    for part in ("weight", "bias"):
        state[f"mlp.model.2.fc.{part}"] = state[f"mlp.model.2.fc.{part}"][~removed]
        state[f"{first}.{part}"] = state[f"{first}.{part}"][:kept]
    state[f"{second}.weight"] = state[f"{second}.weight"][:, :kept]
    with torch.no_grad():
        narrow = torch.func.functional_call(model, state, (images().double(),))
    torch.testing.assert_close(narrow, expected)


def original_layout(seed: int) -> dict[str, Tensor]:
    """One side of a gen_*.pt: the generator's tensors and the statistics that AdaIN keeps but never uses."""
    torch.manual_seed(seed)
    state = dict(MunitGenerator(ngf=4, mlp_dim=8).state_dict())
    for block in range(4):
        for conv in (0, 1):
            for part, value in (("mean", 0.0), ("var", 1.0)):
                state[f"dec.model.0.model.{block}.model.{conv}.norm.running_{part}"] = torch.full((16,), value)
    return state


def test_original_key_layout() -> None:
    conv = ("conv.weight", "conv.bias")
    norm = ("norm.gamma", "norm.beta")
    blocks = {f"model.{block}.model.{part}.{name}" for block in range(4) for part in (0, 1) for name in conv}
    expected = {f"enc_style.model.{layer}.{name}" for layer in range(5) for name in conv}
    expected |= {"enc_style.model.6.weight", "enc_style.model.6.bias"}
    expected |= {f"enc_content.model.{layer}.{name}" for layer in range(3) for name in conv}
    expected |= {f"enc_content.model.3.{name}" for name in blocks} | {f"dec.model.0.{name}" for name in blocks}
    expected |= {f"dec.model.{layer}.{name}" for layer in (2, 4) for name in conv + norm}
    expected |= {f"dec.model.5.{name}" for name in conv}
    expected |= {f"mlp.model.{layer}.fc.{part}" for layer in range(3) for part in ("weight", "bias")}
    assert set(small().state_dict()) == expected


def test_read_munit_takes_a_side() -> None:
    state = {"a": original_layout(1), "b": original_layout(2)}
    model = small()
    model.load_state_dict(read_munit(state))
    assert torch.equal(model.dec.model[5].conv.weight, state["a"]["dec.model.5.conv.weight"])
    model.load_state_dict(read_munit(state, side="b"))
    assert torch.equal(model.dec.model[5].conv.weight, state["b"]["dec.model.5.conv.weight"])


def test_read_munit_makes_the_translator() -> None:
    state, style = {"a": original_layout(1), "b": original_layout(2)}, torch.randn(2, 8)
    first, second, translator = small(), small(), small()
    first.load_state_dict(read_munit(state, side="a"))
    second.load_state_dict(read_munit(state, side="b"))
    translator.load_state_dict(read_munit(state, side="a2b"))
    with torch.no_grad():
        expected = second.decode(first.encode(images())[0], style)
        assert torch.equal(translator(images(), style), expected)


def test_read_munit_refuses_what_it_cannot_read() -> None:
    with pytest.raises(CheckpointError, match=r"side 'b' is not in the checkpoint, which holds a;"):
        read_munit({"a": original_layout(1)}, side="a2b")
    with pytest.raises(ConfigError, match=r"side 'c' is unknown: .*a, a2b, b, b2a"):
        read_munit({"a": {}, "b": {}}, side="c")


def test_discriminator_gives_logits_of_each_scale() -> None:
    model = MunitDiscriminator(ndf=4)
    logits = model(torch.randn(2, 3, 128, 96))
    assert [tuple(output.shape) for output in logits] == [(2, 1, 8, 6), (2, 1, 4, 3), (2, 1, 2, 1)]
    sum(output.mean() for output in logits).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_discriminator_key_layout() -> None:
    one = [f"{layer}.conv.{part}" for layer in range(4) for part in ("weight", "bias")] + [
        "4.weight",
        "4.bias",
    ]
    model = MunitDiscriminator()
    assert list(model.state_dict()) == [f"cnns.{scale}.{name}" for scale in range(3) for name in one]
    assert model.cnns[2][3].conv.weight.shape == (512, 256, 4, 4)
