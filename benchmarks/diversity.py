"""Rankings for StyleGAN2 at 70% pruning, and the best of them under a search of widths; on the shipped teacher.

    python benchmarks/diversity.py --out runs/diversity --seeds 0 1 2

One arm for each ranking: the paper's uniform pruning, then the same retraining (StyleKD's losses, starting from the
pruned weights). And at the same MACs, on as many images, widths searched on a supernet with the diversity ranking: half
of the length trains the supernet, half the subnet; ``searched-more`` retrains that subnet as long as the others, beside
its supernet's images; ``path`` goes along a path to those MACs in half of the images. A row for each arm and seed is
appended to ``results.csv``; arms that stand there are not run again: processes can share the work by ``--arms`` and
``--seeds``. Scores are against the training pictures, and (``teacher_``) against the teacher's own: how much of its
variety is left.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rows import append, is_done

from gantailor.pipeline.compress import compress
from gantailor.run import ranking
from gantailor.run.loading import load_config
from gantailor.run.run import Run
from gantailor.run.setup import Setup
from gantailor.zoo.data.latents import Latents
from gantailor.zoo.data.pictures import to_uint8

CRITERIA = ("diversity", "diversity-magnitude", "l1", "content", "activation", "random")
ARMS = (*CRITERIA, "searched", "searched-more", "path")
METRICS = ("fid", "kid", "precision", "recall", "density", "coverage", "l1")


def ranking_file(folder: Path, criterion: str, seed: int, settings: dict[str, Any]) -> Path:
    """The criterion's scores, computed once; a random order is another one for each seed."""
    name = f"random-{seed}" if criterion == "random" else criterion
    path = folder / "rankings" / f"{name}.json"
    if not path.exists():
        setup = Setup(load_config(None, {**settings, "ranking": "none"}))
        setup.traced  # noqa: B018  not part of the time
        started = time.monotonic()
        scores = ranking.compute(setup, criterion)
        found = {**ranking.provenance(setup, criterion), "seconds": round(time.monotonic() - started, 1)}
        ranking.save(path, scores, **found)
    return path


def settings_of(arm: str, seed: int, arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The run of an arm."""
    length = {"kimg": arguments.kimg, "seed": seed, "ema_kimg": 1.0, "watch_kimg": 0.0}
    common: dict[str, Any] = {"generator": "stylegan2", "method": "diversity", "seed": seed}
    common |= {"teacher": arguments.teacher, "discriminator": arguments.discriminator}
    common = {name: value for name, value in common.items() if value is not None}
    criterion = arm if arm in CRITERIA else "diversity"
    flags = {**common, **{f"finetune.{name}": value for name, value in length.items()}}
    flags["ranking"] = str(ranking_file(folder, criterion, seed, common))
    flags |= {"space.name": "uniform", "space.fractions": [0.3], "budget": "1x"}
    if arm.startswith("searched"):
        length["kimg"] = flags["finetune.kimg"] = arguments.kimg / 2
        uniform = Setup(load_config(None, flags)).space
        macs = int(uniform.macs(uniform.largest)[0])
        flags |= {f"train.{name}": value for name, value in length.items()}
        flags |= {"space.name": "default", "space.fractions": [0.125, 0.1875, 0.25, 0.3, 0.375, 0.5, 0.625, 0.75]}
        flags |= {"space.multiple": 1, "budget": str(macs), "search.trials": arguments.trials}
    if arm == "path":  # the same run as benchmarks/path_stylegan2.yaml's
        length["kimg"] = flags["finetune.kimg"] = arguments.kimg / 2
        flags |= {f"train.{name}": value for name, value in length.items()}
        flags |= {"method": "supernet", "ranking": "l1", "budget": "0.1064x", "search.trials": 0, "space.name": "path"}
        del flags["space.fractions"]
    if arm == "searched-more":
        trained = folder / f"searched-{seed}" / "supernet.safetensors"
        flags |= {"supernet": str(trained), "train.kimg": 0, "finetune.kimg": arguments.kimg}
    return flags


@torch.no_grad()
def teachers_own(run: Run) -> Latents:
    """The teacher's pictures in the place of the real ones: how much of its variety is left?"""
    data, teacher = run.setup.data("train"), run.setup.teacher
    pictures = np.concatenate([to_uint8(teacher(z)) for z in data.latents.split(64)])
    return Latents(pictures, data.width, run.setup.data("test").seed, "the teacher's pictures")


def main() -> None:
    """Run it from the command line; see the head of this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="runs/diversity")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=[*ARMS, "teacher"])
    parser.add_argument("--kimg", type=float, default=8, help="images that each arm is trained on")
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--teacher", help="the shipped one if missing")
    parser.add_argument("--discriminator", help="the shipped one if missing")
    parser.add_argument("--lpips", nargs=2, metavar=("FEATURES", "HEADS"), help="weights, to measure LPIPS diversity")
    arguments = parser.parse_args()
    folder = Path(arguments.out)
    folder.mkdir(parents=True, exist_ok=True)
    results = folder / "results.csv"
    evaluator = own = own_evaluator = None
    for seed in arguments.seeds:
        for arm in arguments.arms:
            if is_done(results, arm=arm, seed=seed):
                continue
            flags = settings_of("l1" if arm == "teacher" else arm, seed, arguments, folder)
            if arguments.lpips:
                flags |= dict(
                    zip(("evaluation.lpips_features", "evaluation.lpips_heads"), arguments.lpips, strict=True)
                )
                flags |= {"finetune.perceptual_weight": 0.0, "train.perceptual_weight": 0.0}
            run = Run(folder / f"{arm}-{seed}", load_config(None, flags))
            started = time.monotonic()
            if arm != "teacher":
                compress(run, until="finetune")
            spent = time.monotonic() - started
            evaluator = evaluator or run.setup.scoring.evaluator(
                run.setup.metrics([*METRICS, *(["diversity"] if arguments.lpips else [])])
            )
            whole = (run.setup.traced.full_config(), run.setup.teacher)
            config, model = whole if arm == "teacher" else run.subnet()
            scores = {
                name.partition("[")[0]: score.value for name, score in evaluator(model, run.setup.data("test")).items()
            }
            own = own or teachers_own(run)
            own_evaluator = own_evaluator or run.setup.scoring.evaluator(METRICS[:-1])
            found = own_evaluator(model, own)
            scores |= {f"teacher_{name.partition('[')[0]}": score.value for name, score in found.items()}
            row = {"arm": arm, "seed": seed, "macs": run.setup.traced.macs(config), **scores, "seconds": round(spent)}
            append(results, [row])


if __name__ == "__main__":
    main()
