"""What verify calls proved is true: operations, values and MACs of every subnet, against literal references."""

import contextlib
import copy
import dataclasses
import itertools
import json
import math
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import gantailor
from gantailor.supernet import verify
from gantailor.supernet.decisions import Decisions
from gantailor.supernet.errors import VerificationError
from gantailor.supernet.graph import Axis, SizeAttribute
from gantailor.supernet.proof import blame, comparisons, dry, recording
from gantailor.supernet.proof.dry import DryRuns
from gantailor.supernet.proof.stand_ins import Meta
from gantailor.supernet.proof.subnets import alone, together
from gantailor.supernet.subnets import folding
from gantailor.supernet.tracing import products, sizes
from gantailor.supernet.tracing.counting import ProductCounter


class Block(nn.Module):
    """A residual block that skips its shortcut by comparing numbers of channels, in one of the ways people write."""

    def __init__(self, i, o, differ):
        super().__init__()
        self.in_channels, self.out_channels, self.differ = i, o, differ
        self.conv, self.shortcut = nn.Conv2d(i, o, 3, padding=1), nn.Conv2d(i, o, 1)

    def forward(self, x):
        y = self.conv(x.relu())
        return y + (self.shortcut(x) if self.differ(self, x, y) else x)


class Functional(Block):
    """The same within one module: the operations have the same names, and other weights."""

    def forward(self, x):
        y = F.conv2d(x.relu(), self.conv.weight, self.conv.bias, padding=1)
        return F.conv2d(x, self.shortcut.weight, self.shortcut.bias) + y if self.differ(self, x, y) else y * 2


COMPARISONS = {
    "attributes": lambda m, x, y: m.in_channels != m.out_channels,
    "which is larger": lambda m, x, y: m.in_channels < m.out_channels,
    "attribute and shape": lambda m, x, y: x.shape[1] != m.out_channels,
    "shapes": lambda m, x, y: x.shape[1] != y.shape[1],
    "a literal": lambda m, x, y: y.shape[1] != 4,
    "also a size": lambda m, x, y: m.in_channels != m.out_channels and len(y.view(-1, m.out_channels, 64)) > 0,
}


def zeroed(model, supernet, config):
    """The caller's model in which the channels that a subnet lacks are not read: what the subnet must compute."""
    layers = dict(model.named_modules())
    for width in supernet.graph.widths:
        for name, dimension in supernet.graph.consumers[supernet.graph.index[width.name]]:
            weight = layers[name.rpartition(".")[0]].weight.data
            weight.narrow(dimension, config[width.name], width.size - config[width.name]).zero_()
    return model


@pytest.mark.parametrize("kind", [Block, Functional])
@pytest.mark.parametrize("name", COMPARISONS)
@torch.no_grad()
def test_no_subnet_takes_another_branch(kind, name):
    def build():
        torch.manual_seed(0)
        middle = kind(4, 6, COMPARISONS[name])
        return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), middle, nn.Conv2d(6, 3, 3, padding=1)).double().eval()

    x = torch.randn(1, 3, 8, 8).double()
    supernet = gantailor.Supernet(build(), x)
    said = ""
    try:
        gantailor.verify(supernet)
    except VerificationError as error:  # what tracing could not follow itself
        said = str(error)
        gantailor.verify(supernet, repair=True)
    assert not said or re.search(r"does something else: in module '1' it runs|a narrow forward fails", said)
    assert supernet.graph.widths
    sizes = [range(1, width.size + 1) for width in supernet.graph.widths]
    for chosen in itertools.product(*sizes):  # each subnet that there is
        config = dict(zip(supernet.graph.index, chosen, strict=True))
        assert (supernet.extract(config)(x) - zeroed(build(), supernet, config)(x)).abs().max() < 1e-12, config
        assert supernet.macs(config) == counted(supernet.extract(config), x)
    if name in ("attributes", "which is larger"):
        assert [width.size for width in supernet.graph.widths] == [4, 6]  # nothing had to be kept whole
        again = Decisions.from_json(json.loads(json.dumps(supernet.decisions.to_json())))
        assert gantailor.Supernet(build(), x, decisions=again).decisions == supernet.decisions


def _both_integers_narrowed():
    """As they once were: where their sizes are equal the shortcut is lost."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), Block(4, 6, COMPARISONS["attributes"]), nn.Conv2d(6, 3, 1)).eval()
    supernet = gantailor.Supernet(model, torch.randn(1, 3, 8, 8))
    sizes = {"in_channels": (0, 4), "out_channels": (1, 6)}
    assert [width.size for width in supernet.graph.widths] == [4, 6]
    narrowed = tuple(
        SizeAttribute("1", name, Axis(np.full(size, width), np.arange(size))) for name, (width, size) in sizes.items()
    )
    attributes = (*supernet.graph.attributes, *narrowed)
    supernet.graph = dataclasses.replace(supernet.graph, attributes=attributes)
    return supernet


def test_without_its_mending_a_lost_shortcut_is_no_proof():
    """The proof finds the equal sizes at which the integers agree."""
    with pytest.raises(VerificationError, match=r"does something else: in module '1' it runs"):
        gantailor.verify(_both_integers_narrowed())


@torch.no_grad()
def test_a_lost_shortcut_is_found_in_three_ways(monkeypatch):
    """By its operations, its multiply-accumulates, its values; with none of these a wrong subnet would be proved."""
    monkeypatch.setattr(dry, "difference", lambda *_, **__: None)
    with pytest.raises(VerificationError, match=r"macs\(\) says .* happen; .* in module '1\.shortcut': 256 and 0"):
        gantailor.verify(_both_integers_narrowed())
    monkeypatch.setattr(DryRuns, "_miscounted", lambda *_: None)
    with pytest.raises(VerificationError, match=r"removing channels is not zeroing them .* equal sizes, 0"):
        gantailor.verify(_both_integers_narrowed())
    monkeypatch.setattr(comparisons, "REMOVALS", ())
    supernet = _both_integers_narrowed()
    gantailor.verify(supernet)
    x, equal = torch.randn(1, 3, 8, 8), {"0": 4, "1.conv": 4}
    wrong = supernet.extract(equal)(x) - zeroed(copy.deepcopy(supernet.generator), supernet, equal)(x)
    assert wrong.abs().max() > 0.01


def test_what_the_forward_compares_has_to_be_noted(monkeypatch):
    """Where it is not, the integers are found by value and narrowed: the proof names them."""
    monkeypatch.setattr(sizes, "_use", lambda *_: None)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), Block(4, 6, COMPARISONS["which is larger"]), nn.Conv2d(6, 3, 1)).eval()
    supernet = gantailor.Supernet(model, torch.randn(1, 3, 8, 8))
    with pytest.raises(VerificationError, match=r"does something else.*it compares 1\.in_channels, 1\.out_channels"):
        gantailor.verify(supernet)


def counted(model, *inputs):
    """PyTorch's counter."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(*inputs)
    return counter.get_total_flops() // 2


class Raw(nn.Module):
    """Reads what a norm of its layer's weight is computed from, as the attention maps of U-GAT-IT do."""

    def __init__(self, norm, read):
        super().__init__()
        self.a, self.b, self.read = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 3, 3), read
        self.fc = norm(nn.Linear(8, 1, bias=False))

    def forward(self, x):
        x = self.a(x)
        return self.b(x * self.read(self.fc).reshape(1, -1, 1, 1)) + self.fc(x.mean((2, 3)))[:, :, None, None]


RAW = {
    "spectral": (nn.utils.spectral_norm, lambda fc: next(iter(fc.parameters()))),
    "spectral, by name": (nn.utils.spectral_norm, lambda fc: fc.weight_orig.data),
    "weight norm": (nn.utils.weight_norm, lambda fc: [*fc.parameters()][1]),
    "parametrised": (nn.utils.parametrizations.spectral_norm, lambda fc: next(iter(fc.parameters()))),
    "parametrised, by path": (nn.utils.parametrizations.weight_norm, lambda fc: fc.parametrizations.weight.original1),
}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("name", RAW)
@torch.no_grad()
def test_what_a_norm_is_computed_from_is_kept_where_the_forward_reads_it(name, monkeypatch):
    torch.manual_seed(0)
    model, x = Raw(*RAW[name]).eval(), torch.randn(1, 3, 8, 8)
    supernet = gantailor.Supernet(model, x).eval()
    assert torch.allclose(supernet(x), model(x), atol=1e-6)
    assert gantailor.verify(supernet, repair=True).original < 1e-7  # folded in float32
    assert [width.name for width in supernet.graph.widths] == ["a"]
    narrow = supernet.extract({"a": 3})
    assert torch.equal(narrow(x), supernet(x, config={"a": 3}))
    again = gantailor.Supernet(narrow, x)  # a narrow net is a generator like any other
    assert gantailor.verify(again).widths == 1
    monkeypatch.setattr(folding, "_read", lambda *_: set())
    with pytest.raises(
        (VerificationError, AttributeError, IndexError),
        match=r"another function than the generator|weight_orig|parametrizations|out of range",
    ):
        gantailor.verify(gantailor.Supernet(model, x), repair=True)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("name", ["spectral", "weight norm", "parametrised"])
def test_without_its_mending_a_folded_norm_is_no_proof(name, monkeypatch):
    """The narrow forwards run, with the plain weight in the place of what it was computed from."""
    torch.manual_seed(0)
    monkeypatch.setattr(folding, "_read", lambda *_: set())
    supernet = gantailor.Supernet(Raw(RAW[name][0], lambda fc: [*fc.parameters()][-1]).eval(), torch.randn(1, 3, 8, 8))
    with pytest.raises(VerificationError, match="another function than the generator that it was made from"):
        gantailor.verify(supernet)


@torch.no_grad()
def test_without_the_callers_model_a_folded_norm_would_be_proved(monkeypatch):
    """Compared with itself only, the supernet is another function than the model that it was made from."""
    torch.manual_seed(0)
    monkeypatch.setattr(folding, "_read", lambda *_: set())
    x, build = torch.randn(1, 3, 8, 8), RAW["parametrised"][0]
    model = Raw(build, lambda fc: [*fc.parameters()][-1]).eval()
    supernet = gantailor.Supernet(model, x)
    with pytest.raises(VerificationError, match="another function"):
        gantailor.verify(supernet)
    monkeypatch.setattr(verify, "original", lambda *_: 0.0)
    gantailor.verify(supernet)
    assert (supernet(x) - model(x)).abs().max() > 0.01


@torch.no_grad()
def test_a_supernet_that_was_trained_is_no_other_function():
    model = nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 8, 3)), nn.Conv2d(8, 3, 3)).eval()
    supernet = gantailor.Supernet(model, torch.randn(1, 3, 8, 8))
    for weight in (*supernet.parameters(), *model.parameters()):
        weight.add_(torch.randn_like(weight))
    assert gantailor.verify(supernet).original < 1e-12


@pytest.mark.parametrize("seed", range(5))
def test_every_width_is_narrowed(seed):
    """A width of two units, inexact, whose size the forward knows: once proved by nine seeds of twenty."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.n = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 3, 1), nn.GroupNorm(2, 8)

        def forward(self, x):
            x = self.n(self.a(x))
            return self.b(x) + x.view(len(x), 8, 64).mean((1, 2))[:, None, None, None]

    supernet = gantailor.Supernet(Net(), torch.randn(1, 3, 8, 8))
    with pytest.raises(VerificationError, match=r"RuntimeError: shape .*; width.s. a;"):
        gantailor.verify(supernet, seed=seed)
    gantailor.verify(supernet, seed=seed, repair=True)
    assert not supernet.graph.widths and "fails the proof" in supernet.graph.frozen["a"]


CHOICES = {  # sizes of two widths, of 8 and 6, at which a forward fails, by the choice that alone meets them
    "half": lambda x, y: (x, y) == (4, 3),
    "one unit": lambda x, y: x == y == 1,
    "equal sizes": lambda x, y: x == y and x > 2,
    "alone": lambda x, y: (x, y) == (4, 6),
}


@pytest.mark.parametrize("name", CHOICES)
def test_without_one_of_its_choices_of_sizes_a_proof_would_be_wrong(name, monkeypatch):
    def body(net, x):
        y = net.a(x)
        if CHOICES[name](x.shape[1], y.shape[1]):
            raise RuntimeError("these sizes fail")
        return net.b(y)

    supernet = gantailor.Supernet(
        Net(body, {"a": nn.Conv2d(8, 6, 1), "b": nn.Conv2d(6, 8, 1)}).eval(), torch.randn(1, 3, 8, 8)
    )
    with pytest.raises(VerificationError, match=rf"these sizes fail.*\((.* )?{name}"):
        gantailor.verify(supernet)

    def others(*arguments, **options):
        return {n: c for n, c in together(*arguments, **options).items() if not n.startswith(name)}

    monkeypatch.setattr(verify, "together", others)
    if name == "alone":
        monkeypatch.setattr(verify, "alone", lambda *_, **__: ())
    assert gantailor.verify(supernet).widths == 3


def test_sizes_up_to_the_whole_would_prove_what_fails(monkeypatch):
    """As sizes were once drawn: a width of two units stays whole in some proofs, which then were wrong."""

    def drawn(graph, *, selections, seed):
        rng = np.random.default_rng(seed)
        sizes = ({w.name: int(rng.integers(1, w.size + 1)) for w in graph.widths} for _ in range(selections))
        return {f"random, {number}": size for number, size in enumerate(sizes)}

    def body(net, x):
        return x + x.view(len(x), 8, 64).mean((1, 2))[:, None, None, None]

    def proofs():
        held = []
        for seed in range(10):
            supernet = gantailor.Supernet(Net(lambda n, x: body(n, n.n(x)), {"n": nn.GroupNorm(2, 8)}), x)
            with contextlib.suppress(VerificationError):
                held.append(gantailor.verify(supernet, seed=seed))
        return len(held)

    x = torch.randn(1, 3, 8, 8)
    assert proofs() == 0
    monkeypatch.setattr(verify, "together", drawn)
    monkeypatch.setattr(verify, "alone", lambda *_, **__: ())
    assert 0 < proofs() < 10


def test_which_subnets_are_tried():
    layers = [nn.Conv2d(i, o, 1) for i, o in itertools.pairwise((3, 6, 10, 7, 3))]
    graph = gantailor.Supernet(nn.Sequential(*layers), torch.randn(1, 3, 8, 8)).graph
    tried = together(graph, selections=2, seed=0)
    full = graph.full_config()
    assert tried["half"] == {"0": 3, "1": 5, "2": 3} and set(tried["one unit"].values()) == {1}
    assert all(any(config[name] < full[name] for config in tried.values()) for name in full)
    assert not any(size == full[name] for name, size in tried["random, 0"].items())
    equal = [tuple(config.values()) for name, config in tried.items() if name.startswith("equal")]
    assert equal[0] == (6, 6, 6)
    assert any(a == b == 6 for a, b, _ in equal) and any(b == c == 7 for _, b, c in equal)
    assert [(dict(config)) for _, config in alone(graph)] == [
        {"0": 3}, {"0": 1}, {"1": 5}, {"1": 1}, {"2": 3}, {"2": 1}
    ]  # fmt: skip


def attention(net, x):
    q, k, v = (layer(x).flatten(2) for layer in (net.q, net.k, net.v))
    return (v @ (q.transpose(1, 2) @ k).softmax(-1)).view_as(x) + x


def between_channels(net, x):
    q, k, v = (layer(x).flatten(2) for layer in (net.q, net.k, net.v))
    return ((q @ k.transpose(1, 2)).softmax(-1) @ v).view_as(x) + x


def by_letters(net, x):
    q, k, v = (layer(x).flatten(2) for layer in (net.q, net.k, net.v))
    return torch.einsum("nij,ncj->nci", torch.einsum("nci,ncj->nij", q, k), v).view_as(x) + x


def moved(shape, layer):
    """A layer over places, with the channels among the leading axes."""
    return lambda net, x: layer(net, x.flatten(2)).view(shape)


def blurred(net, x):
    n, c, h, w = x.shape
    return F.conv2d(F.pad(x, (1, 1, 1, 1)).reshape(-1, 1, h + 2, w + 2), net.w[None, None]).view(n, c, h, w)


def made_kernel(net, x):
    kernel = net.a(x).mean((2, 3))[0]
    return F.conv2d(x, kernel[None, :, None, None]) + x


QKV = {name: nn.Conv2d(8, 8, 1) for name in "qkv"}
# The forward between a first and a last convolution, its parts, and what its products of two activations take.
MACS = {
    "x @ w": (lambda n, x: (x.movedim(1, -1) @ n.w).movedim(-1, 1), {"w": torch.randn(8, 8)}, 0),
    "w @ x": (lambda n, x: x + (n.w @ x.flatten(2)).view_as(x), {"w": torch.randn(8, 8)}, 0),
    "mm": (lambda n, x: x + torch.mm(x.mean((2, 3)), n.w.t())[:, :, None, None], {"w": torch.randn(8, 8)}, 0),
    "a scaled weight": (
        lambda n, x: (x.movedim(1, -1) @ (n.w / n.w.norm())).movedim(-1, 1), {"w": torch.randn(8, 8)}, 0),
    "letters": (lambda n, x: torch.einsum("nchw,cd->ndhw", x, n.w), {"w": torch.randn(8, 8)}, 0),
    "letters, reversed": (lambda n, x: torch.einsum("dc,nchw->ndhw", n.w, x), {"w": torch.randn(8, 8)}, 0),
    "axes": (lambda n, x: torch.tensordot(x.movedim(1, -1), n.w, dims=([3], [1])).movedim(-1, 1),
             {"w": torch.randn(8, 8)}, 0),
    "last axes": (lambda n, x: torch.tensordot(n.w, x[0], dims=1)[None], {"w": torch.randn(8, 8)}, 0),
    "letters of three": (
        lambda n, x: torch.einsum("nchw,cd,de->nehw", x, n.w, n.w2),
        {"w": torch.randn(8, 8), "w2": torch.randn(8, 8)}, 0),
    "attention": (attention, QKV, 2 * 64 * 64 * 8),
    "attention between channels": (between_channels, QKV, 2 * 64 * 8 * 8),
    "attention in letters": (by_letters, QKV, 2 * 64 * 64 * 8),
    "token mixing": (lambda n, x: n.a(x.flatten(2)).view(x.shape), {"a": nn.Linear(64, 64)}, 0),
    "channels in the batch": (blurred, {"w": torch.ones(3, 3)}, 0),
    "an activation as kernel": (made_kernel, {"a": nn.Conv2d(8, 8, 1)}, 8 * 64),
    "grouped and transposed": (
        lambda n, x: n.a(x), {"a": nn.ConvTranspose2d(8, 8, 3, padding=1, groups=2)}, 0),
    "no channels": (lambda n, x: x + (n.w @ n.w).sum() * x[:, :1].mean(), {"w": torch.randn(4, 4)}, 0),
    "modulated": (
        lambda n, x: F.conv2d(x, n.w * n.a(x).mean((0, 2, 3))[:, None, None]),
        {"a": nn.Conv2d(8, 8, 1), "w": nn.Parameter(torch.randn(8, 8, 1, 1))}, 0),
}  # fmt: skip


class Net(nn.Module):
    """A body between two convolutions."""

    def __init__(self, body, parts, *, inputs=3):
        super().__init__()
        self.stem, self.head, self.body = nn.Conv2d(inputs, 8, 1), nn.Conv2d(8, 3, 1), body
        for name, part in parts.items():
            is_plain = isinstance(part, torch.Tensor) and not isinstance(part, nn.Parameter)
            setattr(self, name, nn.Parameter(part.clone()) if is_plain else part)

    def forward(self, x):
        return self.head(self.body(self, self.stem(x)))


@pytest.mark.parametrize("name", MACS)
def test_macs_are_those_that_happen(name):
    torch.manual_seed(0)
    body, parts, of_activations = MACS[name]
    x = torch.randn(1, 3, 8, 8)
    supernet = gantailor.Supernet(Net(body, parts).eval(), x)
    proof = gantailor.verify(supernet)
    assert supernet.graph.widths and proof.subnets > 3
    configs = [*together(supernet.graph, selections=2, seed=1).values(), *dict(alone(supernet.graph)).values(), {}]
    for config in configs:
        if not ("letters" in name and 1 in config.values()):  # PyTorch multiplies element by element there
            assert supernet.macs(config) == counted(supernet.extract(config), x), config
    assert supernet.macs({}) - supernet.macs({}, convention="layers") == of_activations


def test_macs_of_more_than_one_in_the_batch_are_for_one():
    x = torch.randn(3, 3, 8, 8)
    supernet = gantailor.Supernet(Net(attention, QKV).eval(), x)
    gantailor.verify(supernet)
    assert 3 * supernet.macs({"q": 3}) == counted(supernet.extract({"q": 3}), x)


def test_scaled_dot_products_count_as_written_out():
    def fused(net, x):
        q, k, v = (layer(x).flatten(2).transpose(1, 2) for layer in (net.q, net.k, net.v))
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape) + x

    x = torch.randn(1, 3, 8, 8)
    one, other = (gantailor.Supernet(Net(body, QKV).eval(), x) for body in (fused, attention))
    gantailor.verify(one)
    assert one.macs({}) == other.macs({}) and one.macs({"q": 2, "stem": 3}) == other.macs({"q": 2, "stem": 3})


def test_a_wrong_count_is_no_proof(monkeypatch):
    kinds = dict.fromkeys(("true", "published", "published_convs"), 1.0)
    monkeypatch.setattr(products, "add_cost", lambda tracer, extents, **_: tracer.cost(kinds))
    net = Net(lambda n, x: x + (n.w @ x.flatten(2)).view_as(x), {"w": torch.randn(8, 8)})
    supernet = gantailor.Supernet(net, torch.randn(1, 3, 8, 8))
    with pytest.raises(VerificationError, match=r"macs\(\) says 3,073 and 7,168 happen; .* \(full width\)"):
        gantailor.verify(supernet, repair=True)


class Asserts(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 3, 3)
        self.register_buffer("f", torch.ones(2, 2) / 4)

    def forward(self, x):
        assert self.f.dtype == torch.float32
        return self.b(self.a(x).relu())


class Casts(Asserts):
    def forward(self, x):
        return self.b(self.a(x.to(torch.float32)).relu())


class Passes(Asserts):
    """Runs in float64, with a part that is no more precise than float32."""

    def forward(self, x):
        return self.b((self.a(x).float() * 1.1).exp().to(x.dtype))


@pytest.mark.parametrize("kind", [Asserts, Casts, Passes])
def test_a_generator_of_float32_is_proved_in_float32(kind):
    supernet = gantailor.Supernet(kind(), torch.randn(1, 3, 8, 8))
    proof = gantailor.verify(supernet)
    assert (proof.widths, proof.bits) == (1, 32) and "computed in float32, tolerance 0.001" in str(proof)
    assert max(proof.permuted, proof.removed) > 0
    assert supernet.branches == frozenset()
    assert supernet.generator.a.weight.dtype == torch.float32


def test_what_is_wrong_in_float32_is_found():
    class Wrong(Asserts):
        def forward(self, x):
            assert x.dtype == torch.float32
            return super().forward(x) / self.a.weight.shape[0]

    supernet = gantailor.Supernet(Wrong(), torch.randn(1, 3, 8, 8))
    with pytest.raises(VerificationError, match="removing channels is not zeroing them"):
        gantailor.verify(supernet)


def test_no_message_is_empty():
    class Fails(Asserts):
        calls = 0

        def forward(self, x):
            Fails.calls += 1
            if Fails.calls > 1:
                raise AssertionError
            return super().forward(x)

    supernet = gantailor.Supernet(Fails(), torch.randn(1, 3, 8, 8))
    with pytest.raises(
        VerificationError, match=r"float64: AssertionError\(\) in .*test_proof.py, line \d+; in float32"
    ):
        gantailor.verify(supernet, repair=True)


class Grouped(nn.Module):
    def __init__(self, channels, groups, *, more=0, read=None):
        super().__init__()
        self.a, self.c = nn.Conv2d(3, channels, 1), nn.Conv2d(3, more, 1) if more else None
        self.norm, self.b = nn.GroupNorm(groups, channels + more), nn.Conv2d(channels + more, 3, 1)
        nn.init.normal_(self.norm.weight)

    def forward(self, x):
        return self.b(self.norm(self.a(x) if self.c is None else torch.cat([self.a(x), self.c(x)], 1)).relu())


@pytest.mark.parametrize(("channels", "groups"), [(8, 8), (12, 4), (16, 2), (6, 3)])
@torch.no_grad()
def test_whole_groups_go_and_the_others_stay_as_they_are(channels, groups):
    model, x = Grouped(channels, groups).eval(), torch.randn(2, 3, 8, 8)
    supernet = gantailor.Supernet(model, x)
    assert [width.size for width in supernet.graph.widths] == [groups] and not supernet.graph.inexact
    gantailor.verify(supernet)
    narrow = supernet.extract(gantailor.Selection({"a": [groups - 1]}))
    assert (narrow.norm.num_groups, narrow.norm.num_channels) == (1, channels // groups)
    last = slice(channels - channels // groups, channels)
    assert torch.allclose(narrow.norm(narrow.a(x)), model.norm(model.a(x))[:, last], atol=1e-6)


def test_groups_across_a_concatenation():
    """Groups of 4 of 10 + 14 channels: the one of both cannot go without a part of each."""
    supernet = gantailor.Supernet(Grouped(10, 6, more=14).eval(), torch.randn(1, 3, 8, 8))
    assert {width.name: width.size for width in supernet.graph.widths} == {"a": 2, "c": 3}
    assert "stay or go together" in supernet.graph.frozen["a#2"]
    assert gantailor.verify(supernet).widths == 2
    assert supernet.extract({"a": 1, "c": 1}).norm.num_groups == 3


@pytest.mark.parametrize("literal", [True, False])
def test_groups_that_cannot_go_keep_the_same_positions(literal):
    class Net(Grouped):
        def forward(self, x):
            x = self.a(x)
            return self.b(F.group_norm(x, 4) if literal else self.norm(x))

    supernet = gantailor.Supernet(Net(12, 4 if literal else 1).eval(), torch.randn(1, 3, 8, 8))
    assert [width.size for width in supernet.graph.widths] == [3 if literal else 12]
    assert "group norm" in supernet.graph.inexact[0]
    gantailor.verify(supernet)


def test_steps_of_a_recurrent_layer_are_done_once(monkeypatch):
    """They show the same; 200 of them took minutes."""

    class Sequence(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 3)
            self.layer = nn.LSTM(8, 4, 2, batch_first=True, bidirectional=True)

        def forward(self, x):
            return self.b(self.layer(self.a(x))[0])

    x = torch.randn(2, 50, 6)
    supernet = gantailor.Supernet(Sequence().eval(), x)
    assert gantailor.verify(supernet).widths == 2
    calls = []
    monkeypatch.setattr(ProductCounter, "add", lambda self, products: calls.append(products))
    monkeypatch.setattr(recording._Products, "add", ProductCounter.add)
    full = DryRuns(supernet, Meta()).full
    assert len(calls) < 20 and "lstm" in {step.operation for step in full.steps}
    monkeypatch.undo()
    matrices = [w for w in supernet.generator.layer.parameters() if w.dim() > 1]
    assert DryRuns(supernet, Meta()).full.macs["layer"] == 2 * 50 * sum(w.numel() for w in matrices)


@pytest.mark.parametrize("repair", [True, False])
def test_no_width_left(repair):
    supernet = gantailor.Supernet(nn.Conv2d(3, 3, 3), torch.randn(1, 3, 8, 8))
    proof = gantailor.verify(supernet, repair=repair)
    assert proof.widths == 0 and str(proof).startswith("no width is left that can shrink")


def test_blame_takes_few_tries():
    tries = []

    def fails(widths):
        tries.append(widths)
        return 37 in widths or {3, 90} <= {*widths}

    assert blame.guilty(fails, range(128)) == [[37]]
    assert len(tries) <= 2 * math.log2(128)
    assert blame.guilty(lambda widths: {3, 90} <= {*widths}, range(128)) == [[3, 90]]
    assert blame.guilty(lambda widths: bool({1, 2, 99} & {*widths}), range(128)) == [[1], [2], [99]]


def test_a_generator_that_asks_for_values_is_proved_with_values():
    def body(net, x):
        return x * 2 if float(x.mean()) > 1e9 else net.a(x)

    supernet = gantailor.Supernet(Net(body, {"a": nn.Conv2d(8, 8, 1)}).eval(), torch.randn(1, 3, 8, 8))
    proof = gantailor.verify(supernet)
    assert proof.widths == 2 and proof.subnets > 5
    lost = Net(lambda n, x: body(n, n.b(x)), {"a": nn.Conv2d(6, 8, 1), "b": Block(8, 6, COMPARISONS["attributes"])})
    x = torch.randn(1, 3, 8, 8)
    supernet = gantailor.Supernet(lost.eval(), x)
    gantailor.verify(supernet, repair=True)
    config = {width.name: 5 for width in supernet.graph.widths}
    assert len(config) > 1
    with torch.no_grad():
        torch.testing.assert_close(supernet.extract(config)(x), zeroed(copy.deepcopy(lost), supernet, config)(x))


def test_a_proof_leaves_nothing_in_the_generator():
    def body(net, x):
        net.kept.append(x)
        net.last = net.last if hasattr(net, "last") else torch.ones(1, 1, *x.shape[2:])
        return net.a(x * net.last)

    net = Net(body, {"a": nn.Conv2d(8, 8, 1)}).eval()
    net.kept = []
    supernet = gantailor.Supernet(net, torch.randn(1, 3, 8, 8))
    del supernet.generator.last
    supernet.generator.kept.clear()
    assert gantailor.verify(supernet).widths == 2
    assert supernet.generator.kept == [] and not hasattr(supernet.generator, "last")


@pytest.mark.parametrize(("kind", "shape", "small"), [(nn.Conv1d, (2048,), (256,)), (nn.Conv3d, (32,) * 3, (16,) * 3)])
def test_signals_and_volumes_are_made_smaller(kind, shape, small):
    model = nn.Sequential(kind(2, 4, 3, padding=1), nn.ReLU(), kind(4, 2, 3, padding=1))
    supernet = gantailor.Supernet(model, torch.randn(1, 2, *shape))
    assert gantailor.verify(supernet).widths == 1
    assert supernet.small_inputs[0].shape == (1, 2, *small)


def test_progress_is_told():
    told = []
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 3, 1))
    gantailor.verify(gantailor.Supernet(model, torch.randn(1, 3, 8, 8)), on_progress=lambda *p: told.append(p))
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert len({total for _, total in told}) == 1 and told[-1][0] == told[-1][1]
