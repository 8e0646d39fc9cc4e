"""Slimming (scales, distillation and 8 bits together) against the stack of them, at a tenth of the MACs and 8 bits.

    python benchmarks/slimming.py --out runs/slimming --seeds 0 1 2

Arms, all from the embedded task's teacher with the same images seen: ``slimming-8`` (the joint training, then
fine-tuning, both in 8 bits), ``slimming-32`` (the same in float; its 8-bit file is made after training), ``stack``
(L1-ranked uniform pruning, fine-tuning, 8 bits after training). Each arm is scored in float and as the exported int8
file. A row for each arm, precision and seed is appended to ``results.csv``; arms that stand there are not run again.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from rows import append, is_done

from gantailor.pipeline.compress import compress
from gantailor.run.loading import load_config
from gantailor.run.run import Run

ARMS = ("slimming-8", "slimming-32", "stack")


def settings_of(arm: str, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """The run of an arm."""
    flags: dict[str, Any] = {"budget": arguments.budget, "seed": seed, "train.seed": seed, "finetune.seed": seed}
    flags |= {"devices": ["onnxruntime-cpu", "onnxruntime-cpu-int8"], "evaluation.final": ["l1", "fid", "kid"]}
    flags |= {"train.watch_kimg": 0, "finetune.watch_kimg": 0, "narrowing": 0}
    flags |= {"train.lr": 2e-4, "finetune.lr": 2e-4}
    if arm == "stack":
        whole = {"ranking": "l1", "space.name": "uniform", "search.trials": 1, "train.kimg": 0}
        return flags | whole | {"finetune.kimg": arguments.slim_kimg + arguments.tune_kimg}
    bits = 8 if arm == "slimming-8" else 0
    lengths = {"train.kimg": arguments.slim_kimg, "finetune.kimg": arguments.tune_kimg}
    return flags | lengths | {"method": "slimming", "train.bits": bits, "finetune.bits": bits}


def rows_of(run: Run, arm: str, seed: int, seconds: float) -> list[dict[str, Any]]:
    """Scores, costs and sizes of the float model and of the int8 file."""
    manifest = json.loads(run.folder.manifest.read_text())
    scores = json.loads(run.folder.scores.read_text())
    whole, small = (manifest["devices"][name] for name in ("onnxruntime-cpu", "onnxruntime-cpu-int8"))
    rows = []
    for precision, found, device in (
        ("float32", scores["subnet"], whole),
        ("int8", small["scores"]["subnet, exported"], small),
    ):
        plain = {name.partition("[")[0]: score["value"] for name, score in found.items()}
        row = {"arm": arm, "seed": seed, "precision": precision, "macs": manifest["macs"]["true"], **plain}
        ms = device["latency_ms"]
        row |= {"bytes": device["bytes"], "ms": ms["subnet"], "teacher_ms": ms["teacher"]}
        rows.append(row | {"db_to_simulated": small.get("psnr_to_simulated"), "seconds": round(seconds)})
    return rows


def main() -> None:
    """Run it from the command line; see the head of this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="runs/slimming")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=ARMS)
    parser.add_argument("--budget", default="0.1x")
    parser.add_argument("--slim-kimg", type=float, default=8)
    parser.add_argument("--tune-kimg", type=float, default=8)
    arguments = parser.parse_args()
    folder = Path(arguments.out)
    folder.mkdir(parents=True, exist_ok=True)
    results = folder / "results.csv"
    for seed in arguments.seeds:
        for arm in arguments.arms:
            if is_done(results, arm=arm, seed=seed):
                continue
            run = Run(folder / f"{arm}-{seed}", load_config(None, settings_of(arm, seed, arguments)))
            started = time.monotonic()
            compress(run)
            append(results, rows_of(run, arm, seed, time.monotonic() - started))


if __name__ == "__main__":
    main()
