"""What each option of supernet training brings, on the demo task.

    python benchmarks/ablations.py --out runs/ablations --seeds 0 1 2

Every variant trains the supernet from the shipped teacher on as many images, with one setting changed from the base.
Scored on the search split: L1 and KID of the smallest, the middle and the largest subnet, and the mean of three fixed
random subnets at a tenth of the MACs. Rows are appended to ``results.csv``; what stands there is not run again.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import pandas as pd

from gantailor.evaluators.scores import Subset
from gantailor.pipeline.context import RunContext
from gantailor.run.loading import load_config
from gantailor.run.run import Run
from gantailor.supernet.files import save_tensors
from gantailor.supernet.importance.ranking import rank_channels
from gantailor.supernet.supernet import Supernet
from gantailor.supernet.training.recipe import Recipe
from gantailor.supernet.training.sampling import draw_choices
from gantailor.supernet.training.trainer import Trainer
from gantailor.zoo.checkpoints import load_state, read_state
from gantailor.zoo.discriminators.build import make_discriminator

BASE: dict[str, Any] = {"sampling": "uniform", "output_weight": 10, "feature_weight": 1, "ema_kimg": 0.5}
VARIANTS: dict[str, dict[str, Any]] = {
    "base": {},
    "sampling: sandwich": {"sampling": "sandwich"},
    "sampling: spread": {"sampling": "spread"},
    "sampling: progressive": {"sampling": "progressive"},
    "features: none": {"feature_weight": 0},
    "features: alignment": {"feature_loss": "alignment", "feature_weight": 10},
    "features: relation": {"feature_loss": "relation", "feature_weight": 30},
    "teacher's output: not used": {"output_weight": 0},
    "teacher's output: instead of the truth": {"output_weight": 60, "target_weight": 0},
    "discriminator: none": {"gan": "none"},
    "discriminator: the teacher's": {"discriminator": "teacher"},
    "ranking: none": {"ranking": "none"},
    "ranking: l1 of producers": {"ranking": "l1-producers"},
    "weight average: none": {"ema_kimg": 0},
    "subnets a step: 2": {"subnets": 2},
    "in-place distillation, 2 subnets": {"subnets": 2, "in_place_weight": 10},
}


def warm_discriminator(run: Run, kimg: float) -> str:
    """A discriminator trained against the frozen teacher, which stands in for the teacher's own."""
    path = run.folder.file("discriminator.safetensors")
    if not path.exists():
        recipe = Recipe(kimg=kimg, lr=1e-12, lr_discriminator=2e-4, ema_kimg=0, target_weight=0)
        context, judge = RunContext(run), make_discriminator(recipe, input_nc=3, output_nc=3)
        assert judge is not None
        task = context.training(context.teacher().requires_grad_(True), recipe, discriminator=judge)
        with run.report.training("discriminator") as listener:
            Trainer(task, recipe).run(on_progress=listener)
        save_tensors(path, judge.state_dict(), {})
    return str(path)


def train(run: Run, name: str, kimg: float, seed: int) -> Supernet:
    """The supernet of a variant."""
    settings = {**BASE, **VARIANTS[name]}
    ranking, judged = settings.pop("ranking", "l1"), settings.pop("discriminator", "scratch")
    recipe = Recipe(kimg=kimg, seed=seed, **settings)
    supernet = run.setup.traced.with_weights(run.setup.traced.generator.state_dict())
    rank_channels(supernet, criterion=ranking)
    counts = [len(v.choices) for v in run.setup.space.variables]
    space = run.setup.space
    discriminator = make_discriminator(recipe, input_nc=3, output_nc=3)
    if judged == "teacher" and discriminator is not None:
        file = warm_discriminator(run, kimg)
        load_state(discriminator, read_state(run.folder.file("discriminator.safetensors")), file)
    task = RunContext(run).training(
        supernet,
        recipe,
        discriminator=discriminator,
        sample=lambda rng, step, position: space.to_config(draw_choices(recipe, counts, rng, step, position)),
    )
    with run.report.training(f"{name}, seed {seed}") as listener:
        trained = Trainer(task, recipe).run(on_progress=listener)
    assert isinstance(trained, Supernet)
    return trained


def main() -> None:
    """Run it from the command line; see the head of this file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="runs/ablations")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--kimg", type=float, default=2.4)
    arguments = parser.parse_args()
    run = Run(arguments.out, load_config({"space": "default", "train": {"lr": 2e-4}, "finetune": {"lr": 2e-4}}))
    run.claim()
    results, space, budget = run.folder.file("results.csv"), run.setup.space, run.setup.budget
    done = set(map(tuple, pd.read_csv(results)[["variant", "seed"]].to_numpy())) if results.exists() else set()
    rng = np.random.default_rng(0)
    subnets = {"smallest": [space.smallest], "middle": [(space.smallest + space.largest) // 2]}
    subnets |= {"largest": [space.largest], "tenth": [budget.sample(rng) for _ in range(3)]}
    evaluator = run.setup.scoring.evaluator(("l1", "kid"))
    pairs = Subset(run.setup.data("search"), 198)
    for seed in arguments.seeds:
        for name in VARIANTS:
            if (name, seed) in done:
                continue
            trained = train(run, name, arguments.kimg, seed)
            row: dict[str, Any] = {"variant": name, "seed": seed, "kimg": arguments.kimg}
            for size, chosen in subnets.items():
                scores = [evaluator(trained.extract(space.to_config(c)), pairs) for c in chosen]
                row[f"l1 {size}"] = np.mean([s["l1"].value for s in scores])
                row[f"kid {size}"] = np.mean([s["kid[efficientnet-lite0]"].value for s in scores])
            pd.DataFrame([row]).to_csv(results, mode="a", header=not results.exists(), index=False)
            print(row, flush=True)
    frame = pd.read_csv(results).drop(columns=["seed", "kimg"]).groupby("variant", sort=False)
    print(frame.mean().round(4).to_string(), frame.std().round(4).to_string(), sep="\n\n")


if __name__ == "__main__":
    main()
