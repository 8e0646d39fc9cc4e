"""Fronts: picked budgets, figures, and the page in a real browser."""

import json
import shutil

import numpy as np
import optuna
import pandas as pd
import pytest
import torch

import gantailor
from gantailor.cli.main import main
from gantailor.pipeline.search.study import make_search
from gantailor.reports import fronts, published
from gantailor.reports.search_result import SearchResult, table_of
from gantailor.run.run import open_run
from gantailor.search.latency import LatencyProfile
from gantailor.search.scoring import Objective
from gantailor.search.storage import open_study
from gantailor.supernet.errors import ConfigError

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def runs(tmp_path_factory, tiny_teacher):
    """A whole front, and a random search at one budget."""
    folder = tmp_path_factory.mktemp("fronts")
    settings = f"generator: resnet_6blocks\noptions: {{ngf: 8}}\nteacher: {tiny_teacher}\ndata: {{size: 32}}\n"
    settings += "space: default\ntrain: {kimg: 0.03, batch: 8}\nevaluation: {search: l1, search_images: 16}\n"
    (folder / "front.yaml").write_text(settings + "budget: 1x\nsearch: {trials: 22, front: true}\n")
    (folder / "random.yaml").write_text(settings + "budget: 0.3x\nsearch: {trials: 18, strategy: random}\n")
    for name in ("front", "random"):
        assert main(["search", str(folder / f"{name}.yaml"), "--out", str(folder / name)]) == 0
    return folder


def test_a_budget_is_answered_from_the_study(runs, capsys, tmp_path):
    found = SearchResult.read(runs / "front", budget="0.5x")
    frame = found.frame
    full = found.run.setup.supernet.macs(found.run.setup.supernet.full_config())
    fits = frame[frame["macs"] <= full // 2]
    assert found.chosen == fits["l1"].idxmin()
    assert found.run.setup.supernet.macs(found.config) == fits["macs"][found.chosen]
    table = tmp_path / "all.parquet"
    arguments = ["pareto", str(runs / "front"), str(runs / "random"), "--budget", "0.5x", "--out", str(tmp_path)]
    assert main([*arguments, "--table", str(table)]) == 0
    assert "best within" in capsys.readouterr().out
    written = pd.read_parquet(table)
    assert {"l1", "macs_published", "model.1", "origin", "provenance"} <= set(written.columns)
    assert written["run"].value_counts().to_dict() == {"front": 22, "random": 18}, "one does not overwrite the other"
    assert (tmp_path / "front.png").stat().st_size > 10_000
    assert (tmp_path / "front.svg").read_text().count("<use") > 40


def test_runs_of_one_name_are_told_apart_in_the_table(runs, tmp_path):
    shutil.copytree(runs / "front", tmp_path / "front")
    folders = [runs / "front", tmp_path / "front", runs / "random"]
    every = table_of([SearchResult.read(folder) for folder in folders])
    assert every.columns[0] == "run"
    assert every["run"].value_counts().to_dict() == {str(folders[0]): 22, str(folders[1]): 22, "random": 18}


def test_another_budget_needs_no_other_evaluation(runs, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(runs / "front", folder)
    before = (folder / "subnet.json").read_text()
    frame = SearchResult.read(folder).frame
    tighter = int(frame["macs"][frame["l1"].idxmin()]) - 1  # the best one no longer fits
    more = ["--budget", str(tighter), "--search.trials", str((frame["macs"] <= tighter).sum())]
    assert main(["search", str(folder / "config.json"), "--out", str(folder), *more]) == 0
    assert len(SearchResult.read(folder).frame) == len(frame)
    assert (folder / "subnet.json").read_text() != before
    assert [file.read_text() for file in (folder / "earlier").glob("*/subnet.json")] == [before]


def test_front_and_hypervolume(runs):
    found = [SearchResult.read(runs / name) for name in ("front", "random")]
    for one in found:
        points = one.points("true")
        literal = [i for i, p in enumerate(points) if not any((q <= p).all() and (q < p).any() for q in points)]
        assert sorted(one.front("true")) == literal
        assert (one.frame["origin"] == "start").sum() == 16
    histories = fronts.hypervolumes(found, "true")
    assert [len(history) for history in histories] == [22, 18]
    assert all((np.diff(history) >= 0).all() and 0 <= history[-1] <= 1 for history in histories)
    every = np.concatenate([one.points("true") for one in found])
    boxes = (every - every.min(0)) / np.ptp(every, axis=0)
    corners = np.random.default_rng(0).random((20_000, 2))
    for rows, history in ((boxes[:22], histories[0]), (boxes[22:], histories[1])):
        share = (corners[:, None] >= rows[None]).all(2).any(1).mean()
        assert history[-1] == pytest.approx(share, abs=0.01)


def test_worker_processes_share_the_study(runs, tmp_path):
    settings = (runs / "random.yaml").read_text().replace("trials: 18", "trials: 20")
    (tmp_path / "config.yaml").write_text(settings)
    folder = tmp_path / "run"
    shutil.copytree(runs / "random", folder)
    assert main(["search", str(tmp_path / "config.yaml"), "--out", str(folder), "--workers", "2"]) == 0
    frame = SearchResult.read(folder).frame
    assert len(frame) == len(frame.drop_duplicates([c for c in frame if c.startswith("model.")])) == 20


def test_a_trial_of_a_lost_worker_is_not_taken_for_done(runs, tmp_path):
    """All that were asked for were done or running, and the one that ran is lost."""
    folder = tmp_path / "run"
    shutil.copytree(runs / "random", folder)
    searcher = make_search(open_run(folder))
    assert searcher.claim(19) is not None
    del searcher  # and with it the lock that says that somebody works on it
    more = ["--search.trials", "19", "--out", str(folder)]
    assert main(["search", str(folder / "config.json"), *more]) == 0
    assert len(SearchResult.read(folder).frame) == 19


def test_two_runs_in_one_database_do_not_see_each_other(runs, tmp_path):
    """Nor do they meet each other's search spaces."""
    storage = ["--search.storage", f"sqlite:///{tmp_path}/shared.db", "--search.trials", "3"]
    torch.manual_seed(1)
    torch.save(gantailor.build("resnet_6blocks", ngf=8).state_dict(), tmp_path / "B.pth")
    config = str(runs / "random.yaml")
    assert main(["search", config, "--out", str(tmp_path / "a"), *storage]) == 0
    before = SearchResult.read(tmp_path / "a").frame
    other = ["--teacher", str(tmp_path / "B.pth"), "--out", str(tmp_path / "b")]
    assert main(["search", config, *other, *storage]) == 0
    assert main(["search", config, "--out", str(tmp_path / "c"), "--space.fractions", "[0.3, 0.6, 1]", *storage]) == 0
    after = SearchResult.read(tmp_path / "a").frame
    pd.testing.assert_frame_equal(before, after)
    assert len(SearchResult.read(tmp_path / "b").frame) == len(SearchResult.read(tmp_path / "c").frame) == 3


def test_profile_and_a_budget_in_milliseconds(runs, tiny_teacher, tmp_path, capsys):
    profile = tmp_path / "here.json"
    settings = ["--generator", "resnet_6blocks", "--options", "{ngf: 8}", "--teacher", str(tiny_teacher)]
    settings += ["--data.size", "32"]
    assert main(["profile", str(profile), "--runtime", "torch-cpu", "--subnets", "12", *settings]) == 0
    assert "median error" in capsys.readouterr().out
    again = ["profile", str(tmp_path / "b.json"), "--table", str(profile.with_suffix(".csv")), *settings]
    assert main(again) == 0
    assert (
        json.loads(profile.read_text())["coefficients"] == json.loads((tmp_path / "b.json").read_text())["coefficients"]
    )
    found = SearchResult.read(runs / "front")
    table = pd.read_csv(profile.with_suffix(".csv"))  # what follows is no matter of this machine's speed
    widths = [width.name for width in found.run.setup.traced.graph.widths]
    table["latency_ms"] = found.run.setup.traced.macs_many(table[widths].to_numpy()) / 1e6
    table.to_csv(tmp_path / "even.csv", index=False)
    profile = tmp_path / "even.json"
    assert main(["profile", str(profile), "--table", str(tmp_path / "even.csv"), *settings]) == 0
    low, high = LatencyProfile.load(profile).predict(
        found.budget.space, np.stack([found.budget.space.smallest, found.budget.space.largest])
    )
    limit = 0.5 * (low + high)
    assert (
        main(["pareto", str(runs / "front"), "--budget", f"latency_ms<={limit}@{profile}", "--out", str(tmp_path)]) == 0
    )
    assert f"latency_ms<={limit}" in capsys.readouterr().out
    more = ["--search.front_cost", f"latency_ms@{profile}", "--trials", "18", "--out", str(tmp_path / "timed")]
    assert main(["search", str(runs / "front.yaml"), *more]) == 0
    frame = SearchResult.read(tmp_path / "timed").frame
    supernet = found.run.setup.supernet
    sizes = np.array([[row[w.name] for w in supernet.graph.widths] for row in frame.to_dict("records")])
    np.testing.assert_allclose(frame["latency_ms"], LatencyProfile.load(profile).predict_sizes(supernet, sizes))


def test_mistakes(runs, tmp_path, capsys):
    assert main(["pareto", str(tmp_path)]) == 2
    assert "no run folder" in capsys.readouterr().err
    assert main(["pareto", str(runs / "front"), "--published", "zebras"]) == 2
    assert "horse2zebra" in capsys.readouterr().err
    assert main(["pareto", str(runs / "front"), "--published", "maps"]) == 2
    assert "papers report fid for maps" in capsys.readouterr().err
    assert main(["pareto", str(runs / "front"), "--budget", "0.001x"]) == 2
    assert "cannot be reached" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="--convention published"):
        published.published_points("maps", "fid[inception-2015-12-05]", "true")
    points = published.published_points("maps", "fid[inception-2015-12-05]", "published")
    assert len(points) == 3
    axes = fronts.draw([SearchResult.read(runs / "front")], convention="published", published=points).axes[0]
    mine = {f"{name} (teacher 47.91)" for name in ("GAN Compression", "Fast GAN Compression")}
    assert {text.get_text() for text in axes.texts} == {"original"} | mine


def test_published_points_say_where_they_are_from():
    every = pd.read_csv(published.POINTS)
    assert not every[["task", "metric", "method", "macs", "value", "stated", "source"]].isna().any(axis=None)
    for (task, metric), rows in every.groupby(["task", "metric"]):
        original = rows[rows["method"] == "original"]
        assert len(original) == 1 and (rows["macs"] <= float(original["macs"].iloc[0])).all(), (task, metric)
    zebras = every[every["task"] == "horse2zebra"].set_index("method")
    assert (zebras.loc["DCD", "value"], zebras.loc["DCD", "teacher"]) == (48.24, 61.53)
    assert zebras.loc["CAT", ["teacher"]].isna().all()


UNCOVERED = """[...document.querySelectorAll("[id='log-run0'] use")].filter(use => {
    const box = use.getBoundingClientRect();
    return document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2) === use;
}).map(use => +use.dataset.row)"""


def test_page_in_a_browser(runs, tmp_path, browser):
    found = [SearchResult.read(runs / name) for name in ("front", "random")]
    fronts.write_page(tmp_path / "front.html", found, pictures=24)
    with browser(tmp_path / "front.html", viewport={"width": 1300, "height": 1000}) as view:
        details = view.locator("#details")
        assert f"trial {found[0].frame['trial'][found[0].chosen]}" in details.inner_text()
        first, second, *_ = view.evaluate(UNCOVERED)
        for row in (first, second):
            view.locator(f"[id='log-run0'] use[data-row='{row}']").hover(force=True)
            text = details.inner_text()
            assert f"{found[0].frame['macs_true'][row]:,}" in text
            assert f"{found[0].frame['model.1'][row]} of 8" in text
            assert details.locator("img").count() == 2
            size = details.locator("img").nth(1).evaluate("picture => [picture.naturalWidth, picture.naturalHeight]")
            assert size == [96, 32]
        view.locator("[id='log-run1'] use[data-row='2']").focus()
        view.keyboard.press("Enter")  # held: pointing elsewhere changes nothing
        view.locator(f"[id='log-run0'] use[data-row='{first}']").hover(force=True)
        assert "random, trial 2" in details.inner_text()
        view.get_by_label("linear").check()
        assert not view.locator("#plot-log").is_visible()
        assert view.locator("[id='linear-run1']").is_visible()
        view.locator("input[data-run='1']").uncheck()
        assert not view.locator("[id='linear-run1']").is_visible()
        assert view.locator("[id='linear-run0']").is_visible()


def test_page_on_a_phone_in_the_dark(runs, tmp_path, browser):
    fronts.write_page(tmp_path / "front.html", [SearchResult.read(runs / "front")], pictures=2)
    with browser(tmp_path / "front.html", viewport={"width": 390, "height": 800}, color_scheme="dark") as view:
        assert view.evaluate("getComputedStyle(document.querySelector('.plot svg')).filter").startswith("invert")


def test_a_finished_run_is_looked_at_elsewhere(runs, tmp_path, capsys):
    """Without data, teacher and latency profile, from another folder: pictures are missing, nothing else."""
    folder = tmp_path / "run"
    shutil.copytree(runs / "random", folder)
    here = SearchResult.read(folder)
    config = json.loads((folder / "config.json").read_text())
    config["data"] |= {"kind": "folder", "path": "gone"}  # OpenMoji's pictures come with a package
    config["teacher"]["weights"] = "gone.pth"
    (folder / "config.json").write_text(json.dumps(config))
    trace = json.loads((folder / "trace.json").read_text())
    (folder / "trace.json").write_text(json.dumps({**trace, "places": {}}))  # nor where they were
    there = SearchResult.read(folder)
    pd.testing.assert_frame_equal(here.frame, there.frame)
    assert (there.config, there.chosen, str(there.budget)) == (here.config, here.chosen, str(here.budget))
    assert main(["pareto", str(folder), "--out", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert "run: no sample pictures, for " in said.err + said.out and "gone" in said.err + said.out
    assert (tmp_path / "front.html").exists()


def test_runs_share_a_study_that_they_name(runs, tmp_path, capsys):
    """Two folders, as on two machines: what one evaluated the other knows; a third names none and sees nothing."""
    config, place = str(runs / "random.yaml"), f"sqlite:///{tmp_path}/x.db"
    storage = ["--search.storage", place, "--search.trials", "3"]
    for name in ("a", "b"):
        shutil.copytree(runs / "random", tmp_path / name)
        assert main(["search", config, "--out", str(tmp_path / name), *storage, "--search.study", "ours"]) == 0
    assert main(["search", config, "--out", str(tmp_path / "a"), *storage, "--search.study", "mine"]) == 0
    studies = [open_study(place, name=name, objectives=(Objective("l1"),)) for name in ("ours", "mine")]
    assert [len(study.trials) for study in studies] == [3, 3]
    assert "of other weights" not in capsys.readouterr().err
    studies[1].add_trial(optuna.create_trial(value=1.0))
    assert main(["search", config, "--out", str(tmp_path / "a"), *storage, "--search.study", "mine"]) == 0
    assert "1 trials of study 'mine' are of other weights, data or scores and do not count" in capsys.readouterr().err
    (tmp_path / "b").rename(tmp_path / "moved")
    assert len(SearchResult.read(tmp_path / "moved").frame) == 3
    capsys.readouterr()
    wrong = ["--search.study", "ours", "--search.front", "true", "--out", str(tmp_path / "c")]
    assert main(["search", config, *wrong, *storage]) == 2
    assert "study 'ours' searches for l1, not for l1, macs" in capsys.readouterr().err
    assert not (tmp_path / "c" / "supernet.safetensors").exists()


def test_a_search_that_ends_early_says_so(runs, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(runs / "random", folder)
    space = open_run(folder).setup.space
    lowest = int(space.macs(space.smallest)[0])
    more = ["--budget", str(lowest), "--search.trials", "5", "--out", str(folder)]
    assert main(["search", str(folder / "config.json"), *more]) == 0
    assert "the search ends with 1 of 5 subnets: random found no other" in capsys.readouterr().err
