"""Rankings: each against a literal loop, and the properties that all of them have."""

import numpy as np
import pytest
import torch
from torch import nn

import gantailor
from gantailor.search.spaces.config import SpaceConfig
from gantailor.search.spaces.space import space
from gantailor.supernet.errors import ConfigError
from gantailor.supernet.importance import CRITERIA
from gantailor.supernet.importance.diversity import (
    activation_scores,
    content_scores,
    diversity_scores,
    principal_directions,
)
from gantailor.supernet.importance.ranking import criterion_scores, order_channels, rank_channels
from gantailor.supernet.importance.taylor import taylor_scores

CHANNELS = {4: 6, 8: 5, 16: 4}
GOLDEN_MACS, GOLDEN_PRUNED = 45_124_673_536, 4_123_578_080  # FFHQ at 256 px, as DCP-GAN counts
GOLDEN_WIDTHS = {512: 154, 256: 77, 128: 39, 64: 20, 32: 10}


def stylegan2():
    torch.manual_seed(0)
    net = gantailor.build("stylegan2", size=16, style_dim=8, n_mlp=2, channels=CHANNELS).eval()
    for name, parameter in net.named_parameters():
        if name.endswith(("noise.weight", "activate.bias")):
            nn.init.normal_(parameter, 0, 0.3)
    return net


def resnet():
    torch.manual_seed(0)
    return gantailor.build("resnet_6blocks", ngf=4).eval()


class Plain(nn.Module):
    """A generator from latents without a mapping network."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(5, 6), nn.ConvTranspose2d(6, 3, 4)

    def forward(self, z):
        return torch.tanh(self.second(torch.relu(self.first(z)).reshape(len(z), -1, 1, 1)))


CASES = {"stylegan2": (stylegan2, (8,)), "resnet": (resnet, (3, 16, 16)), "plain": (Plain, (5,))}


def case(name, count=10):
    make, shape = CASES[name]
    torch.manual_seed(1)
    inputs = torch.randn(count, *shape)
    return gantailor.Supernet(make(), (inputs[:1],)), inputs


def literal_diversity(net, z, *, directions, batch, step, seed, principal=True):
    """DCP-GAN's loop over directions, written for StyleGAN2's layers by name."""
    with torch.no_grad():
        w = net.mapping(z)
    basis, shares = principal_directions(w)
    random = torch.Generator().manual_seed(seed)
    convs = [net.conv1, *net.convs, net.to_rgbs[-1]]
    scores = [np.zeros(layer.conv.weight.shape[2]) for layer in convs]
    for start in range(0, len(w), batch):
        part = w[start : start + batch]
        if principal:
            lines = [
                basis[k] for k in torch.multinomial(shares, directions, replacement=True, generator=random).tolist()
            ]
        else:
            lines = [line / line.square().sum().sqrt() for line in torch.randn(directions, 8, generator=random)]
        found = []
        for line in lines:
            net.zero_grad()
            loss = (net.synthesis(part + step * line) - net.synthesis(part)).abs().sum()
            loss.backward()
            row = []
            for layer in convs:
                slope = layer.conv.weight.grad[0]
                row.append([float(slope[:, c].abs().mean()) for c in range(slope.shape[1])])
            found.append(row)
        for i in range(len(convs)):
            for c in range(len(scores[i])):
                values = [row[i][c] for row in found]
                mean = sum(values) / len(values)
                scores[i][c] += sum((value - mean) ** 2 for value in values)
    return scores


def test_diversity_is_the_published_loop():
    net = stylegan2().double()
    z = torch.randn(15, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    supernet = gantailor.Supernet(net, (z[:1],))
    found = diversity_scores(supernet, z, directions=4, batch=5, step=2.0, seed=3)
    expected = literal_diversity(net, z, directions=4, batch=5, step=2.0, seed=3)
    assert list(found) == [width.name for width in supernet.graph.widths]
    for mine, theirs in zip(found.values(), expected, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-6, atol=0)
    plain = diversity_scores(supernet, z, directions=4, step=2.0, seed=3, measure="magnitude")
    assert not np.allclose(next(iter(plain.values())), expected[0])


def test_any_direction_is_the_loop_without_the_principal_ones():
    net = stylegan2().double()
    z = torch.randn(15, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    supernet = gantailor.Supernet(net, (z[:1],))
    found = diversity_scores(supernet, z, directions=4, batch=5, step=2.0, seed=3, principal=False)
    expected = literal_diversity(net, z, directions=4, batch=5, step=2.0, seed=3, principal=False)
    for mine, theirs in zip(found.values(), expected, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-6, atol=0)


def test_directions_are_sklearn_like_pca():
    x = torch.randn(50, 4, generator=torch.Generator().manual_seed(0)) * torch.tensor([3.0, 1.0, 0.5, 0.1]) + 7
    basis, shares = principal_directions(x)
    values, vectors = np.linalg.eigh(np.cov(x.numpy().astype(float).T))
    np.testing.assert_allclose(shares.numpy(), values[::-1] / values.sum(), rtol=1e-4)
    np.testing.assert_allclose(np.abs(basis.numpy() @ vectors[:, ::-1]), np.eye(4), atol=1e-3)


def test_content_is_its_definition():
    supernet, z = case("stylegan2", 5)
    net = supernet.generator
    found = content_scores(supernet, z, probability=0.3, seed=2, region=lambda x: x[:, :1] * 0 + 1)
    random = torch.Generator().manual_seed(2)
    made = net(z)
    struck = torch.rand(5, 1, 16, 16, generator=random) < 0.3
    salt = torch.randint(0, 2, (5, 1, 16, 16), generator=random).float() * 2 - 1
    noisy = torch.where(struck, salt, made.detach())
    net.zero_grad()
    (noisy - made).abs().sum().backward()
    expected = net.convs[0].conv.weight.grad[0].abs().mean((0, 2, 3))
    np.testing.assert_allclose(found["conv1.conv"], expected.numpy(), rtol=1e-4)
    nothing = content_scores(supernet, z, region=lambda x: x[:, :1] * 0)
    assert all((values == 0).all() for values in nothing.values())


def test_activation_is_the_variance_over_inputs():
    supernet, z = case("stylegan2", 10)
    found = activation_scores(supernet, z, batch=5)
    seen = []
    with torch.no_grad():
        supernet.generator.convs[1].register_forward_hook(lambda _m, _i, out: seen.append(out))
        supernet.generator(z)
    np.testing.assert_allclose(found["convs.1.conv"], seen[0].var(0, unbiased=False).mean((1, 2)).numpy(), rtol=1e-4)
    assert (found["conv1.conv.modulation"] == 0).all(), "the constant input does not vary"


@pytest.mark.parametrize("name", CASES)
def test_taylor_is_equation_8(name):
    """The literal sum of weight times gradient over all weights that read a channel, squared, mean over pictures."""
    supernet, inputs = case(name, 3)
    net, graph = supernet.double().generator, supernet.graph
    inputs = inputs.double()
    with torch.no_grad():
        targets = torch.tanh(net(inputs) + torch.randn_like(net(inputs)))
    found = taylor_scores(supernet, inputs, targets=targets)
    expected = {width.name: np.zeros(width.size) for width in graph.widths}
    for row in range(3):
        net.zero_grad()
        (net(inputs[row : row + 1]) - targets[row : row + 1]).abs().mean().backward()
        for number, width in enumerate(graph.widths):
            sums = np.zeros(width.size)
            for tensor, dimension in graph.consumers[number]:
                weight, axis = net.get_parameter(tensor), graph.axes[tensor][dimension]
                products = (weight * weight.grad).movedim(dimension, 0).flatten(1).sum(1).tolist()
                for product, owner, unit in zip(products, axis.width, axis.unit, strict=True):
                    sums[unit] += product if owner == number else 0
            expected[width.name] += sums**2 / 3
    for width, values in expected.items():
        np.testing.assert_allclose(found[width], values, rtol=1e-9, atol=1e-20)
    assert any(values.any() for values in expected.values())


def test_taylor_without_targets_is_what_a_channel_changes():
    """Mean squared slope of every output value by the gate, here from one backward pass a value."""
    torch.manual_seed(3)
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 6)).double()
    supernet = gantailor.Supernet(net, (torch.randn(1, 4, dtype=torch.float64),))
    inputs = torch.randn(1, 4, dtype=torch.float64)
    found = taylor_scores(supernet, inputs.repeat(1000, 1))
    gates = torch.ones(5, dtype=torch.float64, requires_grad=True)
    made = net[2](torch.tanh(net[0](inputs)) * gates)[0]
    slopes = torch.stack([torch.autograd.grad(value, gates, retain_graph=True)[0] for value in made])
    np.testing.assert_allclose(found["0"], slopes.square().mean(0).numpy(), rtol=0.2)
    with pytest.raises(ConfigError, match="a loss compares"):
        taylor_scores(supernet, inputs, targets=torch.zeros(1, 3))


@pytest.mark.parametrize("criterion", [name for name in CRITERIA if name not in ("random", "none")])
@pytest.mark.parametrize("name", CASES)
def test_every_ranking(criterion, name):
    """A score for each unit, the same again, which moves with its channel; ordering leaves the function as it was."""
    supernet, inputs = case(name)
    full = supernet.full_config()
    scores = criterion_scores(supernet, criterion, inputs)
    assert {width: len(values) for width, values in scores.items()} == dict(full)
    assert all(np.isfinite(values).all() and (values >= 0).all() for values in scores.values())
    before = supernet(inputs)
    again = criterion_scores(supernet, criterion, inputs)
    assert all(np.array_equal(scores[width], again[width]) for width in scores)
    assert all(parameter.grad is None for parameter in supernet.parameters())
    order_channels(supernet, scores)
    torch.testing.assert_close(supernet(inputs), before, atol=1e-4, rtol=1e-4)
    moved = criterion_scores(supernet, criterion, inputs)
    for width, values in scores.items():
        np.testing.assert_allclose(moved[width], np.sort(values)[::-1], rtol=2e-3, atol=1e-6 * max(values.max(), 1))


def test_mistakes():
    supernet, inputs = case("resnet")
    with pytest.raises(ConfigError, match="ranking 'divercity' is unknown; did you mean 'diversity'"):
        rank_channels(supernet, criterion="divercity")
    with pytest.raises(ConfigError, match="looks at pictures; give inputs, about 1000"):
        rank_channels(supernet, criterion="diversity")
    with pytest.raises(ConfigError, match="a ranking over 3 inputs is not possible; give at least 5"):
        rank_channels(supernet, criterion="diversity", inputs=inputs[:3])
    with pytest.raises(ConfigError, match="measure 'spread' is unknown"):
        diversity_scores(supernet, inputs, measure="spread")


def test_latents_are_drawn_where_none_are_given():
    supernet, _ = case("plain")
    scores = criterion_scores(supernet, "activation")
    assert (next(iter(scores.values())) > 0).any()


def test_masks_are_dcp_gans():
    """Keeping some channels of an activation cuts the producer and its bias, the consumers and their affines."""
    supernet, _ = case("stylegan2")
    graph = supernet.graph
    cut = {
        width.name: {(name, d) for name, axes in graph.axes.items() for d, axis in axes.items() if i in axis.counts}
        for i, width in enumerate(graph.widths)
    }
    layers = ["conv1", "convs.0", "convs.1", "convs.2", "convs.3"]
    rgbs = {"conv1": "to_rgb1", "convs.1": "to_rgbs.0", "convs.3": "to_rgbs.1"}

    def reads(layer):
        conv = f"{layer}.conv"
        return {(f"{conv}.weight", 2), (f"{conv}.modulation.weight", 0), (f"{conv}.modulation.bias", 0)}

    expected = [{("input.input", 1)} | reads("conv1")]
    for layer, following in zip(layers, [*layers[1:], None], strict=True):
        mine = {(f"{layer}.conv.weight", 1), (f"{layer}.activate.bias", 0)}
        mine |= reads(following) if following else set()
        expected.append(mine | (reads(rgbs[layer]) if layer in rgbs else set()))
    assert list(cut.values()) == expected


@pytest.mark.long
def test_uniform_space_is_the_published_pruning():
    """FFHQ at 256 px, 70% of every width pruned: kept widths and MACs of the paper."""
    net = gantailor.build("stylegan2", size=256)
    supernet = gantailor.Supernet(net, (torch.randn(1, 512),))
    assert supernet.macs(supernet.full_config(), convention="published") == GOLDEN_MACS
    pruned = space(SpaceConfig(name="uniform", fractions=(0.3,)), supernet)
    config = pruned.to_config(pruned.largest)
    full = supernet.full_config()
    assert {full[name]: size for name, size in config.items()}.items() <= GOLDEN_WIDTHS.items()
    assert supernet.macs(config, convention="published") == GOLDEN_PRUNED


def test_uniform_space():
    supernet, _ = case("resnet")
    every = space("uniform", supernet)
    assert len(every) == max(supernet.full_config().values())
    assert dict(every.to_config(every.largest)) == dict(supernet.full_config())
    assert set(every.to_config(every.smallest).values()) == {1}
    rounded = space(SpaceConfig(name="uniform", multiple=4), supernet)
    assert all(size % 4 == 0 for i in range(len(rounded)) for size in rounded.to_config([i]).values())
    with pytest.raises(ConfigError, match="takes no ties"):
        space(SpaceConfig(name="uniform", ties=(("*",),)), supernet)
