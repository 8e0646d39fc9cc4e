"""The tests that every generator of the zoo passes: trace, verify, extraction, permutation, cost, round trip."""

import numpy as np
import pytest
import torch
from fvcore.nn import FlopCountAnalysis

import gantailor
from gantailor.export.devices import device
from gantailor.export.export import export_model
from gantailor.supernet.files import save_tensors
from gantailor.supernet.importance.ranking import rank_channels
from gantailor.supernet.traits import traits_of

CASES = {
    "resnet_6blocks": ({"ngf": 8}, (3, 32, 32)),
    "resnet_9blocks": ({"ngf": 8, "dropout": True}, (3, 32, 32)),
    "mobile_resnet_6blocks": ({"ngf": 8}, (3, 32, 32)),
    "mobile_resnet_9blocks": ({"ngf": 8, "norm": "batch"}, (3, 32, 32)),
    "unet_128": ({"ngf": 4, "norm": "instance"}, (3, 256, 256)),
    "unet_256": ({"ngf": 4}, (3, 256, 256)),
    "spade": ({"ngf": 4, "label_channels": 8, "size": (64, 128)}, (8, 64, 128)),
    "mobile_spade": ({"ngf": 4, "label_channels": 8, "size": (64, 128)}, (8, 64, 128)),
    "munit": ({"ngf": 4, "mlp_dim": 8}, (3, 32, 32)),
    "mobile_munit": ({"ngf": 4, "mlp_dim": 8}, (3, 32, 32)),
    "cartoongan": ({"ngf": 4}, (3, 32, 32)),
    "stylegan2": ({"size": 16, "style_dim": 16, "n_mlp": 2, "channels": {4: 16, 8: 8, 16: 8}}, (16,)),
}


# A SPADE's pictures are larger than the others'.
@pytest.fixture(
    scope="module", params=[pytest.param(c, marks=pytest.mark.long) if c.endswith("spade") else c for c in CASES]
)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def model(name):
    """The caller's own, from which the supernet is made."""
    torch.manual_seed(0)
    return gantailor.build(name, **CASES[name][0])


@pytest.fixture(scope="module")
def looks(model):
    """How it looked before: classes, modes, and every tensor with its identity and values."""
    return appearance(model)


@pytest.fixture(scope="module")
def case(name, model, looks):
    inputs = torch.randn(2, *CASES[name][1], generator=torch.Generator().manual_seed(0))
    return gantailor.Supernet(model, (inputs,)).eval(), inputs


def appearance(model):
    modules = [(path, type(module), module.training) for path, module in model.named_modules()]
    tensors = [(key, id(t), t.requires_grad) for key, t in (*model.named_parameters(), *model.named_buffers())]
    return modules, tensors, {key: value.clone() for key, value in model.state_dict().items()}


def random_config(supernet, seed=0):
    rng = np.random.default_rng(seed)
    return gantailor.SubnetConfig({w.name: int(rng.integers(1, w.size + 1)) for w in supernet.graph.widths})


def assert_unchanged(model, looks):
    modules, tensors, state = appearance(model)
    assert (modules, tensors) == looks[:2]
    assert state.keys() == looks[2].keys() and all(torch.equal(value, looks[2][key]) for key, value in state.items())


def test_verifies(case, model, looks):
    supernet, _ = case
    result = gantailor.verify(supernet)
    assert result.sliced_extracted <= 1e-12
    assert result.permuted <= 1e-8
    assert result.removed <= 1e-8
    assert_unchanged(model, looks)


@torch.no_grad()
def test_extracted_is_plain_and_equal(case):
    supernet, inputs = case
    config = random_config(supernet)
    narrow = supernet.extract(config)
    assert type(narrow) is type(supernet.generator)
    assert torch.equal(narrow(inputs), supernet(inputs, config=config))
    assert sum(p.numel() for p in narrow.parameters()) == supernet.parameter_count(config)


@torch.no_grad()
def test_ranking_keeps_the_function(case):
    supernet, inputs = case
    before = supernet(inputs)
    rank_channels(supernet)
    assert torch.allclose(before, supernet(inputs), atol=1e-4)


def test_macs_equal_fvcore(case):
    supernet, inputs = case
    for seed in range(2):
        config = random_config(supernet, seed)
        count = FlopCountAnalysis(supernet.extract(config), (inputs[:1],))
        count.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        by_operator = count.by_operator()
        assert supernet.macs(config) == by_operator["conv"] + by_operator["linear"]


@pytest.mark.long
def test_exports_to_onnx(case, tmp_path):
    supernet, inputs = case
    narrow = supernet.extract(random_config(supernet)).eval()
    assert export_model(tmp_path, narrow, inputs[:1], device("onnxruntime-cpu"))["max_difference"] <= 1e-4


@pytest.mark.parametrize("file", ["net.pth", "net.safetensors"])
def test_checkpoint_round_trip(case, name, file, tmp_path):
    supernet, inputs = case
    state = supernet.generator.state_dict()
    if file == "net.pth":
        torch.save({f"module.{key}": value for key, value in state.items()}, tmp_path / file)
    else:
        save_tensors(tmp_path / file, state, {})
    read = gantailor.load_teacher(tmp_path / file, generator=name, **CASES[name][0])
    with torch.no_grad():
        assert torch.equal(read(inputs), supernet(inputs))


def test_native_input(name):
    with torch.device("meta"):
        model = gantailor.build(name).eval()
        assert model(*(torch.empty(1, *shape) for shape in traits_of(model).input_shapes)).dim() == 4


def test_config_and_selection_round_trip(case):
    supernet, _ = case
    config = random_config(supernet)
    assert gantailor.SubnetConfig.from_json(config.to_json()) == config
    assert supernet.graph.selection(config).config == config


def test_training_a_subnet_touches_only_its_channels(case):
    supernet, inputs = case
    smallest = {w.name: 1 for w in supernet.graph.widths}
    supernet.zero_grad()
    supernet(inputs, config=smallest).square().mean().backward()
    name, axes = next((n, a) for n, a in supernet.graph.axes.items() if n.endswith("weight") and 0 in a)
    gradient = dict(supernet.generator.named_parameters())[name].grad
    kept = axes[0].kept(supernet.graph.masks(smallest))
    dropped = np.setdiff1d(np.arange(len(axes[0])), kept)
    assert gradient[dropped].abs().max() == 0


def test_the_callers_model_is_unchanged(case, model, looks):
    supernet, _ = case
    supernet.extract(random_config(supernet))
    rank_channels(supernet)
    assert_unchanged(model, looks)
