"""How long tracing and its proof take for every generator of the zoo at its native size, and the peak memory.

    python benchmarks/trace_verify.py

Each generator runs in a process of its own. Goals: under 20 s and 4 GiB on 2 cores.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time

import torch

import gantailor
from gantailor.zoo.generators import GENERATORS


def measure(name: str) -> None:
    """Print one row of the table."""
    torch.manual_seed(0)
    model = gantailor.build(name).eval()
    example = torch.randn(1, *model.input_shape)
    start = time.perf_counter()
    supernet = gantailor.Supernet(model, (example,))
    traced = time.perf_counter()
    proof = gantailor.verify(supernet)
    end = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"| {name} | {'x'.join(map(str, example.shape[1:]))} | {len(supernet.graph.widths)} | {traced - start:.1f} | "
        f"{end - traced:.1f} | {peak:.1f} | {max(proof.sliced_extracted, proof.permuted, proof.removed):.0e} |",
        flush=True,
    )


def main() -> None:
    """The table, as docs/results.md has it."""
    print("| generator | input | free widths | trace s | verify s | peak GiB | largest difference |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for name in sys.argv[1:] or GENERATORS:
        subprocess.run([sys.executable, __file__, "--one", name], check=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        measure(sys.argv[2])
    else:
        main()
