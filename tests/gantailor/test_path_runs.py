"""``space: path`` from the command to an exported generator, and what one training answers."""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

import gantailor
from gantailor.cli.main import main
from gantailor.evaluators.scores import Subset
from gantailor.pipeline.report import report
from gantailor.reports import fronts
from gantailor.reports.search_result import SearchResult
from gantailor.run.loading import load_config
from gantailor.run.run import Run, open_run
from gantailor.supernet.errors import GantailorError
from gantailor.supernet.files import load_tensors, stored_info, write_json

YAML = """
generator: resnet_6blocks
options: {ngf: 6}
teacher: none
data: {size: 32}
space: path
budget: 0.2x
train: {kimg: 0.04, batch: 4, gan: none, lr: 0.001, watch_kimg: 0.02}
finetune: {kimg: 0.008, batch: 4, gan: none}
search: {trials: 0}
evaluation: {search_images: 4, final: [l1]}
devices: []
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("path")
    (made / "path.yaml").write_text(YAML)
    assert main(["compress", str(made / "path.yaml"), "--out", str(made / "run")]) == 0
    return made


@pytest.mark.long
def test_the_path_lies_with_its_weights(folder):
    run = open_run(folder / "run")
    path = stored_info(run.folder.supernet)["path"]
    assert load_tensors(run.folder.supernet)[1]["path"] == path and path["full"] == dict(run.setup.traced.full_config())
    config, narrow = run.subnet()
    budget = run.setup.budget
    assert 0.95 * budget.macs < run.setup.traced.macs(config) <= budget.macs
    assert list(config.values()) == run.setup.space.sizes(run.setup.space.starts[0])[0].tolist()
    assert narrow(torch.randn(1, 3, 32, 32)).shape == (1, 3, 32, 32)
    rows = [json.loads(line) for line in run.folder.log_of("supernet").read_text().splitlines()]
    assert all(set(row) == {"step", "narrowest", "whole"} for row in rows)


@pytest.mark.long
def test_another_budget_is_answered_without_a_training(folder, capsys):
    before = (folder / "run" / "supernet.safetensors").read_bytes()
    chosen = {}
    for budget in ("0.1x", "0.3x", "0.5x", "0.2x"):
        assert main(["search", str(folder / "path.yaml"), "--out", str(folder / "run"), "--budget", budget]) == 0
        said = capsys.readouterr().err
        assert ("lies below the path's end" in said and "(0.2 of the whole)" in said) == (budget == "0.1x"), said
        run = open_run(folder / "run")
        chosen[budget] = run.subnet_config()
        allowed = float(budget[:-1]) * run.setup.traced.macs(run.setup.traced.full_config())
        assert 0.95 * allowed < run.setup.traced.macs(chosen[budget]) <= allowed
    assert (folder / "run" / "supernet.safetensors").read_bytes() == before
    for narrow, wide in (("0.2x", "0.3x"), ("0.3x", "0.5x")):
        grown = np.array(list(chosen[wide].values())) - np.array(list(chosen[narrow].values()))
        assert grown.sum() > 0 and grown.min() >= -2, "nested, but for what fills a budget"


@pytest.mark.long
def test_a_search_begins_at_the_path_and_a_front_runs_along_it(folder, tmp_path):
    again = {**_settings(), "supernet": str(folder / "run" / "supernet.safetensors")}
    again["train"] = {"kimg": 0}
    run = Run(tmp_path / "near", load_config({**again, "search": {"trials": 4}}))
    gantailor.compress(run.config.model_dump(mode="json"), out=tmp_path / "near", until="search")
    front = (tmp_path / "near" / "front.csv").read_text().splitlines()
    assert len(front) == 5
    run = open_run(tmp_path / "near")
    assert stored_info(run.folder.supernet)["path"] == stored_info(folder / "run" / "supernet.safetensors")["path"]
    along = {**again, "search": {"trials": 5, "front": True}}
    gantailor.compress(load_config(along).model_dump(mode="json"), out=tmp_path / "along", until="search")
    space = open_run(tmp_path / "along").setup.space
    assert space.name == "path" and len(space.variables) == 1 and space.count > 20


def test_a_path_is_the_default_and_a_search_around_it_is_asked_for():
    plain = load_config(None, {})
    assert (plain.space.name, plain.search.trials, plain.train.lr) == ("path", 0, 1e-3)
    for flags in ({"search.strategy": "random"}, {"search.workers": 2}, {"search.tuning_kimg": 1.0}):
        assert load_config(None, flags).search.trials == 40
    front = load_config(None, {"search.front": True})
    assert (front.space.name, front.search.trials) == ("path", 40)
    assert front.train.method_options == {"smallest": 0.05}
    for flags in (
        {"space": "default"},
        {"space.fractions": [0.5, 1.0]},
        {"train.kimg": 0},
        {"train.preset": "pix2pix"},
        {"train.sampling": "sandwich"},
        {"supernet": "file.safetensors"},
        {"budget": "macs>=0.1x"},
    ):
        other = load_config(None, flags)
        assert (other.space.name, other.search.trials) == ("default", 40), flags


def _settings():
    import yaml

    return yaml.safe_load(YAML)


@pytest.mark.long
@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"budget": "macs>=0.1x, macs<=0.3x"}, "upper limits only"),
        ({"train": {"kimg": 0}}, "made by a training"),
        ({"space": "every"}, "search.trials 0 takes the path's net"),
        ({"search": {"trials": 0, "front": True}}, "search.trials 0"),
        ({"method": "slimming"}, "space"),
        ({"ranking": "none", "train": {"kimg": 0.04, "method_options": {"order": "ranking"}}}, "ranking is none"),
        ({"train": {"kimg": 0.04, "method_options": {"order": "best"}}}, "measured"),
        (
            {"space": "every", "search": {"trials": 1}, "train": {"kimg": 0.1, "method_options": {"reach": 0.3}}},
            "path",
        ),
        ({"narrowing": 0.5, "finetune": {"bits": 8}}, "ranges"),
    ],
)
def test_mistakes_are_told_before_anything_runs(more, said, tmp_path):
    from gantailor.pipeline.check import find_mistakes

    with pytest.raises((GantailorError, ValueError), match=said):
        find_mistakes(Run(tmp_path / "run", load_config({**_settings(), **more})))


@pytest.mark.long
def test_the_page_of_a_path_says_whole_widths(folder, tmp_path):
    """``40 of 192``, not of the largest in the path's neighbourhood."""
    found = SearchResult.read(folder / "run")
    fronts.write_page(tmp_path / "front.html", [found], pictures=1)
    (full,) = re.findall(r'"full": (\{[^}]*\})', (tmp_path / "front.html").read_text())
    assert json.loads(full) == {width.name: width.size for width in found.run.setup.traced.graph.widths}


def test_scores_along_the_path_are_written_and_drawn(folder, tmp_path, capsys):
    run = open_run(folder / "run")
    frame = pd.read_csv(run.folder.path_scores)
    assert frame["macs_true"].is_monotonic_increasing and len(frame) == 8
    whole = run.setup.traced.full_config()
    assert frame["macs_true"].iloc[-1] == run.setup.traced.macs(whole)
    assert frame["params"].iloc[-1] == run.setup.traced.parameter_count(whole)
    pairs = Subset(run.setup.data("search"), run.config.evaluation.search_images)
    (score,) = run.setup.scoring.evaluator([run.setup.search_metric])(run.trained().extract(whole), pairs).values()
    assert frame[run.setup.search_metric].iloc[-1] == pytest.approx(score.value, rel=1e-5)
    before = run.folder.path_scores.stat().st_mtime_ns
    assert main(["pareto", str(folder / "run"), "--out", str(tmp_path)]) == 0
    assert "along its path, inherited" in (tmp_path / "front.svg").read_text()
    assert run.folder.path_scores.stat().st_mtime_ns == before


def test_a_run_that_scores_nothing_has_a_report(folder, tmp_path):
    shutil.copytree(folder / "run", tmp_path / "run")
    made = ["compress", str(folder / "path.yaml"), "--out", str(tmp_path / "run")]
    assert main(made) == 0, "other tests search this folder for other budgets"
    run = open_run(tmp_path / "run")
    write_json(run.folder.scores, {name: {} for name in run.folder.stored(run.folder.scores)})
    run.folder.report.unlink(missing_ok=True)
    report(run)
    assert "MACs" in run.folder.report.read_text()


def test_another_subnet_is_scored_before_its_export(folder, tmp_path, capsys):
    """What a search for another budget found: the page beside it is of the earlier subnet, and stays as it is."""
    shutil.copytree(folder / "run", tmp_path / "run")
    place = tmp_path / "run"
    assert main(["search", str(place / "config.json"), "--out", str(place), "--budget", "0.5x"]) == 0
    assert not (place / "export").exists()
    (place / "report.html").write_text("of the earlier subnet")
    assert main(["evaluate", str(place), "--metrics", "l1,psnr"]) == 0, capsys.readouterr().err
    assert (place / "report.html").read_text() == "of the earlier subnet"
    assert "psnr" in (place / "scores.json").read_text()
