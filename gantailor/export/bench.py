"""Latency of the model beside this file, on the device itself. Needs Python, numpy and the model's runtime, no more.

    python bench.py                      # prints CSV: device, runtime, threads, median and p95 milliseconds
    python bench.py --runs 200 --threads 4
    python bench.py --size 512x384       # height and width, where manifest.json says that they are free

``runtime.py`` beside this file loads the model. Before timing, the output for the stored input is compared with the one
that PyTorch gave. Times are for its size, or for that of ``--size``.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import platform
import runpy
import time
import types
from typing import Any

import numpy as np

HERE = pathlib.Path(__file__).parent


def main() -> None:
    """Time the models beside this file and print medians in milliseconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--warm-up", type=int, default=5)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--size", help="HEIGHTxWIDTH in pixels; that of the stored input if missing")
    arguments = parser.parse_args()
    manifest = json.loads((HERE / "manifest.json").read_text())
    threads = arguments.threads or manifest["threads"]
    stored = np.load(HERE / "check.npz")
    load = runpy.run_path(str(HERE / "runtime.py"))["load"]
    run = load(HERE / manifest["file"], types.SimpleNamespace(**{**manifest, "threads": threads}))
    feeds = [stored[name] for name in stored.files if name.startswith("input")]
    difference = float(np.abs(run(*feeds) - stored["output"]).max())
    if arguments.size:
        feeds = resized(feeds, arguments.size, manifest)
    for _ in range(arguments.warm_up):
        run(*feeds)
    times = []
    for _ in range(arguments.runs):
        start = time.perf_counter()
        run(*feeds)
        times.append(1000 * (time.perf_counter() - start))
    print("device,runtime,precision,threads,runs,median_ms,p95_ms,max_difference,shape")
    machine = (platform.node() + " " + platform.machine()).replace(",", " ")
    row = [machine, manifest["runtime"], manifest["precision"], threads, arguments.runs]
    row += [f"{np.median(times):.3f}", f"{np.quantile(times, 0.95):.3f}", f"{difference:.2e}"]
    print(*row, "x".join(map(str, feeds[0].shape)), sep=",")


def resized(feeds: list[np.ndarray], size: str, manifest: dict[str, Any]) -> list[np.ndarray]:
    """The stored inputs repeated and cut to another height and width; those without free sides as they are."""
    multiple, largest = manifest.get("size_multiple", 1), manifest.get("largest_side")
    if manifest.get("size") != "dynamic":
        raise SystemExit(f"--size {size}: this model has the fixed size {list(feeds[0].shape[2:])}")
    sides = [int(side) if side.isdigit() else 0 for side in size.lower().split("x")]
    if len(sides) != 2 or any(side < 1 or side % multiple or side > (largest or side) for side in sides):
        bound = f" of at most {largest}" if largest else ""
        raise SystemExit(f"--size {size} cannot be read: give HEIGHTxWIDTH, multiples of {multiple}{bound}")
    return [tiled(feed, sides) if "height" in shape else feed for feed, shape in zip(feeds, manifest["shapes"])]


def tiled(feed: np.ndarray, sides: list[int]) -> np.ndarray:
    """A picture ``[N, C, H, W]`` repeated and cut to these sides."""
    down, across = (-(-wanted // have) for wanted, have in zip(sides, feed.shape[2:]))
    return np.ascontiguousarray(np.tile(feed, (1, 1, down, across))[..., : sides[0], : sides[1]])


if __name__ == "__main__":
    main()
