"""How much of a MAC reduction becomes speed: onnxruntime, one thread, 256 x 256.

    python benchmarks/realised_speed.py    # prints a table, writes benchmarks/results/realised_speed.csv

Three subnets at a fifth and at a tenth of the MACs: uniform widths rounded to 4 channels, uniform widths rounded to 16,
and the fastest of 4,000 random ones (rounded to 16, within 4% of the MACs) by a latency model fitted to 36 measured
subnets. Realised is speed-up over the exported teacher / MAC reduction. Weights are random: speed does not see them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from gantailor.evaluators.metrics.cost import interleaved
from gantailor.export.export import local_runtime
from gantailor.pipeline.profiling import spread_subnets
from gantailor.search.latency import LatencyProfile
from gantailor.search.spaces.config import SpaceConfig
from gantailor.search.spaces.space import Space, default_space
from gantailor.supernet.graph import SubnetConfig
from gantailor.supernet.supernet import Supernet
from gantailor.zoo.generators.record import build

RESULTS = Path(__file__).parent / "results" / "realised_speed.csv"
FINE = tuple(np.linspace(0.1, 1, 37).tolist())


def uniform(supernet: Supernet, multiple: int, macs: float) -> SubnetConfig:
    """The same share of every width, rounded, with MACs nearest to ``macs``."""
    shares = np.linspace(0.1, 1, 400)
    full = np.array([width.size for width in supernet.graph.widths])
    sizes = np.clip(np.round(shares[:, None] * full / multiple) * multiple, np.minimum(multiple, full), full).astype(
        int
    )
    best = int(np.argmin(np.abs(supernet.macs_many(sizes) - macs)))
    return supernet.graph.config(sizes[best])


def fastest(space: Space, profile: LatencyProfile, macs: float) -> SubnetConfig:
    """Of random subnets with about these MACs, the one that the latency model likes most."""
    drawn = spread_subnets(space, 60_000, seed=1)
    drawn = drawn[np.abs(space.macs(drawn) / macs - 1) < 0.04][:4000]
    return space.to_config(drawn[int(np.argmin(profile.predict(space, drawn)))])


def measured(name: str, rounds: int) -> list[dict[str, object]]:
    """Rows of one generator."""
    torch.manual_seed(0)
    supernet = Supernet(build(name, ngf=64), (torch.randn(1, 3, 256, 256),)).eval()
    example = torch.rand(1, 3, 256, 256) * 2 - 1
    space, onnx = default_space(supernet, SpaceConfig(fractions=FINE, multiple=16)), local_runtime("onnxruntime-cpu")
    probes = spread_subnets(space, 36)
    runners = {str(i): onnx(supernet.extract(space.to_config(row)).eval(), example) for i, row in enumerate(probes)}
    times = interleaved(runners, warm_up=2, runs=9)
    milliseconds = [float(np.median(times[str(i)])) for i in range(len(probes))]
    profile = LatencyProfile.fit(supernet, space.sizes(probes), milliseconds, device="onnxruntime-cpu")
    print(f"{name}: latency model's median error on 9 held-out subnets {100 * profile.error:.1f}%", flush=True)
    full = supernet.full_config()
    base = supernet.macs(full)
    configs = {}
    for factor in (5, 10):
        configs[f"uniform, 4 channels, {factor}x"] = uniform(supernet, 4, base / factor)
        configs[f"uniform, 16 channels, {factor}x"] = uniform(supernet, 16, base / factor)
        configs[f"fastest, 16 channels, {factor}x"] = fastest(space, profile, base / factor)
    runners = {"teacher": onnx(supernet.extract(full).eval(), example)}
    with torch.inference_mode():
        for key, config in configs.items():
            narrow = supernet.extract(config).eval()
            runners[key], runners[f"{key}, eager"] = onnx(narrow, example), lambda narrow=narrow: narrow(example)
        times = interleaved(runners, warm_up=2, runs=rounds)
    median = {key: float(np.median(value)) for key, value in times.items()}
    rows = []
    for key, config in configs.items():
        reduction, speed = base / supernet.macs(config), median["teacher"] / median[key]
        row = {"generator": name, "subnet": key, "teacher_ms": median["teacher"], "ms": median[key]}
        row |= {"mac_reduction": reduction, "speed_up": speed, "realised": speed / reduction}
        rows.append(row | {"eager_over_exported": median[f"{key}, eager"] / median[key]})
    return rows


def main() -> None:
    """Run it from the command line; see the head of this file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--generators", nargs="+", default=["resnet_9blocks", "unet_256"])
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    frame = pd.DataFrame([row for name in arguments.generators for row in measured(name, arguments.rounds)])
    frame.round(4).to_csv(RESULTS, index=False)
    print(frame.round(3).to_string(index=False))


if __name__ == "__main__":
    main()
