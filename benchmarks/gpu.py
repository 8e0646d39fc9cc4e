"""What a GPU makes of it, in one go of at most eight minutes; results go to a CSV file, a row at a time.

    python benchmarks/gpu.py --out benchmarks/results/gpu.csv           # on the accelerator that PyTorch sees
    python benchmarks/gpu.py --out /tmp/dry.csv --device cpu --small    # a dry run of every part, in two minutes

- equality: three training steps in float32 on the CPU and on the device; the largest difference of a weight over the
  largest change of its tensor (at most 1e-2 is expected: sums are in another order, and Adam divides by small numbers).
- steps: images a second of teacher, supernet (distilled) and fine-tuning steps, and which share of the peak their
  convolutions' and products' work is; the peak is a large 3x3 convolution in bfloat16 with channels innermost.
- search: candidates a second, extracted and scored, on the device and on the CPU.
- fid: seconds for the FID of 10,000 pictures.

Parts that no time is left for are told and left out.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rows import append
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from gantailor.evaluators.config import EvaluationConfig
from gantailor.evaluators.scoring import Scoring
from gantailor.supernet.device import HOST, described, find_device, peak_memory, synchronize
from gantailor.supernet.graph import SubnetConfig
from gantailor.supernet.subnets.copying import copied
from gantailor.supernet.supernet import Supernet
from gantailor.supernet.training.image_to_image import ImageToImage
from gantailor.supernet.training.recipe import Recipe
from gantailor.supernet.training.trainer import Trainer
from gantailor.zoo.data.pairs import Pairs
from gantailor.zoo.discriminators.build import make_discriminator
from gantailor.zoo.generators.record import build
from gantailor.zoo.tasks.stylegan2 import StyleGan2

SECONDS = 480  # in all


class Limits:
    """The sizes of a real run, or small ones that try every part."""

    def __init__(self, small: bool) -> None:
        self.small = small
        self.size, self.ngf, self.ndf = (32, 8, 8) if small else (256, 64, 128)
        self.batches, self.steps = ((1, 2), 1) if small else ((1, 16), 10)
        self.candidates, self.pictures = (2, 8) if small else (20, 128)
        self.fid_pictures = 64 if small else 10_000


def noise(count: int, size: int) -> Pairs:
    """Pairs of pictures."""
    pictures = np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    return Pairs(pictures, 255 - pictures, tuple(map(str, range(count))), "noise")


def seconds_of(run: Callable[[], object], device: torch.device) -> float:
    """Of one run."""
    synchronize(device)
    started = time.perf_counter()
    run()
    synchronize(device)
    return time.perf_counter() - started


def peak(device: torch.device, small: bool) -> float:
    """Multiply-accumulates a second of a large convolution in bfloat16."""
    channels, side = (64, 16) if small else (1024, 64)
    x = torch.randn(8, channels, side, side, device=device, dtype=torch.bfloat16)
    x = x.to(memory_format=torch.channels_last)
    layer = nn.Conv2d(channels, channels, 3, padding=1, bias=False).to(device, torch.bfloat16)
    layer = layer.to(memory_format=torch.channels_last)
    with torch.no_grad():
        best = min(seconds_of(lambda: layer(x), device) for _ in range(5))
    return x.shape[0] * side**2 * layer.weight.numel() / best


def pair_task(kind: str, device: torch.device, limits: Limits, batch: int, **recipe: Any) -> Trainer:
    """A step of pix2pix's kind: of a teacher, of a supernet along sampled widths, of a net of half the widths."""
    torch.manual_seed(0)
    whole = build("resnet_9blocks", ngf=limits.ngf)
    r = Recipe(**{"preset": "pix2pix", "kimg": 1e6, "batch": batch, "ndf": limits.ndf, "watch_kimg": 0, **recipe})
    data, sample, layers = noise(2 * batch, limits.size), None, whole.feature_layers
    teacher, student = copied(whole), whole
    if kind != "teacher":
        student = Supernet(whole, (torch.zeros(1, 3, limits.size, limits.size),))
        half = {width.name: max(1, width.size // 2) for width in student.graph.widths}
        if kind == "supernet":
            rng = np.random.default_rng(0)

            def sample(*_: Any) -> Any:
                return SubnetConfig(half) if rng.random() < 0.5 else student.full_config()

        else:
            student = student.extract(SubnetConfig(half))
    task = ImageToImage(
        student,
        data,
        r,
        discriminator=make_discriminator(r, input_nc=3, output_nc=3),
        teacher=None if kind == "teacher" else teacher,
        feature_layers=() if kind == "teacher" else layers,
        sample=sample,
        device=device,
    )
    return Trainer(task, r)


def latent_task(device: torch.device, limits: Limits, batch: int, **recipe: Any) -> Trainer:
    """A StyleGAN2 teacher's step."""
    torch.manual_seed(0)
    r = Recipe(**{"preset": "teacher-stylegan2", "kimg": 1e6, "batch": batch, "watch_kimg": 0, **recipe})
    net = build("stylegan2", size=limits.size)
    return Trainer(StyleGan2(net, noise(2 * batch, limits.size).inputs, r, device=device), r)


def equality(device: torch.device, limits: Limits) -> list[dict[str, Any]]:
    """Three steps on the CPU and on the device."""
    small, weights, before = Limits(small=True), {}, {}
    for where in (HOST, device):
        trainer = pair_task("supernet", where, small, 4, precision="float32")
        before = {n: p.detach().to(HOST).clone() for n, p in trainer.task.generator.named_parameters()}
        for _ in range(3):
            trainer.train_step()
        weights[where] = {n: p.detach().to(HOST) for n, p in trainer.task.generator.named_parameters()}
    worst = max(
        float((weights[device][n] - w).abs().max() / (w - before[n]).abs().max().clamp(min=1e-12))
        for n, w in weights[HOST].items()
    )
    return [{"part": "equality", "what": "3 steps, float32, of the largest change", "value": worst, "unit": "share"}]


def steps(device: torch.device, limits: Limits, name: str, make: Callable[[], Trainer]) -> list[dict[str, Any]]:
    """Images a second, share of the peak, memory."""
    trainer = make()
    for _ in range(2 if limits.small else 5):
        trainer.train_step()
    with FlopCounterMode(display=False) as counted:
        trainer.train_step()
    taken = seconds_of(lambda: [trainer.train_step() for _ in range(limits.steps)], device) / limits.steps
    macs = counted.get_total_flops() / 2
    rows = [
        ("images", trainer.recipe.batch / taken, "a second"),
        ("share of the peak", macs / taken / peak(device, limits.small), "share"),
        ("memory", peak_memory(device) / 2**30, "GiB"),
    ]
    return [{"part": "steps", "what": f"{name}: {what}", "value": value, "unit": unit} for what, value, unit in rows]


def search(device: torch.device, limits: Limits) -> list[dict[str, Any]]:
    """Candidates a second."""
    torch.manual_seed(0)
    supernet = Supernet(build("resnet_9blocks", ngf=limits.ngf), (torch.zeros(1, 3, limits.size, limits.size),))
    pairs, rows = noise(limits.pictures, limits.size), []
    half = SubnetConfig({w.name: max(1, w.size // 2) for w in supernet.graph.widths})
    for where, count in ((device, limits.candidates), (HOST, 1 if limits.small else 2)):
        evaluator = Scoring(EvaluationConfig()).evaluator(["features"])
        evaluator(supernet.extract(half).to(where), pairs)

        def run(where: torch.device = where, count: int = count, evaluator: Any = evaluator) -> None:
            for _ in range(count):
                evaluator(supernet.extract(half).to(where), pairs)

        speed = count / seconds_of(run, where)
        what = f"half widths, {limits.pictures} pictures of {limits.size} px, on {where.type}"
        rows.append({"part": "search", "what": what, "value": speed, "unit": "candidates a second"})
    return rows


class Many:
    """So many pictures, of which few are held."""

    source = "noise"

    def __init__(self, held: Pairs, count: int) -> None:
        self.held, self.count = held, count

    def __len__(self) -> int:
        return self.count

    def batch(self, indices: np.ndarray) -> Any:
        """As the data set's."""
        return self.held.batch(indices % len(self.held))

    def digest(self) -> str:
        """Of the few."""
        return self.held.digest()


def fid(device: torch.device, limits: Limits) -> list[dict[str, Any]]:
    """Of a narrow generator."""
    net = build("resnet_9blocks", ngf=limits.ngf // 2).eval().to(device)
    pairs = Many(noise(64, limits.size), limits.fid_pictures)
    evaluator = Scoring(EvaluationConfig()).evaluator(["fid"])
    taken = seconds_of(lambda: evaluator(net, pairs), device)
    return [{"part": "fid", "what": f"{len(pairs):,} pictures, real ones too", "value": taken, "unit": "seconds"}]


def plan(device: torch.device, limits: Limits) -> dict[str, Callable[[], list[dict[str, Any]]]]:
    """The parts, the cheap ones first."""
    parts: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "equality": lambda: equality(device, limits),
        "search": lambda: search(device, limits),
        "fid": lambda: fid(device, limits),
    }
    ways: dict[str, dict[str, Any]] = {"": {}, ", channels last": {"channels_last": True}}
    for batch in limits.batches:
        for way, settings in ways.items():
            for kind in ("teacher", "supernet", "fine-tuning"):

                def make(kind: str = kind, batch: int = batch, settings: Any = settings) -> Trainer:
                    return pair_task(kind, device, limits, batch, **settings)

                name = f"ResNet-9 {limits.size} px, batch {batch}, {kind}{way}"
                parts[name] = lambda name=name, make=make: steps(device, limits, name, make)  # type: ignore[misc]
    batch = limits.batches[-1]
    parts[f"StyleGAN2-{limits.size}"] = lambda: steps(
        device, limits, f"StyleGAN2-{limits.size}, batch {batch}, teacher", lambda: latent_task(device, limits, batch)
    )
    return parts


def main() -> None:
    """Run it from the command line; see the head of this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--only", nargs="*", help="parts whose names hold one of these")
    arguments = parser.parse_args()
    device, started = find_device(arguments.device), time.monotonic()
    print(f"on {described(device)}, beside {os.cpu_count()} CPUs with {torch.get_num_threads()} threads", flush=True)
    for name, part in plan(device, Limits(arguments.small)).items():
        if arguments.only and not any(word in name for word in arguments.only):
            continue
        if time.monotonic() - started > SECONDS:
            print(f"no time left for {name}", flush=True)
            continue
        stamps = {"device": described(device), "torch": torch.__version__}
        append(arguments.out, [{**stamps, **row} for row in part()])


if __name__ == "__main__":
    main()
