"""Worker processes that read a training's batches, beside one of them and beside a plain PyTorch loader.

    python benchmarks/loading_speed.py

400 PNG files of 256 px pairs side by side, decoded whenever they are asked for, mirrored and shifted, in batches of 16.
The plain loader does the same work for each picture (read, cut, move, to float) behind ``DataLoader(shuffle=True)``.
All ways are timed in turn; ratios are of the same round, medians over the rounds. Goals: two workers read 1.8x as fast
as one, and 0.9x as fast as two of the plain loader.

Where others use the processors, decoding cannot scale with workers: the load is told, processor time stands beside, and
the same is measured with pictures that are waited for 20 ms each, as from a slow storage, which load disturbs less.
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

SIZE, COUNT, STEPS = 256, 400, 40
WARM_UP = 6  # steps until the workers read at their own pace: each may be two ahead
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


class Far(Files):
    """The same from a storage that takes 20 ms for a picture, in which a processor has nothing to do."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.one = super().pixels(0)

    def pixels(self, index: int) -> np.ndarray:
        """Of any file."""
        time.sleep(0.02)
        return self.one


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
    """Seconds for the steps."""
    loading = Loading(PairBatches(data, RECIPE), RECIPE, workers=workers)
    with loading.ahead(range(steps + 3 * WARM_UP)):
        for step in range(WARM_UP + steps):
            if step == WARM_UP:
                start = time.perf_counter()
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
    for step in range(WARM_UP + steps):
        if step == WARM_UP:
            start = time.perf_counter()
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


WAYS: dict[str, tuple[Callable[[Files, int, int], float], int]] = {
    "ours, 1 worker": (ours, 1),
    "ours, 2 workers": (ours, 2),
    "plain, 1 worker": (plain, 1),
    "plain, 2 workers": (plain, 2),
}


def compare(kind: str, data: Files, *, rounds: int, steps: int) -> list[dict[str, object]]:
    """A row for each way; prints the ratios, medians over the rounds."""
    rates: dict[str, list[float]] = {way: [] for way in WAYS}
    costs: dict[str, list[float]] = {way: [] for way in WAYS}
    loads = []
    for _ in range(rounds):
        for way, (run, workers) in WAYS.items():
            loads.append(os.getloadavg()[0])
            before = processor_seconds()
            rates[way].append(RECIPE.batch * steps / run(data, workers, steps))
            costs[way].append(1000 * (processor_seconds() - before) / (RECIPE.batch * (steps + WARM_UP)))

    def ratio(table: dict[str, list[float]], above: str, below: str) -> str:
        found = [a / b for a, b in zip(table[above], table[below], strict=True)]
        return f"{median(found):.2f} ({min(found):.2f} to {max(found):.2f})"

    print(f"{kind}, load average {min(loads):.1f} to {max(loads):.1f}")
    print("  two workers over one, goal 1.8:", ratio(rates, "ours, 2 workers", "ours, 1 worker"))
    print("  the same of the plain loader:  ", ratio(rates, "plain, 2 workers", "plain, 1 worker"))
    print("  over two of the plain, goal 0.9:", ratio(rates, "ours, 2 workers", "plain, 2 workers"))
    print("  its processor time over ours:  ", ratio(costs, "plain, 2 workers", "ours, 2 workers"))
    return [
        {
            "pictures": kind,
            "way": way,
            "pairs_per_second": round(median(rates[way]), 1),
            "processor_ms_per_pair": round(median(costs[way]), 2),
            "rounds": " ".join(f"{rate:.0f}" for rate in rates[way]),
            "load_average": round(median(loads), 1),
        }
        for way in WAYS
    ]


def main() -> None:
    """Print the ratios and write the rows."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--steps", type=int, default=STEPS)
    chosen = arguments.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        write_pictures(Path(folder))
        kinds = {"decoded": Files(Path(folder)), "waited for": Far(Path(folder))}
        rows = [compare(kind, data, rounds=chosen.rounds, steps=chosen.steps) for kind, data in kinds.items()]
    RESULTS.unlink(missing_ok=True)
    append(RESULTS, [row for some in rows for row in some])


if __name__ == "__main__":
    main()
