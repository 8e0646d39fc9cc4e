"""Score every subnet of a reduced space of the demo once, so that search strategies can be compared without a GPU.

    python benchmarks/recorded_table.py   # writes benchmarks/results/recorded_table.csv; goes on where it was

Five decisions of four widths each (1,024 subnets): widths of one stage move together. A row: the choice of each
decision, true MACs, and two scores on pictures of the search split with the shipped supernet's weights: the search's
feature error and L1.
"""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path

import numpy as np
import pandas as pd

from gantailor.evaluators.scores import Subset
from gantailor.run.loading import load_config
from gantailor.run.run import with_file
from gantailor.run.setup import Setup
from gantailor.zoo import DEMO_SUPERNET

SPACE = {
    "fractions": [0.25, 0.5, 0.75, 1.0],
    "ties": [
        ["model.1", "model.19"],
        ["model.4", "model.16"],
        ["model.10.*", "model.11.*", "model.12.*"],
        ["model.13.*", "model.14.*", "model.15.*"],
    ],
}
TABLE = Path(__file__).parent / "results" / "recorded_table.csv"


def main() -> None:
    """Run it from the command line; see the head of this file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=48)
    parser.add_argument("--out", default=str(TABLE))
    arguments = parser.parse_args()
    setup = Setup(load_config({"space": SPACE}))
    supernet, space, results = with_file(setup.traced, DEMO_SUPERNET), setup.space, Path(arguments.out)
    pairs = Subset(setup.data("search"), arguments.pictures)
    evaluator = setup.scoring.evaluator(["features", "l1"])
    rows = np.array(list(itertools.product(*(range(len(v.choices)) for v in space.variables))))
    names = [v.name for v in space.variables]
    done = len(pd.read_csv(results)) if results.exists() else 0
    started = time.monotonic()
    for number in range(done, len(rows)):
        config = space.to_config(rows[number])
        features, l1 = evaluator(setup.calibrated(supernet.extract(config)), pairs).values()
        row = dict(zip(names, rows[number].tolist(), strict=True))
        row |= {"macs": supernet.macs(config), "features": round(features.value, 7), "l1": round(l1.value, 7)}
        pd.DataFrame([row]).to_csv(results, mode="a", header=not results.exists(), index=False)
        if number % 50 == 49:
            left = (time.monotonic() - started) / (number + 1 - done) * (len(rows) - number - 1)
            print(f"{number + 1}/{len(rows)}, {left / 60:.0f} min left", flush=True)


if __name__ == "__main__":
    main()
