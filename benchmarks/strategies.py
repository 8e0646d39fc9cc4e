"""How many evaluations each search strategy needs, on the recorded table of 1,024 subnets of the demo.

    python benchmarks/strategies.py                # writes benchmarks/results/strategies.csv and prints medians

Under three budgets: evaluations until a subnet within 1% of the best that fits. For the front: until the hypervolume of
score and MACs is 99% of the whole table's. The median of 20 seeds; every strategy begins with the same 16 candidates.
After ``--limit`` evaluations the limit is written: a median at the limit means "more than".
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from recorded_table import SPACE, TABLE

from gantailor.run.loading import load_config
from gantailor.run.setup import Setup
from gantailor.search.budget import Budget
from gantailor.search.pareto import hypervolume
from gantailor.search.strategies import STRATEGIES, make_strategy
from gantailor.search.strategies.common import History, key
from gantailor.search.strategies.random import first
from gantailor.search.study import START

RESULTS = Path(__file__).parent / "results" / "strategies.csv"
BUDGETS = (0.2, 0.3, 0.5)  # shares of the largest subnet


Value, Reached = Callable[[np.ndarray], list[float]], Callable[[np.ndarray], bool]


def evaluations(name: str, seed: int, budget: Budget, value: Value, reached: Reached, limit: int) -> int:
    """How many evaluations until ``reached(values)``; the number of candidates when the space ends before."""
    strategy, found = make_strategy(name, seed=seed), {}
    objectives = len(value(budget.space.smallest))
    while True:
        rows = np.array(list(found), np.int64).reshape(-1, len(budget.space.variables))
        values = np.array(list(found.values()), np.float64).reshape(-1, objectives)
        if found and (reached(values) or len(found) >= limit):
            return len(found)
        history = History(rows, values, frozenset(found), len(found), frozenset(list(found)[:START]))
        choose = first if len(found) < START else strategy
        candidate = choose(history, budget, np.random.default_rng((seed, len(found))))
        if candidate is None:
            return len(found)
        found[key(candidate)] = value(candidate)


def main() -> None:
    """Run it from the command line; see the head of this file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--limit", type=int, default=1024)
    parser.add_argument("--score", default="features", help="features or l1")
    parser.add_argument("--strategies", nargs="+", default=[*STRATEGIES])
    parser.add_argument("--out", default=str(RESULTS))
    arguments = parser.parse_args()
    table = pd.read_csv(TABLE)
    space = Setup(load_config({"space": SPACE})).space
    scores = {
        tuple(row[:-1].astype(int)): row[-1]
        for row in table[[v.name for v in space.variables] + [arguments.score]].to_numpy()
    }
    largest = int(space.macs(space.largest)[0])
    macs = {candidate: float(space.macs(np.array(candidate))[0]) for candidate in scores}
    everything = np.array([[scores[c], macs[c]] for c in scores])
    corner = everything.max(0)
    whole = hypervolume(everything / corner, (1, 1))
    problems: dict[str, tuple[Budget, Callable[..., list[float]], Callable[..., bool]]] = {}
    for share in BUDGETS:
        budget = Budget(space, int(share * largest))
        best = min(scores[c] for c in scores if macs[c] <= budget.macs)
        problems[f"best at {share}x"] = (
            budget,
            lambda c: [scores[key(c)]],
            lambda values, best=best: values.min() <= 1.01 * best,
        )
    problems["front"] = (
        Budget(space, largest, fill=False),
        lambda c: [scores[key(c)], macs[key(c)]],
        lambda values: hypervolume(values / corner, (1, 1)) >= 0.99 * whole,
    )
    out = Path(arguments.out)
    done = (
        set(map(tuple, pd.read_csv(out)[["score", "problem", "strategy", "seed"]].to_numpy().tolist()))
        if out.exists()
        else set()
    )
    for (problem, (budget, value, reached)), name, seed in itertools.product(
        problems.items(), arguments.strategies, range(arguments.seeds)
    ):
        if (arguments.score, problem, name, seed) in done:
            continue
        started = time.monotonic()
        count = evaluations(name, seed, budget, value, reached, arguments.limit)
        row = {"score": arguments.score, "problem": problem, "strategy": name, "seed": seed, "evaluations": count}
        row["seconds"] = round(time.monotonic() - started, 3)
        pd.DataFrame([row]).to_csv(out, mode="a", header=not out.exists(), index=False)
    frame = pd.read_csv(out).query("score == @arguments.score")
    print({name: len(p[0].feasible) for name, p in problems.items()})
    print(frame.pivot_table(index="strategy", columns="problem", values="evaluations", aggfunc="median", sort=False))


if __name__ == "__main__":
    main()
