"""Budgets: what they mean, and that everything proposed meets them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import gantailor
from gantailor.search.budget import Budget
from gantailor.search.latency import LatencyProfile
from gantailor.search.limits import Limit, format_macs, parse_budget
from gantailor.search.spaces.space import Space, Variable
from gantailor.supernet.errors import BudgetError, ConfigError

SUPERNET = gantailor.Supernet(gantailor.build("resnet_6blocks", ngf=16), (torch.randn(1, 3, 32, 32),))
SPACE = gantailor.space("default", SUPERNET)
LOW, HIGH = SPACE.macs(np.stack([SPACE.smallest, SPACE.largest])).tolist()
FULL = {"macs": 500, "params": 100}
NAMES = [width.name for width in SUPERNET.graph.widths]


def random_space(seed):
    """A few variables with random choices over random widths."""
    rng = np.random.default_rng(seed)
    variables = []
    for name in rng.permutation(NAMES)[: rng.integers(2, 6)].tolist():
        full = SUPERNET.full_config()[name]
        choices = np.unique(rng.integers(1, full + 1, rng.integers(1, 6))).tolist()
        variables.append(Variable.scaled(name, choices, [(name, 1)]))
    return Space("random", variables, SUPERNET)


@settings(max_examples=60, deadline=None)
@given(st.floats(0, 1), st.floats(0, 1), st.integers(0, 1000))
def test_every_candidate_fits(share, shrink, seed):
    space = random_space(seed) if seed % 2 else SPACE
    low, high = space.macs(np.stack([space.smallest, space.largest])).tolist()
    parameters = SUPERNET.cost.parameters(space.sizes(np.stack([space.smallest, space.largest])))
    limits = (
        Limit("macs", float(int(low + share * (high - low)))),
        Limit("params", float(int(parameters[0] + max(share, shrink) * (parameters[1] - parameters[0])))),
    )
    budget = Budget(space, limits)
    rng = np.random.default_rng(seed)
    first, second = budget.sample(rng), budget.sample(rng)
    proposals = [
        first,
        second,
        budget.mutate(first, rng),
        budget.settle(np.where(rng.random(len(first)) < 0.5, first, second), rng),
    ]
    assert budget.fits(np.stack(proposals)).all()
    costs = budget.costs(np.stack(proposals))
    assert (costs <= [limit.upper for limit in limits]).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_budgets_that_one_subnet_alone_meets(seed):
    space = random_space(seed)
    rows = np.indices([len(v.choices) for v in space.variables]).reshape(len(space.variables), -1).T
    chosen = rows[seed % len(rows)]
    macs = float(space.macs(chosen)[0])
    alone = Budget(space, (Limit("macs", macs, macs),))
    drawn = alone.sample(np.random.default_rng(seed))
    assert space.macs(drawn)[0] == macs
    edge = Budget(space, int(space.macs(space.smallest)[0]))
    assert space.macs(edge.sample(np.random.default_rng(seed)))[0] == space.macs(space.smallest)[0]


def test_nothing_more_fits_into_a_sample():
    budget, rng = Budget(SPACE, int(0.3 * HIGH)), np.random.default_rng(0)
    for _ in range(20):
        drawn = budget.sample(rng)
        wider = drawn + np.eye(len(drawn), dtype=np.int64)
        possible = wider[(wider <= SPACE.largest).all(1)]
        assert not budget.fits(possible).any()


def test_unreachable():
    for budget in (LOW - 1, (Limit("macs", np.inf, HIGH + 1),), (Limit("macs", HIGH / 2, HIGH / 2 + 1),)):
        with pytest.raises(BudgetError, match=f"goes from {format_macs(LOW)} to {format_macs(HIGH)} .*ask for"):
            Budget(SPACE, budget)
    both = (Limit("macs", float(LOW)), Limit("params", np.inf, 1e5))
    with pytest.raises(BudgetError, match=r"no subnet of space .* the nearest is macs .*, params "):
        Budget(SPACE, both)


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        ("2.6G", [Limit("macs", 2.6e9)]),
        ("800M", [Limit("macs", 8e8)]),
        ("0.1x", [Limit("macs", 50)]),
        (1000, [Limit("macs", 1000)]),
        ("macs<=2G, params<=0.5x", [Limit("macs", 2e9), Limit("params", 50)]),
        ("macs<=2G,macs>=1G", [Limit("macs", 2e9, 1e9)]),
        ("latency_ms<=12.5@a.json", [Limit("latency_ms", 12.5, 0, "a.json")]),
    ],
)
def test_reading(text, limits):
    assert list(parse_budget(text, full=FULL)) == limits


@pytest.mark.parametrize("text", ["", "-3G", "1.2.3", "2Q", "0", "flops<=1G", "macs<1G", "macs<=1G,,params<=1M"])
def test_unreadable(text):
    with pytest.raises(BudgetError, match=r"cannot be read; write it as 2\.6G"):
        parse_budget(text, full=FULL)


@pytest.mark.parametrize("text", [0.1, "0.1", "params<=0.1", "2G, params>=0.1"])
def test_a_share_without_its_x(text):
    with pytest.raises(BudgetError, match=r"is less than one; write 0\.1x for a share of the generator"):
        parse_budget(text, full=FULL)


def test_a_latency_limit_names_its_profile(tmp_path):
    for text in ("latency_ms<=12", "latency_ms<=12M@a", "macs<=1G@a"):
        with pytest.raises(BudgetError, match="names its profile"):
            parse_budget(text, full=FULL)
    with pytest.raises(ConfigError, match="gantailor profile"):
        Budget(SPACE, (Limit("latency_ms", 12, 0, str(tmp_path / "none.json")),))


def test_latency_profile(tmp_path):
    """Exact on a device whose time is what the profile can express; within a budget it is monotone."""
    rng = np.random.default_rng(0)
    rows = rng.integers(0, SPACE.largest + 1, (60, len(SPACE.variables)))
    sizes = SPACE.sizes(rows)
    times = 0.3 + 2e-8 * SUPERNET.macs_many(sizes) + 0.01 * sizes[:, 2]
    profile = LatencyProfile.fit(SPACE.supernet, SPACE.sizes(rows), times, device="imaginary")
    assert profile.error < 1e-6
    profile.save(tmp_path / "p.json")
    profile = LatencyProfile.load(tmp_path / "p.json")
    np.testing.assert_allclose(profile.predict(SPACE, rows), times, rtol=1e-6)
    limit = float(np.quantile(times, 0.3))
    budget = Budget(SPACE, parse_budget(f"latency_ms<={limit}@{tmp_path / 'p.json'}", full=FULL))
    drawn = np.stack([budget.sample(rng) for _ in range(20)])
    assert (profile.predict(SPACE, drawn) <= limit).all()
    most = float(profile.bound(SPACE.supernet, SPACE.sizes(SPACE.largest[None]))[0])
    with pytest.raises(BudgetError, match=r"is more than the whole generator takes, .* latency_ms"):
        Budget.of(SPACE, f"latency_ms<={1.01 * most}@{tmp_path / 'p.json'}")
    Budget.of(SPACE, f"latency_ms<={most}@{tmp_path / 'p.json'}")
    Budget.of(SPACE, f"macs<=0.5x, latency_ms<={1.01 * most}@{tmp_path / 'p.json'}")
    other = gantailor.space(
        "default", gantailor.Supernet(gantailor.build("unet_128", ngf=4), (torch.randn(1, 3, 128, 128),))
    )
    with pytest.raises(ConfigError, match="another generator"):
        profile.predict(other, other.smallest[None])


def test_a_budget_above_the_whole_generator(tmp_path):
    """Nothing would be cut. What it takes is a budget, and so is a second limit that cuts."""
    full = SUPERNET.macs(SUPERNET.full_config())
    for text in ("2x", "1000G", f"{full + 1}", "macs<=2x, params<=1000G"):
        with pytest.raises(BudgetError, match=r"is more than the whole generator takes, .* macs"):
            Budget.of(SPACE, text)
    for text in ("1x", f"{full}", "macs<=2x, params<=0.9x", "macs<=2x, macs>=0.2x"):
        Budget.of(SPACE, text)
