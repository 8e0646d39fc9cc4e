"""Sizes that a forward reads, keeps and computes with: what they are given to narrows with them."""

import argparse
import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import gantailor
from tests.supernet.constructs import Net, Tokens, agrees, pictures, proved, tokens


def conv(i=8, o=8, **options):
    return nn.Conv2d(i, o, 3, padding=1, **options)


# attention whose sizes are tied only by arithmetic


def window_attention(net, x):
    b, n, c = x.shape
    q, k, v = net.qkv(x).reshape(b, n, 3, net.heads, c // net.heads).permute(2, 0, 3, 1, 4)
    weights = (q @ k.transpose(-2, -1)).softmax(-1)
    return x + net.proj((weights @ v).transpose(1, 2).reshape(b, n, c))


def heads_into_the_batch(net, x):
    def split(t):
        b, n, c = t.shape
        return t.reshape(b, n, net.heads, c // net.heads).permute(0, 2, 1, 3).reshape(b * net.heads, n, c // net.heads)

    q, k, v = split(net.q(x)), split(net.k(x)), split(net.v(x))
    bias = torch.empty(q.shape[0], q.shape[1], k.shape[1], dtype=q.dtype)
    y = torch.bmm(torch.baddbmm(bias, q, k.transpose(-1, -2), beta=0, alpha=0.5).softmax(-1), v)
    y = y.reshape(x.shape[0], net.heads, *y.shape[1:]).permute(0, 2, 1, 3)
    return x + net.proj(y.reshape(*y.shape[:2], y.shape[2] * y.shape[3]))


def kept_heads(net, x):
    b, n, _ = x.shape
    q, k, v = (layer(x).view(b, n, net.heads, net.each).transpose(1, 2) for layer in (net.q, net.k, net.v))
    y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
    return x + net.proj(y.reshape(b, n, net.heads * net.each))


def int_of_a_quotient(net, x):
    b, n, c = x.size()
    q, k, v = net.qkv(x).view(b, n, 3, net.heads, int(c / net.heads)).unbind(2)
    y = torch.einsum("bihd,bjhd->bhij", q, k).softmax(-1)
    return x + net.proj(torch.einsum("b h i j, b j h d -> b i h d", y, v).reshape(b, n, int(c)))


def integers_of_a_layer(net, x):
    b, n = x.shape[:2]
    width = net.qkv.out_features // 3
    q, k, v = net.qkv(x).view(b, n, 3, net.heads, width // net.heads).unbind(2)
    y = torch.einsum("...ihd,...jhd->...hij", q, k).softmax(-1)
    return x + net.proj(torch.einsum("...hij,...jhd->...ihd", y, v).reshape(b, n, net.proj.in_features))


def two_numbers_of_heads(net, x):
    for layer, out, heads in ((net.qkv, net.proj, 2), (net.q, net.k, 3)):
        b, n, c = x.shape
        q, k, v = layer(x).reshape(b, n, 3, heads, c // heads).permute(2, 0, 3, 1, 4)
        x = x + out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, c))
    return x


ATTENTION = {
    "C // heads": lambda: Tokens(
        window_attention, stem=12, qkv=nn.Linear(12, 36), proj=nn.Linear(12, 12), kept={"heads": 3}
    ),
    "heads in the batch": lambda: Tokens(
        heads_into_the_batch, stem=12, **{n: nn.Linear(12, 12) for n in ("q", "k", "v", "proj")}, kept={"heads": 2}
    ),
    "kept": lambda: Tokens(
        kept_heads,
        **{n: nn.Linear(8, 12) for n in ("q", "k", "v")},
        proj=nn.Linear(12, 8),
        kept={"heads": 3, "each": 4},
    ),
    "int": lambda: Tokens(int_of_a_quotient, qkv=nn.Linear(8, 24), proj=nn.Linear(8, 8), kept={"heads": 4}),
    "of a layer": lambda: Tokens(integers_of_a_layer, qkv=nn.Linear(8, 24), proj=nn.Linear(8, 8), kept={"heads": 2}),
    "2 and 3 heads": lambda: Tokens(
        two_numbers_of_heads,
        stem=12,
        qkv=nn.Linear(12, 36),
        proj=nn.Linear(12, 12),
        q=nn.Linear(12, 36),
        k=nn.Linear(12, 12),
    ),
}


@pytest.mark.parametrize("name", ATTENTION)
def test_attention(name):
    supernet = proved(ATTENTION[name](), tokens(), left=0.5)
    assert len(supernet.graph.widths) == {"heads in the batch": 3, "kept": 2, "of a layer": 2}.get(name, 1)


def test_heads_keep_their_number_and_lose_channels():
    supernet = proved(ATTENTION["C // heads"](), tokens(), left=0.5)
    (width,) = supernet.graph.widths
    assert width.size == 4, "positions within a head"
    assert supernet.extract({width.name: 1}).qkv.weight.shape == (9, 3)


def whole_heads(net, x):
    q, k, v = (layer(x).view(*x.shape[:2], -1, net.each).transpose(1, 2) for layer in (net.q, net.k, net.v))
    y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
    return x + net.proj(y.flatten(2))


def counted_heads(net, x):
    heads = net.q.out_features // net.each
    q, k, v = (layer(x).reshape(*x.shape[:2], heads, net.each).transpose(1, 2) for layer in (net.q, net.k, net.v))
    y = (q @ k.transpose(-2, -1)).softmax(-1) @ v
    return x + net.proj(y.transpose(1, 2).reshape(*x.shape[:2], -1))


@pytest.mark.parametrize("body", [whole_heads, counted_heads])
def test_whole_heads_go_where_a_head_has_so_many_channels(body):
    """Exactly: what the other heads compute stays."""
    net = Tokens(body, kept={"each": 3}, **{n: nn.Linear(8, 12) for n in "qkv"}, proj=nn.Linear(12, 8))
    supernet = proved(net, tokens(), left=0.5)
    assert [width.size for width in supernet.graph.widths] == [8, 4] and not supernet.graph.inexact
    narrow = supernet.extract({"q": 1})
    assert (narrow.q.out_features, narrow.proj.in_features, narrow.each) == (3, 3, 3)
    agrees(supernet, net, tokens())


def test_channels_per_head_in_the_batch():
    """Guided diffusion: three times the channels of a head behind the heads, all in one axis with the batch."""

    def body(net, x):
        b, c, h, w = x.shape
        qkv = net.qkv(x.reshape(b, c, -1))
        each = qkv.shape[1] // (3 * net.heads)
        q, k, v = qkv.reshape(b * net.heads, each * 3, -1).split(each, dim=1)
        y = torch.einsum("bct,bcs->bts", q * 0.5, k * 0.5).softmax(-1)
        y = torch.einsum("bts,bcs->bct", y, v).reshape(b, -1, h * w)
        return x + net.proj(y).reshape(b, c, h, w)

    proved(Net(body, qkv=nn.Conv1d(8, 24, 1), proj=nn.Conv1d(8, 8, 1), kept={"heads": 2}), pictures(4), left=0.5)


def test_channels_against_channels():
    """Restormer: the attention is between the channels of a head; a temperature for each head stays."""

    def body(net, x):
        b, c, h, w = x.shape
        q, k, v = (t.reshape(b, net.heads, c // net.heads, h * w) for t in net.qkv(x).chunk(3, dim=1))
        weights = (F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1) * net.temperature).softmax(-1)
        return x + net.proj((weights @ v).reshape(b, c, h, w))

    net = Net(body, stem=12, qkv=nn.Conv2d(12, 36, 1), proj=nn.Conv2d(12, 12, 1), kept={"heads": 3})
    net.temperature = nn.Parameter(torch.ones(3, 1, 1))
    proved(net, pictures(), left=0.45)


# tensors that the forward makes


MADE = {
    "expand": lambda b, c, x: x * x.new_tensor(0.7).expand(b, c)[:, :, None, None],
    "zeros": lambda b, c, x: torch.lerp(x, torch.zeros(b, c, *x.shape[2:], dtype=x.dtype), 0.3),
    "size": lambda b, c, x: x + torch.ones(size=(1, c, 1, 1), dtype=x.dtype),
    "new_full": lambda b, c, x: x * x.new_full((b, c, 1, 1), 0.5),
    "of a shape": lambda b, c, x: x + torch.full(x.shape, 0.25, dtype=x.dtype),
    "repeat": lambda b, c, x: x * x.new_ones(1, 1, 1, 1).repeat(b, c, 1, 1),
    "twice the channels": lambda b, c, x: x + x.new_ones(b, 2 * c, 1, 1)[:, :c],
    "identity": lambda b, c, x: torch.einsum("bchw,cd->bdhw", x, torch.eye(c, dtype=x.dtype)),
    "interleaved": lambda b, c, x: x * x.new_ones(1).repeat_interleave(c)[:, None, None],
    "written": lambda b, c, x: _written(x.new_zeros(b, c, *x.shape[2:]), x),
}


NOISE = {
    "randn": lambda b, c, x: x + torch.randn(b, c, 1, 1, dtype=x.dtype),
    "like": lambda b, c, x: x + torch.randn_like(x) * torch.rand_like(x),
    "in place": lambda b, c, x: x + x.new_empty(x.shape).normal_(0.5, 2.0) * x.new_empty(b, c, 1, 1).uniform_(-1, 1),
    "one channel": lambda b, c, x: x + torch.randn(b, 1, *x.shape[2:], dtype=x.dtype),
}


@pytest.mark.parametrize("name", NOISE)
def test_noise_over_channels_can_be_proved(name):
    def body(net, x):
        return net.a(NOISE[name](len(x), x.shape[1], x))

    proved(Net(body, a=conv(8, 6), body_out=6), pictures(), left=0.45)


def _written(canvas, x):
    canvas[:, :, ::2] = x[:, :, ::2]
    return canvas


@pytest.mark.parametrize("name", MADE)
def test_what_the_forward_makes_follows(name):
    def body(net, x):
        return net.a(MADE[name](len(x), x.shape[1], x))

    supernet = proved(Net(body, a=conv(8, 6), body_out=6), pictures(), left=0.45)
    assert [width.size for width in supernet.graph.widths] == [8, 6]


def test_a_state_of_as_many_channels_as_a_module_says():
    def body(net, x):
        state = torch.zeros(len(x), net.hidden, *x.shape[2:], dtype=x.dtype)
        for _ in range(2):
            update, reset = net.gates(torch.cat([x, state], 1)).sigmoid().split(net.hidden, 1)
            state = (1 - update) * state + update * net.new(torch.cat([x, reset * state], 1)).tanh()
        return state

    net = Net(body, stem=8, gates=conv(14, 12), new=conv(14, 6), body_out=6, kept={"hidden": 6})
    supernet = proved(net, pictures(), left=0.35)
    assert [width.size for width in supernet.graph.widths] == [8, 6]
    assert supernet.extract({"gates": 2}).hidden == 2


def test_a_literal_size_stays():
    net = Net(lambda net, x: x + torch.zeros(1, 8, 1, 1, dtype=x.dtype))
    frozen = gantailor.Supernet(net, pictures()).graph.frozen["stem"]
    assert frozen.startswith("meets a tensor of fixed size")
    assert "test_sizes.py:" in frozen


# channel counts that are kept somewhere


@dataclasses.dataclass
class Options:
    width: int


class Settings:
    def __init__(self, width):
        self.width = width


class Pair(nn.Module):
    """A block that hands out a tuple and checks its channels."""

    def __init__(self, channels):
        super().__init__()
        self.channels, self.layer = channels, conv(8, channels)

    def forward(self, x):
        y = self.layer(x)
        assert y.shape[1] == self.channels
        y = y.reshape(-1, self.channels, *x.shape[2:])
        return y, y.mean()


KEPT = {
    "attribute": (12, lambda net: net.value),
    "list": ([3, 12], lambda net: net.value[1]),
    "tuple": ((12, 5), lambda net: net.value[0]),
    "dictionary": ({"up": 12, "name": "x"}, lambda net: net.value["up"]),
    "namespace": (argparse.Namespace(width=12), lambda net: net.value.width),
    "dataclass": (Options(12), lambda net: net.value.width),
    "somebody's settings": (Settings(12), lambda net: net.value.width),
    "half": (6, lambda net: net.value * 2),
    "double": (24, lambda net: net.value // 2),
    "difference": (16, lambda net: net.value - 4),
    "sum, of which four stay": (8, lambda net: net.value + 4),
}


@pytest.mark.parametrize("name", KEPT)
def test_a_size_that_the_module_above_keeps(name):
    value, read = KEPT[name]

    def body(net, x):
        y = net.a(x)
        return y * net.b(y.mean((2, 3))).view(-1, read(net), 1, 1)

    net = Net(body, a=conv(8, 12), b=nn.Linear(12, 12), body_out=12, kept={"value": value})
    supernet = proved(net, pictures(), left=0.5, frozen=("a", "b") if name.startswith("sum") else ())
    assert [width.size for width in supernet.graph.widths] == [
        8,
        {"half": 6, "sum, of which four stay": 8}.get(name, 12),
    ]
    assert read(net) == 12, "the caller's model is never changed"


def test_a_size_behind_a_tuple():
    supernet = proved(Net(lambda net, x: net.pair(x)[0], pair=Pair(12), body_out=12), pictures(), left=0.35)
    assert supernet.extract({"pair.layer": 5}).pair.channels == 5


def test_one_number_for_two_axes_ties_them():
    def body(net, x):
        return net.b(net.a(x).view(-1, net.width, 6, 6)).view(-1, net.width, 6, 6)

    supernet = proved(Net(body, a=conv(8, 6), b=conv(6, 6), body_out=6, kept={"width": 6}), pictures(), left=0.35)
    assert [width.size for width in supernet.graph.widths] == [8, 6]


def test_parts_of_the_channels():
    def body(net, x):
        distilled, rest = net.a(x).split((net.few, net.many), dim=1)
        rest = torch.cat([net.b(rest[:, : net.half]), rest[:, net.half :]], 1)
        return torch.cat([distilled, rest, x[:, : x.shape[1] // 4]], 1)

    net = Net(body, a=conv(8, 10), b=conv(4, 4), body_out=12, kept={"few": 2, "many": 8, "half": 4})
    supernet = proved(net, pictures(), left=0.4)
    assert [width.size for width in supernet.graph.widths] == [2, 2, 4, 4, 4]
    narrow = supernet.extract({width.name: 1 for width in supernet.graph.widths})
    assert (narrow.few, narrow.many, narrow.half) == (1, 2, 1)


CUTS = {  # how an axis of 12 channels is cut, and the widths that are left of it
    "from the end": (lambda n, x: (x[:, : -n.half], x[:, -n.half :]), [6, 6]),
    "half, through a float": (lambda n, x: (x[:, : int(x.shape[1] * 0.5)], x[:, round(x.shape[1] / 2) :]), [6]),
    "rounded": (lambda n, x: (x[:, : math.ceil(x.shape[1] / 3)], x[:, math.floor(x.size(1) / 3) :]), [4]),
    "at a number": (lambda n, x: (x[:, :2], x[:, 2:]), [10]),
    "at a number from the end": (lambda n, x: (x[:, :-3], x[:, -3:]), [9]),
    "in three": (lambda n, x: (x[:, :1], torch.cat([x[:, 1:3], x[:, 3:]], 1)), [9]),
    "one channel": (lambda n, x: (x[:, 0][:, None] * x[:, -1:], x), [10]),
    "the second": (lambda n, x: (x.select(1, 1)[:, None].relu(), x), [10]),
}


@pytest.mark.parametrize("name", CUTS)
def test_what_is_cut_off_stays_and_the_others_may_go(name):
    cut, left = CUTS[name]

    def body(net, x):
        one, other = cut(net, net.a(x))
        return torch.cat([one.tanh(), other * 2], 1)

    out = {"one channel": 13, "the second": 13}.get(name, 12)
    net = Net(body, a=conv(8, 12), body_out=out, kept={"half": 6})
    supernet = proved(net, pictures(), left=0.6, frozen=("a",))
    assert [width.size for width in supernet.graph.widths] == [8, *left]
    assert ("a" in supernet.graph.frozen) == (sum(left) < 12 and left not in ([6], [4]))
    agrees(supernet, net, pictures())


def test_writing_into_a_part():
    def body(net, x):
        y = x.clone()
        y[:, : net.part] = net.a(x[:, : net.part])
        return y

    proved(Net(body, a=conv(2, 2), kept={"part": 2}), pictures(), left=0.6)


def test_a_branch_on_channels_stays_as_it_is():
    """Integers that the forward only compares are not narrowed: the branch is taken at equal sizes too."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.in_channels, self.out_channels = 8, 12
            self.layer, self.shortcut = conv(8, 12), nn.Conv2d(8, 12, 1)

        def forward(self, x):
            y = self.layer(x.relu())
            return y + (self.shortcut(x) if self.in_channels != self.out_channels else x)

    model, x = Net(lambda net, x: net.block(x), block=Block(), body_out=12).eval(), pictures()
    supernet = gantailor.Supernet(model, (x,))
    narrow = supernet.extract({"stem": 8, "block.layer": 8})
    with torch.no_grad():
        model.head.weight[:, 8:] = 0
        assert torch.allclose(narrow(x), model(x), atol=1e-5)


# which of the axes carries the channels


STYLES = {
    "-1, 2, C": lambda net, w, x: net.style(w).view(-1, 2, x.size(1), 1, 1),
    "b, 2, kept": lambda net, w, x: net.style(w).view(len(w), 2, net.width, 1, 1),
    "b, 2, -1": lambda net, w, x: net.style(w).view(len(w), 2, -1, 1, 1),
    "unflatten": lambda net, w, x: net.style(w).unflatten(1, (2, x.shape[1], 1, 1)),
    "C, 2": lambda net, w, x: net.style(w).view(-1, x.size(1), 2, 1, 1).transpose(1, 2),
}


@pytest.mark.parametrize("name", STYLES)
def test_scale_and_shift(name):
    def body(net, x, w):
        style = STYLES[name](net, w, x)
        return x * (style[:, 0] + 1) + style[:, 1]

    supernet = proved(Net(body, style=nn.Linear(4, 16), kept={"width": 8}), pictures(), torch.randn(2, 4), left=0.6)
    assert [width.size for width in supernet.graph.widths] == [8]


def test_integers_stay_integers():
    """Nothing of the trace is left in what the forward computed with or noted."""

    def body(net, x):
        net.seen = (x.shape[1], x.shape)
        assert isinstance(x.shape[1] * 2, int)
        assert (x.shape[1] / 2, math.sqrt(x.shape[1] + 1), -x.shape[1] % 5) == (4.0, 3.0, 2)
        assert {8: "eight"}[x.shape[1]] == "eight"
        assert f"{x.shape[1]} of {net.width}" == "8 of 8"
        assert 3 * x.shape[1] - 1 == 23 and 17 // x.shape[1] == 2 and 10 - x.shape[1] == 2
        return x

    net = Net(body, kept={"width": 8})
    kept = gantailor.Supernet(net, (pictures(),)).generator
    assert type(kept.width) is int and type(kept.seen[0]) is int and all(type(n) is int for n in kept.seen[1])
