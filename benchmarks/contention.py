"""Processes that want the same at the same moment: one run folder, one study, one cold cache.

    python benchmarks/contention.py --rounds 100 --out /tmp/contention

In each round two processes train in one folder (one works, the other is told who does), eight search in one study
(every subnet is scored once), two with folders of their own read the same pictures into one empty cache. All start at
one moment, ``--seed`` draws up to 0.3 seconds between them; what comes out has to be what one process alone makes. What
was not as it should be is printed, and ends this with status 1.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from kills import SETTINGS, prepare, settings_of

from gantailor.cli.main import main as gantailor
from gantailor.search.budget import Budget
from gantailor.search.spaces.config import SpaceConfig
from gantailor.search.spaces.space import space
from gantailor.search.storage import open_study
from gantailor.search.study import Search
from gantailor.supernet.graph import SubnetConfig
from gantailor.supernet.supernet import Supernet
from gantailor.zoo.generators.record import build

TRIALS, EIGHT = 24, 8
BUSY = "is being written by process"


def together(works: Sequence[Callable[[], int]], log: Path, apart: Sequence[float]) -> list[tuple[int, str]]:
    """Each in a process of its own, all at one moment; their statuses and what they said."""
    start, pids = time.monotonic() + 0.2, []
    for number, (work, late) in enumerate(zip(works, apart, strict=True)):
        pid = os.fork()
        if not pid:
            status = 1
            try:
                said = os.open(log.with_suffix(f".{number}"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                os.dup2(said, 1)
                os.dup2(said, 2)
                time.sleep(max(0.0, start + late - time.monotonic()))
                status = work()
            except BaseException as error:  # all is told; the process must not go on as the campaign
                print(f"{type(error).__name__}: {error}", flush=True)
            finally:
                sys.stdout.flush()
                os._exit(status)
        pids.append(pid)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    return [(code, log.with_suffix(f".{number}").read_text(errors="replace")) for number, code in enumerate(codes)]


def made(folder: Path) -> list[str]:
    """Hashes of what a training made, and what it left behind."""
    names = ("supernet.safetensors", "ranking.json")
    hashes = [hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names if (folder / name).exists()]
    return hashes + sorted(file.name for file in folder.rglob(".*.unfinished"))


def last(said: str) -> str:
    """The last line of what a process said."""
    return (said.strip().splitlines() or [""])[-1]


class Campaign:
    """What all rounds share."""

    def __init__(self, out: Path) -> None:
        prepare(out)
        self.out, self.log, self.file = out, out / "said", settings_of(out, "supernet", 1)
        supernet = Supernet(build("resnet_6blocks", ngf=4), (torch.randn(1, 3, 16, 16),))
        self.space = space(SpaceConfig(fractions=(0.25, 0.5, 0.75, 1)), supernet)
        ((code, said),) = together([self.train(out / "alone", out / "cache")], self.log, [0.0])
        if code:
            raise SystemExit(f"one process alone does not end:\n{said}")
        self.wanted = made(out / "alone")

    def train(self, folder: Path, cache: Path) -> Callable[[], int]:
        """A training in a folder."""

        def work() -> int:
            os.environ["GANTAILOR_CACHE"] = str(cache)
            kimg = str(SETTINGS["train"]["batch"] * 5 / 1000)  # type: ignore[index]
            return gantailor(["train", str(self.file), "--out", str(folder), "--train.kimg", kimg])

        return work

    def search(self, journal: Path) -> Callable[[], int]:
        """A search in a study."""

        def score(config: SubnetConfig) -> dict[str, float]:
            time.sleep(0.01)
            return {"score": float(np.sum(list(config.values())))}

        def work() -> int:
            budget = Budget(self.space, int(0.6 * self.space.macs(self.space.largest)[0]))
            Search(open_study(journal, name="s"), budget, score, strategy="random", lock=journal.with_name("lock")).run(
                TRIALS
            )
            return 0

        return work

    def round(self, place: Path, drawn: random.Random) -> list[str]:
        """What went wrong."""
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()

        def apart(count: int) -> list[float]:
            return [drawn.uniform(0, 0.3) for _ in range(count)]

        wrong = []
        told = together([self.train(place / "one", self.out / "cache")] * 2, self.log, apart(2))
        if sorted(code for code, _ in told) not in ([0, 0], [0, 2]) or any(code and BUSY not in s for code, s in told):
            wrong.append(f"folder: {[(code, last(said)) for code, said in told]}")
        elif made(place / "one") != self.wanted:
            wrong.append("folder: another result")
        told = together([self.search(place / "journal")] * EIGHT, self.log, apart(EIGHT))
        done = [trial for trial in open_study(place / "journal", name="s").trials if trial.state.name == "COMPLETE"]
        if any(code for code, _ in told) or not len(done) == len({str(trial.params) for trial in done}) == TRIALS:
            wrong.append(f"study: {len(done)} trials, {[(code, last(said)) for code, said in told if code]}")
        told = together([self.train(place / name, place / "cache") for name in "ab"], self.log, apart(2))
        if any(code for code, _ in told):
            wrong.append(f"cache: {[(code, last(said)) for code, said in told]}")
        elif not made(place / "a") == made(place / "b") == self.wanted:
            wrong.append("cache: another result")
        return wrong


def main() -> int:
    """So many rounds, or until the time is up."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=1e9, help="no new round after these")
    parser.add_argument("--out", type=Path, default=Path("runs/contention"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    campaign, drawn = Campaign(given.out.resolve()), random.Random(given.seed)
    end, wrong, rounds = time.monotonic() + 60 * given.minutes, list[str](), 0
    while rounds < given.rounds and time.monotonic() < end:
        found = campaign.round(given.out.resolve() / "round", drawn)
        rounds += 1
        wrong += [f"round {rounds}, {text}" for text in found]
        print(f"{rounds} rounds, {len(wrong)} wrong", file=sys.stderr, flush=True)
    print(f"{rounds} rounds, seed {given.seed}; {len(wrong)} went wrong")
    print("\n".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
