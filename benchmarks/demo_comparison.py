"""At a tenth of the teacher's MACs: searched, uniform and from-scratch generators on the OpenMoji test split.

    python benchmarks/demo_comparison.py --out runs/comparison --seeds 0 1 2

Every arm has the same losses, teacher and discriminator. The searched and the uniform subnet inherit the shipped
supernet (24 kimg of training) and are fine-tuned; the net from scratch has the uniform widths and sees as many images
as supernet training and fine-tuning together. One row for each arm and seed is appended to ``results.csv``; arms that
stand there already are not run again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pandas as pd
import torch
from torch import nn

from gantailor.pipeline.context import RunContext
from gantailor.pipeline.search.stage import search
from gantailor.pipeline.training.fit import fit
from gantailor.run.loading import load_config
from gantailor.run.run import Run, with_file
from gantailor.search.spaces.space import uniform_config
from gantailor.supernet.verify import count_parameters
from gantailor.zoo import DEMO_SUPERNET
from gantailor.zoo.initialisation import init_weights

SUPERNET_KIMG = 24


def tune(run: Run, model: nn.Module, kimg: float, seed: int, name: str) -> nn.Module:
    """Train with the run's fine-tuning recipe."""
    recipe = run.config.finetune.model_copy(update={"kimg": kimg, "seed": seed})
    task, checkpoint = RunContext(run).training(model, recipe), run.folder.file(f"{name}.ckpt.safetensors")
    return fit(run, task, recipe, checkpoint=checkpoint, title=name)


def main() -> None:
    """Run it from the command line; see the head of this file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="runs/comparison")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--kimg", type=float, default=8, help="fine-tuning length")
    parser.add_argument("--trials", type=int, default=40)
    arguments = parser.parse_args()
    folder = Path(arguments.out)
    folder.mkdir(parents=True, exist_ok=True)
    results = folder / "results.csv"
    done = set(map(tuple, pd.read_csv(results)[["arm", "seed"]].to_numpy())) if results.exists() else set()

    def record(arm: str, seed: int, model: nn.Module, macs: int, images: float) -> None:
        if (arm, seed) in done:
            return
        evaluator = run.setup.scoring.evaluator(run.config.evaluation.final)
        scores = {name: score.value for name, score in evaluator(model, run.setup.data("test")).items()}
        row = {"arm": arm, "seed": seed, "macs": macs, "parameters": count_parameters(model), "kimg": images, **scores}
        pd.DataFrame([row]).to_csv(results, mode="a", header=not results.exists(), index=False)
        print(json.dumps(row), flush=True)

    for seed in arguments.seeds:
        config = load_config(None, {"seed": seed, "search.trials": arguments.trials, "supernet": str(DEMO_SUPERNET)})
        run = Run(folder / f"seed{seed}", config)
        supernet = with_file(run.setup.traced, DEMO_SUPERNET)
        run.claim()
        uniform = uniform_config(supernet, run.setup.budget.macs)
        if ("teacher", seed) not in done and seed == arguments.seeds[0]:
            record("teacher", seed, run.setup.teacher, supernet.macs(supernet.full_config()), 160)
            record("input", seed, nn.Identity(), 0, 0)
        if not run.folder.supernet.exists():
            run.folder.supernet.write_bytes(DEMO_SUPERNET.read_bytes())
        searched = search(run)
        for arm, subnet in (("searched", searched), ("uniform", uniform)):
            if (arm, seed) not in done:
                macs = supernet.macs(subnet)
                record(f"{arm}, inherited only", seed, supernet.extract(subnet), macs, SUPERNET_KIMG)
                tuned = tune(run, supernet.extract(subnet), arguments.kimg, seed, arm)
                record(arm, seed, tuned, macs, SUPERNET_KIMG + arguments.kimg)
        if ("from scratch", seed) not in done:
            torch.manual_seed(seed)
            fresh = init_weights(supernet.extract(uniform))
            images = SUPERNET_KIMG + arguments.kimg
            record("from scratch", seed, tune(run, fresh, images, seed, "scratch"), supernet.macs(uniform), images)


if __name__ == "__main__":
    main()
