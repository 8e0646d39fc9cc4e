"""Published integers, exactly."""

import numpy as np
import pytest
import torch

import gantailor


@pytest.fixture(scope="module")
def mobile():
    return gantailor.Supernet(gantailor.build("mobile_resnet_9blocks"), (torch.randn(1, 3, 256, 256),))


@pytest.mark.long
def test_resnet_9blocks_counts():
    supernet = gantailor.Supernet(gantailor.build("resnet_9blocks", ngf=64), (torch.randn(1, 3, 256, 256),))
    full = supernet.full_config()
    assert len(supernet.graph.widths) == 14  # stem, down1, trunk, nine inner, up1, up2
    assert supernet.macs(full) == 49551507456
    assert supernet.macs(full, convention="published") == 56831770624
    assert supernet.macs(full, convention="published_convs") == 56799264768
    assert supernet.parameter_count(full) == 11378179


def test_mobile_resnet_full(mobile):
    full = mobile.full_config()
    assert mobile.macs(full) == 11066671104
    assert mobile.macs(full, convention="published") == 18365808640
    assert mobile.parameter_count(full) == 1987075


def test_published_subnets(mobile):
    space = gantailor.space("resnet/channels-64-cycleGAN", mobile)
    assert mobile.macs(space.config("16_16_32_16_16_64_16_24"), convention="published") == 2984771584
    config = space.config("16_16_24_16_32_64_16_24")
    assert mobile.macs(config, convention="published_convs") == 2618425344
    assert mobile.parameter_count(config) == 355235
    assert sum(p.numel() for p in mobile.extract(config).parameters()) == 355235


def test_space_range(mobile):
    space = gantailor.space("resnet/channels-64-cycleGAN", mobile)
    ends = np.stack([space.smallest, space.largest])
    assert space.macs(ends, convention="published").tolist() == [1420558336, 18365808640]


@pytest.mark.parametrize(
    ("name", "ngf", "size"),
    [
        ("resnet/channels-48", 48, 5184),
        ("resnet/channels-32", 48, 6561),
        ("resnet/channels-64-cycleGAN", 64, 390625),
        ("resnet/channels-64-pix2pix", 64, 5764801),
    ],
)
def test_space_sizes(name, ngf, size):
    supernet = gantailor.Supernet(gantailor.build("mobile_resnet_9blocks", ngf=ngf), (torch.randn(1, 3, 16, 16),))
    assert len(gantailor.space(name, supernet)) == size


def on_meta(name, *shape, **options):
    """Counting needs shapes only: no memory, no arithmetic."""
    with torch.device("meta"):
        return gantailor.Supernet(gantailor.build(name, **options), (torch.empty(1, *shape),))


@pytest.mark.long
def test_spade():
    supernet = on_meta("spade", 36, 256, 512)
    full = supernet.full_config()
    assert supernet.macs(full) == supernet.macs(full, convention="published_convs") == 281_276_612_608
    assert supernet.parameter_count(full) == 93_048_003
    space = gantailor.space("spade/channels-64", supernet)
    assert len(space) == 128_000
    assert space.macs(space.largest)[0] == supernet.macs(full)


@pytest.mark.long
def test_mobile_spade_subnet():
    supernet = on_meta("mobile_spade", 36, 256, 512)
    config = gantailor.space("spade/channels-64", supernet).config("32_32_32_48_32_24_24_32")
    assert supernet.macs(config, convention="published_convs") == 31_155_085_312
    assert supernet.parameter_count(config) == 20_174_275
    narrower = on_meta("mobile_spade", 36, 256, 512, ngf=48)
    assert len(gantailor.space("spade/channels-48", narrower)) == 15_552


def test_munit():
    supernet = on_meta("munit", 3, 256, 256)
    full = supernet.full_config()
    assert supernet.macs(full) == 77_280_053_248 + 1_116_160  # convolutions, linear layers
    assert supernet.parameter_count(full) == 15_026_187
    space = gantailor.space("munit/channels-64", supernet)
    assert len(space) == 282_475_249
    assert space.to_config(space.largest) == full
    assert len(gantailor.space("munit/channels-64", on_meta("mobile_munit", 3, 256, 256))) == 282_475_249


def test_stylegan2_ffhq_256():
    supernet = on_meta("stylegan2", 512)
    full = supernet.full_config()
    assert supernet.macs(full, convention="published") == 45_124_673_536
    kept = {512: 154, 256: 77, 128: 39, 64: 20, 32: 10}
    mapping = {width.name for width in supernet.graph.widths if width.name.startswith("style.")}
    pruned = gantailor.SubnetConfig({name: size if name in mapping else kept[size] for name, size in full.items()})
    assert supernet.macs(pruned, convention="published") == 4_123_578_080
