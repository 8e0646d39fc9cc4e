"""How much sooner two one-thread nodes of a Ray cluster end a comparison of six runs than one.

    python benchmarks/ray_compare.py

Both clusters live on this machine (``ray.cluster_utils.Cluster``). Runs are those of ``gantailor compare
--ray-address``: the embedded teacher pruned by its weights and tuned, six seeds. The clock runs from the command to
its end.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

from gantailor.cli.main import main

RUNS = """
methods: {{uniform: {{method: diversity, ranking: l1, narrowing: 0}}}}
budgets: [0.1x]
seeds: [0, 1, 2, 3, 4, 5]
kimg: {kimg}
common: {{train: {{watch_kimg: 0}}, finetune: {{watch_kimg: 0}}, evaluation: {{final: [l1], search: l1}}, devices: []}}
"""


def seconds(nodes: int, kimg: float) -> float:
    """Of the whole command, on so many nodes of one CPU each."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 3 * 10**8})
    for _ in range(nodes - 1):
        cluster.add_node(num_cpus=1, object_store_memory=3 * 10**8)
    cluster.wait_for_nodes()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "six.yaml")
        file.write_text(RUNS.format(kimg=kimg))
        started = time.monotonic()
        if main(["compare", str(file), "--out", f"{folder}/runs", "--ray-address", cluster.address]):
            sys.exit(1)
        took = time.monotonic() - started
    ray.shutdown()
    cluster.shutdown()
    return took


def measure() -> None:
    """Run it from the command line; see the head of this file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kimg", type=float, default=0.8)
    parser.add_argument("--rounds", type=int, default=1)
    arguments = parser.parse_args()
    for _ in range(arguments.rounds):
        one, two = (seconds(nodes, arguments.kimg) for nodes in (1, 2))
        print(f"one node {one:.0f} s, two nodes {two:.0f} s: {one / two:.2f}x", flush=True)


if __name__ == "__main__":
    measure()
