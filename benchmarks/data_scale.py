"""Many small pictures: the time to index them, the second start, memory, and pictures a second against a plain loader.

    python benchmarks/data_scale.py --pictures 100000 --out benchmarks/results/data_scale.csv

Pairs of 32 x 16 pixels are made in a temporary folder with a cache of its own, which are removed at the end. Each
figure comes from a process of its own. ``plain`` is the Dataset that people write: PIL, its EXIF orientation, two
halves, tensors in [-1, 1], shuffled and collated by PyTorch's ``DataLoader``; ``ours`` gives the same batches of 64.
Memory is the peak of the process above what it has after the imports; its workers' largest peak stands beside it.
Pictures for each second of processor time, of all processes, are a fair measure on a busy machine.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from rows import append
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from gantailor.zoo.data.config import DataConfig
from gantailor.zoo.data.read import read_split
from gantailor.zoo.data.record import DataSet

BATCH = 64
FIGURES = (
    "seconds",
    "processor_seconds",
    "pictures_a_second",
    "pictures_a_processor_second",
    "grown_mib",
    "worker_mib",
)
START = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


class Plain(Dataset[tuple[Tensor, Tensor]]):
    """As a tutorial has it."""

    def __init__(self, folder: Path) -> None:
        self.files = sorted(folder.glob("*.png"))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        with Image.open(self.files[index]) as image:
            pixels = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
        half = pixels.shape[1] // 2
        sides = (pixels[:, :half], pixels[:, half:])
        first, second = (torch.from_numpy(side.copy()).permute(2, 0, 1).float() / 127.5 - 1 for side in sides)
        return first, second


class Ours(Dataset[tuple[Any, Tensor | None]]):
    """Whole batches by their rows."""

    def __init__(self, data: DataSet) -> None:
        self.data = data

    def __getitem__(self, rows: Any) -> tuple[Any, Tensor | None]:
        return self.data.batch(rows)


def make(folder: Path, count: int) -> None:
    """Random pairs, so that nothing compresses."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(count):
        Image.fromarray(random.integers(0, 256, (16, 32, 3), dtype=np.uint8)).save(folder / f"{number:06d}.png")


def configuration(root: Path, cache: str, workers: int) -> DataConfig:
    """Of the pairs."""
    return DataConfig(kind="folder", path=str(root), size=16, cache=cache, workers=workers)  # type: ignore[arg-type]


def batches(count: int) -> list[np.ndarray]:
    """All of them in a random order."""
    order = np.random.default_rng(1).permutation(count)
    return [order[i : i + BATCH] for i in range(0, count - BATCH + 1, BATCH)]


def first_step(root: Path, cache: str, workers: int) -> dict[str, Any]:
    """Seconds to the first batch."""
    started, used = time.monotonic(), processor_seconds()
    data = read_split(configuration(root, cache, workers), "train")
    data.batch(batches(len(data))[0])
    spent, used = time.monotonic() - started, processor_seconds() - used
    return {"seconds": round(spent, 2), "processor_seconds": round(used, 2)}


def speed(root: Path, way: str, cache: str, workers: int, limit: int) -> dict[str, Any]:
    """Pictures a second of so many batches, after the first ones."""
    loader: Iterable[Any]
    if way == "plain":
        loader = DataLoader(Plain(root / "train"), BATCH, shuffle=True, num_workers=workers)
    else:
        data = read_split(configuration(root, cache, 2), "train")
        rows = batches(len(data))
        loader = DataLoader(Ours(data), batch_size=None, sampler=rows, num_workers=workers)  # type: ignore[arg-type]
    warm, started, used = 10, 0.0, processor_seconds()
    read = iter(loader)
    for number in range(warm + limit):
        next(read)
        if number == warm:
            started = time.monotonic()
    spent = time.monotonic() - started
    del read  # ends the workers, whose time counts from then on
    used = processor_seconds() - used
    return {
        "pictures_a_second": round(BATCH * (limit - 1) / spent),
        "pictures_a_processor_second": round(BATCH * (warm + limit) / used),
    }


def processor_seconds() -> float:
    """Of this process and its ended children."""
    return sum(
        r.ru_utime + r.ru_stime for r in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def measured(*arguments: str) -> dict[str, Any]:
    """What a process of its own says."""
    done = subprocess.run(
        [sys.executable, __file__, "--measure", *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {name: found.get(name) for name in FIGURES}


def measure(root: Path, what: str, cache: str, workers: int, limit: int) -> None:
    """One figure, printed as JSON with the memory that it took."""
    torch.set_num_threads(1)
    found = first_step(root, cache, workers) if what == "start" else speed(root, what, cache, workers, limit)
    peak, children = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    memory = {"grown_mib": round((peak - START) / 1024), "worker_mib": round(children / 1024)}
    print(json.dumps(memory | found))


def main() -> None:
    """Make the pictures, measure, write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=100_000)
    parser.add_argument("--batches", type=int, default=300, help="of each speed")
    parser.add_argument("--rounds", type=int, default=3, help="ways take turns, so that a busy machine is fair")
    parser.add_argument("--out", type=Path, default=Path("data_scale.csv"))
    parser.add_argument("--folder", type=Path, help="keeps the pictures, and takes those that are there")
    parser.add_argument("--measure", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        root, what, cache, workers, limit = arguments.measure
        measure(Path(root), what, cache, int(workers), int(limit))
        return
    with tempfile.TemporaryDirectory() as temporary:
        root, limit = arguments.folder or Path(temporary) / "pairs", str(arguments.batches)
        if not (root / "train").is_dir():
            make(root / "train", arguments.pictures)
        for cache, workers in (("off", "0"), ("on", "2")):
            for start in ("first", "second"):
                os.environ["GANTAILOR_CACHE"] = str(root / cache)
                row = measured(str(root), "start", cache, workers, limit)
                told = {"what": f"{start} start", "cache": cache, "workers": int(workers), "round": 0}
                append(arguments.out, [told | row])
        for turn in range(arguments.rounds):
            for workers in ("0", "1", "2"):
                for what, cache in (("plain", "off"), ("ours", "off"), ("ours", "on")):
                    os.environ["GANTAILOR_CACHE"] = str(root / cache)
                    row = measured(str(root), what, cache, workers, limit)
                    told = {"what": what, "cache": cache, "workers": int(workers), "round": turn}
                    append(arguments.out, [told | row])


if __name__ == "__main__":
    main()
