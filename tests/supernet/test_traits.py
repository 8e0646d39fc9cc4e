"""What a generator declares about itself: read in one place, checked with one clear message."""

import pytest
import torch
from torch import nn

import gantailor
from gantailor.supernet.errors import ConfigError
from gantailor.supernet.quantization.quantisers import Quantised, Quantisers
from gantailor.supernet.training.teaching.distillation import proposed_layers
from gantailor.supernet.traits import Traits, WrapsGenerator, maps_latents, plain_generator, traits_of


class Net(nn.Module):
    def __init__(self, **declared):
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 3, 1)
        for name, value in declared.items():
            setattr(self, name, value)

    def forward(self, x):
        return self.head(self.stem(x))


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        ({}, Traits()),
        ({"input_shape": (3, 8, 8)}, Traits(((3, 8, 8),), "pictures")),
        ({"input_shape": [16]}, Traits(((16,),), "latents")),
        ({"input_shape": (16,), "size": 64}, Traits(((16,),), "latents", size=64)),
        ({"input_shape": (5, 8, 8), "takes": "labels", "size": (8, 8)}, Traits(((5, 8, 8),), "labels")),
        ({"input_shapes": ((3, 8, 8), (4,)), "input_shape": (3, 8, 8)}, Traits(((3, 8, 8), (4,)), "pictures")),
        ({"size_multiple": 4, "modulation": "grouped"}, Traits(size_multiple=4, modulation="grouped")),
        (
            {"feature_layers": ["stem"], "interface_layers": ("head",)},
            Traits(feature_layers=("stem",), interface_layers=("head",)),
        ),
        ({"feature_layers": nn.ModuleList(), "modulation": nn.Linear(1, 1), "takes": len}, Traits()),
    ],
)
def test_declarations(declared, expected):
    assert traits_of(Net(**declared)) == expected


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"input_shape": 3}, r"Net.input_shape cannot be 3: give a shape without batch"),
        ({"input_shape": (3, 0)}, "Net.input_shape cannot be"),
        ({"input_shapes": (3, 8, 8)}, "Net.input_shapes cannot be .* one shape for each input"),
        ({"takes": "video"}, "Net.takes cannot be 'video': allowed are pictures, labels, latents"),
        ({"input_shape": (3, 8, 8), "takes": "latents"}, "Net.takes cannot be 'latents': its input shape is"),
        ({"size_multiple": 0}, "Net.size_multiple cannot be 0: give a whole number"),
        ({"size_multiple": True}, "Net.size_multiple cannot be True"),
        ({"input_shape": (8,), "size": "64"}, "Net.size cannot be '64'"),
        ({"feature_layers": "stem"}, "Net.feature_layers cannot be 'stem': give a tuple of the names"),
        ({"feature_layers": ("stm",)}, r"Net.feature_layers cannot be 'stm': .* did you mean 'stem'\?"),
        ({"interface_layers": ("",)}, "Net.interface_layers cannot be ''"),
    ],
)
def test_mistakes_name_what_is_allowed(declared, message):
    with pytest.raises(ConfigError, match=message) as caught:
        traits_of(Net(**declared))
    assert "\n" not in str(caught.value)


def test_a_supernet_tells_of_a_wrong_declaration():
    with pytest.raises(ConfigError, match=r"Net.interface_layers cannot be 'stem'"):
        gantailor.Supernet(Net(interface_layers="stem"), (torch.randn(1, 3, 8, 8),))


def test_a_part_called_generator_is_not_unwrapped():
    net = Net(generator=Net())
    assert plain_generator(net) is net
    supernet = gantailor.Supernet(Net(), (torch.randn(1, 3, 8, 8),))
    assert plain_generator(supernet) is supernet.generator
    assert plain_generator(Quantised(net, Quantisers(net))) is net


def test_nobody_asks_isinstance_whether_a_module_wraps():
    """From Python 3.12 on it looks past ``nn.Module.__getattr__``, where submodules are found: it would say no."""
    with pytest.raises(TypeError, match="runtime_checkable"):
        isinstance(Net(), WrapsGenerator)


def test_only_a_forward_that_takes_them_is_given_mapped_latents():
    options = {"size": 8, "style_dim": 4, "n_mlp": 1, "channels": {4: 4, 8: 4}}
    assert maps_latents(gantailor.build("stylegan2", **options))
    assert not maps_latents(Net(mapping=nn.Linear(3, 3)))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(8, 4, 3, padding=1), nn.Conv2d(4, 8, 3, padding=1)
        self.squeeze = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 8, 1), nn.Sigmoid())

    def forward(self, x):
        y = self.two(self.one(x).relu())
        return x + y * self.squeeze(y)


class Blocks(nn.Module):
    """A trunk of blocks between a stem and a head, in ``body`` or right here."""

    def __init__(self, count, flat=False):
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 3, 1)
        self.body = nn.Sequential(*(Block() for _ in range(count)))
        if flat:
            self.body, self.flat = None, nn.Sequential(*(layer for _ in range(count) for layer in (Block(), nn.ReLU())))

    def forward(self, x):
        return torch.tanh(self.head((self.body or self.flat)(self.stem(x))))


def test_layers_are_proposed_evenly_over_the_macs():
    """Whole blocks in the middle of each quarter, behind the activation; no layer in them, no squeezed vector."""
    example = torch.randn(1, 3, 8, 8)
    found = proposed_layers(gantailor.Supernet(Blocks(8), example))
    assert found == ("body.0", "body.2", "body.4", "body.6")
    flat = proposed_layers(gantailor.Supernet(Blocks(8, flat=True), example))
    assert flat == ("flat.1", "flat.5", "flat.9", "flat.13")
    assert proposed_layers(gantailor.Supernet(Net(), example)) == ("stem",)
    vectors = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    assert proposed_layers(gantailor.Supernet(vectors, torch.randn(1, 4))) == ()
