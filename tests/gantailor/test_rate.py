"""``lr: auto``: short trainings at a few rates, of which the best goes on as if it had been given."""

import json
import math
import re
import subprocess
import sys

import pytest
import torch
import yaml

from gantailor.cli.main import main
from gantailor.pipeline.check import find_mistakes
from gantailor.pipeline.compress import compress
from gantailor.pipeline.estimates import note_estimates
from gantailor.pipeline.training import rate as rates
from gantailor.pipeline.training.rate import FACTOR, LEAST, MOST, around
from gantailor.run.loading import load_config
from gantailor.run.run import Run
from gantailor.supernet.errors import ConfigError
from gantailor.supernet.files import load_tensors
from gantailor.supernet.training.recipe import RATE


def settings(teacher, *, train="auto", finetune="auto", **more):
    short = {"kimg": 0.1, "batch": 4, "ndf": 4, "watch_kimg": 0, "bits": 0, "precision": "float32"}
    own = {"options": {"ngf": 8}, "teacher": str(teacher), "data": {"size": 32}, "budget": "0.4x"}
    own |= {"evaluation": {"search_images": 4, "final": ["l1"]}}
    own |= {"train": {**short, "lr": train}, "finetune": {**short, "lr": finetune}}
    return load_config({**own, **more})


@pytest.mark.parametrize(
    ("best", "asked"),
    [(RATE, 3), (RATE * FACTOR**3, 6), (RATE / FACTOR**2, 5), (1e3, None), (1e-9, None), (RATE * 1.2, 3)],
)
def test_rates_are_tried_outwards_while_the_best_is_the_outermost(best, asked):
    seen = []

    def score(rate):
        seen.append(rate)
        return abs(math.log(rate / best))

    found = around(score)
    chosen = min(found, key=found.get)
    assert len(seen) == len(set(seen)) == len(found)
    assert asked is None or len(seen) == asked
    nearest = min((RATE * FACTOR**k for k in range(-20, 20)), key=lambda rate: abs(math.log(rate / best)))
    assert chosen == min(max(nearest, min(found)), max(found))
    assert all(LEAST <= rate <= MOST for rate in found)


def test_where_no_rate_holds_the_first_is_taken():
    scores = around(lambda rate: math.inf)
    assert min(scores, key=scores.get) == RATE and len(scores) == 3


@pytest.mark.parametrize("method", ["supernet", "slimming"])
def test_the_rest_is_as_if_the_rate_had_been_given(tiny_teacher, tmp_path, method, capsys):
    swept, given = Run(tmp_path / "swept", settings(tiny_teacher, method=method)), {}
    compress(swept, until="finetune")
    said = capsys.readouterr().err
    for section in ("train", "finetune"):
        tried = json.loads((tmp_path / "swept" / f"{section}.rates.json").read_text())
        assert len(tried["scores"]) >= 3 and tried["metric"] == swept.setup.search_metric
        given[section] = float(min(tried["scores"], key=tried["scores"].get))
        assert f"{section}.lr auto: {given[section]:g}, of " in said
    assert not list((tmp_path / "swept").glob("*.rate-*"))
    plain = Run(tmp_path / "given", settings(tiny_teacher, method=method, **given))
    compress(plain, until="finetune")
    for name in ("supernet", "subnet"):
        theirs, mine = (load_tensors(getattr(run.folder, name))[0] for run in (swept, plain))
        assert theirs.keys() == mine.keys()
        assert all(torch.equal(theirs[key], mine[key]) for key in theirs), name


@pytest.mark.long
def test_two_processes_try_the_same_rates(tiny_teacher, tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(settings(tiny_teacher, finetune=1e-3).model_dump(mode="json")))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, "-m", "gantailor.cli", "train", str(file), "--out", str(tmp_path / "two")]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    alone = Run(tmp_path / "alone", load_config(str(file)))
    compress(alone, until="train")
    mine, theirs = (json.loads((tmp_path / name / "train.rates.json").read_text()) for name in ("alone", "two"))
    for rate in ("0.0005", "0.001", "0.002"):  # at higher ones a step is far from another order of its sums
        assert mine["scores"][rate] == pytest.approx(theirs["scores"][rate], rel=0.1)
    assert done.stderr.count("train.lr auto: ") == 1


def test_a_sweep_that_was_interrupted_goes_on(tiny_teacher, tmp_path, monkeypatch):
    whole, broken = (Run(tmp_path / name, settings(tiny_teacher, finetune=1e-3)) for name in ("whole", "broken"))
    compress(whole, until="train")
    fitted, begun = rates.fit, []

    def fit(run, task, recipe, **more):
        begun.append(recipe.lr)
        if len(begun) == 2:
            raise KeyboardInterrupt
        return fitted(run, task, recipe, **more)

    monkeypatch.setattr(rates, "fit", fit)
    with pytest.raises(KeyboardInterrupt):
        compress(broken, until="train")
    broken.release()
    again = Run(tmp_path / "broken", settings(tiny_teacher, finetune=1e-3))
    compress(again, until="train")
    assert begun[1] == begun[2] and begun.count(begun[0]) == 1
    assert (tmp_path / "broken/train.rates.json").read_text() == (tmp_path / "whole/train.rates.json").read_text()
    assert load_tensors(again.folder.supernet)[0].keys() == load_tensors(whole.folder.supernet)[0].keys()


def test_a_rate_at_which_training_breaks_is_not_taken(tiny_teacher, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(rates, "around", lambda score: {rate: score(rate) for rate in (1e-3, 1e5)})
    compress(Run(tmp_path, settings(tiny_teacher, finetune=1e-3)), until="train")
    tried = json.loads((tmp_path / "train.rates.json").read_text())["scores"]
    assert tried["100000"] is None and tried["0.001"] is not None
    assert "train.lr auto: 0.001, of 0.001 (" in (said := capsys.readouterr().err) and "100000 (diverged)" in said


def test_a_budget_of_a_finished_training_tries_no_rate_again(tiny_teacher, tmp_path):
    config = settings(tiny_teacher, finetune=1e-3)
    compress(Run(tmp_path, config), until="train")
    before = (tmp_path / "train.rates.json").stat().st_mtime_ns
    compress(Run(tmp_path, config), until="search")
    assert (tmp_path / "train.rates.json").stat().st_mtime_ns == before


def test_another_subnet_has_a_rate_of_its_own(tiny_teacher, tmp_path):
    compress(Run(tmp_path, settings(tiny_teacher, train=1e-3)), until="finetune")
    (first,) = tmp_path.glob("finetune.rates.json")
    before = first.read_text()
    again = Run(tmp_path, settings(tiny_teacher, train=1e-3, budget="0.7x"))
    compress(again, until="search")
    assert not first.exists()
    (kept,) = tmp_path.glob("earlier/*/finetune.rates.json")
    assert kept.read_text() == before


@pytest.mark.parametrize("method", ["supernet", "slimming"])
def test_an_estimate_leaves_out_what_is_done(tiny_teacher, tmp_path, method, capsys):
    run = Run(tmp_path / "run", settings(tiny_teacher, train=1e-3, method=method))
    note_estimates(run)
    assert re.search("^train: 0.1 kimg", before := capsys.readouterr().err, re.MULTILINE)
    assert re.search("^finetune: .*, some rates tried before, about", before, re.MULTILINE)
    compress(run, until="train")
    capsys.readouterr()
    note_estimates(run)
    after = capsys.readouterr().err
    assert f"train: done before, {run.folder.supernet}\nfinetune: 0.1 kimg" in after and "train" not in run.expected


@pytest.mark.parametrize("value", [0, -1e-3, "fast", float("nan"), None, True])
def test_what_is_no_rate_is_said_in_one_line(value):
    with pytest.raises(ConfigError, match=r"^train.lr cannot be .*: give a number above 0, at most 1e6, or auto$"):
        load_config(None, {"train.lr": value})


def test_a_rate_that_yaml_takes_for_a_text():
    assert load_config(None, {"train.lr": "1e-3"}).train.lr == 1e-3


def test_where_a_rate_cannot_be_tried(tiny_teacher, tmp_path, capsys):
    config = settings(tiny_teacher, train=1e-3, search={"tuning_kimg": 0.02, "finalists": 2, "trials": 4})
    with pytest.raises(ConfigError, match=r"finetune\.lr auto .* search\.tuning_kimg"):
        find_mistakes(Run(tmp_path, config))
    flags = ["--train.lr", "auto", "--out", str(tmp_path / "t"), "--options", "{ngf: 8}"]
    assert main(["teacher", *flags]) == 2
    assert "train.lr auto" in capsys.readouterr().err
