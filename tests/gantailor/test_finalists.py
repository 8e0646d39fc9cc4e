"""A search whose best subnets are tuned: what is tuned is kept, and the chosen one's fine-tuning goes on with it."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from gantailor.comparison.runs import Entry
from gantailor.pipeline.compress import compress
from gantailor.pipeline.search.ray import run_on_cluster
from gantailor.pipeline.search.stage import search
from gantailor.pipeline.training.finetune import finetune
from gantailor.run.loading import load_config
from gantailor.run.run import Run, open_run
from gantailor.search.errors import SearchError
from gantailor.search.storage import load_study
from gantailor.supernet.errors import ConfigError
from gantailor.supernet.files import load_tensors

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def settings(tmp_path_factory, tiny_teacher):
    """Four trials, the best three tuned on 8 of 16 steps; whole batches of four 32 px pictures."""
    folder, rng = tmp_path_factory.mktemp("pairs"), np.random.default_rng(0)
    for split in ("train", "test"):
        (folder / split).mkdir()
        for number in range(4):
            picture = Image.fromarray(rng.integers(0, 256, (32, 64, 3), dtype=np.uint8))
            picture.save(folder / split / f"{number}.png")
    return {
        "options": {"ngf": 8},
        "teacher": str(tiny_teacher),
        "data": {"kind": "folder", "path": str(folder), "size": 32},
        "budget": "0.5x",
        "evaluation": {"search": "l1", "final": ["l1"], "search_images": 4},
        "train": {"kimg": 0},
        "search": {"trials": 4, "strategy": "random", "tuning_kimg": 0.032, "finalists": 3},
        "finetune": {"kimg": 0.064, "batch": 4, "ndf": 8, "watch_kimg": 0},
    }


def begun(folder, settings, **others):
    run = Run(folder, load_config(None, settings | others))
    run.claim()
    return run


@pytest.fixture(scope="module")
def tuned(tmp_path_factory, settings):
    folder = tmp_path_factory.mktemp("tuned") / "run"
    run = begun(folder, settings)
    compress(run, until="finetune")
    return run


def looks(run):
    """Of every finalist its widths, as text, and its scores by step."""
    folders = [file.parent for file in run.folder.path.glob("finalists/*/scores.json")]
    return {(f / "subnet.json").read_text(): json.loads((f / "scores.json").read_text()) for f in folders}


def test_the_tuned_score_decides(tuned):
    found = looks(tuned)
    assert len(found) == 3 and all(list(scores) == ["2", "4", "8"][: len(scores)] for scores in found.values())
    ended = {widths: scores["8"] for widths, scores in found.items() if "8" in scores}
    assert tuned.folder.subnet_config.read_text() == min(ended, key=ended.get)
    name = json.loads(tuned.folder.study.read_text())["name"]
    assert len(load_study(tuned.folder.search, name=name).get_trials()) == 4


def test_fine_tuning_goes_on_with_it(tuned, settings, tmp_path):
    """To the same weights, bit for bit, as if it had never stopped; the tuned steps are not made again."""
    steps = [json.loads(line)["step"] for line in tuned.folder.subnet_checkpoint.with_suffix(".jsonl").open()]
    assert {2, 4, 8, 16} <= set(steps) and steps == sorted(set(steps))
    plain = begun(tmp_path / "run", settings, search={"trials": 4, "strategy": "random"})
    compress(plain, until="search")
    shutil.copy(tuned.folder.subnet_config, plain.folder.subnet_config)
    finetune(plain)
    mine, theirs = (load_tensors(run.folder.subnet)[0] for run in (tuned, plain))
    assert mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_again_tunes_nothing(tuned, capsys):
    """It tells what the pick gained over uniform widths, as inherited and as tuned."""
    before = {file: file.stat().st_mtime_ns for file in tuned.folder.path.glob("finalists/*/*")}
    search(open_run(tuned.folder.path))
    assert {file: file.stat().st_mtime_ns for file in tuned.folder.path.glob("finalists/*/*")} == before
    table, found = pd.read_csv(tuned.folder.front), looks(tuned)
    uniform = table["l1"][0]
    assert f"l1 inherited: {table['l1'].min():.5g}, of uniform widths {uniform:.5g}, " in (
        said := capsys.readouterr().err
    )
    ended = sum("8" in scores for scores in found.values())
    assert f"{ended} of 3 finalists were tuned on 0.032 kimg, others on less; l1 after " in said


def test_images_of_all_finalists_count(tuned):
    score = {"value": 0.5, "unit": "of the range", "provenance": {"reference": "x", "reference_hash": "0"}}
    tuned.folder.scores.write_text(json.dumps({"subnet": {"l1": score}}))
    row = Entry("supernet", "0.5x", 0, tuned.config, tuned.folder.path).row()
    chosen = tuned.folder.subnet_config.read_text()
    others = [max(map(int, scores)) * 4 / 1000 for widths, scores in looks(tuned).items() if widths != chosen]
    assert len(others) == 2 and row["kimg"] == pytest.approx(0.064 + sum(others)) and row["seconds"] > 0
    tuned.folder.scores.unlink()


def test_none_can_be_tuned(settings, tmp_path, monkeypatch):
    """One line with the reason."""
    monkeypatch.setattr("gantailor.pipeline.search.finalists.tuning_of", lambda run, config: 1 / 0)
    with pytest.raises(SearchError, match="no finalist could be tuned, the last for: ZeroDivisionError: division by"):
        compress(begun(tmp_path / "run", settings), until="search")


@pytest.mark.slow  # four processes
def test_two_workers(settings, tmp_path):
    """Each finalist is tuned once, by either; the trials were there before."""
    compress(begun(tmp_path / "run", settings, search={"trials": 4, "strategy": "random"}), until="search")
    run = begun(tmp_path / "run", settings, search={**settings["search"], "workers": 2})
    compress(run, until="search")
    assert len(looks(run)) == 3 and run.folder.subnet_checkpoint.exists()


@pytest.mark.slow  # a cluster of two nodes
def test_on_a_cluster(settings, tmp_path, capsys):
    """Each finalist is tuned once, on either node, to the scores that one process finds; a mistake is a line."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 10**8})
    cluster.add_node(num_cpus=1, object_store_memory=10**8)
    try:
        alone = begun(tmp_path / "alone", settings)
        compress(alone, until="search")
        first = begun(tmp_path / "run", settings, search={"trials": 4, "strategy": "random"})
        compress(first, until="search")
        there = {**settings["search"], "workers": 2, "ray_address": cluster.address}
        run = begun(tmp_path / "run", settings, search=there)
        compress(run, until="search")
        assert "finalists are tuned to the end" in capsys.readouterr().err
        found, known = looks(run), looks(alone)
        assert found.keys() == known.keys() and len(found) == 3
        for widths, scores in found.items():
            same = scores.keys() & known[widths].keys()
            assert same and all(scores[step] == known[widths][step] for step in same)
        with pytest.raises(SearchError, match="no such pictures"):
            run_on_cluster(run.config.search, refuse, (), results=lambda: None)
    finally:
        ray.shutdown()
        cluster.shutdown()


def refuse():
    raise ConfigError("no such pictures")


def test_mistakes(settings, tmp_path, tiny_teacher):
    def refused(message, **search):
        with pytest.raises(ConfigError, match=message):
            compress(begun(tmp_path / "run", settings | {"search": {"tuning_kimg": 0.01, **search}}), until="check")

    refused("search.tuning_kimg 1 is more than finetune.kimg 0.064, of which it is the beginning", tuning_kimg=1)
    refused("search.front answers every budget by inherited scores", front=True)
