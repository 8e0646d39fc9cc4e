"""Latency of the model beside this file, on the device itself. Needs Python, numpy and the model's runtime, no more.

    python bench.py                      # prints CSV: device, runtime, threads, median and p95 milliseconds
    python bench.py --runs 200 --threads 4

``runtime.py`` beside this file loads the model. Before timing, the output for the stored input is compared with the one
that PyTorch gave.
"""

import argparse
import json
import pathlib
import platform
import runpy
import time
import types

import numpy as np

HERE = pathlib.Path(__file__).parent


def main() -> None:
    """Time the models beside this file and print medians in milliseconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--warm-up", type=int, default=5)
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args()
    manifest = json.loads((HERE / "manifest.json").read_text())
    threads = arguments.threads or manifest["threads"]
    stored = np.load(HERE / "check.npz")
    load = runpy.run_path(str(HERE / "runtime.py"))["load"]
    run = load(HERE / manifest["file"], types.SimpleNamespace(**{**manifest, "threads": threads}))
    feeds = [stored[name] for name in stored.files if name.startswith("input")]
    difference = float(np.abs(run(*feeds) - stored["output"]).max())
    for _ in range(arguments.warm_up):
        run(*feeds)
    times = []
    for _ in range(arguments.runs):
        start = time.perf_counter()
        run(*feeds)
        times.append(1000 * (time.perf_counter() - start))
    print("device,runtime,precision,threads,runs,median_ms,p95_ms,max_difference")
    machine = (platform.node() + " " + platform.machine()).replace(",", " ")
    row = [machine, manifest["runtime"], manifest["precision"], threads, arguments.runs]
    print(*row, f"{np.median(times):.3f},{np.quantile(times, 0.95):.3f},{difference:.2e}", sep=",")


if __name__ == "__main__":
    main()
