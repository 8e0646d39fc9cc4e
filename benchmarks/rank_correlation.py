"""Does the score of inherited weights rank subnets as training them from scratch does?

    python benchmarks/rank_correlation.py --out runs/ranks

Subnets of the demo's space, one from each of equally wide steps of log MACs. Each is scored twice: with the weights of
the shipped supernet, and trained alone from random weights (the demo's losses without a teacher). Prints Kendall's tau
between the two, beside the tau of MACs alone, which knows nothing of the supernet. Rows are appended to
``results.csv``; a subnet that stands there is not trained again.
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd
import torch
from scipy.stats import kendalltau

from gantailor.pipeline.context import RunContext
from gantailor.run.loading import load_config
from gantailor.run.run import Run, with_file
from gantailor.search.spaces.space import Space
from gantailor.supernet.training.recipe import Recipe
from gantailor.supernet.training.trainer import Trainer
from gantailor.zoo import DEMO_SUPERNET
from gantailor.zoo.initialisation import init_weights

SCORES = ("l1", "kid[efficientnet-lite0]", "fid[efficientnet-lite0]")


def spread(space: Space, count: int, seed: int) -> np.ndarray:
    """Random subnets, one for each step of log MACs between the space's ends; ``[count, n_variables]``."""
    rng = np.random.default_rng(seed)
    common = rng.random((20000, 1))  # widths around a common level: independent ones are all of middling cost
    levels = np.clip(common + rng.normal(0, 0.35, (20000, len(space.largest))), 0, 1)
    candidates = np.rint(levels * space.largest).astype(np.int64)
    log = np.log(space.macs(candidates))
    targets = np.linspace(log.min(), log.max(), count + 2)[1:-1]
    return candidates[[int(np.abs(log - target).argmin()) for target in targets]]


def main() -> None:
    """Run it from the command line; see the head of this file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="runs/ranks")
    parser.add_argument("--subnets", type=int, default=16)
    parser.add_argument("--kimg", type=float, default=8, help="training from scratch")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    run = Run(arguments.out, load_config({"space": "default", "train": {"lr": 2e-4}, "finetune": {"lr": 2e-4}}))
    run.claim()
    results, space = run.folder.file("results.csv"), run.setup.space
    supernet = with_file(run.setup.traced, DEMO_SUPERNET)
    done = set(pd.read_csv(results)["subnet"]) if results.exists() else set()
    evaluator = run.setup.scoring.evaluator(run.config.evaluation.final)
    recipe = Recipe(kimg=arguments.kimg, seed=arguments.seed)

    def scores(model: torch.nn.Module) -> dict[str, float]:
        return {name: score.value for name, score in evaluator(model, run.setup.data("test")).items()}

    for number, indices in enumerate(spread(space, arguments.subnets, arguments.seed)):
        if number in done:
            continue
        config = space.to_config(indices)
        inherited = scores(supernet.extract(config))
        torch.manual_seed(arguments.seed)
        fresh = init_weights(supernet.extract(config))
        trainer = Trainer(RunContext(run).training(fresh, recipe), recipe)
        with run.report.training(f"subnet {number}") as listener:
            alone = scores(trainer.run(run.folder.file(f"subnet{number}.safetensors"), on_progress=listener))
        row = {"subnet": number, "macs": supernet.macs(config)}
        row |= {f"inherited {name}": inherited[name] for name in SCORES}
        row |= {f"alone {name}": alone[name] for name in SCORES}
        pd.DataFrame([row]).to_csv(results, mode="a", header=not results.exists(), index=False)
        print(row, flush=True)
    frame = pd.read_csv(results)
    print(f"{len(frame)} subnets, {frame['macs'].min():,} to {frame['macs'].max():,} MACs (true)")
    for name in SCORES:
        tau = kendalltau(frame[f"inherited {name}"], frame[f"alone {name}"])
        macs = kendalltau(-frame["macs"], frame[f"alone {name}"])
        print(f"{name:<26} Kendall tau: supernet {tau.statistic:.2f}, MACs alone {macs.statistic:.2f}")


if __name__ == "__main__":
    main()
