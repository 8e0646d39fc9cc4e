"""A generator is found whatever prefixes and nesting it is saved with, and only the generator."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gantailor
from gantailor.supernet.errors import CheckpointError
from gantailor.zoo.reading.files import split_file
from gantailor.zoo.reading.names import rename_one, renamed, unwrapped

torch.manual_seed(0)
NET = gantailor.build("resnet_6blocks", ngf=2).eval()
OTHER = {f"d.{index}.weight": torch.randn(4, 4, 3, 3) for index in range(5)}
PARTS = st.sampled_from(["module", "_orig_mod", "netG", "generator", "G", "model", "net", "g_ema", "a"])
NAMES = st.sampled_from(["state_dict", "netG", "G_ema", "g", "genA2B", "model", "params", "ema.shadow", "0"])
FEW = settings(max_examples=40, deadline=5000, suppress_health_check=list(HealthCheck))


def wrapped(value, around):
    """The value behind names, each a mapping with other things beside, or a list."""
    for name, kind in around:
        beside = {"discriminator": OTHER, "epoch": 3} if kind == "dict" else {}
        value = [OTHER, value] if kind == "list" else {**beside, name: value}
    return value


def equal(read):
    return all(torch.equal(value, read.state_dict()[name]) for name, value in NET.state_dict().items())


@FEW
@given(
    prefix=st.lists(PARTS, max_size=3),
    around=st.lists(st.tuples(NAMES, st.sampled_from(["dict", "list", "alone"])), max_size=3),
    beside=st.booleans(),
)
def test_found_behind_prefixes_and_within_anything(tmp_path_factory, prefix, around, beside):
    file = tmp_path_factory.mktemp("nested") / "net.pth"
    start = "".join(f"{part}." for part in prefix)
    state = {start + name: value for name, value in NET.state_dict().items()}
    if beside:
        state |= {f"disc.{name}": value for name, value in OTHER.items()}
        if not any(part not in ("module", "_orig_mod") for part in prefix):
            state = {f"gen.{name}" if not name.startswith("disc.") else name: value for name, value in state.items()}
    torch.save(wrapped(state, around), file)
    assert equal(gantailor.load_teacher(file, generator="resnet_6blocks"))


@FEW
@given(names=st.lists(NAMES, min_size=2, max_size=3, unique=True), outer=NAMES, which=st.integers(0, 1))
def test_several_are_told_apart_by_name(tmp_path_factory, names, outer, which):
    file = tmp_path_factory.mktemp("nested") / "net.pth"
    changed = {name: value + 1 for name, value in NET.state_dict().items()}
    kinds = [NET.state_dict() if index == which else changed for index in range(len(names))]
    torch.save({outer: dict(zip(names, kinds)), "epoch": 3}, file)
    with pytest.raises(CheckpointError) as caught:
        gantailor.load_teacher(file, generator="resnet_6blocks")
    assert all(f"{outer}.{name}" in str(caught.value) for name in names)
    assert equal(gantailor.load_teacher(f"{file}:{outer}.{names[which]}", generator="resnet_6blocks"))


@FEW
@given(name=st.lists(st.sampled_from("abc"), min_size=1, max_size=5), new=st.sampled_from("xyz"))
def test_a_part_is_exchanged_wherever_it_stands(name, new):
    expected = ".".join(new if part == "a" else part for part in name)
    assert rename_one(".".join(name), {"a": new}) == expected
    assert rename_one(expected, {new: "a"}) == ".".join(name)


def test_patterns():
    assert rename_one("down.3.conv.weight", {"down.*.conv": "model.*"}) == "model.3.weight"
    assert rename_one("net.blocks.1.weight", {"net": ""}) == "blocks.1.weight"
    assert rename_one("blockade.block", {"block": "b"}) == "blockade.b"
    one = torch.zeros(1)
    with pytest.raises(CheckpointError, match="two tensors the name 'b'"):
        renamed({"a": one, "b": one}, {"a": "b"}, "net.pth")


def test_wrappers_within_names():
    assert unwrapped({"module.a._orig_mod.b": 1}) == {"a.b": 1}
    assert unwrapped({"module.a": 1, "a": 2}) == {"module.a": 1, "a": 2}  # two would be one


def test_paths_inside(tmp_path):
    (tmp_path / "net.pth").touch()
    assert split_file(f"{tmp_path}/net.pth:a.b") == (tmp_path / "net.pth", "a.b")
    assert split_file(tmp_path / "net.pth") == (tmp_path / "net.pth", "")
    assert split_file(f"{tmp_path}/none.pth:a")[1] == ""
