"""Widths without channels: sliced, gated and extracted net are one, and nothing of the branch is computed."""

import onnx
import pytest
import torch
from fvcore.nn import FlopCountAnalysis
from torch import nn

import gantailor
from gantailor.export.devices import device
from gantailor.export.export import export_model
from gantailor.supernet.errors import SelectionError
from gantailor.supernet.gates import GatePlaces
from gantailor.supernet.subnets.removal import Constant
from tests.supernet.test_conformance import CASES

BLOCKS = {  # widths that lie within a residual block
    "resnet_9blocks": [f"model.{10 + i}.conv_block.1" for i in range(9)],
    "mobile_resnet_6blocks": [f"model.{10 + i}.conv_block.1.conv.2" for i in range(6)],
    "cartoongan": [f"conv{i:02}_1" for i in range(4, 12)],
    "unet_128": [],  # without its innermost convolution others had no effect
    "stylegan2": [],  # its modulated convolutions are layers of their own
}


@pytest.fixture(scope="module", params=BLOCKS)
def case(request):
    torch.manual_seed(0)
    options, shape = CASES[request.param]
    inputs = torch.randn(2, *shape, dtype=torch.float64)
    model = gantailor.build(request.param, **options).eval().double()
    return request.param, gantailor.Supernet(model, (inputs,)), inputs


def names(supernet, widths):
    return [supernet.graph.widths[width].name for width in sorted(widths)]


def test_residual_blocks_are_found(case):
    name, supernet, _ = case
    assert names(supernet, supernet.branches) == BLOCKS[name]
    assert not any(module.training for module in supernet.generator.modules())


@torch.no_grad()
def test_gone_everywhere_the_same(case):
    """Alone, several at once, and beside widths that are only narrower."""
    name, supernet, inputs = case
    first = supernet.graph.widths[0]
    gone = [dict.fromkeys(BLOCKS[name], 0), dict.fromkeys(BLOCKS[name][1:3], 0)]
    for config in [*gone, {**gone[1], first.name: first.size // 2}] if BLOCKS[name] else []:
        narrow, expected = supernet.extract(config), supernet(inputs, config=config)
        assert (narrow(inputs) - expected).abs().max() <= 1e-12
        kept = torch.cat([torch.arange(w.size) < config.get(w.name, w.size) for w in supernet.graph.widths])
        gated = supernet.call_with(GatePlaces(supernet.graph).apply(supernet.tensors, kept.double()), (inputs,))
        assert (gated - expected).abs().max() <= 1e-8 * expected.abs().max()
        count = FlopCountAnalysis(narrow, (inputs[:1],))
        count.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        assert supernet.macs(config) == count.by_operator()["conv"] + count.by_operator()["linear"]
        assert supernet.parameter_count(config) == sum(p.numel() for p in narrow.parameters())
        again = supernet.extract(config, {k: torch.zeros_like(v) for k, v in supernet.tensors.items()})
        again.load_state_dict(narrow.state_dict())
        assert torch.equal(again(inputs), narrow(inputs))


@pytest.mark.long
@pytest.mark.parametrize("target", [{"batch": "dynamic"}, {"batch": "static"}])
def test_an_exported_branch_is_gone(target, tmp_path):
    torch.manual_seed(0)
    inputs = torch.randn(1, 3, 32, 32)
    supernet = gantailor.Supernet(gantailor.build("resnet_6blocks", ngf=4).eval(), (inputs,))
    counts = {}
    for number, config in enumerate([{}, {f"model.{10 + i}.conv_block.1": 0 for i in (0, 3)}]):
        wanted = device("onnxruntime-cpu").model_copy(update=target)
        file = export_model(tmp_path / str(number), supernet.extract(config), inputs, wanted)["file"]
        nodes = onnx.load(tmp_path / str(number) / file).graph.node
        counts[number] = sum(node.op_type == "Conv" for node in nodes)
    assert counts[1] == counts[0] - 4


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 6, 3, stride=2, padding=1),
        nn.Conv2d(4, 6, (3, 5), padding="same", bias=False),
        nn.Conv2d(4, 6, 3, padding="valid", dilation=2),
        nn.ConvTranspose2d(4, 6, 4, stride=3, padding=1, output_padding=2),
        nn.ConvTranspose2d(4, 6, 2, groups=2, bias=False),
        nn.Linear(12, 6),
    ],
)
@torch.no_grad()
def test_what_is_left_of_a_layer(layer):
    """Its output where all weights are zero."""
    x = torch.randn(2, 4, 11, 12)
    made = Constant(layer, layer.bias)(x)
    layer.weight.zero_()
    assert torch.equal(made, layer(x))


class Net(nn.Module):
    """Two widths read together, a trunk, and three blocks on it, whose inner layers are given."""

    def __init__(self, *inner):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(16, 8, 1)
        self.blocks, self.outer = nn.ModuleList(inner), nn.Conv2d(8, 3, 1)

    def forward(self, x):
        y = self.c(torch.cat([self.a(x), self.b(x)], 1))
        for block in self.blocks:
            y = y + block(y)
        return self.outer(y)


class Rectified(nn.Conv2d):
    """More than a convolution."""

    def forward(self, x):
        return super().forward(x).relu()


def test_only_what_nothing_hangs_on():
    """Not widths that are read with others, that another layer than a plain one reads, nor one of two in a row."""
    blocks = [
        nn.Sequential(nn.Conv2d(8, 4, 1), nn.ReLU(inplace=True), nn.Conv2d(4, 8, 1)),
        nn.Sequential(nn.Conv2d(8, 5, 1), Rectified(5, 8, 1)),
        nn.Sequential(
            nn.Conv2d(8, 6, 1), nn.InstanceNorm2d(6), nn.Conv2d(6, 7, 1), nn.InstanceNorm2d(7), nn.Conv2d(7, 8, 1)
        ),
    ]
    inputs = torch.randn(1, 3, 8, 8)
    supernet = gantailor.Supernet(Net(*blocks), (inputs,))
    assert names(supernet, supernet.branches) == ["blocks.0.0"]
    assert all(module.training for module in supernet.modules()), "as it was given"
    with pytest.raises(SelectionError, match=r"'a' cannot be 0\.5; give a whole number of channels"):
        supernet.extract({"a": 0.5})
    with pytest.raises(SelectionError, match="'a' cannot be 0; allowed are 1 to 8"):
        supernet.extract({"a": 0})
    with pytest.raises(SelectionError, match="'c' cannot be 0: it lies in no residual branch"):
        gantailor.Supernet(Net(blocks[0]), (inputs,)).double()(inputs.double(), config={"c": 0})


def test_what_is_left_is_not_trained():
    """Before a batch norm its gradient would be noise, which Adam makes as large as any other."""
    torch.manual_seed(0)
    block = nn.Sequential(nn.Conv2d(8, 4, 1), nn.ReLU(), nn.Conv2d(4, 8, 1), nn.BatchNorm2d(8))
    narrow = gantailor.Supernet(Net(block), (torch.randn(1, 3, 8, 8),)).extract({"blocks.0.0": 0})
    before = narrow.blocks[0][2].bias.clone()
    optimizer, x = torch.optim.Adam(narrow.parameters(), lr=1e-2), torch.randn(4, 3, 8, 8)
    for _ in range(100):
        optimizer.zero_grad()
        (narrow(x) - 1).square().mean().backward()
        optimizer.step()
    assert torch.equal(narrow.blocks[0][2].bias, before)
    assert (narrow(x) - narrow.eval()(x)).abs().max() < 1e-2
