"""The default space and what a user can set of it in YAML."""

import pytest
import torch

import gantailor
from gantailor.run.loading import load_config
from gantailor.search.spaces.config import SpaceConfig
from gantailor.supernet.errors import ConfigError


@pytest.fixture(scope="module")
def supernet():
    with torch.device("meta"):
        return gantailor.Supernet(gantailor.build("resnet_6blocks", ngf=24), (torch.empty(1, 3, 32, 32),))


def test_fractions_are_rounded_to_the_multiple(supernet):
    space = gantailor.space(SpaceConfig(fractions=(0.25, 0.5, 1), multiple=8), supernet)
    choices = {v.name: v.choices for v in space.variables}
    assert choices["model.1"] == (8, 16, 24)  # 6 and 12 of 24, rounded to multiples of 8
    assert choices["model.7"] == (24, 48, 96)
    assert space.to_config(space.largest) == supernet.full_config()


def test_the_full_width_stays_though_it_is_no_multiple(supernet):
    space = gantailor.space(SpaceConfig(fractions=(0.5, 1), multiple=16), supernet)
    assert space.variables[0].choices == (16, 24)


def test_tied_widths_move_together(supernet):
    blocks = ("model.1?.conv_block.*",)
    space = gantailor.space(SpaceConfig(fractions=(0.5, 1), ties=(blocks, ("model.1", "model.7"))), supernet)
    config = space.to_config(space.smallest)
    tied = {config[name] for name in config if name.startswith("model.1") and "conv_block" in name}
    assert tied == {48}
    assert (config["model.1"], config["model.7"]) == (12, 48)
    assert len(space) == 2 ** len(space.variables)
    assert len(space.variables) == len(config) - len([n for n in config if "conv_block" in n and "model.1" in n])


def test_frozen_widths_stay_whole(supernet):
    space = gantailor.space(SpaceConfig(freeze=("*.conv_block.*",)), supernet)
    config = space.to_config(space.smallest)
    assert all(config[name] == 96 for name in config if "conv_block" in name)
    assert config["model.1"] == 8


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"freeze": ("model.2",)}, "names width 'model.2', which does not exist; did you mean"),
        ({"ties": (("model.1", "model.4"), ("model.4", "model.7"))}, "width 'model.4' is in two ties"),
        ({"name": "resnet/channels-48", "multiple": 8}, "fixed table"),
        ({"name": "resnet/channels-4"}, "did you mean 'resnet/channels-4"),
        ({"name": "spade/channels-64"}, "need a free width made by 'fc'"),
    ],
)
def test_mistakes(supernet, settings, message):
    with pytest.raises(ConfigError, match=message):
        gantailor.space(SpaceConfig(**settings), supernet)


def test_choices_that_there_are_not(supernet):
    space = gantailor.space("default", supernet)
    count = len(space.variables)
    for choices in ([-1] + [0] * (count - 1), [99] + [0] * (count - 1), [0], [0.5] * count):
        with pytest.raises(ConfigError, match=f"has no choices .*; give a number for each of its {count} variables"):
            space.to_config(choices)
    assert gantailor.space({"freeze": ["*"]}, supernet).to_config([]) == supernet.full_config()


def test_yaml(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("space: {multiple: 8, ties: [[model.1, model.4]]}\n")
    assert load_config(str(path), {}).space == SpaceConfig(multiple=8, ties=(("model.1", "model.4"),))
    path.write_text("space: resnet/channels-48\n")
    assert load_config(str(path), {}).space.name == "resnet/channels-48"
    assert load_config(str(path), {"space.name": "default"}).space.name == "default"
    path.write_text("space: {fractions: [0, 1.5]}\n")
    with pytest.raises(ConfigError, match="above 0 and at most 1"):
        load_config(str(path), {})


def test_residual_blocks_may_go():
    """No channels is the first choice of what lies within a block, of a tie only if all of it does."""
    torch.manual_seed(0)
    inputs = torch.randn(1, 3, 32, 32)
    net = gantailor.Supernet(gantailor.build("resnet_6blocks", ngf=4).eval(), (inputs,))
    inner = [f"model.{10 + block}.conv_block.1" for block in range(6)]
    for name in ("default", "every"):
        space = gantailor.space(SpaceConfig(name=name, drop_branches=True), net)
        assert [v.name for v in space.variables if v.choices[0] == 0] == inner
        smallest = space.to_config(space.smallest)
        assert torch.equal(net.extract(smallest)(inputs), net(inputs, config=smallest))
    ties = (("model.10.*", "model.11.*"), ("model.12.*", "model.1"))
    tied = gantailor.space(SpaceConfig(drop_branches=True, ties=ties), net)
    assert [v.choices[0] for v in tied.variables if len(v.sizes) > 1] == [4, 0], "the stem is in the first"
    with pytest.raises(ConfigError, match="drop_branches needs 'default' or 'every'"):
        gantailor.space(SpaceConfig(name="uniform", drop_branches=True), net)
