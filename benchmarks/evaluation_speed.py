"""What scoring adds to the forwards: 60 subnets of the demo on the search split.

    python benchmarks/evaluation_speed.py

For each subnet, in turn: the search's evaluator on the extracted subnet, FID and KID, and the generator and extractor
forwards alone on the same pictures. Prints medians and their ratios.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from gantailor.evaluators.scores import Subset
from gantailor.run.loading import load_config
from gantailor.run.run import with_file
from gantailor.run.setup import Setup
from gantailor.zoo import DEMO_SUPERNET


def main() -> None:
    """Run it from the command line; see the head of this file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subnets", type=int, default=60)
    setup = Setup(load_config(None, {}))
    subnets = parser.parse_args().subnets
    supernet, budget = with_file(setup.traced, DEMO_SUPERNET), setup.budget
    pairs = Subset(setup.data("search"), setup.config.evaluation.search_images)
    scoring = setup.scoring
    evaluators = {metric: scoring.evaluator([metric]) for metric in ("features", "fid", "kid")}
    rng = np.random.default_rng(0)
    times: dict[str, list[float]] = {name: [] for name in ("forwards", *evaluators)}

    @torch.no_grad()
    def forwards(model: torch.nn.Module) -> None:
        for start in range(0, len(pairs), 32):
            scoring.extractor()(model(pairs.batch(np.arange(start, min(start + 32, len(pairs))))[0]))

    for number in range(subnets + 1):
        config = budget.space.to_config(budget.sample(rng))
        narrow = supernet.extract(config).eval()
        for name, seconds in times.items():
            start = time.perf_counter()
            if name == "forwards":
                forwards(narrow)
            else:
                evaluators[name](setup.calibrated(supernet.extract(config)), pairs)
            if number:  # the first computes the real pictures' features
                seconds.append(time.perf_counter() - start)
    base = np.array(times["forwards"])
    print(f"{subnets} subnets, {len(pairs)} pictures; forwards alone {np.median(base):.3f} s a subnet (median)")
    for name in evaluators:
        ratios = np.array(times[name]) / base
        print(
            f"{name:<9} {np.median(ratios):.2f} x the forwards (median), {sum(times[name]) / base.sum():.2f} x in all"
        )


if __name__ == "__main__":
    main()
