"""Worker processes that read a training's batches, beside one of them and beside a plain PyTorch loader.

    python benchmarks/loading_speed.py

400 PNG files of 256 px pairs side by side, decoded whenever they are asked for, mirrored and shifted, in batches of 16.
The plain loader does the same work for each picture: read, cut, move, to float; ``DataLoader(shuffle=True)``. All ways
are timed in turn, medians of the rounds. Goals: two workers read 1.8x as fast as one, and 0.9x as fast as two of the
plain loader. Processor time is told beside: on a machine that others use, it is what a way costs.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image
from rows import append
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from gantailor.evaluators.pictures.reader import PictureReader
from gantailor.supernet.training.batches import Move, PairBatches
from gantailor.supernet.training.loading import Loading
from gantailor.supernet.training.recipe import Recipe
from gantailor.zoo.data.fit import halves
from gantailor.zoo.data.pairs import Pairs

SIZE, COUNT, STEPS = 256, 400, 60
RECIPE = Recipe(batch=16, kimg=1e3)
RESULTS = Path(__file__).parent / "results" / "loading_speed.csv"


class Files:
    """Pairs that lie side by side in files, decoded when they are asked for."""

    def __init__(self, folder: Path) -> None:
        self.files, self.reader = sorted(folder.glob("*.png")), PictureReader()

    def __len__(self) -> int:
        return len(self.files)

    def batch(self, indices: np.ndarray, *, moves: Sequence[Move] | None = None) -> tuple[Tensor, Tensor | None]:
        """Inputs and targets, moved."""
        sides = zip(*(halves(self.pixels(index)) for index in indices), strict=True)
        inputs, targets = map(np.stack, sides)
        return Pairs(inputs, targets, ("",) * len(inputs), "").batch(np.arange(len(inputs)), moves=moves)

    def pixels(self, index: int) -> np.ndarray:
        """Of one file."""
        found = self.reader.read(self.files[index])
        assert found is not None
        return found

    def digest(self) -> str:
        """Nothing here is cached."""
        return ""


class Plain(Dataset[tuple[Tensor, Tensor]]):
    """The usual way: one picture, moved at random."""

    def __init__(self, data: Files) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        mirror = bool(torch.rand(()) < 0.5)
        down, right = torch.randint(-RECIPE.shift, RECIPE.shift + 1, (2,)).tolist()
        inputs, targets = self.data.batch(np.array([index]), moves=[Move(mirror, down, right)])
        assert targets is not None
        return inputs[0], targets[0]


def ours(data: Files, workers: int, steps: int) -> float:
    """Seconds for the steps after the first, which starts the workers."""
    loading = Loading(PairBatches(data, RECIPE), RECIPE, workers=workers)
    with loading.ahead(range(steps + 1)):
        loading.parts(0)
        start = time.perf_counter()
        for step in range(1, steps + 1):
            (batch,) = loading.parts(step)
            assert batch.inputs.shape == (RECIPE.batch, 3, SIZE, SIZE)
        return time.perf_counter() - start


def plain(data: Files, workers: int, steps: int) -> float:
    """The same of a loader that goes round."""
    loader = DataLoader(
        Plain(data), batch_size=RECIPE.batch, shuffle=True, num_workers=workers, drop_last=True, persistent_workers=True
    )

    def batches() -> object:
        while True:
            yield from loader

    coming = iter(batches())  # type: ignore[call-overload]
    next(coming)
    start = time.perf_counter()
    for _ in range(steps):
        next(coming)
    return time.perf_counter() - start


def processor_seconds() -> float:
    """Of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def write_pictures(folder: Path) -> None:
    """Smooth pictures with some noise, which PNG files hold about as well as photographs."""
    rng = np.random.default_rng(0)
    for number in range(COUNT):
        rough = Image.fromarray(rng.integers(0, 256, (16, 32, 3), dtype=np.uint8))
        smooth = np.asarray(rough.resize((2 * SIZE, SIZE), Image.Resampling.BICUBIC), np.int16)
        noisy = smooth + rng.integers(-4, 5, smooth.shape)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"{number:04d}.png")


def main() -> None:
    """Print the medians and write the rows."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--steps", type=int, default=STEPS)
    chosen = arguments.parse_args()
    torch.set_num_threads(1)
    ways: dict[str, tuple[Callable[[Files, int, int], float], int]] = {
        "ours, 1 worker": (ours, 1),
        "ours, 2 workers": (ours, 2),
        "plain, 1 worker": (plain, 1),
        "plain, 2 workers": (plain, 2),
    }
    rates: dict[str, list[float]] = {way: [] for way in ways}
    costs: dict[str, list[float]] = {way: [] for way in ways}
    loads = []
    with tempfile.TemporaryDirectory() as folder:
        write_pictures(Path(folder))
        data = Files(Path(folder))
        for _ in range(chosen.rounds):
            for way, (run, workers) in ways.items():
                loads.append(os.getloadavg()[0])
                before = processor_seconds()
                seconds = run(data, workers, chosen.steps)
                pictures = chosen.steps * RECIPE.batch
                rates[way].append(pictures / seconds)
                costs[way].append(1000 * (processor_seconds() - before) / pictures)
    speed = {way: median(values) for way, values in rates.items()}
    rows = [
        {
            "way": way,
            "pairs_per_second": round(speed[way], 1),
            "processor_ms_per_pair": round(median(costs[way]), 2),
            "rounds": " ".join(f"{rate:.0f}" for rate in rates[way]),
            "load_average": round(median(loads), 1),
        }
        for way in ways
    ]
    RESULTS.unlink(missing_ok=True)
    append(RESULTS, rows)
    scaled = [b / a for a, b in zip(rates["ours, 1 worker"], rates["ours, 2 workers"], strict=True)]
    beside = [b / a for a, b in zip(rates["plain, 2 workers"], rates["ours, 2 workers"], strict=True)]
    cost = [a / b for a, b in zip(costs["plain, 2 workers"], costs["ours, 2 workers"], strict=True)]
    print(f"two workers over one: {median(scaled):.2f} (goal 1.8)")
    print(
        f"two workers over two of the plain loader: {median(beside):.2f} (goal 0.9); by processor time {median(cost):.2f}"
    )


if __name__ == "__main__":
    main()
