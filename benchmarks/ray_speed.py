"""How much faster two one-thread Ray workers on two nodes evaluate than one.

    python benchmarks/ray_speed.py

Both clusters live on this machine (``ray.cluster_utils.Cluster``). Evaluations are the demo's: extract a subnet, run
it on 64 search pictures, EfficientNet features. Seconds a subnet once all workers have begun, and of the whole search.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time

import ray
from ray.cluster_utils import Cluster

from gantailor.pipeline.search.ray import evaluate_with_ray
from gantailor.pipeline.search.study import make_search
from gantailor.run.loading import load_config
from gantailor.run.run import Run
from gantailor.zoo import DEMO_SUPERNET


def seconds(workers: int, trials: int) -> tuple[float, float]:
    """A subnet's, once all workers have begun; and the whole search's."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 3 * 10**8})
    for _ in range(workers - 1):
        cluster.add_node(num_cpus=1, object_store_memory=3 * 10**8)
    cluster.wait_for_nodes()
    with tempfile.TemporaryDirectory() as folder:
        flags = {"search.ray_address": cluster.address, "search.workers": workers, "search.trials": trials}
        run = Run(
            folder,
            load_config(
                None, {**flags, "space": "default", "search.strategy": "random", "evaluation.search_images": 64}
            ),
        )
        shutil.copy(DEMO_SUPERNET, run.folder.supernet)
        searcher, times = make_search(run), []
        started = time.monotonic()
        evaluate_with_ray(run, searcher, on_trial=lambda _: times.append(time.monotonic()))
    ray.shutdown()
    cluster.shutdown()
    late = times[len(times) // 4 :]  # both workers have begun
    return (late[-1] - late[0]) / (len(late) - 1), times[-1] - started


def main() -> None:
    """Run it from the command line; see the head of this file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    for _ in range(arguments.rounds):
        found = {workers: seconds(workers, arguments.trials) for workers in (1, 2)}
        ratios = [found[1][i] / found[2][i] for i in (0, 1)]
        print({workers: [round(x, 2) for x in pair] for workers, pair in found.items()}, flush=True)
        print(f"steady {ratios[0]:.2f}x, with the start of the workers {ratios[1]:.2f}x", flush=True)


if __name__ == "__main__":
    main()
