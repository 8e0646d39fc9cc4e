"""Sliced supernet against extracted net, in turn in one process; and the cost of many configs.

python benchmarks/supernet_speed.py
"""

from __future__ import annotations

import time

import numpy as np
import torch

import gantailor


def seconds(function) -> float:
    """Wall-clock seconds of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def main() -> None:
    """Run it from the command line; see the head of this file."""
    torch.manual_seed(0)
    x = torch.randn(8, 3, 64, 64)
    supernet = gantailor.Supernet(gantailor.build("resnet_9blocks", ngf=64), (x[:1],))
    config = {w.name: w.size // 2 for w in supernet.graph.widths}
    narrow = supernet.extract(config)

    def sliced() -> None:
        supernet(x, config=config).square().mean().backward()

    def dense() -> None:
        narrow(x).square().mean().backward()

    sliced(), dense()
    pairs = [(seconds(sliced), seconds(dense)) for _ in range(15)]
    ratios = sorted(a / b for a, b in pairs)
    print(f"sliced / extracted, forward + backward: median {ratios[7]:.3f}, range {ratios[0]:.3f} to {ratios[-1]:.3f}")
    with torch.no_grad():
        ratios = sorted(seconds(lambda: supernet(x, config=config)) / seconds(lambda: narrow(x)) for _ in range(15))
    print(f"sliced / extracted, inference: median {ratios[7]:.3f}, range {ratios[0]:.3f} to {ratios[-1]:.3f}")
    sizes = np.random.default_rng(0).integers(1, [w.size + 1 for w in supernet.graph.widths], (200_000, 14))
    times = sorted(seconds(lambda: supernet.macs_many(sizes)) for _ in range(9))
    print(f"200,000 configs costed: median {times[4] * 1000:.1f} ms")


if __name__ == "__main__":
    main()
