"""Small generators that hold one construct each, and what has to be true of every one."""

import torch
from torch import nn

import gantailor
from gantailor.supernet.graph import SubnetConfig


class Net(nn.Module):
    """A stem of pictures, a body that a function runs, a head; ``kept`` are attributes of the net."""

    def __init__(self, body, *, stem=8, body_out=None, kept=None, **modules):
        super().__init__()
        self.stem = nn.Conv2d(3, stem, 3, padding=1)
        self.head = nn.Conv2d(body_out or stem, 3, 3, padding=1)
        self.body = body
        for name, value in {**modules, **(kept or {})}.items():
            setattr(self, name, value)

    def forward(self, x, *more):
        return self.head(self.body(self, self.stem(x), *more))


class Tokens(nn.Module):
    """The same for sequences ``[N, L, 6]``."""

    def __init__(self, body, *, stem=8, body_out=None, kept=None, **modules):
        super().__init__()
        self.stem, self.head, self.body = nn.Linear(6, stem), nn.Linear(body_out or stem, 5), body
        for name, value in {**modules, **(kept or {})}.items():
            setattr(self, name, value)

    def forward(self, x, *more):
        return self.head(self.body(self, self.stem(x), *more))


def pictures(side=6, count=2):
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(0))


def tokens(length=5, count=2):
    return torch.randn(count, length, 6, generator=torch.Generator().manual_seed(0))


def proved(net, *inputs, left, frozen=()):
    """A supernet whose proof holds without anything kept whole for it, and that really shrinks.

    Args:
        left: the share of the MACs that half of every width leaves at most.
        frozen: modules whose channels stay beside the head's.
    """
    torch.manual_seed(0)
    supernet = gantailor.Supernet(net.eval(), inputs)
    gantailor.verify(supernet)
    assert {name.partition(".")[0] for name in supernet.graph.frozen} <= {"head", *frozen}, supernet.graph
    half = SubnetConfig({width.name: width.size // 2 for width in supernet.graph.widths})
    assert supernet.macs(half) <= left * supernet.macs(supernet.full_config()), supernet.graph
    double, given = supernet.double(), [x.double() if x.is_floating_point() else x for x in inputs]
    before, torch_default = torch.get_default_dtype(), torch.float64
    torch.set_default_dtype(torch_default)
    try:
        with torch.no_grad():
            torch.manual_seed(1)
            sliced = double(*given, config=half)
            torch.manual_seed(1)
            plain = double.extract(half)(*given)
    finally:
        torch.set_default_dtype(before)
    assert (sliced - plain).abs().max() <= 1e-15
    return supernet
