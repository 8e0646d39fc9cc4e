"""The path: measured importance, the frontier, and look-ups, against literal references."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import gantailor
from gantailor.search.budget import Budget
from gantailor.search.limits import parse_budget
from gantailor.search.methods.supernet.frontier import Frontier, PathOptions
from gantailor.search.methods.supernet.path import Fading, PathTask, along_path, best_order, path_training
from gantailor.search.spaces.config import SpaceConfig
from gantailor.search.spaces.path import WidthPath, neighbourhood, points
from gantailor.search.spaces.space import space
from gantailor.supernet.errors import CheckpointError
from gantailor.supernet.gates import GatePlaces
from gantailor.supernet.importance.ranking import l1_scores
from gantailor.supernet.subnets.copying import copied
from gantailor.supernet.training.image_to_image import ImageToImage
from gantailor.supernet.training.recipe import Recipe
from gantailor.supernet.training.trainer import Trainer
from gantailor.zoo.data.pairs import Pairs
from gantailor.zoo.discriminators.build import make_discriminator


class Mixed(nn.Module):
    """A trunk, a depthwise layer, a concatenation and a linear layer; no norm, or one that some channels come from."""

    def __init__(self, gain=1.0, *, normed=False):
        super().__init__()
        self.norm = nn.InstanceNorm2d(12) if normed else nn.Identity()
        self.stem, self.deep = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 12, 3, padding=1)
        self.depthwise, self.back = nn.Conv2d(12, 12, 3, padding=1, groups=12), nn.Conv2d(12, 8, 1)
        self.scale = nn.Linear(8, 8)
        self.last = nn.Conv2d(16, 3, 3, padding=1)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.mul_(gain)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        y = x + self.back(torch.relu(self.depthwise(torch.relu(self.norm(self.deep(x))))))
        y = y * torch.sigmoid(self.scale(y.mean((2, 3))))[:, :, None, None]
        return torch.tanh(self.last(torch.cat([x, y], 1)))


def supernet(name="resnet_6blocks"):
    torch.manual_seed(0)
    net = Mixed() if name == "mixed" else gantailor.build(name, ngf=4)
    return gantailor.Supernet(net.eval(), (torch.randn(1, 3, 16, 16),))


def budget(net, text):
    full = net.full_config()
    limits = parse_budget(text, full={"macs": net.macs(full), "params": net.parameter_count(full)})
    return Budget(space("every", net), limits)


class Context:
    """What a training along a path asks a run for."""

    def __init__(self, net, recipe, text="0.3x", target=None):
        self.net, self.space, self.budget = net, space("every", net), budget(net, text)
        self.config = SimpleNamespace(train=recipe, budget=text)
        self.whole = copied(net).generator

    def supernet(self):
        return self.net

    def data(self, split):
        return SimpleNamespace(paired=True)

    def scores(self):
        return {name: -np.sort(-values) for name, values in l1_scores(self.net).items()}

    def calibrated(self, narrow):
        return narrow.eval()

    def training(self, model, recipe, *, sample):
        pictures = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)
        pairs = Pairs(pictures, pictures[::-1].copy(), ("x",) * 8, "noise")
        judge = make_discriminator(recipe, input_nc=3, output_nc=3) if recipe.gan != "none" else None
        return ImageToImage(model, pairs, recipe, discriminator=judge, teacher=self.whole, sample=sample)


def training(name="resnet_6blocks", *, steps=20, text="0.3x", more=None, **options):
    recipe = Recipe(
        kimg=steps * 0.002, batch=2, ndf=4, discriminator_layers=1, output_weight=10, ema_kimg=0, decay_from=1.0,
        precision="float32", method_options=options, **(more or {}),
    )  # fmt: skip
    context = Context(supernet(name), recipe, text)
    return path_training(context), context, recipe


@pytest.mark.parametrize("name", ["resnet_6blocks", "mixed"])
def test_slopes_are_the_gradients_of_gates(name):
    net, inputs = supernet(name), torch.randn(2, 3, 16, 16)
    net.double()
    places, inputs = GatePlaces(net.graph), inputs.double()
    gates = torch.ones(int(places.starts[-1]), dtype=torch.float64, requires_grad=True)
    net.call_with(places.apply(net.tensors, gates), (inputs,)).square().sum().backward()
    expected = gates.grad
    net.zero_grad()
    net(inputs).square().sum().backward()
    tensors = net.tensors
    slopes = places.slopes(tensors, {n: t.grad for n, t in tensors.items() if t.grad is not None})
    torch.testing.assert_close(slopes, expected, rtol=1e-9, atol=1e-9)
    assert float(expected.abs().min()) >= 0 < float(expected.abs().max())


def walked(path, usage, multiple):
    """The widest net, one channel at a time: literal and slow."""
    sizes, full = path.sizes, path.sizes[0]

    def down(row):
        return np.array([f if s == f else max(s // multiple * multiple, min(multiple, f)) for s, f in zip(row, full)])

    number = 0
    while usage(down(sizes[number])[None])[0] > 1 and number < len(path.closed):
        number += 1
    now, shut = down(sizes[number]), set()
    for width in path.closed[:number][::-1].tolist():
        more = now.copy()
        more[width] = min(full[width], more[width] + multiple)
        if width in shut or more[width] == now[width]:
            continue
        if usage(more[None])[0] <= 1:
            now = more
        else:
            shut.add(width)
    return now


@pytest.mark.parametrize(
    ("text", "multiple"),
    [
        ("0.12x", 1),
        ("params<=0.3x", 1),
        ("0.5x", 2),
        ("macs<=0.4x, params<=0.35x", 2),
        ("0.7x", 4),
        ("params<=0.8x", 4),
    ],
)
def test_a_budget_is_a_look_up(text, multiple):
    net = supernet()
    full, usage = np.array(list(net.full_config().values())), budget(net, text).usage
    units = np.repeat(np.arange(len(full)), full - 1)
    path = WidthPath(net.full_config(), np.random.default_rng(3).permutation(units), np.full(len(units), -1))
    found = path.net(usage, multiple=multiple)
    assert (found == walked(path, usage, multiple)).all()
    assert usage(found[None])[0] <= 1 < usage(full[None])[0]
    assert all(size == f or size % multiple == 0 for size, f in zip(found, full))
    again = WidthPath.from_json(json.loads(json.dumps(path.to_json())), net.graph)
    assert (again.sizes == path.sizes).all() and (again.sizes[-1] == 1).all()


def test_a_path_of_another_generator_is_refused():
    net = supernet()
    stored = WidthPath(net.full_config(), np.array([0, 1]), np.array([3, -1])).to_json()
    for wrong in (
        {**stored, "full": {**stored["full"], "model.1": 9}},
        {**stored, "closed": [99, 0]},
        {**stored, "times": [1]},
        {**stored, "closed": [0] * 40, "times": [0] * 40},
        {"closed": []},
        "path",
        None,
    ):
        with pytest.raises(CheckpointError, match="train it anew"):
            WidthPath.from_json(wrong, net.graph)


def frontier_of(net, text="0.2x", steps=40, **options):
    limits, places = budget(net, text), GatePlaces(net.graph)
    full = np.array([list(net.full_config().values())])
    units, whole = int(places.starts[-1]), float(limits.usage(full)[0])
    return Frontier(
        places,
        lambda sizes: limits.usage(sizes) / whole,
        target=1 / whole,
        first=np.random.default_rng(1).random(units),
        free=np.ones(units, bool),
        least=np.ones(full.shape[1], int),
        steps=steps,
        options=PathOptions(**{"order": "measured", **options}),
    )


def test_importance_is_a_running_mean_over_the_steps_that_hold_a_unit():
    net, rng = supernet(), np.random.default_rng(0)
    frontier = frontier_of(net, memory=0.9, over_cost=0.0)
    units = len(frontier.first)
    means, weights = [0.0] * units, [0.0] * units
    for number in range(12):
        slopes, inside = rng.normal(size=units), rng.random(units) < 0.6
        frontier.see(torch.from_numpy(slopes), inside, 3.0)
        for unit in range(units):
            if inside[unit]:
                means[unit] = 0.9 * means[unit] + 0.1 * slopes[unit] ** 2
                weights[unit] = 0.9 * weights[unit] + 0.1
        if number < 4:
            assert (frontier.importance == frontier.first).all(), "not yet"
    np.testing.assert_allclose(frontier.importance, [m / max(w, 1e-12) for m, w in zip(means, weights)], rtol=1e-9)


def test_movement_is_the_sum_of_slopes_downwards():
    """From the first importance, by slopes as shares of the losses."""
    net, rng = supernet(), np.random.default_rng(0)
    frontier = frontier_of(net, order="movement")
    expected = frontier.first.copy()
    np.testing.assert_array_equal(frontier.importance, expected)
    for scale in (1e-3, 1, 50):
        slopes, inside = rng.normal(size=len(expected)), rng.random(len(expected)) < 0.6
        frontier.see(torch.from_numpy(scale * slopes), inside, scale * 20)
        expected[inside] -= 2.5 * slopes[inside] / 20
        np.testing.assert_allclose(frontier.importance, expected, rtol=1e-9)
    frozen = frontier_of(net, order="movement", movement=0.0)
    frozen.see(torch.from_numpy(slopes), np.ones(len(expected), bool), 1.0)
    np.testing.assert_array_equal(frozen.importance, frozen.first)
    still = frontier_of(net, order="movement")
    still.see(torch.zeros(len(expected)), np.ones(len(expected), bool), 0.0)  # where the whole net is its own teacher
    np.testing.assert_array_equal(still.importance, still.first)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("resnet_6blocks", "movement"), ("unet_128", "movement"), ("cartoongan", "movement"), ("stylegan2", "measured")],
)
def test_the_order_is_by_movement_where_there_are_norms(name, expected):
    net = gantailor.build(name)
    assert best_order(net, 0.1, aimed=True) == expected
    assert best_order(net, 0.2, aimed=True) == best_order(net, 0.1, aimed=False) == "measured"
    assert best_order(Mixed(), 0.1, aimed=True) == "measured"
    assert best_order(nn.Sequential(nn.Conv2d(3, 3, 1), nn.GroupNorm(3, 3)), 0.1, aimed=True) == "movement"
    spectral = nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 3, 1))
    assert best_order(nn.Sequential(spectral), 0.1, aimed=True) == "measured"


@pytest.mark.parametrize(("more", "expected"), [({}, "movement"), ({"target_weight": 0.0}, "measured")])
def test_auto_asks_for_targets(more, expected):
    assert training(text="0.1x", more=more)[0].frontier.options.order == expected


def test_importance_over_cost():
    """A unit's cost is what the whole net loses without it."""
    net = supernet()
    plain, divided = frontier_of(net, over_cost=0.0), frontier_of(net, over_cost=2.0)
    full = net.full_config()
    for number, name in enumerate(full):
        lost = 1 - net.macs({**full, name: full[name] - 1}) / net.macs(full)
        mine = divided.costs[divided.places.owner == number]
        np.testing.assert_allclose(mine, lost**2, rtol=1e-6)
    assert (plain.costs == 1).all()


def test_the_frontier_only_narrows_and_later_closed_stays_longer():
    net = supernet()
    frontier, rng = frontier_of(net, steps=40, reach=0.5), np.random.default_rng(0)
    opened = frontier.open.numpy().copy()
    for step in range(40):
        frontier.see(torch.from_numpy(rng.random(len(opened))), np.ones(len(opened), bool), 1.0)
        frontier.narrow(step)
        now = frontier.open.numpy().copy()
        assert not (now & ~opened).any(), "closed for good"
        cost = frontier.usage(frontier.places.sizes(now)[None])[0]
        assert cost <= frontier.planned(step) * (1 + 1e-9) and cost > 0.8 * frontier.planned(step)
        opened = now
    order, times = frontier.path()
    closed = times[order] != -1
    assert not closed[~closed.cumprod().astype(bool)].any() and (np.diff(times[order][closed]) >= 0).all()
    assert times.max() <= 20 and not opened[order[closed]].any() and opened[order[~closed]].all()
    assert len(order) + len(net.graph.widths) == len(opened), "one of every width always stays"


def test_steps_run_the_frontier_or_something_wider():
    net = supernet()
    frontier, rng = frontier_of(net, steps=10, narrowest=0.5), np.random.default_rng(0)
    for step in range(10):
        frontier.narrow(step)
    drawn = [frontier.draw(rng, 10) for _ in range(300)]
    shares = np.array([frontier.usage(frontier.places.sizes(mask)[None])[0] for mask in drawn])
    narrowest = np.array([(mask == frontier.open.numpy()).all() for mask in drawn])
    assert 0.4 < narrowest.mean() < 0.6
    wider = np.log(shares[~narrowest]) / np.log(frontier.target)  # uniform in [0, 1]
    assert wider.min() < 0.1 and wider.max() > 0.9 and abs(np.mean(wider) - 0.5) < 0.1
    assert all((mask | ~frontier.open.numpy()).all() for mask in drawn), "all of them hold the frontier"
    assert frontier_of(net, narrowest=1.0).draw(rng, 0).all()


def test_what_closes_soon_counts_less():
    """The next to go least; at first only what goes in the next step, later what goes within ``fade``."""
    net = supernet()
    frontier, rng = (
        frontier_of(net, steps=40, fade=0.25, order="movement"),
        np.random.default_rng(0),
    )  # 20 steps of narrowing, 5 of fading
    for step in range(25):
        found, opened = frontier.factors(step), frontier.open.numpy()
        if step in (0, *range(20, 25)):
            assert found is None
        else:
            later = frontier.kept(frontier.planned(step - 1 + min(step, 5)))
            going = [unit for unit in frontier.order() if opened[unit] and not later[unit]]
            expected = np.ones(len(opened))
            for place, unit in enumerate(going, start=1):
                expected[unit] = place / (len(going) + 1)
            assert going
            np.testing.assert_array_equal(found, expected)
        frontier.see(torch.from_numpy(rng.random(len(opened))), np.ones(len(opened), bool), 1.0)
        frontier.narrow(step)
    assert frontier_of(net, order="movement", fade=0.0).factors(3) is None
    for order in ("measured", "gates", "ranking", "random"):
        assert frontier_of(net, order=order).factors(3) is None


@pytest.mark.parametrize("name", ["resnet_6blocks", "mixed"])
def test_what_fades_is_scaled_where_it_is_read(name):
    net, inputs = supernet(name), torch.randn(2, 3, 16, 16, dtype=torch.float64)
    net.double()
    places, rng = GatePlaces(net.graph), np.random.default_rng(0)
    kept = rng.random(int(places.starts[-1])) < 0.8
    kept[places.starts[:-1]] = True
    factors, model = torch.from_numpy(rng.random(len(kept))), Fading(net, places)
    model.net = selection, _ = places.selection(kept), factors
    scaled = copied(net)
    for weight, value in places.apply(net.tensors, factors).items():
        scaled.tensors[weight].data.copy_(value)
    with torch.no_grad():
        torch.testing.assert_close(
            model(inputs, config=selection), scaled.extract(selection)(inputs), rtol=1e-9, atol=1e-12
        )
        other = places.selection(kept)  # of the same units, but another net
        torch.testing.assert_close(model(inputs, config=other), net.extract(other)(inputs), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("order", ["movement", "measured", "gates"])
@pytest.mark.parametrize("name", ["resnet_6blocks", "mixed"])
def test_what_is_left_is_the_trained_net_reordered(name, order):
    task, context, recipe = training(name, steps=12, order=order)
    model = Trainer(task, recipe).run()
    frontier, inputs = task.frontier, torch.randn(2, 3, 16, 16)
    kept = frontier.places.selection(frontier.kept(frontier.target))
    with torch.no_grad():
        whole, narrow = model(inputs), model.eval()(inputs, config=kept)
    left = along_path(context, task, model)
    ordered = context.net.with_weights(left.weights)
    sizes = {name: len(units) for name, units in kept.items()}
    with torch.no_grad():
        torch.testing.assert_close(ordered.generator.eval()(inputs), whole, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(ordered.extract(sizes).eval()(inputs), narrow, atol=1e-5, rtol=1e-4)
    assert list(sizes.values()) in left.path.sizes.tolist()
    for width, lie in left.orders.items():
        assert set(lie[: sizes[width]]) == set(kept[width])
    (note,) = left.notes
    assert "of the kept channels" in note


@pytest.mark.long
@pytest.mark.parametrize("order", ["movement", "measured", "gates"])
@pytest.mark.parametrize("more", [{}, {"accumulate": 2}, {"subnets": 2, "in_place_weight": 1.0}])
def test_resuming_is_exact(more, order, tmp_path):
    task, context, recipe = training("mixed", more=more, order=order)
    model = Trainer(task, recipe).run()
    whole, path = model.state_dict(), along_path(context, task, model).path
    file = tmp_path / "state.safetensors"
    for stop in (9, None):
        task, context, recipe = training("mixed", more=more, order=order)
        resumed = Trainer(task, recipe).run(file, stop_after=stop)
    again = along_path(context, task, resumed).path
    assert all(torch.equal(whole[name], value) for name, value in resumed.state_dict().items())
    assert (again.closed == path.closed).all() and (again.times == path.times).all()


def test_what_is_measured_is_the_gradient_before_the_update():
    task, context, recipe = training("mixed", more={"gan": "none", "lr": 0.1})
    before = {name: tensor.detach().clone() for name, tensor in context.net.tensors.items()}
    Trainer(task, recipe).train_step()
    gradients = {n: t.grad for n, t in context.net.tensors.items() if t.grad is not None}
    expected = task.frontier.places.slopes(before, gradients).square()
    torch.testing.assert_close(task.frontier.mean / task.frontier.weight, expected)
    assert any(not torch.equal(before[name], context.net.tensors[name]) for name in before)


@pytest.mark.parametrize("narrowest", [1.0, 0.0])
def test_a_channel_that_fades_is_measured_in_full(narrowest):
    task, context, recipe = training("mixed", more={"gan": "none"}, narrowest=narrowest, order="movement")
    trainer, frontier = Trainer(task, recipe), task.frontier
    for _ in range(6):
        trainer.train_step()
    opened, factors = frontier.open.numpy().copy(), frontier.factors(6)
    before = {name: tensor.detach().clone() for name, tensor in context.net.tensors.items()}
    assert factors[opened].min() < 1
    moved = frontier.moved.clone()
    losses = sum(float(value) for name, value in trainer.train_step().items() if not name.startswith("cost"))
    gradients = {n: t.grad for n, t in context.net.tensors.items() if t.grad is not None}
    slopes = frontier.places.slopes(before, gradients) / torch.from_numpy(
        factors if narrowest else np.ones(len(factors))
    )
    torch.testing.assert_close((moved - frontier.moved)[opened], slopes[opened] / losses, rtol=1e-5, atol=1e-12)


def test_each_order_is_another_and_random_is_drawn():
    found = {}
    for order in ("movement", "measured", "gates", "ranking", "random"):
        task, context, recipe = training("mixed", order=order, steps=16)
        model = Trainer(task, recipe).run()
        found[order] = along_path(context, task, model).path.closed.tolist()
    assert len({tuple(closed) for closed in found.values()}) == 5


def test_gates_shrink_and_the_smallest_close():
    task, _, recipe = training("mixed", order="gates", more={"lr": 1e-6})
    trainer, gates, frontier = Trainer(task, recipe), task.generator.gates, task.frontier
    first = gates.values.detach().clone()
    for _ in range(6):
        before, opened = gates.values.detach().clone(), frontier.open.clone()
        trainer.train_step()
        velocity = task.optimizers["gates"].state[gates.values]["momentum_buffer"]
        moved = before - 0.1 * velocity
        amount = 0.1 * 0.5 * float(first.mean()) / (0.1 * 10)
        expected = torch.where(opened, (moved.abs() - amount).clamp(min=1e-4) * moved.sign(), moved)
        torch.testing.assert_close(gates.values.detach(), expected, rtol=1e-4, atol=1e-6)
        gone = opened & ~frontier.open
        for start, end in zip(frontier.places.starts, frontier.places.starts[1:]):
            mine, left = gone[start:end], frontier.open[start:end]
            if mine.any():
                size = gates.values[start:end].detach().abs()
                assert size[mine].max() <= size[left].min()
    assert not task._losses, "nothing is kept that nothing takes out again"


@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize("order", ["auto", "movement"])
@pytest.mark.parametrize("gain", [1.0, 0.5, 0.1])
def test_a_net_with_few_norms_or_none_does_not_die(gain, order, normed):
    """Nothing shrinks: the narrow output varies as the whole one does, where a penalty on gates multiplies up."""
    torch.manual_seed(0)
    net = gantailor.Supernet(Mixed(gain, normed=normed).eval(), (torch.randn(1, 3, 16, 16),))
    recipe = Recipe(
        kimg=0.16, batch=4, gan="none", target_weight=0, output_weight=50, ema_kimg=0, precision="float32", lr=1e-3,
        method_options={"order": order},
    )  # fmt: skip
    context = Context(net, recipe)
    task = path_training(context)
    model = Trainer(task, recipe).run()
    narrow = getattr(model, "supernet", model).extract(task.frontier.places.selection(task.frontier.kept(0.3))).eval()
    pictures = torch.rand(8, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        assert float(narrow(pictures).var()) > 0.3 * float(context.whole(pictures).var())


def test_spaces_around_and_along():
    net = supernet()
    usage, full = budget(net, "0.25x").usage, np.array(list(net.full_config().values()))
    units = np.repeat(np.arange(len(full)), full - 1)
    path = WidthPath(net.full_config(), np.random.default_rng(1).permutation(units), np.full(len(units), -1))
    near = neighbourhood(path, net, SpaceConfig(name="path"), usage)
    (start,) = near.starts
    assert (near.sizes(start)[0] == path.net(usage)).all()
    for variable, size in zip(near.variables, path.net(usage)):
        assert min(variable.choices) >= 1 and max(variable.choices) <= full[net.graph.index[variable.name]]
        assert min(variable.choices) <= size <= max(variable.choices)
    along = points(path, net, SpaceConfig(name="path"))
    rows = along.sizes(np.arange(along.count)[:, None])
    assert all(row in path.sizes.tolist() for row in rows.tolist())
    assert (np.diff(along.macs(np.arange(along.count)[:, None])) > 0).all() and (rows[-1] == full).all()
    fours = neighbourhood(path, net, SpaceConfig(name="path", multiple=2), usage)
    assert all(c % 2 == 0 for variable in fours.variables for c in variable.choices)


def test_the_task_is_a_task():
    task, context, _ = training("mixed")
    assert isinstance(task, PathTask) and task.generator is context.net and "frontier" in task.parts()
