"""A two-node Ray cluster on this machine: killing a node loses no finished trial; the study goes on."""

import collections
import os
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from gantailor.pipeline.search.ray import check_ray, evaluate_with_ray
from gantailor.search.budget import Budget
from gantailor.search.spaces.config import SpaceConfig
from gantailor.search.spaces.space import default_space
from gantailor.search.storage import open_study
from gantailor.search.study import Search
from gantailor.supernet.errors import ConfigError
from gantailor.supernet.supernet import Supernet
from gantailor.zoo.generators.record import build

pytestmark = pytest.mark.long

ray = pytest.importorskip("ray")
TRIALS = 24


@pytest.fixture(scope="module")
def cluster():
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 10**8})
    yield made
    ray.shutdown()
    made.shutdown()


def make(path, log, *, seconds=0.6):
    """A search whose scorer is slow, leaves a line in ``log`` and sometimes fails."""
    import torch

    supernet = Supernet(build("resnet_6blocks", ngf=16), (torch.randn(1, 3, 32, 32),))
    space = default_space(supernet, SpaceConfig(fractions=(0.25, 0.5, 0.75, 1)))

    def score(config):
        with open(log, "a") as file:
            file.write(config.to_json() + "\n")
        time.sleep(seconds)
        if sum(config.values()) % 3 == 0:
            raise RuntimeError("a picture is missing")
        return {"score": float(sum(config.values()))}

    return Search(open_study(path, name="s"), Budget(space, int(0.5 * space.macs(space.largest)[0])), score)


def settings(address, workers):
    search = SimpleNamespace(ray_address=address, ray_cpus=1.0, ray_gpus=0.0, trials=TRIALS, workers=workers)
    return SimpleNamespace(config=SimpleNamespace(search=search))


@pytest.mark.slow
def test_a_killed_node_loses_no_finished_trial(cluster, tmp_path):
    second = cluster.add_node(num_cpus=1, object_store_memory=10**8)
    cluster.wait_for_nodes()
    searcher, shown = make(tmp_path / "j", tmp_path / "log"), []

    def kill():
        while len(shown) < 6:
            time.sleep(0.05)
        cluster.remove_node(second, allow_graceful=False)

    killer = threading.Thread(target=kill)
    killer.start()
    evaluate_with_ray(settings(cluster.address, 2), searcher, on_trial=shown.append)
    killer.join()
    trials = searcher.study.trials
    assert len(trials) == TRIALS
    assert {trial.state.name for trial in trials} <= {"COMPLETE", "FAIL"}
    reasons = {trial.user_attrs["reason"] for trial in trials if trial.state.name == "FAIL"}
    assert reasons <= {"RuntimeError: a picture is missing"}
    candidates = [tuple(trial.params.values()) for trial in trials]
    assert len(set(candidates)) == TRIALS
    lines = (tmp_path / "log").read_text().splitlines()
    assert len(set(lines)) == TRIALS
    repeated = sum(count - 1 for count in collections.Counter(lines).values())
    assert repeated <= 8  # what the killed node's one trial held


DRIVER = """
import sys
sys.path.insert(0, {here!r})
from test_ray import make, settings
from gantailor.pipeline.search.ray import evaluate_with_ray
from gantailor.search.workers import release_lost
searcher = make({path!r}, {log!r})
release_lost(searcher.study)
evaluate_with_ray(settings({address!r}, 1), searcher, on_trial=lambda done: print(done, flush=True))
"""


@pytest.mark.slow
def test_a_killed_driver_goes_on(cluster, tmp_path):
    here = os.path.dirname(__file__)
    text = DRIVER.format(here=here, path=str(tmp_path / "j"), log=str(tmp_path / "log"), address=cluster.address)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(["", os.getcwd(), here])[1:]}
    driver = subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True, env=environment)
    assert driver.stdout is not None
    for line in driver.stdout:
        if line.strip().isdigit() and int(line) >= 5:  # Ray prints among the numbers
            break
    driver.kill()
    driver.wait()
    before = {t.number for t in open_study(tmp_path / "j", name="s").trials if t.state.name == "COMPLETE"}
    searcher = make(tmp_path / "j", tmp_path / "log")
    subprocess.run([sys.executable, "-c", text], check=True, env=environment, timeout=200)
    trials = searcher.study.trials
    assert before <= {t.number for t in trials if t.state.name == "COMPLETE"}
    done = [tuple(t.params.values()) for t in trials if t.state.name == "COMPLETE" or "reason" in t.user_attrs]
    assert len(done) == len(set(done)) == TRIALS
    assert np.isfinite([t.value for t in trials if t.state.name == "COMPLETE"]).all()


def test_more_gpus_than_there_are(cluster):
    wanted = SimpleNamespace(ray_address=cluster.address, ray_gpus=0.5)
    with pytest.raises(ConfigError, match=r"search\.ray_gpus 0\.5: the Ray cluster at '.*' has 0 GPUs; lower it"):
        check_ray(wanted, "auto")
    check_ray(SimpleNamespace(ray_address=cluster.address, ray_gpus=0.0), "auto")


def test_a_gpu_that_ray_does_not_give(cluster):
    with pytest.raises(ConfigError, match=r"device 'cuda:0': Ray gives its workers no GPU while search\.ray_gpus is 0"):
        check_ray(SimpleNamespace(ray_address=cluster.address, ray_gpus=0.0), "cuda:0")
