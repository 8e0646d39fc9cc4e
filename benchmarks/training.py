"""One distillation step of GAN Compression's size: what it costs, and what its convolutions alone cost.

    python benchmarks/training.py              # CPU, one thread
    python benchmarks/training.py --device cuda --images 300

Mobile ResNet-9 supernet (ngf 64) as ``32_32_48_40_64_40_16_32``, 256 x 256, pix2pix losses, PatchGAN ndf 128, teacher
ResNet-9. The floor is every convolution of the float32 step (forward and both backward halves), recorded and run again
alone; below it stand the convolutions of the fastest way (bf16, teacher cached) alone, in both precisions and layouts,
and what that way takes beside the best of these. All ways are timed in turn in one process. ``--memory WAY`` prints the
peak memory of 3 steps, ``--flat`` the memory over 2,000 small steps.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from gantailor.cli.main import keep_memory
from gantailor.search.spaces.space import space
from gantailor.supernet.supernet import Supernet
from gantailor.supernet.training.image_to_image import ImageToImage
from gantailor.supernet.training.recipe import Recipe
from gantailor.supernet.training.trainer import Trainer
from gantailor.zoo.data.pairs import Pairs
from gantailor.zoo.discriminators.build import make_discriminator
from gantailor.zoo.generators.record import build

CONFIG, REFERENCE_S = "32_32_48_40_64_40_16_32", 2.39
FASTEST = "bf16, teacher cached"
WAYS: dict[str, dict[str, Any]] = {
    "float32": {"precision": "float32"},
    "float32, channels last": {"precision": "float32", "channels_last": True},
    "bf16": {"precision": "bfloat16"},
    "bf16, channels last": {"precision": "bfloat16", "channels_last": True},
    FASTEST: {"precision": "bfloat16", "teacher_cache": "memory"},
    f"{FASTEST}, channels last": {
        "precision": "bfloat16",
        "teacher_cache": "memory",
        "channels_last": True,
    },
}


def make(way: str, *, device: str, batch: int, size: int = 256, ngf: int = 64, ndf: int = 128) -> Trainer:
    """A trainer of one subnet on two pictures, unmirrored so that a cache helps from the second round on."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (2 * batch, size, size, 3), dtype=np.uint8)
    data = Pairs(pictures, 255 - pictures, tuple(map(str, range(2 * batch))), "noise")
    recipe = Recipe(preset="pix2pix", kimg=1e6, batch=batch, ndf=ndf, mirror=False, shift=0, watch_kimg=0, **WAYS[way])
    teacher, student = build("resnet_9blocks", ngf=ngf), build("mobile_resnet_9blocks", ngf=ngf)
    supernet = Supernet(student, (torch.zeros(1, 3, size, size),))
    variables = space("resnet/channels-64-pix2pix", supernet) if ngf == 64 else None
    config = variables.config(CONFIG) if variables else supernet.full_config()
    task = ImageToImage(
        supernet,
        data,
        recipe,
        discriminator=make_discriminator(recipe, input_nc=3, output_nc=3),
        teacher=teacher,
        feature_layers=student.feature_layers,
        sample=lambda *_: config,
        device=device,
    )
    return Trainer(task, recipe)


class Recorder(TorchDispatchMode):
    """Every convolution that runs, with its arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[Any, ...]]] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function.overloadpacket in (torch.ops.aten.convolution, torch.ops.aten.convolution_backward):
            self.calls.append((function, tuple(a.detach().clone() if torch.is_tensor(a) else a for a in args)))
        return function(*args, **(kwargs or {}))


def multiplications(function: Any, args: tuple[Any, ...]) -> float:
    """Multiply-accumulates of a recorded call."""
    if function.overloadpacket is torch.ops.aten.convolution:
        picture, weight, transposed, mask = args[0], args[1], args[6], [True]
        places = picture if transposed else function(*args)
    else:
        places, picture, weight, transposed, mask = args[0], args[1], args[2], args[7], args[10][:2]
        places = picture if transposed else places
    return sum(mask) * places.shape[0] * places[0, 0].numel() * weight.numel()


def laid(args: tuple[Any, ...], dtype: torch.dtype, layout: torch.memory_format) -> tuple[Any, ...]:
    """A recorded call's arguments in another precision and memory layout."""
    return tuple(
        a.to(dtype).contiguous(memory_format=layout)
        if torch.is_tensor(a) and a.ndim == 4
        else a.to(dtype)
        if torch.is_tensor(a)
        else a
        for a in args
    )


def timed(run: Callable[[], object], device: str) -> float:
    """Seconds of one run; on a CPU those that this thread computed, whatever else the machine does."""
    clock = time.thread_time if device == "cpu" else time.perf_counter
    start = clock()
    run()
    if device != "cpu":
        torch.cuda.synchronize()
    return clock() - start


def peak_gflops(dtype: torch.dtype, device: str) -> float:
    """The machine's best on a large 3x3 convolution, in 10^9 multiply-accumulates a second."""
    x, w = torch.randn(4, 512, 64, 64), torch.randn(512, 512, 3, 3)
    x, w = (t.to(device, dtype).to(memory_format=torch.channels_last) for t in (x, w))
    seconds = min(timed(lambda: torch.conv2d(x, w, padding=1), device) for _ in range(6))
    return 4 * 64 * 64 * w.numel() / seconds / 1e9


def parts(trainer: Trainer) -> dict[str, Callable[[], object]]:
    """Pieces of the step that can be run alone."""
    task = trainer.task
    assert isinstance(task, ImageToImage) and task.teacher is not None
    batch = task.batches(0)
    inputs, config = batch.inputs.to(task.device), task._subnets(0)[0]

    def teacher() -> object:
        return task.teacher(inputs, batch.keys)

    def generator() -> object:
        with task._autocast():
            return task.generator(inputs, config=config).float().square().mean().backward(inputs=task.trained)

    return {"teacher forward": teacher, "supernet forward and backward": generator}


def steps_cpu(rounds: int) -> None:
    """Print the table of the CPU step."""
    torch.set_num_threads(1)
    keep_memory()  # as every command does
    trainers = {way: make(way, device="cpu", batch=1) for way in WAYS}
    for way, trainer in trainers.items():
        losses = {name: f"{float(value):.4g}" for name, value in trainer.train_step().items()}
        print(f"{way:<36} {losses}")
        trainer.train_step()  # both pictures are in the cache now
    with Recorder() as recorder:
        trainers["float32"].train_step()
    with Recorder() as fastest:
        trainers[FASTEST].train_step()
    calls = recorder.calls
    alone = {
        f"its convolutions, {precision}, {name}": [(f, laid(a, dtype, layout)) for f, a in fastest.calls]
        for precision, dtype in (("float32", torch.float32), ("bf16", torch.bfloat16))
        for name, layout in (("as they are", torch.contiguous_format), ("channels last", torch.channels_last))
    }
    macs = sum(multiplications(*call) for call in calls)
    times: dict[str, list[float]] = {name: [] for name in ("floor", *WAYS)}
    pieces = parts(trainers["float32"])
    times |= {name: [] for name in (*pieces, *alone)}
    for _ in range(rounds):
        times["floor"].append(sum(timed(lambda f=f, a=a: f(*a), "cpu") for f, a in calls))
        for name, ones in alone.items():
            times[name].append(sum(timed(lambda f=f, a=a: f(*a), "cpu") for f, a in ones))
        for way, trainer in trainers.items():
            times[way].append(timed(trainer.train_step, "cpu"))
        for name, run in pieces.items():
            times[name].append(timed(run, "cpu"))
    medians = {name: float(np.median(values)) for name, values in times.items()}
    print(f"{macs / 1e9:.1f} G multiply-accumulates in {len(calls)} convolution calls, one thread")
    for dtype in (torch.float32, torch.bfloat16):
        print(f"large convolution, {dtype}: {peak_gflops(dtype, 'cpu'):.0f} GMAC/s")
    for name, seconds in medians.items():
        ratio = np.median(np.array(times[name]) / np.array(times["floor"]))
        rate = f"{macs / seconds / 1e9:6.1f} GMAC/s" if name in WAYS else ""
        print(f"{name:<36} {seconds:6.3f} s  {ratio:5.2f} x floor  {seconds / REFERENCE_S:5.2f} x reference  {rate}")

    best = min(alone, key=medians.__getitem__)
    for way in (FASTEST, f"{FASTEST}, channels last"):
        print(f"{way} beside {best}: {np.median(np.array(times[way]) / np.array(times[best])):.2f}")


def steps_cuda(images: int, batch: int) -> None:
    """Print images a second for each way on a GPU."""
    torch.backends.cudnn.benchmark = True
    peak = peak_gflops(torch.bfloat16, "cuda")
    print(f"{torch.cuda.get_device_name()}: large convolution, bf16: {peak:.0f} GMAC/s")
    for way in WAYS:
        trainer = make(way, device="cuda", batch=batch)
        for _ in range(5):
            trainer.train_step()
        seconds = timed(lambda t=trainer: [t.train_step() for _ in range(max(1, images // batch))], "cuda")
        speed = max(1, images // batch) * batch / seconds
        memory = torch.cuda.max_memory_allocated() / 2**30
        print(f"{way:<36} {speed:8.1f} images/s  500,000 images in {500_000 / speed / 60:.0f} min  {memory:.1f} GiB")
        torch.cuda.reset_peak_memory_stats()


def memory_gib() -> float:
    """Peak resident memory of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def flat() -> None:
    """Print resident memory over 2,000 steps of a small training."""
    torch.set_num_threads(1)
    trainer = make("bf16", device="cpu", batch=4, size=32, ngf=8, ndf=8)
    for step in range(1, 2001):
        trainer.train_step()
        if step in (100, 500, 1000, 1500, 2000):
            resident = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20
            print(f"step {step}: {resident:.0f} MiB", flush=True)


def main() -> None:
    """Run it from the command line; see the head of this file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--batch", type=int, default=16, help="on a GPU")
    parser.add_argument("--memory", metavar="WAY", help=", ".join(WAYS))
    parser.add_argument("--flat", action="store_true")
    arguments = parser.parse_args()
    if arguments.flat:
        flat()
    elif arguments.memory:
        torch.set_num_threads(1)
        before, trainer = memory_gib(), make(arguments.memory, device="cpu", batch=1)
        for _ in range(3):
            trainer.train_step()
        print(f"peak {memory_gib():.2f} GiB, of which {before:.2f} before the networks were made")
    elif arguments.device == "cpu":
        steps_cpu(arguments.rounds)
    else:
        steps_cuda(arguments.images, arguments.batch)


if __name__ == "__main__":
    main()
