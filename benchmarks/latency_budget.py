"""Does a search with a latency budget meet it when measured? The demo's generator, onnxruntime, one thread.

    python benchmarks/latency_budget.py

Fits a profile to 40 subnets, judges it on 30 others, then draws and measures 10 subnets for each of three budgets in
milliseconds.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch

from gantailor.evaluators.metrics.cost import interleaved
from gantailor.export.export import local_runtime
from gantailor.pipeline.profiling import measure_profile, spread_subnets
from gantailor.run.loading import load_config
from gantailor.run.setup import Setup
from gantailor.search.budget import Budget
from gantailor.search.limits import Limit
from gantailor.search.strategies import make_strategy
from gantailor.search.strategies.common import History


def main() -> None:
    """Run it from the command line; see the head of this file."""
    torch.set_num_threads(1)
    setup = Setup(load_config(None, {}))
    profile, _ = measure_profile(setup, subnets=40)
    space, supernet = setup.space, setup.traced
    onnx, example = local_runtime("onnxruntime-cpu"), supernet.example_inputs[0][:1]

    def measure(indices: np.ndarray) -> np.ndarray:
        runners = {
            str(i): onnx(supernet.extract(space.to_config(row)).eval(), example) for i, row in enumerate(indices)
        }
        times = interleaved(runners, warm_up=3, runs=20)
        return np.array([np.median(times[str(i)]) for i in range(len(indices))])

    others = spread_subnets(space, 32, seed=7)[2:]
    errors = np.abs(profile.predict(space, others) / measure(others) - 1)
    print(
        f"30 held-out subnets: median error {100 * np.median(errors):.1f}%, worst {100 * errors.max():.1f}%", flush=True
    )
    ends = profile.predict(space, np.stack([space.smallest, space.largest]))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "profile.json"
        profile.save(file)
        for share in (0.2, 0.4, 0.6):
            limit = float(ends[0] + share * (ends[1] - ends[0]))
            budget = Budget(space, (Limit("latency_ms", upper=limit, profile=str(file)),))
            empty = History(np.zeros((0, len(space.variables)), np.int64), np.zeros((0, 1)), frozenset())
            rng, draw = np.random.default_rng(0), make_strategy("random", seed=0)
            chosen = [draw(empty, budget, rng) for _ in range(10)]
            assert all(row is not None for row in chosen)
            ms = measure(np.stack([row for row in chosen if row is not None]))
            print(
                f"budget {limit:.2f} ms: {ms.min():.2f} to {ms.max():.2f}, {(ms <= limit).sum()} of 10 within",
                flush=True,
            )


if __name__ == "__main__":
    main()
