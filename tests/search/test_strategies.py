"""Every strategy passes the conformance tests, one from outside the package too; the models behind them are right."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gantailor.search.budget import Budget
from gantailor.search.config import SearchConfig
from gantailor.search.conformance import TIES, StrategyConformance, small_space
from gantailor.search.errors import SearchError
from gantailor.search.pareto import ranked
from gantailor.search.spaces.config import SpaceConfig
from gantailor.search.spaces.space import default_space
from gantailor.search.storage import open_study
from gantailor.search.strategies import STRATEGIES, check_strategy, make_strategy
from gantailor.search.strategies.common import History, key
from gantailor.search.strategies.evolution import Evolution
from gantailor.search.strategies.predictor import _gaussian_process
from gantailor.search.strategies.sensitivity import CALLS, Sensitivity, in_order, sensitivities
from gantailor.supernet.errors import ConfigError

TABLE = pd.read_csv(Path(__file__).parents[2] / "benchmarks/results/recorded_table.csv").to_numpy()
MACS, ERRORS = np.zeros((4,) * 5), np.zeros((4,) * 5)
MACS[tuple(TABLE[:, :5].astype(int).T)], ERRORS[tuple(TABLE[:, :5].astype(int).T)] = TABLE[:, 5], TABLE[:, 6]
OWN = f"{Path(__file__).stem}:narrowest"


def narrowest(history, budget, rng):
    """A user's own: all that fit, the cheapest first."""
    rows = budget.feasible[np.argsort(budget.cost(budget.feasible), kind="stable")]
    return next((row for row in rows if tuple(row.tolist()) not in history.taken), None)


@pytest.fixture(scope="module", autouse=True)
def _importable():
    """As if this file lay where the user works."""
    sys.path.insert(0, str(Path(__file__).parent))
    yield
    sys.path.remove(str(Path(__file__).parent))


@pytest.fixture(params=[*(pytest.param(s, marks=pytest.mark.long) if s == "gp" else s for s in STRATEGIES), OWN])
def _each(request):
    request.cls.strategy = request.param


@pytest.mark.usefixtures("_each")
class TestStrategies(StrategyConformance):
    pass


@pytest.mark.long
@pytest.mark.parametrize("strategy", ["predictor", "evolution"])
def test_better_than_the_best_of_few(strategy):
    """With half of the space looked at, the best is found; an eighth of it gives most."""
    tests = StrategyConformance()
    tests.strategy = strategy
    search = tests.search()
    best = min(tests.score(small_space().to_config(row))["score"] for row in search.budget.feasible)
    search.run(len(search.budget.feasible) // 2)
    assert search.history().values.min() <= 1.01 * best


class Seedless:
    """No strategy: it cannot be made with a seed."""


def test_names():
    with pytest.raises(ConfigError, match=r"strategy 'predicter' is unknown; did you mean 'predictor'.*'module:name'"):
        check_strategy("predicter")
    with pytest.raises(ConfigError, match="strategy 'no_such_module:x' cannot be imported"):
        make_strategy("no_such_module:x", seed=0)
    with pytest.raises(
        ConfigError, match=r"'math:pi' is a float, and was not called; give a function of \(history, budget, rng\)"
    ):
        make_strategy("math:pi", seed=0)
    with pytest.raises(ConfigError, match=r"Seedless' cannot be made: .* takes no arguments; give a function of"):
        make_strategy(f"{Path(__file__).stem}:Seedless", seed=0)
    assert SearchConfig(strategy=OWN).strategy == OWN


@pytest.mark.parametrize(("proposal", "message"), [("largest", "does not meet"), ("smallest", "history.taken again")])
def test_a_wrong_proposal_is_told(proposal, message):
    search = StrategyConformance().search()
    search.start, search.strategy = 0, lambda history, budget, rng: getattr(budget.space, proposal)
    with pytest.raises(SearchError, match=f"proposed a subnet that it must not: .*{message}"):
        search.run(3)


def test_settings_are_light():
    """The command line names strategies and settings without what stands behind them."""
    heavy = "[m for m in ('numpy', 'torch', 'optuna', 'scipy', 'sklearn', 'pandas') if m in sys.modules]"
    code = f"import sys, gantailor.search.config, gantailor.search.spaces.config; print({heavy})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_gaussian_process():
    """Posterior mean and deviation are the textbook's (Rasmussen and Williams 2006, equations 2.23 and 2.24)."""
    rng = np.random.default_rng(0)
    x, new = rng.random((30, 5)), rng.random((12, 5))
    y = (1 / (0.2 + x)).sum(1)
    z, best = (y - y.mean()) / y.std(), None
    for length in (0.5, 1.0, 2.0):
        for noise in (0.01, 0.05, 0.2):

            def kernel(a, b, length=length):
                scaled = np.sqrt(5) * np.linalg.norm(a[:, None] - b[None], axis=2) / length
                return a @ b.T + (1 + scaled + scaled**2 / 3) * np.exp(-scaled)

            noisy = kernel(x, x) + noise * np.eye(len(x))
            likelihood = -0.5 * z @ np.linalg.solve(noisy, z) - 0.5 * np.linalg.slogdet(noisy)[1]
            cross = np.linalg.solve(noisy, kernel(x, new))
            deviation = np.sqrt(np.diag(kernel(new, new)) - (kernel(x, new) * cross).sum(0))
            if best is None or likelihood > best[0]:
                best = (likelihood, cross.T @ z * y.std() + y.mean(), deviation * y.std())
    mean, deviation = _gaussian_process(x, y, new)
    np.testing.assert_allclose(mean, best[1], rtol=1e-9)
    np.testing.assert_allclose(deviation, best[2], rtol=1e-7)


def test_ranked():
    """By how many fronts must be taken away first, then by the sum of normalised objectives; equal rows are equal."""
    values = np.random.default_rng(0).integers(0, 6, (50, 2)).astype(float)
    rank, left, number = np.zeros(50), np.arange(50), 0
    while len(left):
        best = [
            i for i in left if not any((values[j] <= values[i]).all() and (values[j] < values[i]).any() for j in left)
        ]
        rank[best], left, number = number, np.setdiff1d(left, best), number + 1
    spread = ((values - values.min(0)) / np.ptp(values, axis=0)).sum(1)
    assert ranked(values).tolist() == np.lexsort((spread, rank)).tolist()


@pytest.mark.filterwarnings("error")
def test_one_without_a_score_is_behind_all_of_its_cost_and_orders_the_rest_as_before():
    values = np.random.default_rng(1).random((20, 2))
    values[7, 0] = np.inf
    found = ranked(values).tolist()
    rest = np.delete(np.arange(20), 7)
    beaten = [i for i in rest if values[i, 1] <= values[7, 1]]
    assert beaten and all(found.index(i) < found.index(7) for i in beaten)
    assert sorted(found) == list(range(20)) and ranked(np.full((3, 2), np.inf)).shape == (3,)


class Recorded(Budget):
    """A share of the MACs of the recorded table of the demo; ``small_space`` has as many choices."""

    def __init__(self, share):
        super().__init__(small_space(), int(share * MACS.max()))

    def cost(self, indices):
        return MACS[tuple(np.atleast_2d(indices).T)]

    def costs(self, indices):
        return self.cost(indices)[:, None]


def published(generator, share, generations):
    """The loop of GAN Compression, literally; ``generator(number)`` makes each generation's chances.

    The subnets in the order of their evaluation, each once.
    """
    cap, evaluated, rng = int(share * MACS.max()), {}, generator(0)

    def error(subnet):
        return evaluated.setdefault(tuple(int(i) for i in subnet), ERRORS[tuple(subnet)])

    def fitting(draw):
        while True:
            subnet = draw()
            if MACS[tuple(subnet)] <= cap:
                return subnet

    def mutant(parent):
        return fitting(lambda: np.where(rng.random(5) < 0.2, rng.integers(0, [4, 4, 4, 4, 4]), parent))

    def crossover(one, other):
        return fitting(lambda: np.where(rng.random(5) < 0.5, one, other))

    population = [fitting(lambda: rng.integers(0, [4, 4, 4, 4, 4])) for _ in range(100)]
    for number in range(1, generations + 1):
        parents, rng = sorted(population, key=error)[:25], generator(number)
        children = [mutant(parents[rng.integers(25)]) for _ in range(50)]
        children += [crossover(parents[rng.integers(25)], parents[rng.integers(25)]) for _ in range(50)]
        for child in children:
            error(child)
        population = parents + children
    return list(evaluated)


def proposals(strategy, budget, count, *, given=0, running=1):
    """What a strategy proposes; it has ``running`` asked for before the first of them has a value."""
    asked = [key(row) for row in budget.feasible[::3][:given]]
    while len(asked) < count:
        rows = np.array(asked[: max(given, len(asked) - running + 1)], int).reshape(-1, 5)
        history = History(rows, ERRORS[tuple(rows.T)][:, None], frozenset(asked), len(asked), frozenset(asked[:given]))
        proposed = strategy(history, budget, np.random.default_rng(0))
        assert budget.fits(proposed)[0]
        assert key(proposed) not in asked
        asked.append(key(proposed))
    return asked


def needed(subnets, share):
    """Evaluations until one within 1% of the best that fits."""
    goal = 1.01 * ERRORS[int(share * MACS.max()) >= MACS].min()
    return next((number for number, subnet in enumerate(subnets, 1) if ERRORS[subnet] <= goal), 1024)


@pytest.mark.parametrize("share", [0.3, 0.5])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_evolution_is_the_authors(share, seed):
    """The same subnets in the same order, for several generations; and so from the trials alone, after any stop."""
    subnets = published(lambda number: np.random.default_rng((seed, number)), share, 4)
    assert len(subnets) > 120
    assert proposals(Evolution(seed=seed), Recorded(share), len(subnets)) == subnets

    for done in (0, 60, 100, 119):
        rows = np.array(subnets[:done], int).reshape(-1, 5)
        history = History(rows, ERRORS[tuple(rows.T)][:, None], frozenset(subnets[:done]), done)
        assert key(Evolution(seed=seed)(history, Recorded(share), np.random.default_rng(9))) == subnets[done]


@pytest.mark.slow  # the proposals themselves are compared above, subnet for subnet
@pytest.mark.parametrize("share", [0.3, 0.5])
def test_evolution_needs_what_the_authors_does(share):
    """With other chances: the median lies in the 95% interval of theirs, with several workers too."""
    theirs = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        theirs.append(needed(published(lambda number, rng=rng: rng, share, 4), share))
    medians = np.median(np.random.default_rng(0).choice(theirs, (2000, len(theirs))), axis=1)
    low, high = np.quantile(medians, [0.025, 0.975])
    budget = Recorded(share)
    for running in (1, 4):
        asked = [proposals(Evolution(seed=1000 + n), budget, 140, running=running) for n in range(60)]
        assert low <= np.median([needed(subnets, share) for subnets in asked]) <= high < 140


def test_evolution_changes_few_genes():
    """As many as rejection leaves: the mean over all children of a parent that fit, weighted by their probabilities."""
    everything, shares = TABLE[:, :5].astype(int), []
    for share in (0.3, 0.5):
        budget = Recorded(share)
        fits = budget.fits(everything)
        parent = min((key(row) for row in everything[fits]), key=ERRORS.__getitem__)
        changed = (everything != parent).mean(1)
        likely = np.where(fits, 0.85 ** (5 * (1 - changed)) * 0.05 ** (5 * changed), 0)
        expected = (likely * changed).sum() / likely.sum()
        strategy = Evolution(seed=0)
        mutants = np.concatenate([strategy._next([parent], budget, number)[:50] for number in range(1, 61)])
        found = (mutants != parent).mean(1)
        assert abs(found.mean() - expected) < 4 * found.std() / len(found) ** 0.5
        shares.append(expected)
    assert 0.07 < min(shares) < max(shares) < 0.15


def test_evolution_begins_with_what_was_given():
    """A search's own beginning counts in the first generation, whose draws are fewer by as many; dearer ones do not."""
    budget, strategy = Recorded(0.3), Evolution(seed=0)
    first = list(dict.fromkeys(strategy._first(budget)[:84]))
    asked = proposals(strategy, budget, 100, given=16)
    new = [subnet for subnet in first if subnet not in asked[:16]]
    assert asked[16:][: len(new)] == new
    parents = sorted(asked[:16] + strategy._first(budget)[:84], key=ERRORS.__getitem__)[:25]
    children = [child for child in strategy._next(parents, budget, 1) if child not in asked[: 16 + len(new)]]
    assert asked[16 + len(new)] == children[0]


def test_evolution_ends(monkeypatch):
    """Where random subnets do not meet the budget, one line says so; so few trials that it is a random search, too."""
    many = tuple(np.linspace(0.1, 1, 16).round(3))
    space = default_space(small_space().supernet, SpaceConfig(fractions=many, ties=TIES[:3]))
    assert space.count > 200_000
    budget = Budget(space, int(1.001 * space.macs(space.smallest)[0]))
    monkeypatch.setattr("gantailor.search.strategies.evolution.DRAWS", 500_000)
    with pytest.raises(SearchError, match=r"of 500,000 random ones .* met macs<=.*; set search.strategy predictor"):
        Evolution().remark(budget, 40)
    assert "first 100 subnets are random: with search.trials 40" in Evolution().remark(Recorded(0.3), 40)
    assert Evolution().remark(Recorded(0.3), 101) == ""


class Separable(StrategyConformance):
    """Each variable has a loss of its own for each choice, at random, the narrower the more."""

    strategy = "sensitivity"

    def __init__(self, *, failing=()):
        rng = np.random.default_rng(0)
        self.losses = [np.cumsum(rng.random(len(v.choices)))[::-1] for v in small_space().variables]
        self.failing, self.asked = set(failing), []

    def score(self, config):
        row = [variable.choices.index(variable.choice_of(config)) for variable in small_space().variables]
        self.asked.append(tuple(row))
        if tuple(row) in self.failing:
            raise ValueError("no score")
        return {"score": sum(float(loss[choice]) for loss, choice in zip(self.losses, row, strict=True))}

    def true(self, rows):
        return sum(loss[rows[:, v]] for v, loss in enumerate(self.losses))


@pytest.mark.parametrize("share", [0.15, 0.3, 0.6])
def test_sensitivity_of_a_sum_is_the_best_sum(share):
    """Where losses add up, its proposals are those of a sorted list of everything."""
    tests = Separable()
    search = tests.search(share=share)
    search.run(6)
    rows = search.budget.feasible
    proposed = tests.true(search.history().indices)
    assert proposed.tolist() == pytest.approx(np.sort(tests.true(rows))[:6].tolist())
    assert len(tests.asked) == 6 + 1 + sum(small_space().largest)
    whole = small_space().largest
    assert all((np.array(row) != whole).sum() <= 1 for row in tests.asked[:16])


@pytest.mark.parametrize("share", [0.15, 0.3, 0.6])
@pytest.mark.parametrize("seed", range(3))
def test_sensitivity_where_a_space_cannot_be_listed(share, seed, monkeypatch):
    """Greedy narrowing and exchanges come within 2% of the best sum."""
    losses = [np.cumsum(np.random.default_rng((seed, v)).random(4))[::-1] for v in range(5)]
    losses = [loss - loss[-1] for loss in losses]
    space = small_space()
    listed = Budget(space, int(share * space.macs(space.largest)[0]))

    def total(row):
        return sum(loss[choice] for loss, choice in zip(losses, row, strict=True))

    best = min(map(total, listed.feasible))
    monkeypatch.setattr("gantailor.search.costs.ENUMERATED", 1)
    budget = Budget(space, listed.macs)
    assert budget.feasible is None
    rows = in_order(losses, budget, np.random.default_rng(0))
    assert budget.fits(rows).all() and len({key(row) for row in rows}) == len(rows) > 5
    assert total(rows[0]) == min(map(total, rows)) <= 1.02 * best


def test_sensitivities_between_what_was_scored():
    """Interpolated over channels, never less than of a wider choice; below the narrowest known one hopeless."""
    space = small_space()
    whole, variable = space.largest, space.variables[0]
    rows, values = [whole], [[5.0]]
    for choice, value in ((0, 9.0), (2, 4.5)):  # the second is noise: better than the whole
        rows.append(np.where(np.arange(5) == 0, choice, whole))
        values.append([value])
    found = sensitivities(space, np.array(rows), np.array(values))
    sizes = np.array(variable.choices)
    assert found[0].tolist() == pytest.approx([4, 4 * (sizes[2] - sizes[1]) / (sizes[2] - sizes[0]), 0, 0])
    unknown = sensitivities(space, np.array(rows[:1] + rows[2:]), np.array(values[:1] + values[2:]))
    assert unknown[0][2] == 0 and unknown[0][0] == unknown[0][1] >= 100
    assert sensitivities(space, np.array(rows[1:]), np.array(values[1:])) is None


def test_sensitivity_is_about_35_calls():
    """In a space with many choices, every variable's narrowest first, then the middles."""
    space = default_space(small_space().supernet, SpaceConfig(fractions=tuple(np.linspace(0.05, 1, 20).round(3))))
    rows = Sensitivity().probes(space)
    assert len(rows) == CALLS == len({key(row) for row in rows})
    count = len(space.variables)
    assert (rows[0] == space.largest).all() and (rows[1 : count + 1] == np.where(np.eye(count), 0, space.largest)).all()
    middle = rows[count + 1][0]
    choices = np.array(space.variables[0].choices)
    assert abs(choices[middle] - choices.mean()) <= np.diff(choices).max() or 0 < middle < space.largest[0]
    assert len(Sensitivity(calls=3).probes(space)) == count + 1


def test_sensitivity_goes_on_and_shares(tmp_path):
    """What was scored before a stop, or by another process, is not scored again; one net that fails is done without."""
    whole = small_space().largest
    tests = Separable(failing=[key(np.where(np.arange(5) == 1, 0, whole))])

    def opened():
        return tests.search(study=open_study(tmp_path / "search.journal", name="search"))

    for _ in range(7):
        opened().probing.claim(100)  # killed right after
    one, other = opened(), opened()
    assert len(one.probing.study.trials) == 7
    one.probing.run(9)
    other.run(4)
    one.run(6)
    assert len(tests.asked) == 16 + 6 and len(set(tests.asked[:16])) == 16
    assert len(one.history().values) == 6 and one.budget.fits(one.history().indices).all()
