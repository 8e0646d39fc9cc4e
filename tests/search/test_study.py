"""Studies: failures, resuming, many processes, several machines on one database."""

import errno
import io
import multiprocessing
import os
import shutil
import signal
import socket
import sqlite3
import threading
import time
from functools import partial

import numpy as np
import optuna
import pandas as pd
import pytest
import torch

import gantailor
from gantailor.reports.tables import csv_bytes, words_of
from gantailor.run.config import Config
from gantailor.search import storage
from gantailor.search.budget import Budget
from gantailor.search.config import SearchConfig, shown
from gantailor.search.errors import SearchError
from gantailor.search.pareto import front, hypervolume
from gantailor.search.results import best_config, pareto_rows, table
from gantailor.search.scoring import Objective
from gantailor.search.spaces.config import SpaceConfig
from gantailor.search.storage import check_storage, open_study, prepare_storage, reaching
from gantailor.search.study import Search
from gantailor.search.workers import release_lost
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


def in_another_process(action):
    """A fork that does it and then lives on, as in a container of its own; returns once that is done."""
    done, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            socket.gethostname = lambda: "pod-1"
            kept = action()
            os.write(tell, b"x")
            while kept is not None:
                time.sleep(1)
        finally:
            os._exit(1)
    os.close(tell)
    assert os.read(done, 1) == b"x"
    return pid


def killed(pid):
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def claimed(path):
    run = search(path, "random")
    assert run.claim(5) is not None
    return run


def test_a_dead_process_leaves_its_subnet_to_others(tmp_path):
    killed(in_another_process(lambda: claimed(tmp_path / "j")))
    run = search(tmp_path / "j", "random")
    run.run(5)
    assert len(run.history().values) == 5
    assert [trial.state.name for trial in run.study.trials] == ["FAIL"] + ["COMPLETE"] * 5
    assert run.study.trials[0].params == run.study.trials[1].params
    assert [*(tmp_path / "j.workers").iterdir()] == [tmp_path / "j.workers" / run.worker.name.rpartition(":")[2]]


def test_trials_of_a_journal_that_was_copied_are_nobodys(tmp_path):
    pid = in_another_process(lambda: claimed(tmp_path / "j"))
    shutil.copy(tmp_path / "j", tmp_path / "copy")
    run = search(tmp_path / "copy", "random")
    run.run(2)
    killed(pid)
    assert len(run.history().values) == 2


def test_whom_one_may_not_ask_lives(tmp_path, monkeypatch):
    """A lock file of another user, or a network folder that refuses locks: the trial is left alone."""
    pid = in_another_process(lambda: claimed(tmp_path / "j"))
    for error in (PermissionError(errno.EACCES, "denied"), OSError(errno.ENOLCK, "no locks")):

        def refuse(file, kind, error=error):
            raise error

        with monkeypatch.context() as patch:
            patch.setattr("gantailor.search.workers.fcntl.flock", refuse)
            release_lost(open_study(tmp_path / "j", name="s"))
        assert [trial.state.name for trial in open_study(tmp_path / "j", name="s").trials] == ["RUNNING"]
    killed(pid)
    release_lost(open_study(tmp_path / "j", name="s"))
    assert [trial.state.name for trial in open_study(tmp_path / "j", name="s").trials] == ["FAIL"]


@pytest.fixture
def fast_heartbeat(monkeypatch):
    monkeypatch.setattr(storage, "HEARTBEAT", 1)
    monkeypatch.setattr(storage, "GRACE", 3)


@pytest.mark.long
@pytest.mark.parametrize("place", ["{}/j", "sqlite:///{}/x.db"])
def test_a_living_worker_elsewhere_keeps_its_trial_until_it_is_gone(tmp_path, place, fast_heartbeat):
    """Another host name, another process number space: only whether it lives counts; what it holds is waited for."""
    place = place.format(tmp_path)
    pid = in_another_process(lambda: claimed(place))
    run, ended = search(place, "random"), []
    waiting = threading.Thread(target=lambda: ended.append(run.run(3)))
    waiting.start()
    time.sleep(5)  # above the grace
    states = [trial.state.name for trial in search(place, "random").study.trials]
    assert states == ["RUNNING", "COMPLETE", "COMPLETE"] and ended == []
    killed(pid)
    waiting.join(60)
    assert ended == [None]
    trials = run.study.trials
    assert [trial.state.name for trial in trials] == ["FAIL", "COMPLETE", "COMPLETE", "COMPLETE"]
    assert trials[3].params == trials[0].params


def test_trials_of_before_workers_had_names_are_tried_again(tmp_path, fast_heartbeat):
    for place in (tmp_path / "j", f"sqlite:///{tmp_path}/x.db"):
        run = search(place, "random")
        number, _ = run.claim(2)
        attributes = {k: v for k, v in run.study.trials[number].user_attrs.items() if k not in ("worker", "claimed")}
        old = optuna.create_trial(
            state=optuna.trial.TrialState.RUNNING,
            params=run.study.trials[number].params,
            distributions=run.study.trials[number].distributions,
            user_attrs={**attributes, "process": f"{socket.gethostname()}:{os.getpid()}"},
        )
        run.give_back(number)
        run.study.add_trial(old)
        run.run(2)
        assert len(run.history().values) == 2


def test_an_interrupted_evaluation_gives_its_subnet_back(tmp_path):
    def interrupted(config):
        raise KeyboardInterrupt

    run = search(tmp_path / "j", scorer=interrupted)
    with pytest.raises(KeyboardInterrupt):
        run.run(3)
    assert [trial.state.name for trial in run.study.trials] == ["FAIL"]
    assert run.history().counted == 0


def test_two_machines_claim_at_the_same_moment(tmp_path):
    """Each has a lock of its own. One subnet has one trial, and each score lies on the trial of its subnet."""
    place = f"sqlite:///{tmp_path}/x.db"
    here, there = (search(place, "random", scorer=macs, lock=tmp_path / name) for name in ("a", "b"))
    usual, others = here.study._storage.create_new_trial, []

    def slow(*arguments, **more):
        if not others:
            others.append(None)
            others.append(there.claim(10))  # the other machine, just then: it has chosen the same
        return usual(*arguments, **more)

    here.study._storage.create_new_trial = slow
    mine, theirs = here.claim(10), others[1]
    assert mine[0] != theirs[0]
    assert mine[1].tolist() != theirs[1].tolist(), "the later one gave way"
    for run, (number, indices) in ((here, mine), (there, theirs)):
        run.record(number, run.evaluate(indices))
    rows = table(search(place).study)
    assert rows["trial"].tolist() == sorted([mine[0], theirs[0]])
    assert rows["score"].tolist() == rows["macs"].tolist()


def macs(config):
    return {"score": float(SUPERNET.macs(config))}


def one_machine(place, lock, out):
    run = search(place, "random", scorer=macs, lock=lock)
    run.run(40, on_trial=lambda done, values: out.open("a").write(f"{values[0]}\n"))


@pytest.mark.long
def test_two_machines_share_a_database(tmp_path):
    """The same seed, so that they choose the same wherever they can."""
    place, context = f"sqlite:///{tmp_path}/x.db", multiprocessing.get_context("fork")
    search(place)
    machines = [
        context.Process(target=one_machine, args=(place, tmp_path / f"{name}.lock", tmp_path / f"{name}.txt"))
        for name in "ab"
    ]
    for machine in machines:
        machine.start()
    for machine in machines:
        machine.join(120)
    assert [machine.exitcode for machine in machines] == [0, 0]
    study = open_study(place, name="s")
    done = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
    assert len(done) == len({tuple(trial.params.values()) for trial in done}) == 40
    assert all(trial.values == [trial.user_attrs["macs"]] for trial in done)
    given_way = [trial for trial in study.trials if trial.state.name == "FAIL"]
    assert len(done) + len(given_way) == len(study.trials)
    here, there = ((tmp_path / f"{name}.txt").read_text().split() for name in "ab")
    assert here and there, "both did something"
    assert sorted(map(float, here + there)) == sorted(trial.values[0] for trial in done)


def opens(place, together):
    together.wait()
    prepare_storage(place)
    open_study(place, name="s")


def test_four_machines_make_the_tables_at_once(tmp_path):
    """Optuna looks which are missing and makes these: another machine comes between."""
    context = multiprocessing.get_context("fork")
    for number in range(5):
        together = context.Barrier(4)
        place = f"sqlite:///{tmp_path}/{number}.db"
        machines = [context.Process(target=opens, args=(place, together)) for _ in range(4)]
        for machine in machines:
            machine.start()
        for machine in machines:
            machine.join(60)
        assert [machine.exitcode for machine in machines] == [0] * 4


def one_of_many(path, lock, seed):
    search(path, "random", budget=1.0, lock=lock, seed=seed).run(500)


@pytest.mark.parametrize(
    "tail",
    [b'{"op_code": 5, "wor', b"\0" * 4096, b'{"op_code":4}', -1, -30],
    ids=["beginning", "zeros", "no end", "end", "half"],
)
def test_a_journal_whose_last_line_was_cut_short_goes_on(tmp_path, tail):
    """By a power cut, or a full disk."""
    file = tmp_path / "s.journal"
    search(file, "random").run(4)
    whole = file.read_bytes()
    file.write_bytes(whole[:tail] if isinstance(tail, int) else whole + tail)
    search(file, "random").run(6)
    again = search(file, "random")
    again.run(6)
    done = [t for t in again.study.get_trials() if t.state == optuna.trial.TrialState.COMPLETE]
    assert len({tuple(t.params.values()) for t in done}) == 6 and again.history().counted == 6


def test_an_unfinished_line_is_left_to_who_may_only_read(tmp_path, monkeypatch):
    file = tmp_path / "s.journal"
    search(file, "random").run(3)
    file.write_bytes(torn := file.read_bytes() + b'{"op')
    monkeypatch.setattr(storage.os, "access", lambda *_: False)
    assert len(storage.load_study(file, name="s").get_trials()) == 3 and file.read_bytes() == torn


def test_a_journal_that_is_damaged_in_the_middle_is_one_line(tmp_path):
    file = tmp_path / "s.journal"
    search(file, "random").run(3)
    lines = file.read_bytes().splitlines(keepends=True)
    lines[4] = b"@@@\n"
    file.write_bytes(b"".join(lines))
    with pytest.raises(ConfigError, match=r"s\.journal' is damaged .*backup") as said:
        search(file, "random")
    assert "\n" not in str(said.value)


@pytest.mark.slow
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


@pytest.mark.parametrize(
    ("url", "seen"),
    [
        ("postgresql://gan:hunter2@db/x", "postgresql://gan:***@db/x"),
        ("postgresql+psycopg://gan:p@ss/hunter2@db:5432/x", "postgresql+psycopg://gan:***@db:5432/x"),
        ("mysql://db/x?user=gan&password=hunter2&ssl=1", "mysql://db/x?user=gan&password=***&ssl=1"),
        ("postgresql://:hunter2@db/x", "postgresql://:***@db/x"),
        ("mssql+pyodbc:///?odbc_connect=UID%3Dgan%3BPWD%3Dhunter2", "mssql+pyodbc:///?odbc_connect=***"),
        ("sqlite:////home/a@b:c/x.db", "sqlite:////home/a@b:c/x.db"),
        ("postgresql://gan@db/x", "postgresql://gan@db/x"),
        ("runs/a@b:hunter2@c", "runs/a@b:hunter2@c"),
    ],
)
def test_no_password_is_shown(url, seen):
    settings = SearchConfig(storage=url)
    assert shown(url) == seen and url not in repr(settings)
    if "***" in seen:
        assert Config(search=settings).shown()["search"]["storage"] == seen


@pytest.mark.parametrize(
    ("storage", "said"),
    [
        ("postgresql://gan:hunter2@localhost/studies", "needs a driver; run: pip install 'psycopg"),
        ("postgre://gan:hunter2@x/y", "is of no known kind; give sqlite"),
        ("sqlite:///{}/nowhere/x.db", "nowhere' is no folder to write in"),
        ("{}/nowhere/x.journal", "nowhere' is no folder to write in"),
        ("sqlite:///{}/text.db", "cannot be reached: file is not a database"),
        ("sqlite:///{}", "no folder|cannot be reached|no file"),
        ("postgresql://gan:hunter2@localhost:port/x", "cannot be read; give|needs a driver"),
        ("://", "cannot be read; give"),
        ("sqlite://", "forgets everything with its process"),
        ("sqlite:///:memory:", "forgets everything with its process"),
    ],
)
def test_a_storage_that_cannot_be_used(tmp_path, storage, said):
    (tmp_path / "text.db").write_text("no database, but some text\n" * 100)
    with pytest.raises(ConfigError, match=said) as error:
        check_storage(storage.format(tmp_path))
    assert "hunter2" not in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "nowhere").exists()


def test_a_storage_that_can_be_used(tmp_path):
    for place in (f"sqlite:///{tmp_path}/x.db", str(tmp_path / "x.journal")):
        check_storage(place, name="s", objectives=ONE)
        assert not list(tmp_path.glob("x*")), "nothing is written"
        open_study(place, name="s", objectives=ONE)
        check_storage(place, name="s", objectives=ONE)
        with pytest.raises(ConfigError, match="study 's' searches for score, not for score, macs; choose"):
            check_storage(place, name="s", objectives=FRONT)
        for file in tmp_path.glob("x*"):
            file.unlink() if file.is_file() else shutil.rmtree(file)


def test_a_storage_of_another_version_is_told(tmp_path):
    url = f"sqlite:///{tmp_path}/x.db"
    prepare_storage(url)
    prepare_storage(tmp_path / "no.journal")
    with sqlite3.connect(tmp_path / "x.db") as other:
        other.execute("UPDATE alembic_version SET version_num = 'v99.0.0.z'")
    with pytest.raises(ConfigError, match=r"x\.db' cannot be used: ") as said:
        prepare_storage(url)
    assert "\n" not in str(said.value) and not (tmp_path / "no.journal").exists()


def test_a_study_of_another_space_is_refused(tmp_path):
    """Optuna would end in its own words, and on a front the rows would mix."""
    others = {"more choices": {"fractions": (0.5, 0.75, 1)}, "other names": {"name": "uniform"}}
    for place in (str(tmp_path / "j"), f"sqlite:///{tmp_path}/x.db"):
        search(place).run(2)
        open_study(place, name="s", space=SPACE)
        for config in others.values():
            with pytest.raises(ConfigError, match=r"study 's' holds subnets of another space .*search.study"):
                open_study(place, name="s", space=gantailor.space(SpaceConfig(**config), SUPERNET))
        foreign = optuna.create_study(study_name="f", storage=search(place).study._storage)
        foreign.add_trial(optuna.create_trial(value=1.0))
        with pytest.raises(ConfigError, match="is none of gantailor's"):
            open_study(place, name="f")


def test_a_table_has_only_its_own_trials(tmp_path):
    first, second = (search(tmp_path / "j", "random", provenance=name) for name in ("1", "2"))
    first.run(2)
    second.run(3)
    study = first.study
    assert table(study, SPACE, provenance="1")["trial"].tolist() == [0, 1]
    assert len(table(study, SPACE, provenance="2")) == 3 and len(table(study)) == 5
    assert table(study, gantailor.space(SpaceConfig(name="uniform"), SUPERNET)).empty


def test_a_table_comes_back_from_its_csv(tmp_path):
    """Whatever the words are that stand in it: digits, an exponent, a truth value, a gap."""
    run = search(tmp_path / "j", "random", provenance="1234e5678901")
    run.run(3)
    frame = table(run.study)
    assert set(frame["convention"]) == {"macs_true"}
    back = pd.read_csv(io.BytesIO(csv_bytes(frame)))
    assert set(back["provenance"]) == {"provenance 1234e5678901"}
    assert set(words_of(back, "provenance")) == {"1234e5678901"} and words_of(back, "convention") == ["macs_true"] * 3
    pd.testing.assert_frame_equal(frame.drop(columns="provenance"), back.drop(columns="provenance"), check_dtype=True)
    words = {"a": ["true", "false"], "b": ["1e3", "2"], "c": ["NA", "x"], "d": ["x", "y"], "e": ["007", "x"]}
    back = pd.read_csv(io.BytesIO(csv_bytes(pd.DataFrame({**words, "f": [1.5, float("nan")], "g": [1, 2]}))))
    for name, values in words.items():
        assert back[name].tolist() in (values, [f"{name} {value}" for value in values])
    assert back["d"].tolist() == ["x", "y"] and back["e"].tolist() == ["007", "x"] and back["g"].tolist() == [1, 2]


@pytest.mark.parametrize("gone", ["tables", "study", "file"])
def test_a_database_that_goes_away_is_one_line(tmp_path, gone):
    """In whatever way it does; what is in it is kept."""
    url = f"sqlite:///{tmp_path}/x.db"
    run = search(url, "random")

    def away(config):
        if gone == "study":
            optuna.delete_study(study_name="s", storage=url)
        elif gone == "tables":
            with sqlite3.connect(tmp_path / "x.db") as other:
                other.execute("DROP TABLE trial_values")
        else:
            (tmp_path / "x.db").write_bytes(b"broken" * 1000)
        return {"score": 1.0}

    run.score = away
    text = r"the study in .*x.db' cannot be reached: .*the same command continues"
    with pytest.raises(SearchError, match=text) as said, reaching(url):
        run.run(3)
    assert "\n" not in str(said.value) and "sqlalche.me" not in str(said.value)


def test_other_errors_stay_what_they_are(tmp_path):
    for error in (KeyError("model.1"), ValueError("mine"), OSError("disk")):
        with pytest.raises(type(error)) as said, reaching(tmp_path / "j"):
            raise error
        assert said.value is error
