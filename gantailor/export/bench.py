"""Latency of the model beside this file, on the device itself. Needs Python, numpy and the model's runtime, no more.

    python bench.py                      # prints CSV: device, runtime, threads, median and p95 milliseconds
    python bench.py --runs 200 --threads 4
    python bench.py --size 512x384       # height and width, where manifest.json says that they are free

``runtime.py`` beside this file loads the model. Before timing, the output for the stored input is compared with the one
that PyTorch gave; where it differs by more than the manifest allows, nothing is timed and the exit status is 1.
Threads, precision and ``on`` (provider or processor) are what the runtime says, not what was asked. Times are for the
stored input's size, or for that of ``--size``.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import platform
import runpy
import sys
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
    whole(HERE, "manifest.json", "check.npz", "runtime.py")
    manifest = json.loads((HERE / "manifest.json").read_text())
    threads = arguments.threads or manifest["threads"]
    stored = np.load(HERE / "check.npz")
    load = runpy.run_path(str(HERE / "runtime.py"))["load"]
    whole(HERE, *manifest.get("sha256", [manifest["file"]]))
    run = load(HERE / manifest["file"], types.SimpleNamespace(**{**manifest, "threads": threads}))
    feeds = [stored[name] for name in stored.files if name.startswith("input")]
    output = np.asarray(run(*feeds))
    difference = checked(output, stored["output"], manifest)
    ran = {"threads": "unknown", "precision": manifest["precision"], "on": "unknown", **getattr(run, "ran", {})}
    told(ran, threads, manifest)
    if arguments.size:
        feeds = resized(feeds, arguments.size, manifest)
    for _ in range(arguments.warm_up):
        run(*feeds)
    times = []
    for _ in range(arguments.runs):
        start = time.perf_counter()
        run(*feeds)
        times.append(1000 * (time.perf_counter() - start))
    print("device,runtime,precision,threads,runs,median_ms,p95_ms,max_difference,expected_difference,on,shape")
    machine = (platform.node() + " " + platform.machine()).replace(",", " ")
    row = [machine, manifest["runtime"], ran["precision"], ran["threads"], arguments.runs]
    row += [f"{np.median(times):.3f}", f"{np.quantile(times, 0.95):.3f}", f"{difference:.2e}"]
    expected = manifest.get("max_difference")
    row += ["unknown" if expected is None else f"{expected:.2e}", ran["on"]]
    print(*row, "x".join(map(str, feeds[0].shape)), sep=",")


def whole(folder: pathlib.Path, *names: str) -> None:
    """Ends the program where one of an export's files was not copied along."""
    missing = [name for name in names if not (folder / name).exists()]
    if missing:
        raise SystemExit(f"{str(folder)!r} lacks {', '.join(missing)}; copy the whole folder of the export")


def checked(output: np.ndarray, expected: np.ndarray, manifest: dict[str, Any]) -> float:
    """How much the output differs from PyTorch's at most; ends the program where that is more than is allowed."""
    if output.shape != expected.shape:
        raise SystemExit(f"wrong: the output has the shape {list(output.shape)}, PyTorch's {list(expected.shape)}")
    difference = float(np.abs(output - expected).max())
    black, white = manifest.get("picture_range", [-1, 1])
    decibels = 10 * np.log10((white - black) ** 2 / max(float(np.square(output - expected).mean()), 1e-20))
    bound = manifest["allowed"]
    good = difference <= bound["max_difference"] if "max_difference" in bound else decibels >= bound["psnr"]
    if good and np.isfinite(output).all():
        return difference
    known = f"{manifest['max_difference']:.2e}" if "max_difference" in manifest else "unknown"
    raise SystemExit(
        f"wrong: the output differs from PyTorch's by {difference:.2e} ({decibels:.0f} dB); allowed: {bound}, where it "
        f"was exported: {known}"
    )


def told(ran: dict[str, Any], threads: int, manifest: dict[str, Any]) -> None:
    """Warnings where the runtime does something else than was asked of it."""
    wanted = (manifest.get("providers") or ["unknown"])[0] if str(ran["on"]).endswith("Provider") else ran["on"]
    for name, have, asked in (("threads", ran["threads"], threads), ("on", ran["on"], wanted)):
        if have not in (asked, "unknown"):
            print(f"warning: {name} {asked} was asked for, {manifest['runtime']} has {have}", file=sys.stderr)


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
