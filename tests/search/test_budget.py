"""Candidates meet the budget by construction; the search is resumable."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import gantailor
from search.budget import Budget, parse_budget
from search.study import best_config, open_study, pareto_rows, run_search, table
from supernet.errors import BudgetError

SUPERNET = gantailor.Supernet(gantailor.build("resnet_6blocks", ngf=16), (torch.randn(1, 3, 32, 32),))
SPACE = gantailor.space("default", SUPERNET)
LOW, HIGH = SPACE.macs(np.stack([SPACE.smallest, SPACE.largest])).tolist()


@settings(max_examples=50, deadline=None)
@given(st.floats(0, 1), st.integers(0, 1000))
def test_every_candidate_fits(share, seed):
    budget = Budget(SPACE, int(LOW + share * (HIGH - LOW)))
    rng = np.random.default_rng(seed)
    drawn = budget.sample(rng)
    assert budget.cost(drawn)[0] <= budget.macs
    assert budget.cost(budget.mutate(drawn, rng))[0] <= budget.macs


def test_the_only_subnet_is_found():
    assert (Budget(SPACE, LOW).sample(np.random.default_rng(0)) == SPACE.smallest).all()


def test_unreachable():
    with pytest.raises(BudgetError, match="cannot be reached"):
        Budget(SPACE, LOW - 1)


@pytest.mark.parametrize(("text", "macs"), [("2.6G", 2600000000), ("800M", 800000000), ("1K", 1000), ("0.1x", 50)])
def test_sizes(text, macs):
    assert parse_budget(text, full=500) == macs


@pytest.mark.parametrize("text", ["", "-3G", "1.2.3", "2Q", "0"])
def test_unreadable_sizes(text):
    with pytest.raises(BudgetError, match="cannot be read"):
        parse_budget(text, full=500)


def test_search_resumes_without_repeating(tmp_path):
    budget, seen = Budget(SPACE, int(0.4 * HIGH)), []

    def score(config):
        seen.append(config)
        return float(sum(config.values()))

    run_search(open_study(tmp_path / "j", name="s"), budget, score, trials=5)
    study = open_study(tmp_path / "j", name="s")
    run_search(study, budget, score, trials=12)
    assert len(seen) == len(set(seen)) == 12
    frame = table(study)
    assert (frame["macs"] <= budget.macs).all()
    assert sum(best_config(study, budget).values()) == frame["score"].min()
    front = frame[pareto_rows(frame)].sort_values("macs")
    assert front["score"].is_monotonic_decreasing
