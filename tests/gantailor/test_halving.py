"""The end of a search: its best subnets are tuned, by successive halving."""

import numpy as np
import pytest

from gantailor.pipeline.search.halving import Finalists, best_rows
from gantailor.search.conformance import StrategyConformance, small_space
from gantailor.search.results import best_trial
from gantailor.search.spaces.space import uniform_indices
from gantailor.search.storage import open_study
from gantailor.search.strategies.common import key

LENGTHS = [0.5, 1.0, 2.0]


def opened(journal):
    """A search of random subnets, which needs no model."""
    tests = StrategyConformance()
    tests.strategy = "random"
    return tests.search(study=open_study(journal, name="search"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The journal of a search that is done."""
    journal = tmp_path_factory.mktemp("screen") / "search.journal"
    opened(journal).run(14)
    return journal.read_bytes()


@pytest.fixture
def screened(tmp_path, finished):
    """Makes such a search in a journal of its own."""

    def made(name="search"):
        (tmp_path / f"{name}.journal").write_bytes(finished)
        return opened(tmp_path / f"{name}.journal")

    return made


class Curves:
    """Tuned scores at random for each subnet and length; what was asked, and what is to go wrong."""

    def __init__(self, stop_at=None, failing=None):
        self.asked, self.stop_at, self.failing = [], stop_at, failing

    def __call__(self, config, kimg):
        row = tuple(v.choices.index(v.choice_of(config)) for v in small_space().variables)
        self.asked.append((row, kimg))
        if len(self.asked) == self.stop_at:
            raise KeyboardInterrupt
        if row == self.failing:
            raise ZeroDivisionError("no luck")
        return float(np.random.default_rng((*row, int(kimg * 4))).random())


def finalists(search, tune, count=8):
    return Finalists(search, tune, count=count, kimg=2.0, settings="")


def halved(rows, tune):
    """Asynchronous successive halving, literally: on as long as it is in the better half of all that came so far."""
    seen, states = [[], [], []], []
    for row in rows:
        for rung, kimg in enumerate(LENGTHS):
            value = tune(small_space().to_config(row), kimg)
            seen[rung].append(value)
            if rung == 2:
                states.append("COMPLETE")
            elif value > sorted(seen[rung])[max(1, len(seen[rung]) // 2) - 1]:
                states.append("PRUNED")
                break
    return states


def test_the_best_of_the_screen_are_tuned(screened):
    """In the order of their scores, the uniform shrink among them; the others of the space are not."""
    search = screened()
    history = search.history()
    order = [key(row) for row in history.indices[np.argsort(history.values[:, 0])]]
    uniform = key(uniform_indices(search.budget.space, search.budget.macs))
    assert uniform in order[5:]
    assert [key(row) for row in best_rows(search, 5)] == [*order[:4], uniform]
    assert [key(row) for row in best_rows(search, 50)] == order


def test_they_are_halved(screened):
    search, curves = screened(), Curves()
    final = finalists(search, curves)
    final.run(len(final.rows))
    expected = halved(final.rows, Curves())
    trials = final.study.get_trials()
    assert [trial.state.name for trial in trials] == expected and {"PRUNED", "COMPLETE"} == set(expected)
    assert final.lengths == LENGTHS and len(set(curves.asked)) == len(curves.asked)
    number, indices = best_trial(final.study, final.budget, provenance=final.provenance)
    ended = [trial.value for trial in trials if trial.state.name == "COMPLETE"]
    assert trials[number].value == min(ended) == final.tuned(indices)[-1]
    stopped = expected.index("PRUNED")
    assert "stopped after" in trials[stopped].user_attrs["reason"] and 1 <= len(final.tuned(final.rows[stopped])) < 3
    assert len(search.study.get_trials()) == 14 and not final.unfinished(len(final.rows))


@pytest.mark.parametrize("stop_at", [1, 2, 6])
def test_it_goes_on(screened, stop_at):
    """After a stop at any moment the result is the same; the stopped part alone is asked for again."""
    search, whole = screened(), Curves()
    undisturbed = finalists(screened("other"), whole)
    undisturbed.run(8)
    with pytest.raises(KeyboardInterrupt):
        finalists(search, Curves(stop_at=stop_at)).run(8)
    again = finalists(search, Curves())
    again.run(8)
    kept = [trial for trial in again.study.get_trials() if trial.state.name != "FAIL"]
    states = [(trial.state.name, trial.params) for trial in undisturbed.study.get_trials()]
    assert [(trial.state.name, trial.params) for trial in kept] == states
    (same,) = {
        key(best_trial(final.study, final.budget, provenance=final.provenance)[1]) for final in (undisturbed, again)
    }
    assert same
    longer = Finalists(search, Curves(), count=8, kimg=4.0, settings="")
    assert not longer.study.get_trials() and finalists(search, Curves(), count=9).study.get_trials()


def test_one_that_fails_is_done_without(screened):
    search = screened()
    failing = key(best_rows(search, 3)[0])
    final = finalists(search, Curves(failing=failing), count=3)
    final.run(3)
    first, *others = final.study.get_trials()
    assert first.user_attrs["reason"] == "ZeroDivisionError: no luck" and first.state.name == "FAIL"
    assert {trial.state.name for trial in others} <= {"COMPLETE", "PRUNED"} and len(others) == 2
