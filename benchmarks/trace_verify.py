"""How long tracing and its proof take for every generator of the zoo at its published size, and the peak memory.

    python benchmarks/trace_verify.py benchmarks/results/trace_verify.csv [GENERATOR ...]

Each generator runs in a process of its own, one after the other, on one thread. Seconds are of the process's own
work (CPU), which other programs on the machine hardly change; beside them those on the clock, and how many programs
wanted a core meanwhile. Goal: a proof of every generator under 20 s.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch
from rows import append, is_done

import gantailor
from gantailor.supernet.traits import traits_of
from gantailor.zoo.generators import GENERATORS


def measure(name: str, results: Path) -> None:
    """Add one row."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = gantailor.build(name).eval()
    example = tuple(torch.randn(1, *shape) for shape in traits_of(model).input_shapes)
    started = time.process_time()
    supernet = gantailor.Supernet(model, example)
    traced, clock = time.process_time(), time.perf_counter()
    proof = gantailor.verify(supernet)
    row = {
        "generator": name,
        "input": " ".join("x".join(map(str, x.shape[1:])) for x in example),
        "widths": len(supernet.graph.widths),
        "subnets": proof.subnets,
        "trace_cpu_s": round(traced - started, 1),
        "verify_cpu_s": round(time.process_time() - traced, 1),
        "verify_clock_s": round(time.perf_counter() - clock, 1),
        "load": round(os.getloadavg()[0], 1),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 1),
        "largest_difference": f"{max(proof.sliced_extracted, proof.permuted, proof.removed):.0e}",
    }
    append(results, [row])


def main(results: Path, names: list[str]) -> None:
    """A row for each generator that has none."""
    for name in names or GENERATORS:
        if not is_done(results, generator=name):
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            command = [sys.executable, __file__, "--one", name, str(results)]
            subprocess.run(command, check=True, env=environment)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        measure(sys.argv[2], Path(sys.argv[3]))
    else:
        main(Path(sys.argv[1]), sys.argv[2:])
