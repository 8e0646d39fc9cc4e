"""Resident memory of long work in one process: 5,000 training steps, 1,000 trials, 20,000 scored pictures.

    python benchmarks/memory.py --out /tmp/memory
    python benchmarks/memory.py --only search --trials 200

A tiny generator (ngf 4, 16 pixels, random ones, on the CPU), each part in a process of its own. A line tells what was
resident at a tenth and at the end, and the growth for each step, trial or picture in between; all that was measured
lies in ``memory.csv``. The first tenth is left out: there networks, caches and the pools of memory are made. A training
tells of itself once a second: give it steps for many of these.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import gantailor
from gantailor.evaluators.config import EvaluationConfig
from gantailor.evaluators.folder import evaluate_folders
from gantailor.evaluators.pictures.reader import PictureReader
from gantailor.evaluators.scoring import Scoring
from gantailor.pipeline.compress import compress
from gantailor.run.config import Config
from gantailor.run.progress import Reporter
from gantailor.run.run import Run

PARTS = {"training": "step", "search": "trial", "pictures": "picture"}


def resident() -> float:
    """MB of this process that lie in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


class Measured(Reporter):
    """Notes (steps or trials done, MB) as the pipeline tells of them, a hundred times in all."""

    def __init__(self, total: int) -> None:
        super().__init__(quiet=True)
        self.every, self.rows = max(1, total // 100), list[tuple[int, float]]()

    def note_memory(self, done: int) -> None:
        """Once in every hundredth."""
        if not self.rows or done // self.every > self.rows[-1][0] // self.every:
            self.rows.append((done, resident()))

    @contextmanager
    def training(self, name: str, tensorboard: Path | None = None) -> Iterator[Callable[[Any], None]]:
        """Of a training's steps."""
        yield lambda progress: self.note_memory(progress.step)

    @contextmanager
    def counting(self, name: str, total: int) -> Iterator[Callable[[int, float], None]]:
        """Of a search's trials."""
        yield lambda done, best: self.note_memory(done)


def prepare(out: Path, pictures: int) -> None:
    """A data set, a teacher, and two folders of so many pictures."""
    sizes = {"data/train": 12, "data/val": 4, "data/test": 4, "a": pictures, "b": pictures}
    for number, (split, count) in enumerate(sizes.items()):
        (out / split).mkdir(parents=True, exist_ok=True)
        rng, width = np.random.default_rng(number), 32 if split.startswith("data") else 16
        for one in range(count):
            Image.fromarray(rng.integers(0, 256, (16, width, 3), dtype=np.uint8)).save(out / split / f"{one}.png")
    torch.manual_seed(0)
    torch.save(gantailor.build("resnet_6blocks", ngf=4).state_dict(), out / "teacher.pth")


def job(out: Path, steps: int, trials: int) -> Config:
    """The settings of training and search."""
    return Config.model_validate(
        {
            "options": {"ngf": 4},
            "teacher": {"weights": str(out / "teacher.pth")},
            "data": {"kind": "folder", "path": str(out / "data"), "size": 16},
            "budget": "0.6x",
            "space": {"name": "default"},
            "train": {"kimg": steps * 4 / 1000, "batch": 4, "gan": "none", "shift": 0},
            "finetune": {"gan": "none"},
            "search": {"trials": trials},
            "evaluation": {"search": "l1", "final": ["l1"], "search_images": 4},
        }
    )


def measure(part: str, count: int, out: Path) -> list[tuple[int, float]]:
    """(done, MB) of one part, in this process."""
    torch.set_num_threads(1)
    noted = Measured(count)
    if part == "pictures":
        read, numbers = PictureReader.read, itertools.count(1)

        def counted(reader: PictureReader, file: Any) -> Any:
            noted.note_memory(next(numbers) // 2)  # of each pair both are read
            return read(reader, file)

        PictureReader.read = counted  # type: ignore[method-assign]
        evaluate_folders(Scoring(EvaluationConfig()), out / "a", out / "b", ("psnr", "ssim"))
        return noted.rows
    steps, trials = (count, 1) if part == "training" else (2, count)
    compress(Run(out / part, job(out, steps, trials), report=noted), until="train" if part == "training" else "search")
    return noted.rows


def main() -> int:
    """Each part, its line, and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--pictures", type=int, default=20000)
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--out", type=Path, default=Path("runs/memory"), help="must be empty")
    given = parser.parse_args()
    out = given.out.resolve()
    prepare(out, given.pictures if given.only in (None, "pictures") else 1)
    counts = {"training": given.steps, "search": given.trials, "pictures": given.pictures}
    with (out / "memory.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["part", "done", "mb"])
        for part in [given.only] if given.only else PARTS:
            started = time.monotonic()
            with multiprocessing.get_context("spawn").Pool(1) as alone:
                rows = alone.apply(measure, (part, counts[part], out))
            table.writerows([part, done, round(mb, 2)] for done, mb in rows)
            file.flush()
            begin = next((row for row in rows if row[0] >= counts[part] / 10), rows[0])
            growth = 1000 * (rows[-1][1] - begin[1]) / max(1, rows[-1][0] - begin[0])
            said = f"{begin[1]:.0f} MB at {begin[0]:,}, {rows[-1][1]:.0f} MB at {rows[-1][0]:,}"
            each = f"{growth:.1f} kB a {PARTS[part]} ({time.monotonic() - started:.0f} s)"
            print(f"{part}: {said}: {each}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
