"""Studies: every strategy passes the same tests; failures, resuming, many processes."""

import multiprocessing
from functools import partial

import numpy as np
import pytest
import torch

import gantailor
from gantailor.search.budget import Budget
from gantailor.search.spaces.space import SpaceConfig
from gantailor.search.strategies import SAMPLERS, STRATEGIES, front, hypervolume
from gantailor.search.study import Objective, Search, SearchError, best_config, open_study, pareto_rows, table
from gantailor.supernet.errors import ConfigError

SUPERNET = gantailor.Supernet(gantailor.build("resnet_6blocks", ngf=16), (torch.randn(1, 3, 32, 32),))
TIES = (("model.1", "model.19"), ("model.4", "model.16"), ("model.1[0-2].*",), ("model.1[3-5].*",))
SPACE = gantailor.space(SpaceConfig(fractions=(0.25, 0.5, 0.75, 1), ties=TIES), SUPERNET)
HIGH = int(SPACE.macs(SPACE.largest)[0])
ONE = (Objective("score"),)
FRONT = (Objective("score"), Objective("macs"))


def score(config):
    """Wider is better, with an optimum of its own for each width."""
    sizes = np.array(list(config.values()), float)
    full = np.array([width.size for width in SUPERNET.graph.widths])
    weight = np.linspace(1, 3, len(sizes))
    return {"score": float((weight / (0.2 + sizes / full)).sum())}


def search(path, strategy="predictor", *, budget=0.4, objectives=ONE, scorer=score, seed=0, start=6, **more):
    study = open_study(path, name="s", objectives=objectives)
    return Search(
        study,
        Budget(SPACE, int(budget * HIGH)),
        scorer,
        objectives=objectives,
        strategy=strategy,
        seed=seed,
        start=start,
        **more,
    )


@pytest.mark.parametrize("strategy", [*STRATEGIES, *SAMPLERS])
class TestStrategies:
    def test_candidates_are_new_and_fit(self, tmp_path, strategy):
        seen = []
        run = search(tmp_path / "j", strategy, scorer=lambda config: seen.append(config) or score(config))
        run.run(20)
        assert len(seen) == len(set(seen)) == 20
        assert run.budget.fits(run.history().indices).all()
        assert (table(run.study)["macs"] <= run.budget.macs).all()

    def test_same_seed_same_trials(self, tmp_path, strategy):
        rows = []
        for number in range(2):
            run = search(tmp_path / f"{number}", strategy, seed=3)
            run.run(12)
            rows.append(run.history().indices.tolist())
        assert rows[0] == rows[1]

    def test_it_goes_on(self, tmp_path, strategy):
        search(tmp_path / "j", strategy).run(5)
        again = search(tmp_path / "j", strategy)
        again.run(9)
        assert len(again.history().values) == len(again.study.trials) == 9

    def test_a_small_space_ends(self, tmp_path, strategy):
        run = search(tmp_path / "j", strategy, budget=0.11)
        run.run(500)
        assert len(run.history().values) == len(run.budget.feasible) < 50

    def test_two_objectives(self, tmp_path, strategy):
        run = search(tmp_path / "j", strategy, objectives=FRONT, budget=1.0)
        run.run(14)
        values = run.history().values
        assert values.shape == (14, 2)
        assert values[:, 1].tolist() == run.budget.cost(run.history().indices).tolist()
        for share in (0.9, 1.0):
            fits = Budget(SPACE, int(share * max(values[:, 1])))
            within = values[values[:, 1] <= fits.macs]
            assert score(best_config(run.study, fits))["score"] == within[:, 0].min()


@pytest.mark.parametrize("strategy", ["predictor", "evolution"])
def test_better_than_the_best_of_few(tmp_path, strategy):
    """With half of the space looked at, the best is found; an eighth of it gives most."""
    run = search(tmp_path / "j", strategy)
    best = min(score(SPACE.to_config(row))["score"] for row in run.budget.feasible)
    run.run(len(run.budget.feasible) // 2)
    assert run.history().values.min() <= 1.01 * best


def test_maximised_scores(tmp_path):
    up = (Objective("psnr", minimize=False),)
    run = search(tmp_path / "j", objectives=up, scorer=lambda c: {"psnr": -score(c)["score"]})
    run.run(30)
    assert -score(best_config(run.study, run.budget))["score"] == table(run.study)["psnr"].max()
    with pytest.raises(ConfigError, match="searches for psnr"):
        search(tmp_path / "j")


def test_failures_are_recorded_and_ten_in_a_row_stop(tmp_path):
    def sometimes(config):
        number = next(count)
        if number == 8:
            raise ZeroDivisionError("division by zero")
        return {2: {"score": float("nan")}, 5: {"fid": 1.0}}.get(number) or score(config)

    count = iter(range(100))
    run = search(tmp_path / "j", "random", scorer=sometimes)
    run.run(12)
    reasons = [t.user_attrs["reason"] for t in run.study.trials if t.state.name == "FAIL"]
    assert reasons == [
        "score is not finite",
        "the evaluator gave fid, macs, not score",
        "ZeroDivisionError: division by zero",
    ]
    assert len(run.history().values) == 9
    broken = search(tmp_path / "k", "random", scorer=lambda _: {"score": float("inf")})
    with pytest.raises(SearchError, match="10 evaluations in a row failed, the last with: score is not finite"):
        broken.run(50)


def test_other_provenance_starts_anew(tmp_path):
    search(tmp_path / "j", provenance="old").run(4)
    run = search(tmp_path / "j", provenance="new")
    assert len(run.history().values) == 0
    run.run(3)
    assert len(run.history().values) == 3
    assert table(run.study)["provenance"].value_counts().to_dict() == {"old": 4, "new": 3}


def test_a_dead_process_leaves_its_subnet_to_others(tmp_path):
    run = search(tmp_path / "j", "random")
    run.claim(5)
    trial = run.study.get_trials()[-1]
    optuna_trial = __import__("optuna").trial.Trial(run.study, trial._trial_id)
    host = trial.user_attrs["process"].rpartition(":")[0]
    optuna_trial.set_user_attr("process", f"{host}:999999999")
    run.run(5)
    assert len(run.history().values) == 5


def one_of_many(path, lock, seed):
    search(path, "random", budget=1.0, lock=lock, seed=seed).run(500)


def test_many_processes_share_a_journal(tmp_path):
    context = multiprocessing.get_context("fork")
    work = partial(one_of_many, tmp_path / "j", tmp_path / "lock")
    processes = [context.Process(target=work, args=(seed,)) for seed in range(8)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * 8
    trials = open_study(tmp_path / "j", name="s").trials
    done = [tuple(t.params.values()) for t in trials if t.state.name == "COMPLETE"]
    assert len(done) == len(set(done)) == len(trials) == 500


def test_front_and_hypervolume():
    rng = np.random.default_rng(0)
    values = rng.random((60, 2))
    literal = [not any((o <= v).all() and (o < v).any() for o in values) for v in values]
    assert front(values).tolist() == literal
    frame = __import__("pandas").DataFrame(values, columns=["macs", "score"])
    assert pareto_rows(frame).tolist() == literal
    grid = (np.arange(400) + 0.5) / 400
    dominated = np.zeros((400, 400), bool)
    for x, y in values:
        dominated |= (grid[:, None] > x) & (grid[None] > y)
    assert hypervolume(values, (1, 1)) == pytest.approx(dominated.mean(), abs=0.01)
    assert hypervolume(values, (0, 0)) == 0
