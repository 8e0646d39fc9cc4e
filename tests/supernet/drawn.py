"""Nets drawn at random out of what people write: each construct is a block ``[N, i, ...]`` to ``[N, o, ...]``.

Pictures, signals or volumes, of sides that differ; channel counts are multiples of four.
"""

import random

import torch
import torch.nn.functional as F
from torch import nn

from tests.supernet.constructs import by_scatter

SHAPES = {1: (16,), 2: (8, 4), 3: (4, 2, 4)}
CONSTRUCTS = {}


def construct(build):
    """Register a function ``(i, o, d, draw)`` that gives a forward and what its module holds; a class for each."""
    kind = type(build.__name__, (nn.Module,), {"forward": lambda module, x: module.body(module, x)})

    def made(i, o, d, draw):
        module = kind()
        module.body, parts = build(i, o, d, draw)
        for name, part in parts.items():
            setattr(module, name, part)
        return module

    CONSTRUCTS[build.__name__] = made
    return made


def conv(d, i, o, size=3, **options):
    return (nn.Conv1d, nn.Conv2d, nn.Conv3d)[d - 1](i, o, size, padding=size // 2, **options)


def norm(d, channels):
    return (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[d - 1](channels)


def weight(*shape):
    return nn.Parameter(torch.randn(shape) / shape[-1] ** 0.5)


def tokens(x):
    return x.flatten(2).transpose(1, 2)


def picture(y, x):
    return y.transpose(1, 2).reshape(len(y), -1, *x.shape[2:])


def over(x, vector):
    """A vector of channels over all places."""
    return vector.reshape(*vector.shape, *[1] * (x.dim() - 2))


# layers


@construct
def layers(i, o, d, draw):
    middle = draw.choice(("batch", "instance", "prelu", "layer", "transposed"))
    parts = {
        "batch": norm(d, o),
        "instance": (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)[d - 1](o, affine=True),
        "prelu": nn.PReLU(o),
        "layer": nn.LayerNorm(o),
        "transposed": (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[d - 1](o, o, 3, padding=1),
    }
    if middle == "layer":
        return lambda m, x: m.more(m.layer(x).movedim(1, -1)).movedim(-1, 1), {
            "layer": conv(d, i, o), "more": parts[middle]}  # fmt: skip
    return lambda m, x: m.more(m.layer(x)), {"layer": conv(d, i, o), "more": parts[middle]}


@construct
def normed_weights(i, o, d, draw):
    norms = [nn.utils.parametrizations.spectral_norm, nn.utils.parametrizations.weight_norm, nn.utils.spectral_norm]
    one, other = draw.choice(norms), draw.choice(norms)
    return lambda m, x: m.b(m.a(x).relu()), {"a": one(conv(d, i, o)), "b": other(conv(d, o, o, 1))}


@construct
def grouped(i, o, d, draw):
    groups = draw.choice((2, 4))
    parts = {"deep": conv(d, i, i, groups=i), "group": conv(d, i, o, groups=groups), "point": conv(d, o, o, 1)}
    return lambda m, x: m.point(m.group(m.deep(x)).relu()), parts


@construct
def shuffled(i, o, d, draw):
    def forward(m, x):
        b, c = x.shape[:2]
        y = x.view(b, m.groups, c // m.groups, *x.shape[2:]).transpose(1, 2).reshape(x.shape)
        return m.layer(y)

    return forward, {"layer": conv(d, i, o), "groups": draw.choice((2, 4))}


@construct
def group_norm(i, o, d, draw):
    return lambda m, x: m.norm(m.layer(x)).relu(), {
        "layer": conv(d, i, o), "norm": nn.GroupNorm(draw.choice((1, 2, 4, o)), o)}  # fmt: skip


@construct
def half_normed(i, o, d, draw):
    def forward(m, x):
        x = m.layer(x)
        return torch.cat([m.norm(x[:, : m.half].contiguous()), x[:, m.half :]], 1)

    return forward, {"layer": conv(d, i, o), "half": o // 2, "norm": norm(d, o // 2)}


# products by hand


@construct
def by_a_matrix(i, o, d, draw):
    forwards = (
        lambda m, x: (x.movedim(1, -1) @ m.w).movedim(-1, 1),
        lambda m, x: (m.w.t() @ x.flatten(2)).unflatten(2, x.shape[2:]),
        lambda m, x: torch.einsum("bi...,io->bo...", x, m.w),
        lambda m, x: picture(torch.matmul(tokens(x), m.w / m.w.norm()), x),
        lambda m, x: picture(torch.bmm(tokens(x), m.w.expand(len(x), -1, -1)), x),
        lambda m, x: picture(torch.tensordot(tokens(x), m.w, dims=1), x),
        lambda m, x: (x.movedim(1, -1).reshape(-1, x.shape[1]).mm(m.w)).view(len(x), *x.shape[2:], -1).movedim(-1, 1),
    )
    return draw.choice(forwards), {"w": weight(i, o)}


@construct
def added_to_a_product(i, o, d, draw):
    def addmm(m, x):
        return torch.addmm(m.b[None], tokens(x).flatten(0, 1), m.w).view(len(x), *x.shape[2:], -1).movedim(-1, 1)

    def baddbmm(m, x):
        return picture(torch.baddbmm(m.b.expand(len(x), 1, -1), tokens(x), m.w.expand(len(x), -1, -1)), x)

    def addbmm(m, x):
        return picture(torch.stack([torch.addbmm(m.b, y[None], m.w[None]) for y in tokens(x)]), x)

    return draw.choice((addmm, baddbmm, addbmm)), {"w": weight(i, o), "b": weight(o)}


@construct
def squeezed(i, o, d, draw):
    def forward(m, x):
        x = m.layer(x)
        y = F.linear(x.flatten(2).mean(2), m.w, m.b).relu()
        return x * over(x, torch.addmm(m.b2[None], y, m.w2.t()).sigmoid().view(-1, m.width))

    few = o // 2
    return forward, {"layer": conv(d, i, o), "width": o, "w": weight(few, o), "b": weight(few),
                     "w2": weight(o, few), "b2": weight(o)}  # fmt: skip


@construct
def modulated(i, o, d, draw):
    def forward(m, x):
        b, c = x.shape[:2]
        w = m.w[None] * m.style(x.flatten(2).mean(2)).view(b, 1, c, *[1] * (x.dim() - 2))
        w = w * (w.pow(2).sum([*range(2, w.dim())], keepdim=True) + 1e-8).rsqrt()
        w = w.view(b * w.shape[1], c, *w.shape[3:])
        y = F.conv2d(x.reshape(1, b * c, *x.shape[2:]), w, padding=1, groups=b)
        return y.view(b, -1, *y.shape[2:])

    return forward if d == 2 else draw.choice((lambda m, x: m.plain(x),)), {
        "w": weight(o, i, 3, 3), "style": nn.Linear(i, i), "plain": conv(d, i, o)}  # fmt: skip


# attention


def _heads(t, heads):
    b, n, c = t.shape
    return t.view(b, n, heads, c // heads).transpose(1, 2)


@construct
def attention(i, o, d, draw):
    def swin(m, y):
        b, n, c = y.shape
        q, k, v = m.qkv(y).reshape(b, n, 3, m.heads, c // m.heads).permute(2, 0, 3, 1, 4)
        return ((q * m.scale @ k.transpose(-2, -1)).softmax(-1) @ v).transpose(1, 2).reshape(b, n, c)

    def fused(m, y):
        q, k, v = (_heads(t, m.heads) for t in m.qkv(y).chunk(3, -1))
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)

    def letters(m, y):
        q, k, v = m.qkv(y).view(*y.shape[:2], 3, m.heads, y.shape[2] // m.heads).unbind(2)
        weights = torch.einsum("bihd,bjhd->bhij", q, k).softmax(-1)
        return torch.einsum("bhij,bjhd->bihd", weights, v).reshape(y.shape)

    def batch(m, y):
        b, n, c = y.shape
        q, k, v = (_heads(t, m.heads).reshape(b * m.heads, n, -1) for t in m.qkv(y).split(c, -1))
        y = torch.bmm((q @ k.transpose(1, 2)).softmax(-1), v).view(b, m.heads, n, c // m.heads)
        return y.permute(0, 2, 1, 3).reshape(b, n, c)

    inner = draw.choice((swin, fused, letters, batch))

    def forward(m, x):
        y = m.enter(tokens(x))
        return picture(y + m.proj(inner(m, m.norm(y))), x)

    return forward, {"enter": nn.Linear(i, o), "qkv": nn.Linear(o, 3 * o), "proj": nn.Linear(o, o),
                     "norm": nn.LayerNorm(o), "heads": draw.choice((1, 2, 4)), "scale": 0.7}  # fmt: skip


@construct
def attention_of_pictures(i, o, d, draw):
    """LDM, SAGAN: 1x1 convolutions, fewer channels in queries and keys, a factor."""
    few = draw.choice((o, o // 2))

    def written(m, x):
        x = m.enter(x)
        q, k, v = (layer(x).flatten(2) for layer in (m.q, m.k, m.v))
        weights = torch.bmm(q.permute(0, 2, 1), k).mul(int(q.shape[1]) ** -0.5).softmax(2)
        return x + m.gamma * m.proj(torch.bmm(v, weights.permute(0, 2, 1)).view(x.shape))

    def shaped(m, x):
        x = m.enter(x)
        b, c, n = x.shape[0], x.shape[1], x[0, 0].numel()
        q, k = (layer(x).reshape(b, -1, n) for layer in (m.q, m.k))
        v = m.v(x).reshape(b, c, n)
        y = torch.einsum("bij,bcj->bci", torch.einsum("bci,bcj->bij", q, k).softmax(2), v)
        return x + m.proj(y.reshape(b, c, *x.shape[2:]))

    return draw.choice((written, shaped)), {
        "enter": conv(d, i, o), "q": conv(d, o, few, 1), "k": conv(d, o, few, 1), "v": conv(d, o, o, 1),
        "proj": conv(d, o, o, 1), "gamma": nn.Parameter(torch.ones(1))}  # fmt: skip


@construct
def attention_between_channels(i, o, d, draw):
    def forward(m, x):
        x = m.enter(x)
        b, c = x.shape[:2]
        q, k, v = (t.reshape(b, m.heads, c // m.heads, -1) for t in m.qkv(x).chunk(3, 1))
        weights = (F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1) * m.temperature).softmax(-1)
        return x + m.proj((weights @ v).reshape(x.shape))

    heads = draw.choice((1, 2, 4))
    return forward, {"enter": conv(d, i, o), "qkv": conv(d, o, 3 * o, 1), "proj": conv(d, o, o, 1), "heads": heads,
                     "temperature": nn.Parameter(torch.ones(heads, 1, 1))}  # fmt: skip


@construct
def windows(i, o, d, draw):
    """Swin: pictures cut into windows, attention within each."""

    def partition(x, side):
        b, h, w, c = x.shape
        x = x.view(b, h // side, side, w // side, side, c).permute(0, 1, 3, 2, 4, 5)
        return x.contiguous().view(-1, side * side, c)

    def forward(m, x):
        x = m.enter(x)
        b, c, h, w = x.shape
        y = torch.roll(x.permute(0, 2, 3, 1), (1, 1), (1, 2))
        y = partition(y, 4)
        q, k, v = m.qkv(y).reshape(y.shape[0], 16, 3, m.heads, c // m.heads).permute(2, 0, 3, 1, 4)
        y = (q @ k.transpose(-2, -1) + m.bias).softmax(-1) @ v
        y = m.proj(y.transpose(1, 2).reshape(-1, 16, c)).view(b, h // 4, w // 4, 4, 4, -1)
        return x + y.permute(0, 1, 3, 2, 4, 5).reshape(b, h, w, -1).permute(0, 3, 1, 2)

    heads = draw.choice((1, 2))
    plain = {"enter": conv(d, i, o), "qkv": nn.Linear(o, 3 * o), "proj": nn.Linear(o, o), "heads": heads}
    return forward if d == 2 else lambda m, x: m.enter(x), plain | {"bias": weight(heads, 16, 16)}


@construct
def transformer(i, o, d, draw):
    norm_first = draw.choice((True, False))
    layer = draw.choice((
        lambda: nn.TransformerEncoderLayer(o, 2, 2 * o, batch_first=True, norm_first=norm_first),
        lambda: nn.MultiheadAttention(o, 4, batch_first=True),
    ))()  # fmt: skip

    def forward(m, x):
        y = m.enter(tokens(x))
        return picture(m.layer(y) if isinstance(m.layer, nn.TransformerEncoderLayer) else y + m.layer(y, y, y)[0], x)

    return forward, {"enter": nn.Linear(i, o), "layer": layer}


# recurrent layers


@construct
def recurrent(i, o, d, draw):
    kind = draw.choice((nn.GRU, nn.LSTM, nn.RNN))
    both = draw.choice((False, True))
    layer = kind(i, o // 2 if both else o, draw.choice((1, 2)), batch_first=True, bidirectional=both)
    return lambda m, x: picture(m.layer(tokens(x))[0], x), {"layer": layer}


@construct
def cells(i, o, d, draw):
    def forward(m, x):
        state, outputs = None, []
        for y in m.enter(x).flatten(2)[:, :, ::4].unbind(-1):
            state = m.cell(y, state)
            outputs.append(state[0] if isinstance(state, tuple) else state)
        y = torch.stack(outputs, -1).repeat_interleave(4, -1)
        return y.view(len(x), -1, *x.shape[2:])

    return forward, {"enter": conv(d, i, o), "cell": draw.choice((nn.GRUCell, nn.LSTMCell))(o, o)}


@construct
def recurrent_convolution(i, o, d, draw):
    def forward(m, x):
        state = torch.zeros(len(x), m.hidden, *x.shape[2:], dtype=x.dtype)
        for _ in range(2):
            update, reset = torch.split(m.gates(torch.cat([x, state], 1)).sigmoid(), m.hidden, 1)
            state = (1 - update) * state + update * m.new(torch.cat([x, reset * state], 1)).tanh()
        return state

    return forward, {"gates": conv(d, i + o, 2 * o), "new": conv(d, i + o, o), "hidden": o}


# sizes


@construct
def shortcut(i, o, d, draw):
    differ = draw.choice((
        lambda m, x, y: m.i != m.o, lambda m, x, y: x.shape[1] != y.shape[1], lambda m, x, y: m.i < m.o or m.i > m.o,
        lambda m, x, y: x.size(1) != m.o,
    ))  # fmt: skip

    def forward(m, x):
        y = m.layer(x.relu())
        return y + (m.short(x) if differ(m, x, y) else x)

    return forward, {"layer": conv(d, i, o), "short": conv(d, i, o, 1), "i": i, "o": o}


@construct
def made_here(i, o, d, draw):
    forwards = (
        lambda b, c, x: x * over(x, x.new_tensor(0.7).expand(b, c)),
        lambda b, c, x: torch.lerp(x, torch.zeros(b, c, *x.shape[2:], dtype=x.dtype), 0.3),
        lambda b, c, x: torch.lerp(x, torch.ones_like(x), 0.3),
        lambda b, c, x: x + over(x, x.new_full((b, c), 0.5)),
        lambda b, c, x: x + torch.full(x.shape, 0.25, dtype=x.dtype),
        lambda b, c, x: x * over(x, torch.ones(1, 1, dtype=x.dtype).repeat(1, c)),
        lambda b, c, x: x * over(x, torch.ones(c, dtype=x.dtype)[None]),
        lambda b, c, x: torch.einsum("bc...,cd->bd...", x, torch.eye(c, dtype=x.dtype)),
        lambda b, c, x: x + torch.randn(b, 1, *x.shape[2:], dtype=x.dtype),
        lambda b, c, x: torch.cat([x[:, : c // 2], torch.zeros(b, c - c // 2, *x.shape[2:], dtype=x.dtype)], 1),
    )
    made = draw.choice(forwards)
    return lambda m, x: m.layer(made(len(x), x.shape[1], x)), {"layer": conv(d, i, o)}


@construct
def of_another_type(i, o, d, draw):
    lent = draw.choice((lambda k, x: k.to(x), lambda k, x: k.type_as(x), lambda k, x: k.to(x.device, x.dtype)))
    return lambda m, x: m.layer(torch.cat([x, lent(x[:, :1] > 0, x)], 1)), {"layer": conv(d, i + 1, o)}


@construct
def styled(i, o, d, draw):
    """AdaIN: scale and shift out of one layer, cut in one of the ways."""
    ways = (
        lambda m, s, x: s.view(-1, 2, x.size(1)).unbind(1),
        lambda m, s, x: s.view(len(s), 2, m.width).unbind(1),
        lambda m, s, x: s.view(len(s), 2, -1).unbind(1),
        lambda m, s, x: s.unflatten(1, (2, x.shape[1])).unbind(1),
        lambda m, s, x: s.chunk(2, 1),
        lambda m, s, x: s.split(m.width, 1),
        lambda m, s, x: (s[:, : m.width], s[:, m.width :]),
        lambda m, s, x: s.view(-1, x.size(1), 2).unbind(2),
    )
    cut = draw.choice(ways)

    def forward(m, x):
        y = F.instance_norm(m.layer(x))
        scale, shift = cut(m, m.style(x.flatten(2).mean(2)), y)
        return y * (1 + over(y, scale)) + over(y, shift)

    return forward, {"layer": conv(d, i, o), "style": nn.Linear(i, 2 * o), "width": o}


class _Inner(nn.Module):
    def __init__(self, i, o, d):
        super().__init__()
        self.channels, self.layer = o, conv(d, i, o)

    def forward(self, x):
        y = self.layer(x)
        assert y.shape[1] == self.channels
        return y.reshape(-1, self.channels, *x.shape[2:]), {"mean": y.mean()}


@construct
def behind_a_tuple(i, o, d, draw):
    return lambda m, x: m.inner(x)[0], {"inner": _Inner(i, o, d)}


@construct
def kept_above(i, o, d, draw):
    kept, read = draw.choice((
        (o, lambda m: m.kept), ((3, o), lambda m: m.kept[1]), ({"up": o}, lambda m: m.kept["up"]),
        (o // 2, lambda m: m.kept * 2), (2 * o, lambda m: m.kept // 2),
    ))  # fmt: skip

    def forward(m, x):
        x = m.layer(x)
        return x * over(x, m.gate(x.flatten(2).mean(2)).view(-1, read(m)))

    return forward, {"layer": conv(d, i, o), "gate": nn.Linear(o, o), "kept": kept}


# cutting and joining


@construct
def parts(i, o, d, draw):
    def refined(m, x):
        few, many = torch.split(m.layer(x), (m.few, m.many), dim=1)
        return torch.cat([few, m.rest(many)], 1)

    def glu(m, x):
        return m.few_to_all(F.glu(m.layer(x), 1))

    def gated(m, x):
        a, b = m.layer(x).chunk(2, dim=1)
        return m.few_to_all(a.tanh() * b.sigmoid())

    def dense(m, x):
        y = m.layer(x)
        return m.joint(torch.cat([x, y, x[:, : x.shape[1] // 2]], 1))

    few = o // 4
    return draw.choice((refined, glu, gated, dense)), {
        "layer": conv(d, i, o), "rest": conv(d, o - few, o - few), "few": few, "many": o - few,
        "few_to_all": conv(d, o // 2, o, 1), "joint": conv(d, i + o + i // 2, o, 1)}  # fmt: skip


@construct
def blocks(i, o, d, draw):
    def unfold(m, x):
        columns = F.unfold(m.layer(x), 3, padding=1).view(len(x), -1, 9, *x.shape[2:])
        return m.more(columns.mean(2))

    def fold(m, x):
        y = m.more(m.layer(x)).repeat_interleave(4, 1)
        y = F.fold(y[:, :, ::2, ::2].flatten(2), x.shape[2:], 2, stride=2)
        return y + x.mean()

    def shuffle(m, x):
        return F.pixel_shuffle(m.up(F.pixel_unshuffle(m.layer(x), 2)), 2)

    chosen = draw.choice((unfold, fold, shuffle)) if d == 2 else lambda m, x: m.more(m.layer(x))
    return chosen, {"layer": conv(d, i, o), "more": conv(d, o, o), "up": conv(d, 4 * o, 4 * o, 1)}


@construct
def smaller_and_back(i, o, d, draw):
    """A small U-Net around another size."""
    pool = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[d - 1]

    def forward(m, x):
        y = m.down(pool(x, 2))
        y = F.interpolate(y, size=x.shape[2:], mode="nearest")
        return m.up(torch.cat([y, x], 1))

    return forward, {"down": conv(d, i, o), "up": conv(d, i + o, o)}


@construct
def quantised(i, o, d, draw):
    def one_hot(m, flat):
        return F.one_hot(torch.cdist(flat, m.codes.weight).argmin(-1), m.count).type_as(flat) @ m.codes.weight

    def index(m, flat):
        return m.codes(torch.cdist(flat, m.codes.weight).argmin(1))

    quantise = draw.choice((by_scatter, one_hot, index))

    def forward(m, x):
        z = m.layer(x).movedim(1, -1).contiguous()
        found = quantise(m, z.view(-1, m.width)).view(z.shape)
        return (z + 0.5 * (found - z)).movedim(-1, 1)

    return forward, {"layer": conv(d, i, o), "codes": nn.Embedding(10, o), "count": 10, "width": o}


@construct
def blurred(i, o, d, draw):
    """A fixed filter on every channel: in the batch, or depthwise with a filter made for as many as come."""

    def batch(m, x):
        b, c, h, w = x.shape
        return m.layer(F.conv2d(F.pad(x, (1, 1, 1, 1)).reshape(-1, 1, h + 2, w + 2), m.k[None, None]).view(b, c, h, w))

    def deep(m, x):
        k = m.k[None, None].repeat(x.shape[1], 1, 1, 1)
        return m.layer(F.conv2d(x, k, padding=1, groups=x.shape[1]))

    def expanded(m, x):
        k = m.k.expand(x.size(1), 1, -1, -1)
        return m.layer(F.conv2d(F.pad(x, [1] * 4, mode="reflect"), k, groups=x.size(1)))

    module = conv(d, i, o)
    k = torch.ones(3, 3) / 9
    return draw.choice((batch, deep, expanded)) if d == 2 else lambda m, x: m.layer(x), {
        "layer": module, "k": nn.Parameter(k, requires_grad=False)}  # fmt: skip


@construct
def waves(i, o, d, draw):
    """A Fourier unit: real and imaginary parts side by side."""

    def forward(m, x):
        x = m.enter(x)
        spectrum = torch.fft.rfft(x, dim=-1, norm="ortho")
        y = m.mix(torch.cat([spectrum.real, spectrum.imag], 1))
        real, imaginary = y.chunk(2, 1)
        return torch.fft.irfft(torch.complex(real, imaginary), n=x.shape[-1], dim=-1, norm="ortho")

    return forward, {"enter": conv(d, i, o), "mix": conv(d, 2 * o, 2 * o, 1)}


@construct
def contextual(i, o, d, draw):
    """Contextual attention: the kernels of a convolution are patches of the features."""

    def forward(m, x):
        x = m.layer(x)
        made = []
        for y in x.split(1):
            patches = F.unfold(y, 2, stride=2).permute(0, 2, 1).reshape(-1, x.shape[1], 2, 2)
            score = F.conv2d(y, patches, stride=2).softmax(1)
            made.append(F.conv_transpose2d(score, patches, stride=2))
        return torch.cat(made)

    return forward if d == 2 else lambda m, x: m.layer(x), {"layer": conv(d, i, o)}


@construct
def pooled(i, o, d, draw):
    """CBAM: statistics over places and over channels."""

    def forward(m, x):
        x = m.layer(x)
        gate = m.b(m.a(x.flatten(2).mean(2)).relu()) + m.b(m.a(x.flatten(2).amax(2)).relu())
        x = x * over(x, gate.sigmoid())
        two = torch.cat([x.mean(1, keepdim=True), x.max(1, keepdim=True)[0]], 1)
        return x * m.seven(two).sigmoid()

    return forward, {
        "layer": conv(d, i, o),
        "a": nn.Linear(o, o // 2),
        "b": nn.Linear(o // 2, o),
        "seven": conv(d, 2, 1),
    }


# by hand


@construct
def normalised(i, o, d, draw):
    """Norms over channels as people write them, with a scale for each channel."""
    ways = (
        lambda y: y * torch.rsqrt(y.square().mean(1, keepdim=True) + 1e-6),
        lambda y: (y - y.mean(1, keepdim=True)) / (y.var(1, keepdim=True, unbiased=False) + 1e-6).sqrt(),
        lambda y: F.normalize(y, dim=1) * y.shape[1] ** 0.5,
        lambda y: y / (y.norm(dim=1, keepdim=True) / y.size(1) ** 0.5 + 1e-6),
    )
    way = draw.choice(ways)
    table = weight(1, o, *[1] * d)
    return lambda m, x: way(m.layer(x)) * m.scale + m.shift, {
        "layer": conv(d, i, o), "scale": table, "shift": weight(1, o, *[1] * d)}  # fmt: skip


@construct
def one_of_two(i, o, d, draw):
    """Maxout and gates that choose: the channels of two layers are the same."""
    ways = (
        lambda m, a, b: torch.maximum(a, b),
        lambda m, a, b: torch.max(a, b),
        lambda m, a, b: torch.where(a > b, a, b * 0.5),
        lambda m, a, b: torch.stack([a, b]).amax(0),
        lambda m, a, b: a.masked_fill(b < 0, 0.0),
        lambda m, a, b: torch.lerp(a, b, m.share),
        lambda m, a, b: torch.addcmul(a, b, a.sigmoid(), value=0.5),
    )
    way = draw.choice(ways)
    return lambda m, x: way(m, m.a(x), m.b(x)), {"a": conv(d, i, o), "b": conv(d, i, o, 1), "share": weight(1)}


@construct
def weights_by_hand(i, o, d, draw):
    """Weights that are computed from others: standardised, merged, scaled, and written into a layer or not."""
    function = (F.conv1d, F.conv2d, F.conv3d)[d - 1]
    axes = [*range(1, d + 2)]

    def standard(m, x):
        w = m.layer.weight
        w = (w - w.mean(axes, keepdim=True)) / (w.std(axes, keepdim=True) + 1e-5)
        return function(x, w, m.layer.bias, padding=1)

    def merged(m, x):
        m.layer.weight.data = m.layer.weight.data * 0 + torch.einsum("om...,mi->oi...", m.second, m.first)
        return m.layer(x)

    def sum_of_two(m, x):
        return function(x, m.layer.weight + F.pad(m.point.weight, [1] * 2 * d), m.layer.bias, padding=1)

    def unit(m, x):
        return function(x, m.layer.weight * (m.gain / m.layer.weight.flatten(1).norm(dim=1)).view(-1, *[1] * (d + 1)),
                        padding=1)  # fmt: skip

    return draw.choice((standard, merged, sum_of_two, unit)), {
        "layer": conv(d, i, o), "point": conv(d, i, o, 1, bias=False), "gain": weight(o),
        "first": weight(2 * i, i), "second": weight(o, 2 * i, *[3] * d)}  # fmt: skip


# a whole net


class Drawn(nn.Module):
    """A stem, blocks in one of some wirings, a head; ``said`` tells what was drawn."""

    def __init__(self, seed, names=None):
        super().__init__()
        draw = random.Random(seed)
        torch.manual_seed(seed)
        d = draw.choice((1, 2, 2, 2, 3))
        names = names or [draw.choice([*CONSTRUCTS]) for _ in range(draw.choice((1, 2, 3)))]
        self.stem, channels = conv(d, 3, 8), 8
        first, self.steps, self.blocks = 8, [], nn.ModuleList()
        for name in names:
            wiring = draw.choice(("plain", "plain", "residual", "dense", "twice"))
            o = channels if wiring in ("residual", "twice") else draw.choice((8, 12, 16))
            self.blocks.append(CONSTRUCTS[name](channels, o, d, draw))
            self.steps.append(wiring)
            channels = channels + o if wiring == "dense" else o
        self.skip = draw.choice((False, True))
        self.head = conv(d, channels + first * self.skip, 3)
        self.said = f"seed {seed}, {d}-D: " + ", ".join(f"{w} {n}" for w, n in zip(self.steps, names, strict=True))
        self.said += ", skip" * self.skip
        self.example = torch.randn(2, 3, *SHAPES[d], generator=torch.Generator().manual_seed(seed))

    def forward(self, x):
        first = x = self.stem(x)
        for wiring, block in zip(self.steps, self.blocks, strict=True):
            y = block(x)
            if wiring == "residual":
                y = x + y
            elif wiring == "dense":
                y = torch.cat([x, y], 1)
            elif wiring == "twice":
                y = block(y)
            x = y
        return self.head(torch.cat([x, first], 1) if self.skip else x)


if __name__ == "__main__":  # many by hand: python -m tests.supernet.drawn FIRST LAST [CONSTRUCT ...]
    import sys

    from tests.supernet.constructs import agrees, proved_or_told

    for seed in range(int(sys.argv[1]), int(sys.argv[2])):
        model = Drawn(seed, sys.argv[3:])
        print(model.said, flush=True)
        agrees(proved_or_told(model, model.example), model, model.example)
