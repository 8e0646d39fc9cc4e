"""Rules of operations that are not convolutions: products by hand, indices, quantisers, recurrent layers, blocks."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import gantailor
from tests.supernet.constructs import Net, Tokens, by_scatter, pictures, proved, tokens


def conv(i=8, o=8, **options):
    return nn.Conv2d(i, o, 3, padding=1, **options)


def weights(**shapes):
    generator = torch.Generator().manual_seed(0)
    return {name: nn.Parameter(torch.randn(shape, generator=generator) / 3) for name, shape in shapes.items()}


# products with something added


def addmm(net, x):
    y = torch.addmm(net.bias[None], x.flatten(0, 1), net.weight.t())
    return y.reshape(*x.shape[:2], -1)


def baddbmm(net, x):
    b = len(x)
    return torch.baddbmm(net.bias.expand(b, 1, -1), x, net.weight.t().expand(b, -1, -1), alpha=0.5)


def addbmm(net, x):
    return torch.stack(
        [torch.addbmm(net.bias, x[:1], net.weight.t()[None]), torch.addmm(net.bias, x[0], net.weight.t())]
    )


@pytest.mark.parametrize("body", [addmm, baddbmm, addbmm])
def test_a_linear_layer_by_hand(body):
    """The same widths, places and costs as with ``nn.Linear``."""
    supernet = proved(Tokens(body, body_out=12, **weights(weight=(12, 8), bias=(12,))), tokens(), left=0.45)
    plain = gantailor.Supernet(Tokens(lambda net, x: net.layer(x), body_out=12, layer=nn.Linear(8, 12)), tokens())
    assert [width.size for width in supernet.graph.widths] == [8, 12]
    assert not supernet.graph.inexact
    assert supernet.macs({"stem": 5}) == plain.macs({"stem": 5})


def test_a_product_in_place_is_counted():
    def body(net, x):
        flat = x.flatten(0, 1)
        y = torch.zeros(len(flat), net.count).to(flat)
        y.addmm_(flat, net.weight.t())
        return y.reshape(*x.shape[:2], -1)

    supernet = proved(Tokens(body, body_out=12, count=12, **weights(weight=(12, 8))), tokens(), left=0.45)
    plain = gantailor.Supernet(Tokens(addmm, body_out=12, **weights(weight=(12, 8), bias=(12,))), tokens())
    half = {"stem": 4}
    assert supernet.macs(half) == plain.macs(half)


# weights that the forward computes


def spectral(net, x):
    """A norm by hand, as BigGAN has it: one step of a power iteration whose result is not kept."""
    weight = net.a.weight
    matrix = weight.view(weight.shape[0], -1)
    v = F.normalize(net.u @ matrix)
    u = F.normalize(v @ matrix.t())
    return F.conv2d(x, weight / (v @ matrix.t() @ u.t()).squeeze(), net.a.bias, padding=1)


@pytest.mark.parametrize("channels", [8, 12])
def test_a_kernel_flattened_with_its_inputs(channels):
    net = Net(spectral, stem=channels, a=conv(channels, 10), body_out=10, **weights(u=(1, 10)))
    torch.manual_seed(0)
    supernet = gantailor.Supernet(net.eval(), pictures())
    gantailor.verify(supernet, repair=True)
    assert {width.name: width.size for width in supernet.graph.widths} == {"stem": channels, "a": 10}
    assert {*supernet.graph.frozen} == {"head"}


class Merged(nn.Module):
    """Two convolutions in training, one that is computed from them otherwise: written into its weight at every call."""

    def __init__(self, i, o, gain):
        super().__init__()
        self.first, self.second = nn.Conv2d(i, i * gain, 1, bias=False), nn.Conv2d(i * gain, o, 3, bias=False)
        self.merged = nn.Conv2d(i, o, 3, padding=1)

    def forward(self, x):
        kernel = torch.einsum("omhw,mi->oihw", self.second.weight.data, self.first.weight.data[:, :, 0, 0])
        self.merged.weight.data = kernel
        return self.merged(x)


@pytest.mark.parametrize("gain", [1, 2])
def test_a_weight_that_is_computed_and_written(gain):
    net = Net(lambda net, x: net.b(net.a(x).relu()), a=Merged(8, 12, gain), b=conv(12, 8))
    torch.manual_seed(0)
    supernet = gantailor.Supernet(net.eval(), pictures())
    gantailor.verify(supernet, repair=True)
    assert {*supernet.graph.frozen} == {"head"}
    outputs = supernet.graph.axes["a.merged.weight"][0].counts
    assert outputs == supernet.graph.axes["a.second.weight"][0].counts != {}


# indices


def by_two_tensors(net, x):
    """A table of biases of heads, looked up by two positions: the heads stay what they are."""
    rows, columns = torch.arange(6).view(6, 1), torch.arange(6)
    return net.a(x + net.table[:, rows, columns])


def by_two_tensors_apart(net, x):
    rows, columns = torch.arange(6).view(6, 1), torch.arange(6)
    return net.a(x + net.spread[rows, :, columns].permute(2, 0, 1))


def by_an_empty_slice(net, x):
    return net.a(torch.cat([x, net.b(x)[:, 0:0]], 1)) + net.b(x)[:, :0].sum()


@pytest.mark.parametrize("body", [by_two_tensors, by_two_tensors_apart, by_an_empty_slice])
def test_what_an_index_leaves_alone_passes(body):
    net = Net(body, a=conv(), b=conv(8, 16), **weights(table=(8, 7, 7), spread=(7, 8, 7)))
    supernet = proved(net, pictures(), left=0.55)
    assert supernet.graph.index["stem"] is not None


def test_a_mask_beside_an_index_freezes():
    def body(net, x):
        return net.a(x + net.table[torch.arange(8) < 9, torch.arange(8) % 2][:, None, None])

    supernet = gantailor.Supernet(Net(body, a=conv(), **weights(table=(8, 2))), pictures())
    gantailor.verify(supernet, repair=True)
    assert "stem" in supernet.graph.frozen


# group norms


@pytest.mark.parametrize(("skip", "deep", "groups"), [(8, 16, 4), (16, 32, 8), (12, 24, 12)])
def test_groups_that_lie_across_a_concatenation(skip, deep, groups):
    """Whole groups of each part, and of both together, would be units of most channels: then places in groups go."""
    net = Net(
        lambda net, x: net.b(net.both(torch.cat([net.one(x), net.other(net.a(net.one(x)))], 1)).relu()),
        stem=skip,
        body_out=skip,
        a=conv(skip, deep),
        b=conv(skip + deep, skip),
        one=nn.GroupNorm(groups, skip),
        other=nn.GroupNorm(groups, deep),
        both=nn.GroupNorm(groups, skip + deep),
    )
    proved(net, pictures(), left=0.45)


# a tensor that only lends its type; quantisers


TYPES = {
    "to": lambda mask, x: mask.to(x),
    "type_as": lambda mask, x: mask.type_as(x),
    "type": lambda mask, x: mask.type(x.dtype),
    "byte": lambda mask, x: mask.byte() * 1.0,
}


@pytest.mark.parametrize("name", TYPES)
def test_a_tensor_that_only_lends_its_type(name):
    def body(net, x, mask):
        return torch.cat([x, TYPES[name](mask[:, :1] > 0, x)], 1)

    supernet = proved(Net(body, body_out=9), pictures(), pictures(), left=0.6)
    assert [width.size for width in supernet.graph.widths] == [8]


def by_one_hot(net, flat):
    nearest = torch.cdist(flat[None], net.codes.weight[None])[0].argmin(-1)
    return F.one_hot(nearest, net.count).type_as(flat) @ net.codes.weight


def by_index(net, flat):
    return net.codes.weight[torch.cdist(flat, net.codes.weight).topk(2, dim=1, largest=False)[1][:, 0]]


def by_selection(net, flat):
    nearest = torch.einsum("nd,cd->nc", F.normalize(flat, dim=1), net.codes.weight).argmax(1)
    return net.codes.weight.index_select(0, nearest)


@pytest.mark.parametrize("quantise", [by_scatter, by_one_hot, by_index, by_selection])
def test_a_vector_quantiser(quantise):
    def body(net, x):
        z = net.enter(x).permute(0, 2, 3, 1).contiguous()
        found = quantise(net, z.view(-1, net.width)).view(z.shape)
        return net.leave((z + (found - z).detach()).permute(0, 3, 1, 2))

    net = Net(
        body, stem=8, enter=conv(8, 6), leave=conv(6, 8), codes=nn.Embedding(10, 6), kept={"width": 6, "count": 10}
    )
    supernet = proved(net, pictures(), left=0.45, frozen=["codes"])
    assert [width.size for width in supernet.graph.widths] == [8, 6, 8]


# recurrent layers, attention of PyTorch


def steps(net, x):
    state = None
    outputs = []
    for k in range(x.shape[1]):
        state = net.layer(x[:, k], state)
        outputs.append(state[0] if isinstance(state, tuple) else state)
    return torch.stack(outputs, 1)


RECURRENT = {
    "gru": (nn.GRU(8, 6, batch_first=True), lambda net, x: net.layer(x)[0], 6),
    "gru, two ways": (nn.GRU(8, 5, 2, batch_first=True, bidirectional=True), lambda net, x: net.layer(x)[0], 10),
    "lstm": (nn.LSTM(8, 6, 2, batch_first=True, bias=False), lambda net, x: net.layer(x)[0], 6),
    "last state": (nn.LSTM(8, 6), lambda net, x: net.layer(x)[1][0].transpose(0, 1).expand(-1, 5, -1), 6),
    "rnn": (nn.RNN(8, 6, batch_first=True, nonlinearity="relu"), lambda net, x: net.layer(x)[0], 6),
    "gru cell": (nn.GRUCell(8, 6), steps, 6),
    "lstm cell": (nn.LSTMCell(8, 6), steps, 6),
    "rnn cell": (nn.RNNCell(8, 6), steps, 6),
}


@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent_layers(name):
    layer, body, width = RECURRENT[name]
    x = tokens() if name != "last state" else tokens(2, 5)
    supernet = proved(Tokens(body, body_out=width, layer=layer), x, left=0.5)
    assert supernet.graph.widths[0].size == 8 and len(supernet.graph.widths) == 2
    narrow = supernet.extract({supernet.graph.widths[1].name: 2}).layer
    assert (
        narrow.hidden_size == 2 and narrow.weight_ih_l0.shape[0] % 2 == 0 if hasattr(narrow, "weight_ih_l0") else True
    )


def test_a_recurrent_layer_that_cannot_shrink_leaves_the_rest():
    """A projection ties two numbers in one layer: what enters it stays."""
    net = Tokens(lambda net, x: net.layer(net.a(x))[0], body_out=3, a=nn.Linear(8, 8), layer=nn.LSTM(8, 6, proj_size=3))
    supernet = proved(net, tokens(), left=0.9, frozen=("a",))
    assert [width.name for width in supernet.graph.widths] == ["stem"]
    assert "enters lstm" in supernet.graph.frozen["a"]
    assert 0.05 < supernet.graph.shares["a"] < 0.5


def attend(net, x):
    return x + net.layer(x, x, x, need_weights=False)[0]


TRANSFORMERS = {
    "attention": (nn.MultiheadAttention(8, 2, batch_first=True), attend),
    "batch second": (nn.MultiheadAttention(8, 4, bias=False), attend),
    "encoder layer": (nn.TransformerEncoderLayer(8, 2, 12, batch_first=True), lambda net, x: net.layer(x)),
    "encoder": (
        nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 12, norm_first=True), 2, enable_nested_tensor=False),
        lambda net, x: net.layer(x),
    ),
    "decoder layer": (nn.TransformerDecoderLayer(8, 2, 12), lambda net, x: net.layer(x, x.flip(1))),
}


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_attention_of_pytorch(name):
    layer, body = TRANSFORMERS[name]
    supernet = proved(Tokens(body, layer=layer), tokens(), left=0.5)
    heads = 4 if name == "batch second" else 2
    assert supernet.graph.widths[0].size == 8 // heads, "positions within a head"


def test_keys_of_another_width():
    def body(net, x, y):
        z = net.other(y)
        return net.layer(x, z, z)[0]

    layer = nn.MultiheadAttention(8, 2, kdim=10, vdim=10, batch_first=True)
    supernet = proved(Tokens(body, layer=layer, other=nn.Linear(6, 10)), tokens(), tokens(3), left=0.45)
    assert sorted(width.size for width in supernet.graph.widths) == [4, 8, 10]


# indices, masks, blocks, matrices


def topk_gather(net, x):
    flat = x.flatten(2)
    _, where = flat.mean(1).topk(4, dim=1)
    where = where[:, None].expand(-1, x.shape[1], -1)
    canvas = torch.zeros(*flat.shape, dtype=x.dtype).scatter(2, where, torch.gather(flat, 2, where))
    return net.a(canvas.scatter_add(2, where, flat[:, :, :4]).view(x.shape) + x)


def masked(net, x):
    return net.a(x.masked_fill(x > 0.5, 0.1) + torch.where(x > 0, x, -x))


def blocks(net, x):
    columns = F.unfold(x, 3, padding=1)
    columns = (
        net.a(columns.view(len(x), x.shape[1], 9, -1).mean(2).view(x.shape)).repeat_interleave(9, dim=1).flatten(2)
    )
    return F.fold(columns, x.shape[2:], 3, padding=1)


def blocks_in_order(net, x):
    """Contextual attention: patches of a feature map."""
    patches = F.unfold(x, 2, stride=2).permute(0, 2, 1).reshape(len(x), -1, x.shape[1], 2, 2)
    return net.a(patches.permute(0, 2, 1, 3, 4).reshape(*x.shape[:2], -1).view(x.shape))


def larger(net, x):
    y = net.a(x)
    return torch.max(x, y) + torch.min(y, x) * torch.maximum(x, y)


def interleaved(net, x):
    return net.a(x.repeat_interleave(2, dim=1))


def windows(net, x):
    parts = x.unfold(2, 2, 2).unfold(3, 2, 2)
    return net.a(parts.permute(0, 1, 2, 4, 3, 5).reshape(x.shape))


def diagonal(net, x):
    scale = torch.diag_embed(x.mean((2, 3)))
    return net.a(torch.einsum("bcd,bdhw->bchw", scale, x) + torch.diagonal(scale, dim1=1, dim2=2)[:, :, None, None])


def ordered(net, x):
    flat = x.flatten(2)
    return net.a((flat.sort(-1)[0] + flat.cumsum(2) + flat[:, :, net.order]).view(x.shape))


OPERATIONS = {
    topk_gather: (8, 8),
    masked: (8, 8),
    blocks: (8, 8),
    blocks_in_order: (8, 8),
    larger: (8, 8),
    interleaved: (16, 8),
    windows: (8, 8),
    diagonal: (8, 8),
    ordered: (8, 8),
}


@pytest.mark.parametrize("body", OPERATIONS)
def test_operation(body):
    net = Net(body, a=conv(*OPERATIONS[body]))
    net.register_buffer("order", torch.randperm(36, generator=torch.Generator().manual_seed(0)))
    proved(net, pictures(), left=0.5)


def test_waves():
    def body(net, x):
        wave = net.a(x.flatten(2)).squeeze(1)
        window = torch.hann_window(8, dtype=x.dtype)
        picture = torch.stft(wave, 8, 4, window=window, return_complex=True)
        size, phase = net.b(picture.abs()).chunk(2, 1)
        made = torch.istft(torch.polar(size.exp(), phase), 8, 4, window=window, length=36)
        return x * made[:, None].view(len(x), 1, 6, 6)

    net = Net(body, a=nn.Conv1d(8, 1, 1), b=nn.Conv1d(5, 10, 1))
    proved(net, pictures(), left=0.65, frozen=("a", "b"))


HIDING = {
    "qr": lambda net, x: x.mean((2, 3)) @ torch.linalg.qr(net.directions)[0],
    "masked_select": lambda net, x: torch.masked_select(x, x > -99).view(len(x), 8, -1).mean(2),
    "masked_scatter": lambda net, x: x.masked_scatter(x > 0, x * 2).mean((2, 3)),
    "svd": lambda net, x: torch.linalg.svdvals(x.flatten(2)),
}


@pytest.mark.parametrize("name", HIDING)
def test_what_hides_channels_keeps_them_and_no_others(name):
    def body(net, x):
        y = net.a(net.inner(x).relu())
        return net.b(HIDING[name](net, y))[:, :, None, None] * x

    net = Net(body, inner=conv(8, 12), a=conv(12, 8), b=nn.Linear(8, 8), **weights(directions=(8, 8)))
    supernet = proved(net, pictures(), left=0.8, frozen=("a", "b"))
    assert supernet.graph.widths[1].name == "inner"


def test_old_weight_norm_in_a_model_that_has_run():
    """Also in a layer that a list holds beside its module."""
    with pytest.warns(FutureWarning):
        layers = [torch.nn.utils.weight_norm(conv()) for _ in range(2)]
    net = Net(
        lambda net, x: net.held[1](net.a(x)), a=layers[0], b=layers[1], kept={"held": [{"no": "layer"}, layers[1]]}
    )
    net(pictures())
    net.noted = {"last": [net.stem(pictures())]}
    proved(net, pictures(), left=0.4)


def test_a_forward_that_asks_for_values_and_makes_tensors():
    """It runs with numbers, in float64: so must what it makes itself, which this operation insists on."""

    def body(net, x):
        y = torch.zeros(x.shape)
        if (x > 0).any():
            y.masked_scatter_(x > 0, x[x > 0].relu() + 0 * x.sum())
        return net.a(y + x)

    net = Net(lambda net, x: body(net, net.b(x)), a=conv(8, 12), b=conv(), body_out=12)
    supernet = gantailor.Supernet(net.eval(), pictures())
    gantailor.verify(supernet, repair=True)
    assert {"stem", "a"} <= {width.name for width in supernet.graph.widths}


# scripted functions


@torch.jit.script
def snake(x, alpha):
    return x + (alpha + 1e-9).reciprocal() * torch.sin(alpha * x).pow(2)


def test_a_scripted_function_runs_as_its_python():
    net = Net(lambda net, x: net.a(snake(x, net.alpha)), a=conv(), **weights(alpha=(1, 8, 1, 1)))
    supernet = proved(net, pictures(), left=0.4)
    assert [width.size for width in supernet.graph.widths] == [8, 8]
    assert isinstance(snake, torch.jit.ScriptFunction)
    assert torch.equal(snake(torch.zeros(2), torch.ones(2)), torch.zeros(2))


def test_a_scripted_module_says_what_it_hides():
    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.factor = nn.Parameter(torch.ones(1, 8, 1, 1))

        def forward(self, x):
            return x * self.factor

    net = Net(lambda net, x: net.a(net.b(x)), stem=12, a=torch.jit.script(Scale()), b=conv(12), body_out=8)
    supernet = proved(net, pictures(), left=0.7, frozen=("b",))
    assert "torch.jit compiled" in supernet.graph.frozen["b"]


# messages


def lost(net, x):
    spectrum = torch.linalg.svdvals(x.flatten(2))
    later = spectrum.exp()
    return net.a(x.relu()) * later[:, :, None, None]


def test_where_channels_were_lost_and_where_it_was_noticed():
    supernet = gantailor.Supernet(Net(lost, a=conv()), pictures())
    first = lost.__code__.co_firstlineno
    assert supernet.graph.frozen["stem"].startswith(f"enters linalg_svdvals (test_rules.py:{first + 1})")
    reason = supernet.graph.frozen["a"]
    assert reason.startswith(f"meets a tensor of fixed size (test_rules.py:{first + 3})")
    assert reason.endswith(f"which lost its channels in linalg_svdvals (test_rules.py:{first + 1})")


def test_the_share_of_macs_that_a_freeze_costs():
    def body(net, x):
        return net.b(torch.linalg.svdvals(net.a(x).flatten(2))[:, :, None, None] * x[:, :1])

    supernet = gantailor.Supernet(Net(body, a=conv(), b=conv(8, 4), body_out=4), pictures())
    rows = 36 * 9 * 8 * 8 / 2  # half of what the layer makes; what reads it has a reason of its own
    assert math.isclose(supernet.graph.shares["a"], rows / supernet.macs(supernet.full_config()), rel_tol=1e-6)
    assert f"{supernet.graph.shares['a']:.0%}" in str(supernet.graph)


def test_a_literal_size_is_told_by_its_line():
    def body(net, x):
        return net.a(x.view(-1, 8, 6, 6).relu())

    supernet = gantailor.Supernet(Net(body, a=conv()), pictures())
    gantailor.verify(supernet, repair=True)
    line = body.__code__.co_firstlineno + 1
    assert supernet.graph.frozen["stem"].endswith(f"view to 8 (test_rules.py:{line})")


def test_an_unknown_operation_at_the_top_names_layers_to_freeze():
    with pytest.raises(gantailor.supernet.errors.UntraceableError, match=r"those of stem enter it.*freeze=\['stem'\]"):
        gantailor.Supernet(Net(lambda net, x: torch.erfinv(x)), pictures())


def test_a_rule_that_does_not_know_a_use_freezes_what_enters():
    def odd(tracer, func, args, kwargs, out):
        raise KeyError("somebody's own rule is somebody's own mistake")

    with pytest.raises(KeyError):
        gantailor.Supernet(Net(lambda net, x: x.tanh()), pictures(), rules={"tanh": odd})
    odd.__module__ = "gantailor.supernet.tracing.layers"
    supernet = gantailor.Supernet(Net(lambda net, x: net.a(x.tanh()), a=conv()), pictures(), rules={"tanh": odd})
    assert "in a way that its rule does not know" in supernet.graph.frozen["stem"]
    assert [width.name for width in supernet.graph.widths] == ["a"]
