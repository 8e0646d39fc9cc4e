"""Kill runs with -9 in every stage, go on with the same command, and compare with a run that nobody killed.

    python benchmarks/kills.py --kills 200 --seed 0 --out /tmp/kills
    python benchmarks/kills.py --kills 40 --workers 2            # two processes search
    python benchmarks/kills.py --kills 20 --lock --methods supernet       # each while the search's lock is held
    python benchmarks/kills.py --kills 20 --torchrun --methods supernet   # one of two processes, or both at once
    python benchmarks/kills.py --kills 20 --torchrun --signals TERM,INT --methods supernet,cyclegan,stylegan2

For each method there is one run to its end (16 pixels, random ones, on the CPU, a checkpoint every 0.7 seconds). Then
runs are killed, or get another signal, at random moments of stages that are drawn in turn, and begun again until they
end; after it weights, widths, scores and the study's trials have to be those of the first run, bit for bit. Under
torchrun it is one process, both, or torchrun itself, and all have to end within three minutes. A table of what was
hit, and what was not as it should be, is printed and lies in ``kills.csv``. The same seed draws the same moments.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

STAGES = ("check", "train", "search", "finetune", "evaluate", "export", "report")
METHODS = ("supernet", "diversity", "hypernetwork", "agents", "slimming")  # and two tasks: cyclegan, stylegan2
PATIENCE = 180.0  # seconds in which all have to end after a signal
SENT, HANGS = "kills.py: a signal was sent", "kills.py: it did not end by itself"
LOCK = "at the lock"  # a column of its own, with --lock
START = """
import os, signal, sys
from gantailor.cli.main import main
from gantailor.search.storage import JournalLock
from gantailor.supernet.training.trainer import Trainer

taken, acquire = 0, JournalLock.acquire

def counted(lock):
    global taken
    acquire(lock)
    taken += 1
    if taken == int(os.environ.get("KILL_AT_LOCK", "0")):
        os.kill(os.getpid(), signal.SIGKILL)
    return True

if __name__ == "__main__":  # search workers import this
    Trainer.run.__kwdefaults__["save_every_s"] = 0.7
    JournalLock.acquire = counted
    status = main(sys.argv[1:])
    print("locks taken:", taken)
    sys.exit(status)
"""
SETTINGS = {
    "options": {"ngf": 4},
    "budget": "0.6x",
    "space": "default",
    "train": {"kimg": 0.06, "batch": 4, "gan": "none", "shift": 0, "watch_kimg": 0.03, "precision": "float32"},
    "finetune": {"kimg": 0.06, "batch": 4, "gan": "none", "shift": 0, "watch_kimg": 0.03, "precision": "float32"},
    "search": {"trials": 6},
    "evaluation": {"search": "l1", "final": ["l1"], "search_images": 4},
}


STYLEGAN2 = {"size": 32, "style_dim": 8, "n_mlp": 2, "channels": {4: 8, 8: 8, 16: 8, 32: 6}}


@dataclass(frozen=True)
class How:
    """What a campaign does: processes that search, whether it kills at the lock, whether two processes train."""

    workers: int = 1
    lock: bool = False
    torchrun: bool = False
    signals: tuple[str, ...] = ("KILL",)

    @property
    def stages(self) -> tuple[str, ...]:
        """Where it kills."""
        return (LOCK,) if self.lock else STAGES


@dataclass
class Told:
    """What a campaign did and found."""

    how: How
    hits: Counter[tuple[str, str]] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    rounds: int = 0


def prepare(out: Path) -> None:
    """Pictures and a teacher."""
    import numpy as np
    import torch
    from PIL import Image

    import gantailor

    for split, count in (("train", 12), ("val", 4), ("test", 4)):
        (out / "data" / split).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = np.random.default_rng((count, number)).integers(0, 256, (16, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(out / "data" / split / f"{count}-{number}.png")
        for domain in "AB":  # of CycleGAN, and of StyleGAN2
            shutil.copytree(out / "data" / split, out / "domains" / f"{split}{domain}", dirs_exist_ok=True)
        whole = np.random.default_rng(count).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        for number, pixels in enumerate(whole):
            (out / "pictures" / split).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(out / "pictures" / split / f"{count}-{number}.png")
    torch.manual_seed(0)
    torch.save(gantailor.build("resnet_6blocks", ngf=4).state_dict(), out / "teacher.pth")
    torch.save({"g_ema": gantailor.build("stylegan2", **STYLEGAN2).state_dict()}, out / "stylegan2.pt")


def settings_of(out: Path, method: str, workers: int) -> Path:
    """The YAML file of a method's runs; JSON is YAML."""
    whole = {**SETTINGS, "method": method, "teacher": str(out / "teacher.pth")}
    whole["data"] = {"kind": "folder", "path": str(out / "data"), "size": 16}
    whole["search"] = {**SETTINGS["search"], "workers": workers}
    if method in ("cyclegan", "stylegan2"):
        whole |= _task(out, method)
    if method == "agents":  # which needs a discriminator, here one for 16 pixels
        for part in ("train", "finetune"):
            whole[part] = {**SETTINGS[part], "gan": "lsgan", "discriminator_layers": 1}
        whole["train"]["method_options"] = {"discriminator_kimg": 0.02}
    if method == "hypernetwork":  # keeps any number of channels
        del whole["space"]
    elif method != "supernet":
        whole["space"] = "every"
    file = out / f"{method}.yaml"
    file.write_text(json.dumps(whole))
    return file


def _task(out: Path, name: str) -> dict[str, object]:
    """Settings of a run whose task has state of its own: pools of old outputs, or averages of what paths are long."""
    sections: dict[str, object] = {}
    for part in ("train", "finetune"):
        sections[part] = {"kimg": 0.06, "batch": 4, "watch_kimg": 0.03, "precision": "float32", "ndf": 4}
        if name == "cyclegan":
            sections[part] |= {"preset": "teacher-cyclegan", "discriminator_layers": 1}
        if name == "stylegan2":  # relations between pictures, of the parts that a process has
            sections[part] |= {"coupled": "parts"}
    data = {"kind": "folder", "path": str(out / "pictures"), "direction": "unpaired", "size": 32}
    if name == "stylegan2":
        own = {"generator": name, "options": {}, "teacher": str(out / "stylegan2.pt"), "method": "diversity"}
        return {**sections, **own, "ranking": "l1", "data": data, "discriminator": "none", "space": "uniform"}
    data = {"kind": "domains", "path": str(out / "domains"), "size": 16}
    return {**sections, "method": "hypernetwork", "teacher": "none", "data": data, "evaluation": {"final": ["fid"]}}


def run(
    file: Path,
    folder: Path,
    how: How,
    kill: tuple[str, float] | None = None,
    share: float = 1.0,
    number: signal.Signals = signal.SIGKILL,
) -> tuple[int, str, dict[str, float]]:
    """One start; with ``kill`` it gets a signal so many seconds into a stage, or when it takes the lock so many times.

    Args:
        share: under torchrun, below a third it is one of the processes that gets it, below two thirds both, else
            torchrun itself (of -9, all that there are).

    Returns:
        Its status, what it said, and the seconds at which each stage began, and how often it took the lock.
    """
    start = folder.parent / "start.py"
    start.write_text(START)
    spread = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"] if how.torchrun else []
    command = [sys.executable, *spread, str(start), "compress", str(file), "--out", str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    if kill and how.lock:
        environment["KILL_AT_LOCK"] = str(int(kill[1]))
    log = folder.with_suffix(".log")
    began, stages = time.monotonic(), dict[str, float]()
    with log.open("w") as said:
        process = subprocess.Popen(command, stderr=said, stdout=said, env=environment, start_new_session=True)
        while process.poll() is None:
            time.sleep(0.02)
            for line in log.read_text(errors="replace").splitlines():
                if line.startswith("== "):
                    stages.setdefault(line.split()[1], time.monotonic() - began)
            if kill and kill[0] in stages and time.monotonic() - began - stages[kill[0]] >= kill[1]:
                print(SENT if _end(process, share, number) else f"{SENT}\n{HANGS}", file=said, flush=True)
    text = log.read_text(errors="replace")
    if found := [line for line in text.splitlines() if line.startswith("locks taken: ")]:
        stages[LOCK] = max(float(line.rpartition(" ")[2]) for line in found)
    return process.returncode, text, stages


def _end(process: subprocess.Popen[bytes], share: float, number: signal.Signals) -> bool:
    """Send a signal; whether all that torchrun started, and torchrun, ended by themselves. Nothing is left behind."""
    children = _children(process.pid)
    if not children:
        aims = [process.pid]
    elif share < 1 / 3:
        aims = [children[int(3 * share * len(children))]]
    elif share < 2 / 3:
        aims = children
    else:
        aims = [*children, process.pid] if number == signal.SIGKILL else [process.pid]
    for aim in aims:
        with contextlib.suppress(ProcessLookupError):
            os.kill(aim, number)
    ended = True
    try:
        process.wait(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        ended = False
    for left in [*children, process.pid]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(left, signal.SIGKILL)
    process.wait()
    return ended


def _children(parent: int) -> list[int]:
    """Processes that torchrun started, by number; of others, which end with their parent, none."""
    if "torch.distributed.run" not in Path(f"/proc/{parent}/cmdline").read_text(errors="replace"):
        return []
    found = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return sorted(int(number) for number in found)


def result(folder: Path) -> dict[str, object]:
    """What must not depend on kills."""
    found: dict[str, object] = {}
    for name in ("supernet.safetensors", "subnet.safetensors", "subnet.json", "export/model.safetensors"):
        file = folder / name
        found[name] = hashlib.sha256(file.read_bytes()).hexdigest() if file.exists() else None
    scores = json.loads((folder / "scores.json").read_text())
    found["scores"] = {who: {name: one["value"] for name, one in of.items()} for who, of in scores.items()}
    with (folder / "front.csv").open() as file:
        rows = [{k: v for k, v in row.items() if k not in ("trial", "seconds")} for row in csv.DictReader(file)]
    found["trials"] = sorted(json.dumps(row, sort_keys=True) for row in rows)
    found["left behind"] = sorted(file.name for file in folder.rglob(".*.unfinished"))
    return found


def campaign(out: Path, methods: list[str], kills: int, seed: int, how: How, minutes: float) -> Told:
    """Until there were so many kills, or the time is up."""
    told, drawn, end = Told(how), random.Random(seed), time.monotonic() + 60 * minutes
    whole: dict[str, tuple[dict[str, object], dict[str, float]]] = {}
    number = 0
    while sum(told.hits.values()) < kills and time.monotonic() < end:
        method = methods[number % len(methods)]
        file = settings_of(out, method, how.workers)
        if method not in whole:
            whole[method] = _uninterrupted(out / f"whole-{method}", file, how)
        _round(told, drawn, out / f"killed-{number}", file, method, whole[method])
        number += 1
        told.rounds = number
        print(
            f"{sum(told.hits.values())} kills in {number} rounds, {len(told.wrong)} wrong", file=sys.stderr, flush=True
        )
    return told


def _uninterrupted(folder: Path, file: Path, how: How) -> tuple[dict[str, object], dict[str, float]]:
    """What has to come out, and how long each stage takes; of the lock how often it is taken."""
    shutil.rmtree(folder, ignore_errors=True)
    status, said, stages = run(file, folder, how)
    if status:
        raise SystemExit(f"{file.stem} does not end without kills:\n{said[-2000:]}")
    locks = stages.pop(LOCK, 0.0)
    ends = [*list(stages.values())[1:], max(stages.values()) + 1]
    lengths = {name: then - at for (name, at), then in zip(stages.items(), ends, strict=True)}
    return result(folder), lengths | {LOCK: locks}


def _round(told, drawn, folder, file, method, known) -> None:  # type: ignore[no-untyped-def]
    """Up to three kills of one run, then to its end."""
    shutil.rmtree(folder, ignore_errors=True)
    (wanted, seconds), how = known, told.how
    for _ in range(drawn.randint(1, 3)):
        stage = min(how.stages, key=lambda name: (told.hits[method, name], drawn.random()))
        moment = drawn.random() * seconds.get(stage, 1.0)
        share, name = drawn.random(), drawn.choice(how.signals)
        when = (stage, 1 + moment if how.lock else moment)
        status, said, _ = run(file, folder, how, when, share, signal.Signals[f"SIG{name}"])
        if HANGS in said:
            told.wrong.append(f"{folder.name}: {name} in {stage}, {share:.2f}: {HANGS}")
        if status == -signal.SIGKILL or (status and SENT in said):
            told.hits[method, stage] += 1
        elif status:
            told.wrong.append(f"{folder.name}: status {status}: {said.strip().splitlines()[-1:]}")
            return
    status, said, _ = run(file, folder, how)
    if status:
        told.wrong.append(f"{folder.name}: status {status} after the kills: {said.strip().splitlines()[-1:]}")
        return
    found = result(folder)
    told.wrong += [f"{folder.name}: {name} is another" for name in wanted if found[name] != wanted[name]]
    shutil.rmtree(folder)


def main() -> int:
    """The campaign and its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/kills"))
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--workers", type=int, default=1, help="processes that search")
    parser.add_argument("--lock", action="store_true", help="kill at the moments when the search's lock is held")
    parser.add_argument("--torchrun", action="store_true", help="two processes train; one of them or both are killed")
    parser.add_argument("--signals", default="KILL", help="drawn from these: KILL,TERM,INT")
    parser.add_argument("--minutes", type=float, default=1e9, help="no new round after these")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    out = given.out.resolve()
    prepare(out)
    how = How(given.workers, given.lock, given.torchrun, tuple(given.signals.split(",")))
    told = campaign(out, given.methods.split(","), given.kills, given.seed, how, given.minutes)
    methods = sorted({method for method, _ in told.hits})
    with (out / "kills.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["method", *how.stages])
        table.writerows([method, *(told.hits[method, stage] for stage in how.stages)] for method in methods)
    print((out / "kills.csv").read_text().strip())
    print(f"{sum(told.hits.values())} kills in {told.rounds} rounds, seed {given.seed}; {len(told.wrong)} went wrong")
    print("\n".join(told.wrong))
    return 1 if told.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
