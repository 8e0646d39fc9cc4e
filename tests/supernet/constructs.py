"""Small generators that hold one construct each, and what has to be true of every one."""

import copy
import re
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import gantailor
from gantailor.supernet.errors import VerificationError
from gantailor.supernet.graph import Selection, SubnetConfig
from gantailor.supernet.verify import count_parameters


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
    double, given = copy.deepcopy(supernet).double(), [x.double() if x.is_floating_point() else x for x in inputs]
    assert (_run(double, *given, config=half) - _run(double.extract(half), *given)).abs().max() <= 1e-15
    return supernet


# What a proof says, held against forwards that have nothing of it.


def proved_or_told(model, x):
    """A supernet whose proof holds, if need be after a repair whose cause is told in one sentence."""
    supernet = gantailor.Supernet(model.eval(), (x,))
    said = ""
    try:
        gantailor.verify(supernet)
    except VerificationError as error:
        said = str(error)
        gantailor.verify(supernet, repair=True)
    assert not said or ("\n" not in said and re.search(r"in module|width\(s\)", said)), said
    return supernet


def agrees(supernet, model, x, *, seed=0):
    """Narrow nets against the caller's model, the whole net with channels unread, and PyTorch's counter."""
    graph, rng = supernet.graph, np.random.default_rng(seed)
    double, precise = copy.deepcopy(supernet).double(), x.double()
    whole = _run(double, precise)
    scale = float(whole.abs().max())
    assert (whole - _run(copy.deepcopy(model).eval().double(), precise)).abs().max() <= 1e-6 * scale
    for selection in _selections(graph, rng):
        narrow = _run(double.extract(selection), precise)
        sliced = _run(double, precise, config=selection)
        assert (narrow - sliced).abs().max() <= 1e-12 * max(scale, float(sliced.abs().max())), selection
        exact = {w.name for number, w in enumerate(graph.widths) if number not in graph.inexact}
        part = Selection({w.name: selection[w.name] if w.name in exact else range(w.size) for w in graph.widths})
        unread = _run(_unread(double, part), precise)
        assert (_run(double.extract(part), precise) - unread).abs().max() <= 1e-8 * max(scale, 1), part
        if all(len(selection[w.name]) > 1 for w in graph.widths):  # einsum over one channel may need no product
            plain = supernet.extract(selection)
            assert abs(_counted(plain, x) - len(x) * supernet.macs(selection)) < len(x), selection
            assert supernet.parameter_count(selection) == count_parameters(plain)


def _selections(graph, rng):
    """Half of every width, any share of each, one unit."""
    any_share = [rng.integers(min(2, width.size), width.size + 1) for width in graph.widths]
    for sizes in ([width.size // 2 for width in graph.widths], any_share, [1] * len(graph.widths)):
        pairs = zip(graph.widths, sizes, strict=True)
        yield Selection({width.name: rng.choice(width.size, max(1, size), replace=False) for width, size in pairs})


def _unread(supernet, selection):
    """The whole generator in which the channels that a selection lacks are multiplied by zero where they are read."""
    made, graph = copy.deepcopy(supernet.generator), supernet.graph
    tensors = dict(made.named_parameters()) | dict(made.named_buffers())
    for number, width in enumerate(graph.widths):
        for name, dimension in graph.consumers.get(number, ()):
            axis = graph.axes[name][dimension]
            gone = np.flatnonzero((axis.width == number) & ~np.isin(axis.unit, selection[width.name]))
            tensors[name].data.index_fill_(dimension, torch.from_numpy(gone), 0)
    return made


@contextmanager
def _in_float64():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@torch.no_grad()
def _run(module, *inputs, **options):
    torch.manual_seed(1)
    with _in_float64():
        return module(*inputs, **options)


@torch.no_grad()
def _counted(module, x):
    """PyTorch's own counter, with what it leaves out written out: fused layers, attention, addbmm."""
    missing = {torch.ops.aten.addbmm: lambda added, a, b, **_: 2 * a[0] * a[1] * a[2] * b[2]}
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    counter = FlopCounterMode(display=False, custom_mapping=missing)
    try:
        with torch.backends.mkldnn.flags(enabled=False), sdpa_kernel(SDPBackend.MATH), counter:
            module(x)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return counter.get_total_flops() // 2


def by_scatter(net, flat):
    """The nearest of ``net.codes`` to each row, by a one-hot matrix that is scattered into."""
    far = (flat**2).sum(1, keepdim=True) + (net.codes.weight**2).sum(1) - 2 * flat @ net.codes.weight.t()
    one = torch.zeros(len(flat), net.count).to(flat)
    one.scatter_(1, far.argmin(1, keepdim=True), 1)
    return one @ net.codes.weight
