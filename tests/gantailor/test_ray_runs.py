"""Whole runs, and trainings in several processes, on a two-node Ray cluster on this machine."""

import os
import subprocess
import sys
import threading
import time

import pandas as pd
import pytest
from safetensors.torch import load_file

from gantailor.cli.main import main
from gantailor.comparison.running import leader
from gantailor.comparison.runs import Comparison
from gantailor.pipeline.training.cluster import train_on_cluster
from gantailor.run.loading import load_config
from gantailor.run.run import Run
from gantailor.supernet.errors import RunError

ray = pytest.importorskip("ray")
SMALL = "batch: 4, ndf: 8, watch_kimg: 0, precision: float32"


@pytest.fixture(scope="module")
def cluster():
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 10**8})
    made.add_node(num_cpus=1, object_store_memory=10**8)
    made.wait_for_nodes()
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.fixture(scope="module")
def common(pairs, tiny_teacher):
    """Settings that all runs here have."""
    return (
        f"{{options: {{ngf: 8}}, teacher: {tiny_teacher}, data: {{kind: folder, path: {pairs}, size: 32}}, "
        f"evaluation: {{final: [l1], search_images: 4}}, train: {{{SMALL}}}, finetune: {{{SMALL}}}}}"
    )


def comparison(folder, common, *, kimg):
    file = folder / "compare.yaml"
    arms = "{path: {method: supernet, space: path, search: {trials: 0}}, uniform: {method: diversity, ranking: l1}}"
    file.write_text(f"methods: {arms}\nbudgets: [0.3x, 0.5x]\nseeds: [0]\nkimg: {kimg}\ncommon: {common}\n")
    return file


def table(folder):
    return pd.read_csv(folder / "results.csv").drop(columns=["seconds", "date"]).sort_values(["method", "budget"])


def test_a_shared_supernet_is_trained_first(common, tmp_path):
    entries = Comparison.read(str(comparison(tmp_path, common, kimg=0.08))).entries(tmp_path)
    leaders = {entry.folder.name: entries[leader(entry, entries)].folder.name for entry in entries}
    assert leaders == {
        "path-0.3x-0": "path-0.3x-0",
        "path-0.5x-0": "path-0.3x-0",
        "uniform-0.3x-0": "uniform-0.3x-0",
        "uniform-0.5x-0": "uniform-0.5x-0",
    }


@pytest.mark.slow
def test_a_comparison_on_a_cluster_is_that_of_one_process(cluster, common, tmp_path):
    """Also where a node is killed in the midst of it: nothing is lost."""
    file = comparison(tmp_path, common, kimg=0.2)
    assert main(["compare", str(file), "--out", str(tmp_path / "alone")]) == 0
    third = cluster.add_node(num_cpus=2, object_store_memory=10**8)
    cluster.wait_for_nodes()

    def kill():
        while not list((tmp_path / "ray").glob("*/subnet.ckpt.safetensors")):
            time.sleep(0.05)
        cluster.remove_node(third, allow_graceful=False)

    killer = threading.Thread(target=kill)
    killer.start()
    assert main(["compare", str(file), "--out", str(tmp_path / "ray"), "--ray-address", cluster.address]) == 0
    killer.join()
    expected, found = table(tmp_path / "alone"), table(tmp_path / "ray")
    pd.testing.assert_frame_equal(found.reset_index(drop=True), expected.reset_index(drop=True))


@pytest.mark.slow
def test_training_on_a_cluster_is_that_of_torchrun(cluster, common, tmp_path):
    """To the bit after 20 steps."""
    file = tmp_path / "run.yaml"
    file.write_text(common + "\n")
    given = [str(file), "--method", "supernet", "--train.kimg", "0.08", "--budget", "0.5x"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29511"]
    command = [*torchrun, "-m", "gantailor.cli", "train", *given, "--out", str(tmp_path / "torchrun")]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=300)
    there = ["--ray-processes", "2", "--search.ray_address", cluster.address]
    assert main(["train", *given, "--out", str(tmp_path / "ray"), *there]) == 0
    expected, found = (load_file(tmp_path / name / "supernet.safetensors") for name in ("torchrun", "ray"))
    assert expected.keys() == found.keys()
    assert max(float((found[k].double() - v.double()).abs().max()) for k, v in expected.items()) <= 1e-6
    assert not list(tmp_path.glob(".ray-*"))


@pytest.mark.slow
def test_a_mistake_on_the_cluster_is_one_line(cluster, common, tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text(common + "\n")
    flags = {"train.kimg": 0.08, "train.batch": 3, "search.ray_address": cluster.address}
    run = Run(tmp_path / "out", load_config(str(file), flags))
    with pytest.raises(RunError, match="batch 3 cannot be shared by 2 processes in 1 parts; make it a multiple of 2"):
        train_on_cluster(run, 2)


@pytest.mark.slow
def test_a_mistake_of_an_arm_is_told_once(cluster, common, tmp_path, capsys):
    """Its other seeds do not find it again."""
    file = tmp_path / "compare.yaml"
    wrong = common.replace("teacher: ", "teacher: gone-")
    file.write_text(f"methods: {{uniform: {{method: diversity}}}}\nseeds: [0, 1, 2, 3]\nkimg: 0.08\ncommon: {wrong}\n")
    assert main(["compare", str(file), "--out", str(tmp_path / "out"), "--ray-address", cluster.address]) == 2
    told = capsys.readouterr().err.splitlines()
    assert sum(" failed: " in line for line in told) == 1
    assert told[-1].startswith("uniform-0.1x-") and all(f"uniform-0.1x-{seed}" in told[-1] for seed in range(4))
