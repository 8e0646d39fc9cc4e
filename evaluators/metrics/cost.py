"""What a generator costs: multiply-accumulates, parameters, bytes, milliseconds."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from gantailor.evaluators.metric import Metric, MetricContext, Runtime
from gantailor.evaluators.scores import Pairs, Score, provenance_of
from gantailor.supernet.calling import Inputs, as_tuple, evaluating, forward, shape_of
from gantailor.supernet.device import HOST, placed
from gantailor.supernet.supernet import Supernet
from gantailor.supernet.tracing.counting import count_products

Counter = Callable[[nn.Module, Inputs], int]


def make_cost(context: MetricContext) -> Cost:
    """Costs, MACs in both conventions."""
    return Cost({"true": measured_macs, "published": published_macs})


def make_latency(context: MetricContext) -> Latency:
    """Timings with the runtimes that the caller gave."""
    threads = context.config.threads
    return Latency(context.runtimes(threads) if context.runtimes is not None else None, threads=threads)


def _cost(name: str, unit: str, make: Callable[[MetricContext], Cost | Latency]) -> Metric:
    reads = ("threads",) if make is make_latency else ()
    return Metric(name=name, unit=unit, lower_is_better=True, compares="generator", make=make, reads=reads)


MACS = _cost("macs", "multiply-accumulates a picture", make_cost)
PARAMETERS = _cost("parameters", "parameters", make_cost)
BYTES = _cost("bytes", "bytes", make_cost)
LATENCY_MS = _cost("latency_ms", "ms a batch", make_latency)
LATENCY_P95_MS = _cost("latency_p95_ms", "ms a batch", make_latency)


def measured_macs(model: nn.Module, example: Inputs) -> int:
    """Multiply-accumulates that one forward of the example takes, as PyTorch's counter counts (convention ``true``)."""
    return count_products(model, as_tuple(example))


def published_macs(model: nn.Module, example: Inputs) -> int:
    """MACs as the GAN Compression tables count them, read off a trace."""
    supernet = Supernet(model, as_tuple(example))
    return supernet.macs(supernet.full_config(), convention="published")


def stored_bytes(model: nn.Module) -> dict[str, int]:
    """Bytes of parameters and buffers at fp32, fp16 and int8.

    int8 is what static quantisation stores: a byte for each element of a weight of two or more dimensions and an fp32
    scale for each of its output channels; vectors (biases, norms) stay fp32.
    """
    tensors = {t.data_ptr(): t for t in [*model.parameters(), *model.buffers()] if t.is_floating_point()}
    elements = sum(t.numel() for t in tensors.values())
    int8 = sum(t.numel() + 4 * t.shape[0] if t.ndim > 1 else 4 * t.numel() for t in tensors.values())
    return {"fp32": 4 * elements, "fp16": 2 * elements, "int8": int8}


class Cost:
    """``macs[...]`` for one picture of the data set's size, ``parameters``, and ``bytes[fp32|fp16|int8]``.

    Args:
        counters: a MAC counter for each convention, by name; PyTorch's (``true``) alone if missing.
    """

    def __init__(self, counters: Mapping[str, Counter] | None = None) -> None:
        self.counters = dict(counters or {"true": measured_macs})

    def __call__(self, generator: nn.Module, pairs: Pairs) -> dict[str, Score]:
        example = pairs.batch(np.arange(1))[0]
        provenance = provenance_of(pairs, input=shape_of(example))
        generator = placed(generator, HOST)
        with evaluating(generator):
            macs = {name: counter(generator, example) for name, counter in self.counters.items()}
        scores = {f"macs[{name}]": MACS.score(value, provenance) for name, value in macs.items()}
        scores["parameters"] = PARAMETERS.score(sum(p.numel() for p in generator.parameters()), provenance)
        sizes = stored_bytes(generator)
        return scores | {f"bytes[{kind}]": BYTES.score(value, provenance) for kind, value in sizes.items()}


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """PyTorch with so many threads, and with as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Latency:
    """Milliseconds of a forward: ``latency_ms[runtime]`` (median) and ``latency_p95_ms[runtime]``.

    Runs of the runtimes are interleaved, so that a busy moment of the machine hits all of them. Timings are never
    exactly repeatable.

    Args:
        runtimes: by name, a function from generator and example input to a function that runs it once.
        threads: of PyTorch; other runtimes must be built with the same number.
    """

    def __init__(
        self,
        runtimes: Mapping[str, Runtime] | None = None,
        *,
        batch: int = 1,
        threads: int = 1,
        warm_up: int = 5,
        runs: int = 30,
    ) -> None:
        self.runtimes = dict(runtimes or {"torch-cpu": torch_runtime})
        self.batch, self.threads, self.warm_up, self.runs = batch, threads, warm_up, runs

    def __call__(self, generator: nn.Module, pairs: Pairs) -> dict[str, Score]:
        example, generator = pairs.batch(np.zeros(self.batch, np.int64))[0], placed(generator, HOST)
        with torch_threads(self.threads), evaluating(generator):
            runners = {name: make(generator, example) for name, make in self.runtimes.items()}
            times = interleaved(runners, warm_up=self.warm_up, runs=self.runs)
        provenance = provenance_of(
            pairs,
            input=shape_of(example),
            batch=self.batch,
            threads=self.threads,
            warm_up=self.warm_up,
            runs=self.runs,
            machine=f"{platform.machine()}, {os.cpu_count()} CPUs",
        )
        scores = {}
        for name, ms in times.items():
            scores[f"latency_ms[{name}]"] = LATENCY_MS.score(float(np.median(ms)), provenance)
            scores[f"latency_p95_ms[{name}]"] = LATENCY_P95_MS.score(float(np.quantile(ms, 0.95)), provenance)
        return scores


def torch_runtime(generator: nn.Module, example: Inputs) -> Callable[[], object]:
    """PyTorch as it is."""
    return lambda: forward(generator, example)


def interleaved(
    runners: Mapping[str, Callable[[], object]], *, warm_up: int = 5, runs: int = 30
) -> dict[str, np.ndarray]:
    """Milliseconds ``[runs]`` of each runner, run in turn after warming up."""
    times: dict[str, list[float]] = {name: [] for name in runners}
    for number in range(warm_up + runs):
        for name, run in runners.items():
            start = time.perf_counter()
            run()
            if number >= warm_up:
                times[name].append(1000 * (time.perf_counter() - start))
    return {name: np.array(values) for name, values in times.items()}
