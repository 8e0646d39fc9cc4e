"""Pruning agents: who learns, what they pay, whom they compare, and where they end."""

import dataclasses
import pickle
import re

import numpy as np
import pytest
import scipy.stats
import torch

import gantailor
from gantailor.search.budget import Budget
from gantailor.search.limits import parse_budget
from gantailor.search.methods.agents.batches import Manifold
from gantailor.search.methods.agents.neighbourhoods import centred, nearest, neighbourhoods, other_pictures
from gantailor.search.methods.agents.task import Agents, penalty, share_of
from gantailor.search.methods.control import learned
from gantailor.search.methods.gated import Agent, Gated, gumbel_noise, straight_through
from gantailor.search.spaces.space import space
from gantailor.supernet.errors import BudgetError, ConfigError
from gantailor.supernet.training.batches import Batch, Move
from gantailor.supernet.training.recipe import Recipe
from gantailor.supernet.training.trainer import Trainer
from gantailor.zoo.data.pairs import Pairs
from gantailor.zoo.discriminators.build import make_discriminator

CASES = {"resnet_6blocks": 32, "unet_128": 128, "mobile_resnet_6blocks": 32}


def supernet(name="resnet_6blocks"):
    torch.manual_seed(0)
    size = CASES[name]
    return gantailor.Supernet(gantailor.build(name, ngf=8), (torch.randn(1, 3, size, size),)).eval()


def agents(
    *,
    steps=24,
    warmup=4,
    near=True,
    trained=False,
    text="0.3x",
    batch=2,
    kind="patch",
    conditional=True,
    real=None,
    **options,
):
    net = supernet()
    rng = np.random.default_rng(0)
    colours, grain = rng.integers(0, 256, (8, 1, 1, 3)), rng.integers(10, 120, (8, 1, 1, 1))
    pictures = (
        (colours + grain * rng.standard_normal((8, 32, 32, 3))).clip(0, 255).astype(np.uint8)
    )  # unlike each other
    pairs = Pairs(pictures, pictures[::-1].copy(), ("x",) * 8, "noise")
    options = {"discriminator_kimg": warmup * batch / 1000, **options}
    common = {"ndf": 8, "discriminator_layers": 2, "ema_kimg": 0, "precision": "float32"}
    common |= {"discriminator": kind, "conditional": conditional}
    recipe = Recipe(kimg=steps * batch / 1000, batch=batch, method_options=options, **common)
    judge = gantailor.Supernet(
        make_discriminator(recipe, input_nc=3, output_nc=3), (torch.randn(1, 6 if conditional else 3, 32, 32),)
    )
    counts = [sum(w.size for w in side.graph.widths) for side in (net, judge)]
    sides = Gated(net, peer=counts[1]), Gated(judge, peer=counts[0], seed=1)
    full = {"macs": net.macs(net.full_config()), "params": net.parameter_count(net.full_config())}
    usage = Budget(space("every", net), parse_budget(text, full=full)).usage
    allowed = 0.3 * judge.macs(judge.full_config())
    features = np.random.default_rng(1).normal(size=(8, 5))
    found = None
    if near is not False:
        rows = neighbourhoods(features, 3) if near is True else near
        found = Manifold(rows, None if conditional else centred(features), **(real or {}))
    task = Agents(
        *sides,
        pairs,
        recipe,
        teacher=supernet().generator,
        near=found,
        usage=(usage, lambda sizes: judge.macs_many(sizes) / allowed),
        trained=trained,
    )
    return task, recipe


def test_neighbourhoods_equal_brute_force():
    features = np.random.default_rng(0).normal(size=(40, 7))
    features[13] = 2 * features[4]  # the same direction: distance 0
    found = neighbourhoods(features, 5)
    for row, indices in enumerate(found):
        cosine = [
            float(features[row] @ other) / float(np.linalg.norm(features[row]) * np.linalg.norm(other))
            for other in features
        ]
        order = sorted((i for i in range(40) if i != row), key=lambda i: -cosine[i])
        assert indices[0] == row and set(indices[1:]) == set(order[:5])


def test_nearest_of_other_pictures_equal_brute_force():
    rng = np.random.default_rng(0)
    centres, pictures = rng.normal(size=(9, 5)), rng.normal(size=(12, 5))
    cosines = (centres @ pictures.T) / np.outer(np.linalg.norm(centres, axis=1), np.linalg.norm(pictures, axis=1))
    for row, found in enumerate(nearest(centres, pictures, 3)):
        assert found.tolist() == sorted(range(12), key=lambda i: -cosines[row, i])[:3]
    assert nearest(centres, pictures, 20).shape == (9, 12)


def test_shuffled_every_centre_has_the_neighbourhood_of_another():
    near, shuffled = agents()[0].batches.manifold.near, agents(shuffle=1)[0].batches.manifold.near
    whose = [[other for other in range(8) if np.array_equal(row, near[other])] for row in shuffled]
    assert sorted(row for rows in whose for row in rows) == list(range(8)) and all(
        [row] != found for row, found in enumerate(whose)
    )
    assert np.array_equal(shuffled, agents(shuffle=1)[0].batches.manifold.near), "the same by the seed"
    assert sorted(other_pictures(100, 1)) == list(range(100)) and not (other_pictures(100, 1) == np.arange(100)).any()
    assert not np.array_equal(other_pictures(100, 1), other_pictures(100, 2))


@pytest.mark.parametrize("near", [True, False])
def test_real_pictures_are_those_of_the_other_domain(near):
    """Without targets of their own: every real picture is one of B, near to its centre; and only real ones are."""
    rng = np.random.default_rng(2)
    b = rng.integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    rows = rng.integers(0, 5, (8, 2))
    real = {"real": b, "real_near": rows if near else None}
    task, _ = agents(conditional=False, batch=4, near=near or np.arange(8)[:, None], real=real)
    seen, judged = [], task._judged
    task._judged = lambda gates, batch, pictures: seen.append(pictures) or judged(gates, batch, pictures)
    found = set()
    for step in range(20):
        batch = task.batches(step)
        task.backward(0, batch, 1.0)
        assert torch.equal(seen[-2], batch.real) and len(seen) == 2 * (step + 1)
        for picture, (centre, _) in zip(seen[-2], batch.centres.keys, strict=True):
            pixels = picture.add(1).mul(127.5).round().permute(1, 2, 0).numpy()
            same = [i for i in range(5) if np.array_equal(pixels, b[i]) or np.array_equal(pixels, b[i][:, ::-1])]
            assert len(same) == 1 and (not near or same[0] in rows[centre])
            found |= {*same}
        parts = [task.batches(step, part, 4) for part in range(4)]
        assert torch.equal(torch.cat([part.real for part in parts]), batch.real)
    assert found == set(rows.flatten().tolist()) if near else found == set(range(5))
    pickle.loads(pickle.dumps(task.batches))


def test_a_trained_discriminator_learns_its_centres_only():
    task, recipe = agents(conditional=False, trained=True)
    before = {name: value.clone() for name, value in task.judge.generator.state_dict().items()}
    first = [p.clone() for p in task.projection.parameters()]
    again = [*agents(conditional=False)[0].projection.parameters()]
    assert all(torch.equal(a, b) and float(a.std()) > 0.1 for a, b in zip(first, again, strict=True)), "by the seed"
    Trainer(task, recipe).run(stop_after=4)
    assert all(torch.equal(value, before[name]) for name, value in task.judge.generator.state_dict().items())
    learned_now = [p.clone() for p in task.projection.parameters()]
    assert all(not torch.equal(a, b) for a, b in zip(first, learned_now, strict=True))
    task.backward(4, task.batches(4), 1.0)
    assert all(torch.equal(a, b) for a, b in zip(learned_now, task.projection.parameters(), strict=True))
    assert agents(trained=True)[0].warmup == 0, "one with a condition knows its centres"


@pytest.mark.parametrize("count", [0, 8, 9])
def test_too_many_neighbours(count):
    with pytest.raises(ConfigError, match="allowed are 1 to 7"):
        neighbourhoods(np.eye(8), count)


def test_what_was_learned_is_told_beside_chance():
    """The overlap against a literal count, chance against the mean over random sets of the same sizes."""
    rng = np.random.default_rng(0)
    now, start, free = rng.random(60) < 0.4, rng.random(60) < 0.6, rng.random(60) < 0.8
    mine, theirs = ({i for i in range(60) if part[i] and free[i]} for part in (now, start))
    places = [i for i in range(60) if free[i]]
    shared = [
        len(set(rng.choice(places, len(mine), replace=False)) & set(rng.choice(places, len(theirs), replace=False)))
        for _ in range(4000)
    ]
    overlap, chance = map(float, re.findall(r"([\d.]+)%", learned(now, start, free)))
    assert overlap == pytest.approx(100 * len(mine & theirs) / len(mine), abs=0.05)
    assert chance == pytest.approx(100 * np.mean(shared) / len(mine), abs=1)
    assert learned(now, now, free).startswith("100.0%")
    everything = np.ones(60, bool)
    assert learned(everything, everything, free) == "no channel was to be chosen"


@pytest.mark.parametrize("name", CASES)
def test_gates_equal_extraction(name):
    """Gates at 0 and 1 give what the extracted net gives, on every coupling."""
    net = supernet(name)
    gated = Gated(net)
    rng = np.random.default_rng(0)
    kept = rng.random(len(gated.decision)) < 0.6
    for part in np.split(np.arange(len(kept)), gated.gates.places.starts[1:-1]):
        kept[part[0]] = True
    inputs = torch.randn(2, 3, CASES[name], CASES[name])
    with torch.no_grad():
        masked = gated.gated(torch.from_numpy(kept).float(), inputs)
        narrow = net.extract(gated.gates.places.selection(kept)).eval()
        torch.testing.assert_close(masked, narrow(inputs), atol=1e-5, rtol=1e-4)


def test_the_discriminator_is_pruned_the_same_way():
    task, _ = agents()
    judge = task.judge
    kept = np.arange(len(judge.decision)) % 2 == 0
    seen = torch.randn(2, 6, 32, 32)
    with torch.no_grad():
        masked = judge.gated(torch.from_numpy(kept).float(), seen)
        narrow = judge.supernet.extract(judge.gates.places.selection(kept))
        torch.testing.assert_close(masked, narrow(seen), atol=1e-5, rtol=1e-4)
    axes = judge.supernet.graph.axes
    last = [name for name, module in judge.generator.named_modules() if getattr(module, "out_channels", 0) == 1]
    assert last and 0 not in axes[f"{last[0]}.weight"], "its output is no width"


def answers(task, batch):
    """The terms of one step, and the two agents' gradients."""
    task._told, task._slopes = None, []
    for side in (task.gated, task.judge):
        side.agent.zero_grad()
    losses = task.backward(task.warmup, batch, 1.0)
    grads = [torch.cat([p.grad.flatten() for p in side.agent.parameters()]) for side in (task.gated, task.judge)]
    return losses, grads


DISCRIMINATORS = [("patch", True), ("patch", False), ("munit", False)]


def exchanged(batch, *parts):
    """The same pictures, but each centre has the next one's neighbours."""

    def turned(part):
        return Batch(part.inputs.roll(1, 0), part.targets.roll(1, 0), (part.keys[-1], *part.keys[:-1]))

    return dataclasses.replace(batch, **{name: turned(getattr(batch, name)) for name in parts})


@pytest.mark.parametrize(("kind", "conditional"), DISCRIMINATORS)
@pytest.mark.parametrize("gan", ["hinge", "lsgan"])
def test_it_matters_who_is_whose_neighbour(kind, conditional, gan):
    task, recipe = agents(batch=4, kind=kind, conditional=conditional)
    task.recipe = recipe.model_copy(update={"gan": gan})
    if kind == "munit":  # without a norm its untrained logits would be near 0
        with torch.no_grad():
            [p.mul_(8) for p in task.judge.generator.parameters()]
    batch = task.batches(0)
    (losses, grads), (again, same) = answers(task, batch), answers(task, batch)
    assert losses == again and all(torch.equal(a, b) for a, b in zip(grads, same, strict=True)), "nothing else changes"
    losses_other, grads_other = answers(task, exchanged(batch, "others", "pruned"))
    for name in ("discriminator", "gan"):
        assert abs(float(losses_other[name] - losses[name])) > 1e-3 * abs(float(losses[name])), name
    for one, two in zip(grads, grads_other, strict=True):
        assert float((one - two).norm()) > 1e-3 * float(one.norm()) > 0
    only, (_, judge_grad) = answers(task, exchanged(batch, "others"))  # the real side alone
    assert only["discriminator"] != losses["discriminator"] and torch.equal(only["gan"], losses["gan"])
    assert float((judge_grad - grads[1]).norm()) > 1e-3 * float(grads[1].norm())


@pytest.mark.parametrize(("kind", "conditional"), DISCRIMINATORS)
def test_alone_in_a_neighbourhood_it_is_the_plain_objective(kind, conditional, monkeypatch):
    """With the centre as its only neighbour, written out: D(x, G0(x)) against D(x, Gv(x)) of the extracted nets."""
    monkeypatch.setattr("gantailor.search.methods.gated.BASE", 0.0)  # so that many are closed
    task, _ = agents(batch=4, kind=kind, conditional=conditional, near=np.arange(8)[:, None])
    batch = task.batches(0)
    losses, _ = answers(task, batch)
    chosen = [side.gates.places.selection(side.decision.numpy() > 0.5) for side in (task.gated, task.judge)]
    assert all(0.3 < float(side.decision.mean()) < 0.9 for side in (task.gated, task.judge))
    x, generator = batch.centres.inputs, task.gated.supernet.extract(chosen[0])
    judge = task.judge.supernet.extract(chosen[1])
    logits = [m for m in judge.modules() if isinstance(m, torch.nn.Conv2d) and m.out_channels == 1]

    def judged(y):
        seen = torch.cat([x, y], 1) if conditional else y
        maps = judge(seen)
        if conditional:
            return [maps]
        h, found, read = batch.told, [], []
        hooks = [m.register_forward_hook(lambda _m, inputs, _o: read.append(inputs[0])) for m in logits]
        judge(seen)
        [hook.remove() for hook in hooks]
        widths = list(chosen[1].values())
        last = [w for w in widths if len(w)][-1:] if kind == "patch" else widths[1::2]
        for layer, phi, v, units, out in zip(
            logits, read, task.projection.embeddings, last, maps if kind == "munit" else [maps], strict=True
        ):
            padding = layer.padding[0]
            term = torch.zeros_like(out)
            for n, _, i, j in np.ndindex(*out.shape):
                top, left = i * layer.stride[0] - padding, j * layer.stride[1] - padding
                window = phi[n, :, max(top, 0) : top + layer.kernel_size[0], max(left, 0) : left + layer.kernel_size[1]]
                term[n, 0, i, j] = (v[list(units)] @ h[n]) @ window.mean((1, 2))
            found.append(out + term)
        return found

    with torch.no_grad():
        whole, pruned = judged(supernet().generator(x)), judged(generator(x))
        literal = sum(
            0.5 * (torch.relu(1 - a).mean() + torch.relu(1 + b).mean()) for a, b in zip(whole, pruned, strict=True)
        ) / len(whole)
        gan = -sum(b.mean() for b in pruned) / len(pruned)
    assert float(losses["discriminator"]) == pytest.approx(float(literal), abs=1e-5)
    assert float(losses["gan"]) == pytest.approx(float(gan), abs=1e-5)


@pytest.mark.long
def test_gradients_reach_the_agents_and_only_them():
    task, recipe = agents(warmup=0)
    task.backward(0, task.batches(0), 1.0)
    for side in (task.gated, task.judge):
        learned = dict(side.agent.named_parameters())
        assert all(p.grad is not None and bool((p.grad != 0).any()) for p in learned.values()), learned.keys()
        others = [p for name, p in side.named_parameters() if not name.startswith("agent.")]
        assert others and all(p.grad is None for p in others)
    weights = {name: value.clone() for name, value in task.gated.generator.state_dict().items()}
    judged = {name: value.clone() for name, value in task.judge.generator.state_dict().items()}
    Trainer(task, recipe).run()
    assert all(torch.equal(value, weights[name]) for name, value in task.gated.generator.state_dict().items())
    assert all(torch.equal(value, judged[name]) for name, value in task.judge.generator.state_dict().items())


@pytest.mark.long
def test_the_discriminator_learns_first():
    task, recipe = agents(warmup=4)
    before = {name: value.clone() for name, value in task.judge.generator.state_dict().items()}
    agent = [p.clone() for p in task.gated.agent.parameters()]
    trainer = Trainer(task, recipe)
    trainer.run(stop_after=4)
    ready = {name: value.clone() for name, value in task.judge.generator.state_dict().items()}
    assert any(not torch.equal(value, before[name]) for name, value in ready.items())
    assert all(torch.equal(a, b) for a, b in zip(agent, task.gated.agent.parameters(), strict=True))
    trainer.run()
    assert all(torch.equal(value, ready[name]) for name, value in task.judge.generator.state_dict().items())
    assert any(not torch.equal(a, b) for a, b in zip(agent, task.gated.agent.parameters(), strict=True))


def test_penalty_is_its_formula():
    net = supernet()
    full = net.macs(net.full_config())

    def usage(rows):
        return net.macs_many(rows) / (0.25 * full)

    sizes = torch.tensor([float(w.size) for w in net.graph.widths], dtype=torch.float64)
    sizes = (0.7 * sizes).round().requires_grad_()
    share = share_of(usage, sizes, usage(np.array([[w.size for w in net.graph.widths]]))[0])
    rows = sizes.detach().numpy()[None].astype(int)
    assert share.item() == pytest.approx(int(net.macs_many(rows)[0]) / full)
    paid = penalty(share, 0.25)
    assert paid.item() == pytest.approx(np.log(share.item() / 0.25))
    (slopes,) = torch.autograd.grad(paid, sizes)
    literal = []
    for width in range(len(sizes)):  # of a polynomial of the second degree the central difference is the derivative
        step = np.eye(len(sizes), dtype=int)[width]
        literal.append((net.macs_many(rows + step)[0] - net.macs_many(rows - step)[0]) / 2 / net.macs_many(rows)[0])
    np.testing.assert_allclose(slopes, literal, rtol=1e-6)
    assert float(penalty(torch.tensor(0.2), 0.25)) == 0 and float(penalty(torch.tensor(1.0), 0.25)) > 0


def test_straight_through():
    decisions = torch.tensor([2.0, -1.0, 0.3], requires_grad=True)
    noise = torch.tensor([0.0, 0.5, -0.6])
    gates = straight_through(decisions, noise, 0.4)
    assert gates.tolist() == [1, 0, 0]
    gates.sum().backward()
    soft = 1 / (1 + np.exp(-(decisions.detach().numpy() + noise.numpy()) / 0.4))
    np.testing.assert_allclose(decisions.grad, soft * (1 - soft) / 0.4, rtol=1e-5)


def test_noise_is_one_gumbel_variable():
    """By its distribution function, exp(-exp(-x)); and at first nearly every channel is open."""
    drawn = gumbel_noise(100_000, torch.Generator().manual_seed(0)).double().numpy()
    assert scipy.stats.kstest(drawn, lambda x: np.exp(-np.exp(-x))).pvalue > 0.01
    decisions = Gated(supernet()).agent(None).detach().double().numpy()
    assert np.mean([np.mean(decisions + n > 0) for n in drawn[:500]]) > 0.995
    assert np.mean(1 - np.exp(-np.exp(decisions))) > 0.999 and 1 - np.exp(-np.exp(3.0)) > 1 - 2e-9


def test_agents_hear_each_other():
    agent = Agent([4, 6], 5, seed=0)
    quiet, told = agent(), agent(torch.ones(5))
    assert quiet.shape == (10,) and not torch.equal(quiet, told)
    assert torch.equal(agent(), Agent([4, 6], 5, seed=0)()), "the seed decides"
    task, _ = agents(warmup=0)
    assert bool((task.gated.feedback == 0).all())
    task.backward(0, task.batches(0), 1.0)
    task.after_step(0)
    for side in (task.gated, task.judge):
        assert float(side.feedback.std()) == pytest.approx(1, rel=1e-3)
    before = task.gated.agent(task.judge.told()).detach()
    task.judge.decision.zero_()
    assert not torch.equal(before, task.gated.agent(task.judge.told()))


@pytest.mark.long
@pytest.mark.parametrize(
    "switches", [{}, {"feedback": 0}, {"alone": 1}, {"neighbours": 0}, {"trained": True}, {"text": "params<=0.3x"}]
)
def test_the_search_ends_at_the_budget(switches):
    near = bool(switches.pop("neighbours", 1))
    task, recipe = agents(near=near, steps=32, **switches)
    Trainer(task, recipe).run()
    sizes = np.array([[len(task.selection()[w.name]) for w in task.gated.supernet.graph.widths]])
    assert 0.98 < task.controls[0].usage(sizes)[0] <= 1 and sizes.min() >= 4
    judge = task.judge.supernet
    kept = task.judge_selection()
    judged = np.array([[len(kept[w.name]) for w in judge.graph.widths]])
    share = judge.macs_many(judged)[0] / judge.macs(judge.full_config())
    assert share == 1 if switches.get("alone") else 0.25 < share <= 0.3
    lines = task.outcome().splitlines()
    assert len(lines) == (1 if switches.get("alone") else 2)
    assert float(task.controls[0].state.ended) < 0.5, "the penalty pulled, from nearly all open"


def test_a_penalty_too_weak_says_so():
    task, recipe = agents(strength=1e-9)
    Trainer(task, recipe).run()
    assert float(task.controls[0].state.ended) > 0.6, "nothing pulled"
    assert re.match(r"generator: stopped at 0\.[67].* of the cost, target 0.3", task.outcome())
    assert "train.kimg" in task.outcome()


def test_the_penalty_adapts():
    control = agents(strength=0.5)[0].controls[0]
    control.adapt(10_000)
    assert control.strength == pytest.approx(1.03 * 0.5), "behind its plan"
    with torch.no_grad():
        control.gates.values.zero_()
    control.adapt(0)
    assert control.strength == pytest.approx(1.03 * 0.97 * 0.5), "ahead of it"
    for _ in range(1000):
        control.adapt(0)
    assert control.strength == pytest.approx(0.5 / 1000), "it can come back"


def moved(data, recipe, indices, rng):
    moves = []
    for _ in indices:
        mirror = bool(rng.random() < 0.5) and recipe.mirror
        moves.append(Move(mirror, *rng.integers(-recipe.shift, recipe.shift + 1, 2).tolist()))
    return data.batch(indices, moves=moves)


@pytest.mark.parametrize("near", [True, False])
@pytest.mark.parametrize("conditional", [True, False])
def test_neighbours_are_drawn_for_their_centres(near, conditional):
    """Literally: two members of each neighbourhood, moved as the centre is; and parts of a batch are the whole."""
    task, recipe = agents(near=near, batch=4, conditional=conditional)
    data, manifold = task.data, task.batches.manifold
    for step in range(5):
        batch, rng = task.batches(step), np.random.default_rng((recipe.seed, 3, step))
        rows = np.array([key[0] for key in batch.centres.keys])
        places = rng.integers(0, 4, (2, 4))
        for side, place in zip(("others", "pruned"), places, strict=True):
            chosen = (
                rows if manifold is None else np.array([manifold.near[r, p] for r, p in zip(rows, place, strict=True)])
            )
            expected = moved(data, recipe, chosen, np.random.default_rng((recipe.seed, step)))[0]
            assert torch.equal(getattr(batch, side).inputs, expected)
            assert [key[0] for key in getattr(batch, side).keys] == chosen.tolist()
            assert [key[1] for key in getattr(batch, side).keys] == [key[1] for key in batch.centres.keys], "mirrored"
        parts = [task.batches(step, part, 2) for part in range(2)]
        for side in ("centres", "others", "pruned"):
            joined = torch.cat([getattr(part, side).inputs for part in parts])
            assert torch.equal(joined, getattr(batch, side).inputs)
        if near and not conditional:
            assert torch.equal(batch.told, torch.from_numpy(manifold.centres[rows]))
            assert torch.equal(torch.cat([part.told for part in parts]), batch.told)


def test_global_matching_draws_from_everywhere():
    near, _ = agents()
    for step in range(6):
        batch = near.batches(step)
        for centre, other in zip(batch.centres.keys, batch.others.keys, strict=True):
            assert other[0] in near.batches.manifold.near[centre[0]]
    everywhere, _ = agents(near=False)
    drawn = {key[0] for step in range(60) for key in everywhere.batches(step).others.keys}
    assert drawn == set(range(8))


@pytest.mark.long
@pytest.mark.parametrize(
    "settings", [{}, {"conditional": False}, {"conditional": False, "trained": True, "shuffle": 1}]
)
def test_resuming_is_exact(tmp_path, settings):
    task, recipe = agents(steps=12, **settings)
    Trainer(task, recipe).run()
    whole, path = task, tmp_path / "state.safetensors"
    for stop in (3, 8, None):
        task, recipe = agents(steps=12, **settings)
        Trainer(task, recipe).run(path, stop_after=stop)
    for (name, part), other in zip(whole.parts().items(), task.parts().values(), strict=True):
        found = other.state_dict()
        assert all(torch.equal(value, found[key]) for key, value in part.state_dict().items()), name


def test_parts_of_a_batch_share_one_decision():
    """The same gradients, feedback and decisions as from the whole batch (instance norms see single pictures)."""
    found = []
    for accumulate in (1, 2):
        task, recipe = agents(warmup=0, steps=6)
        trainer = Trainer(task, recipe.model_copy(update={"accumulate": accumulate}))
        trainer.run(stop_after=3)
        found.append(task)
    for side in ("gated", "judge"):
        one, two = (getattr(task, side) for task in found)
        torch.testing.assert_close(one.feedback, two.feedback, atol=1e-3, rtol=1e-2)
        torch.testing.assert_close(one.gates.values, two.gates.values, atol=1e-3, rtol=1e-2)


def test_a_frozen_network_stays_as_it_is():
    """Batch norms compute with the batch's statistics, but keep theirs; dropout is off."""
    net = supernet("unet_128")
    gated = Gated(net).train()
    before = {name: value.clone() for name, value in net.generator.state_dict().items()}
    inputs, gates = torch.randn(2, 3, 128, 128), torch.ones(len(gated.decision))
    with torch.no_grad():
        assert torch.equal(gated.gated(gates, inputs), gated.gated(gates, inputs))
    assert all(torch.equal(value, before[name]) for name, value in net.generator.state_dict().items())


def test_a_target_that_cannot_be_reached():
    with pytest.raises(BudgetError, match="the budget of the generator cannot be reached: 4 channel"):
        agents(text="0.1x")
