"""Controlled pruning from scratch against the other routes to a small generator, on the embedded paired task.

    python benchmarks/hypernetwork.py --out runs/hypernetwork --seeds 0 1 2

For each target: ``hypernetwork`` (sparsified while it trains, then trained on; no teacher), ``scratch`` (the
uniform-width net trained from scratch on as many images) and ``supernet`` (the once-for-all subnet with the teacher's
distillation: the shipped supernet, search and fine-tuning, its 24,000 images counted). A row for each arm, target and
seed is appended to ``results.csv``, with the seconds that it took and how far from its target it ended; rows that stand
there are not made again.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from rows import append, is_done

from gantailor import pipeline
from gantailor.cli import DEMO_SUPERNET
from gantailor.config import load_config
from gantailor.run import Run

ARMS = ("hypernetwork", "scratch", "supernet")
SUPERNET_KIMG = 24.0


def settings_of(arm: str, target: float, seed: int, kimg: float) -> dict[str, Any]:
    """The run of an arm; ``kimg`` is seen in all."""
    flags: dict[str, Any] = {"budget": f"{target}x", "seed": seed, "train.seed": seed, "finetune.seed": seed}
    flags |= {"train.watch_kimg": 0, "finetune.watch_kimg": 0, "evaluation.final": ["l1", "fid", "kid"]}
    if arm == "hypernetwork":
        return flags | {"method": "hypernetwork", "train.kimg": kimg / 2, "finetune.kimg": kimg / 2}
    if arm == "scratch":
        alone = {"teacher": "none", "finetune.output_weight": 0, "finetune.feature_weight": 0, "finetune.kimg": kimg}
        return flags | alone | {"ranking": "none", "space.name": "uniform", "search.trials": 1, "train.kimg": 0}
    shipped = {"supernet": str(DEMO_SUPERNET), "train.kimg": 0, "search.trials": 40}
    return flags | shipped | {"finetune.kimg": max(0.5, kimg - SUPERNET_KIMG)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="runs/hypernetwork")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=ARMS)
    parser.add_argument("--targets", type=float, nargs="+", default=[0.5, 0.25, 0.1, 0.05])
    parser.add_argument("--kimg", type=float, default=32, help="images that every arm sees in all")
    arguments = parser.parse_args()
    folder = Path(arguments.out)
    for seed in arguments.seeds:
        for target in arguments.targets:
            for arm in arguments.arms:
                if is_done(folder / "results.csv", arm=arm, target=target, seed=seed):
                    continue
                config = load_config(None, settings_of(arm, target, seed, arguments.kimg))
                run, started = Run(folder / f"{arm}-{target}-{seed}", config), time.monotonic()
                pipeline.compress(run, until="finetune")
                seconds = round(time.monotonic() - started)
                subnet, model = run.subnet()
                supernet = run.supernet()
                reached = supernet.macs(subnet) / supernet.macs(supernet.full_config())
                found = run.scoring().evaluator(run.metrics(config.evaluation.final))(model, run.data("test"))
                scores = {name.partition("[")[0]: score.value for name, score in found.items()}
                row = {"arm": arm, "target": target, "seed": seed, "reached": reached, "macs": supernet.macs(subnet)}
                append(folder / "results.csv", [{**row, **scores, "seconds": seconds}])


if __name__ == "__main__":
    main()
