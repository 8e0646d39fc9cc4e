"""What the nets along a run's path score with the weights that they inherit, at several budgets.

    gantailor finetune path.yaml --out runs/path-measured
    python benchmarks/inherited.py runs/path-measured --shares 0.1 0.2 0.5

Prints a row for each share of the MACs and split, and appends it to ``--results``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rows import append

from gantailor.run.run import open_run
from gantailor.search.budget import Budget
from gantailor.search.limits import Limit
from gantailor.search.spaces.config import SpaceConfig
from gantailor.search.spaces.space import every_space


def main() -> None:
    """Run it from the command line; see the head of this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.05, 0.1, 0.2, 0.5, 1.0])
    parser.add_argument("--metrics", nargs="+", default=["l1", "fid", "kid"])
    parser.add_argument("--results", type=Path, default=Path("runs/inherited.csv"))
    arguments = parser.parse_args()
    run = open_run(arguments.run)
    supernet, path = run.trained(), run.setup.path
    assert path is not None, "the run was not trained along a path"
    whole, evaluator = supernet.macs(supernet.full_config()), run.setup.scoring.evaluator(arguments.metrics)
    every = every_space(supernet, SpaceConfig(name="every"))
    for share in arguments.shares:
        sizes = path.net(Budget(every, (Limit("macs", upper=share * whole),)).usage)
        config = supernet.graph.config(sizes)
        net, macs = run.setup.calibrated(supernet.extract(config)), supernet.macs(config)
        for split in ("search", "test"):
            found = {name: score.value for name, score in evaluator(net, run.setup.data(split)).items()}
            append(
                arguments.results, [{"run": arguments.run.name, "share": share, "split": split, "macs": macs, **found}]
            )


if __name__ == "__main__":
    main()
