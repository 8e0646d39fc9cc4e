"""Every strategy passes the conformance tests, one from outside the package too; the models behind them are right."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gantailor.search.config import SearchConfig
from gantailor.search.conformance import StrategyConformance, small_space
from gantailor.search.errors import SearchError
from gantailor.search.pareto import ranked
from gantailor.search.strategies import STRATEGIES, check_strategy, make_strategy
from gantailor.search.strategies.predictor import _gaussian_process
from gantailor.supernet.errors import ConfigError

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


def test_names():
    with pytest.raises(ConfigError, match=r"strategy 'predicter' is unknown; did you mean 'predictor'.*'module:name'"):
        check_strategy("predicter")
    with pytest.raises(ConfigError, match="strategy 'no_such_module:x' cannot be imported"):
        make_strategy("no_such_module:x", seed=0)
    with pytest.raises(ConfigError, match=r"'math:pi' is a float; give a function of \(history, budget, rng\)"):
        make_strategy("math:pi", seed=0)
    with pytest.raises(ConfigError, match=r"'string:Template' cannot be made: .*'seed'.*; give a function of"):
        make_strategy("string:Template", seed=0)
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
