"""Each construct that a stranger's generator may use, traced and proved; what cannot be traced says so."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import gantailor
from gantailor.supernet.errors import SelectionError, UntraceableError, VerificationError


class Net(nn.Module):
    """Stem, a body given as a function, head."""

    def __init__(self, body, *, body_out=8, stem=8, **modules):
        super().__init__()
        self.stem = nn.Conv2d(3, stem, 3, padding=1)
        self.head = nn.Conv2d(body_out, 3, 3, padding=1)
        self.body = body
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, x):
        return self.head(self.body(self, self.stem(x)))


def conv(i=8, o=8, **options):
    return nn.Conv2d(i, o, 3, padding=1, **options)


def glu(net, x):
    a, b = net.a(x).chunk(2, 1)
    return a * torch.sigmoid(b)


def self_attention(net, x):
    q, k, v = (m(x).flatten(2) for m in (net.q, net.k, net.v))
    weights = torch.softmax(q.transpose(1, 2) @ k, -1)
    return x + (v @ weights.transpose(1, 2)).view_as(x)


def adain(net, x):
    style = net.a(x).mean((2, 3))
    scale, shift = style.chunk(2, 1)
    return F.instance_norm(x) * scale[:, :, None, None] + shift[:, :, None, None]


def loop(net, x):
    for layer in net.layers:
        x = x + layer(x)
    return x


def heads(net, x):
    """Two heads; the code keeps their number and divides the channels by it."""
    n, _, h, w = x.shape
    y = net.a(x).reshape(n, 2, net.a.weight.shape[0] // 2, h * w)
    return x + net.b(y.flip(3).reshape(n, -1, h, w))


class Counted(nn.Module):
    """Somebody's own layer, which writes its channels as numbers into a reshape."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.in_channel, self.out_channel = inputs, outputs
        self.conv = conv(inputs, outputs)

    def forward(self, x):
        y = self.conv(x.reshape(-1, self.in_channel, 64).reshape(-1, self.in_channel, 8, 8))
        return y.reshape(-1, self.out_channel, 64).reshape(-1, self.out_channel, 8, 8)


CASES = {
    "twice": (lambda n, x: n.a(torch.relu(n.a(x))), {"a": conv()}, {}, 1),
    "skip": (lambda n, x: x + n.a(x), {"a": conv()}, {}, 1),
    "concat": (lambda n, x: torch.cat([n.a(x), x], 1), {"a": conv(8, 4)}, {"body_out": 12}, 2),
    "concat of one thing twice": (lambda n, x: torch.cat([x, x], 1), {}, {"body_out": 16}, 1),
    "gated linear unit": (glu, {"a": conv(8, 16)}, {}, 2),
    "pixel shuffle": (lambda n, x: F.pixel_shuffle(n.a(x), 2), {"a": conv(8, 16)}, {"body_out": 4}, 2),
    "depthwise": (lambda n, x: n.b(n.a(x)), {"a": conv(8, 8, groups=8), "b": conv(8, 8)}, {}, 2),
    "grouped": (lambda n, x: n.b(n.a(x)), {"a": conv(8, 8, groups=2), "b": conv(8, 8)}, {}, 3),
    "batch norm": (lambda n, x: n.a(x), {"a": nn.BatchNorm2d(8)}, {}, 1),
    "group norm": (lambda n, x: n.a(x), {"a": nn.GroupNorm(2, 8)}, {}, 1),
    "layer norm over channels": (
        lambda n, x: n.a(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), {"a": nn.LayerNorm(8)}, {}, 1),
    "prelu": (lambda n, x: n.a(x), {"a": nn.PReLU(8)}, {}, 1),
    "spectral norm": (lambda n, x: n.a(x), {"a": nn.utils.parametrizations.spectral_norm(conv())}, {}, 2),
    "weight norm": (lambda n, x: n.a(x), {"a": nn.utils.parametrizations.weight_norm(conv())}, {}, 2),
    "transposed": (lambda n, x: n.a(x), {"a": nn.ConvTranspose2d(8, 6, 4, 2, 1)}, {"body_out": 6}, 2),
    "learned constant": (lambda n, x: x + n.a, {"a": nn.Parameter(torch.randn(1, 8, 1, 1))}, {}, 1),
    "interpolate and pad": (lambda n, x: F.interpolate(F.pad(x, [1] * 4, "reflect"), scale_factor=2), {}, {}, 1),
    "pooled linear": (
        lambda n, x: x * n.a(F.adaptive_avg_pool2d(x, 1).flatten(1))[:, :, None, None], {"a": nn.Linear(8, 8)}, {}, 1),
    "attention": (self_attention, {"q": nn.Conv2d(8, 4, 1), "k": nn.Conv2d(8, 4, 1), "v": nn.Conv2d(8, 8, 1)}, {}, 2),
    "adaptive instance norm": (adain, {"a": nn.Conv2d(8, 16, 1)}, {}, 1),
    "module list": (loop, {"layers": nn.ModuleList(conv() for _ in range(3))}, {}, 1),
    "keywords": (
        lambda n, x: torch.cat(tensors=[F.conv2d(input=x, weight=n.a.weight), x.mean(dim=1, keepdim=True)], dim=1),
        {"a": nn.Conv2d(8, 4, 1)}, {"body_out": 5}, 2),
    "glu": (lambda n, x: F.glu(n.a(x), 1), {"a": conv(8, 16)}, {}, 2),
    "einsum": (lambda n, x: x * torch.einsum("nchw,ndhw->nc", x, n.a(x))[:, :, None, None], {"a": conv(8, 4)}, {}, 2),
    "embedding": (
        lambda n, x: x + n.a(torch.zeros(1, dtype=torch.long))[:, :, None, None], {"a": nn.Embedding(5, 8)}, {}, 1),
    "fourier": (
        lambda n, x: torch.fft.irfft2(torch.fft.rfft2(x) * n.a), {"a": nn.Parameter(torch.randn(8, 1, 1))}, {}, 1),
    "a new tensor": (lambda n, x: x + x.new_ones(1, 1, 8, 8), {}, {}, 1),
    "noise": (lambda n, x: x + torch.randn(len(x), 1, 8, 8), {}, {}, 1),
    "features to a picture": (
        lambda n, x: x + n.a(x.mean((2, 3))).view(len(x), -1, 4, 4).repeat(1, 1, 2, 2), {"a": nn.Linear(8, 128)},
        {}, 1),
    "heads": (heads, {"a": nn.Conv2d(8, 8, 1), "b": nn.Conv2d(8, 8, 1)}, {}, 2),
    "parts stacked by a reshape": (
        lambda n, x: torch.cat([n.a(x), x], 1).view(len(x), 2, -1, 8, 8).sum(1), {"a": conv()}, {}, 1),
    "a number asked for its size": (lambda n, x: n.a(x) * n.a.weight[0][0].numel(), {"a": conv()}, {}, 2),
    "an own layer's integers": (lambda n, x: n.a(x), {"a": Counted(8, 6)}, {"body_out": 6}, 2),
    "in place": (lambda n, x: x.add_(n.a(x)).relu_(), {"a": conv()}, {}, 1),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_construct(name):
    torch.manual_seed(0)
    body, modules, sizes, widths = CASES[name]
    net = Net(body, **modules, **sizes).eval()
    supernet = gantailor.Supernet(net, (torch.randn(2, 3, 8, 8),))
    assert len(supernet.graph.widths) == widths, str(supernet.graph)
    gantailor.verify(supernet)


def test_unknown_operation_names_itself_and_the_ways_out():
    net = Net(lambda n, x: torch.erfinv(x))
    with pytest.raises(UntraceableError, match=r"'erfinv'.*rules=.*unknown='freeze'.*freeze="):
        gantailor.Supernet(net, (torch.randn(1, 3, 8, 8),))
    supernet = gantailor.Supernet(net, (torch.randn(1, 3, 8, 8),), unknown="freeze")
    assert "without a rule" in supernet.graph.frozen["stem"]


def test_user_freezes_and_rules():
    net, x = Net(lambda n, x: n.a(x), a=conv()), torch.randn(1, 3, 8, 8)
    assert [w.name for w in gantailor.Supernet(net, (x,), freeze=["stem"]).graph.widths] == ["a"]

    def keep(tracer, module, args, kwargs, out):
        tracer.set(out, tracer.labels(args[0]))

    class Odd(nn.Module):
        def forward(self, x):
            return torch.erfinv(x.clamp(-0.9, 0.9))

    net = Net(lambda n, x: n.a(x), a=Odd())
    supernet = gantailor.Supernet(net, (x,), rules={Odd: keep})
    assert len(supernet.graph.widths) == 1
    gantailor.verify(supernet)


def test_a_size_written_as_a_number_is_found_and_frozen():
    net = Net(lambda n, x: n.b(n.a(x).view(-1, 8, 64).reshape(-1, 8, 8, 8)), a=conv(), b=conv())
    supernet = gantailor.Supernet(net, (torch.randn(1, 3, 8, 8),))
    with pytest.raises(VerificationError, match=r"width.s. a; keep them whole with verify.supernet, repair=True"):
        gantailor.verify(supernet)
    gantailor.verify(supernet, repair=True)
    assert [width.name for width in supernet.graph.widths] == ["stem", "b"]
    assert "fails the proof" in supernet.graph.frozen["a"]
    narrow = supernet.extract({"stem": 3, "b": 2})
    assert (narrow.a.in_channels, narrow.a.out_channels, narrow.b.in_channels) == (3, 8, 8)


def test_a_module_with_two_names_and_a_weight_of_two_modules():
    shared = nn.Sequential(conv(), conv(8, 8, groups=8))
    net = Net(lambda n, x: n.c(n.b(n.second(x))), first=shared, second=shared, b=conv(), c=conv())
    net.c.weight = net.b.weight
    supernet = gantailor.Supernet(net.eval(), (torch.randn(1, 3, 8, 8),))
    gantailor.verify(supernet)
    narrow = supernet.extract({width.name: 3 for width in supernet.graph.widths})
    assert narrow.b.weight is narrow.c.weight
    assert narrow.first[0].weight is narrow.second[0].weight
    assert sum(p.numel() for p in narrow.parameters()) == supernet.parameter_count(
        {width.name: 3 for width in supernet.graph.widths}
    )


def test_a_forward_that_depends_on_the_number_of_channels_is_inexact():
    net = Net(lambda n, x: n.a(x) / x.shape[1], a=conv())
    supernet = gantailor.Supernet(net.eval(), (torch.randn(1, 3, 8, 8),))
    with pytest.raises(VerificationError, match="removing channels is not zeroing"):
        gantailor.verify(supernet)
    gantailor.verify(supernet, repair=True)
    assert [width.name for width in supernet.graph.widths] == ["stem", "a"]
    assert supernet.graph.inexact == {0: "the forward depends on the number of channels"}


def test_a_forward_that_depends_on_the_size_is_proved_at_its_own():
    def body(net, x):
        return x + net.a(x) if x.shape[2] > 64 else net.a(x) * x[:, :8]

    supernet = gantailor.Supernet(Net(body, a=conv()), (torch.randn(1, 3, 128, 128),))
    assert gantailor.verify(supernet).widths == 1


def test_a_forward_that_changes_is_named():
    net = Net(lambda n, x: x + n.a.add_(1), a=nn.Parameter(torch.zeros(1, 8, 1, 1), requires_grad=False))
    with pytest.raises(VerificationError, match="two forwards on the same input differ"):
        gantailor.verify(gantailor.Supernet(net, (torch.randn(1, 3, 8, 8),)))


def test_declared_modules_may_hold_any_operation():
    class Odd(nn.Module):
        def forward(self, x):
            return torch.erfinv(x.clamp(-0.9, 0.9))

    net = Net(lambda n, x: n.c(n.odd(n.a(x))), a=conv(), odd=Odd(), c=conv())
    supernet = gantailor.Supernet(net, (torch.randn(1, 3, 8, 8),), freeze=["odd"])
    assert [width.name for width in supernet.graph.widths] == ["stem", "c"]
    gantailor.verify(supernet)


def test_what_is_cut_at_a_fixed_place_is_frozen():
    net = Net(lambda n, x: x[:, :5], body_out=5)
    supernet = gantailor.Supernet(net, (torch.randn(1, 3, 8, 8),))
    assert "fixed place" in supernet.graph.frozen["stem"]
    assert [width.size for width in supernet.graph.widths] == [3], "what is cut away may go"


def test_wrong_configs():
    supernet = gantailor.Supernet(Net(lambda n, x: n.a(x), a=conv()), (torch.randn(1, 3, 8, 8),))
    with pytest.raises(SelectionError, match="did you mean 'stem'"):
        supernet.extract({"stm": 3})
    with pytest.raises(SelectionError, match="'stem' cannot be 9; allowed are 1 to 8"):
        supernet.extract({"stem": 9})
    with pytest.raises(SelectionError, match="'stem' cannot be 0: it lies in no residual branch"):
        supernet.extract({"stem": 0})


def test_the_callers_model_is_never_changed():
    net = Net(lambda n, x: n.a(x), a=nn.utils.parametrizations.weight_norm(conv()))
    before = list(net.state_dict())
    supernet = gantailor.Supernet(net, (torch.randn(1, 3, 8, 8),))
    supernet(torch.randn(1, 3, 8, 8), config={"stem": 2})
    assert list(net.state_dict()) == before
    assert supernet.generator.stem.out_channels == 8


def test_selection_keeps_the_named_channels():
    supernet = gantailor.Supernet(Net(lambda n, x: n.a(x), a=conv()), (torch.randn(1, 3, 8, 8),))
    narrow = supernet.extract(gantailor.Selection({"stem": [5, 1]}))
    assert torch.equal(narrow.stem.weight, supernet.generator.stem.weight[[1, 5]])
    assert narrow.a.in_channels == 2
