"""Latency profiles: subnets measured on this machine, or on a device, for budgets such as ``latency_ms<=12@FILE``."""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from gantailor.evaluators.metrics.cost import interleaved, torch_threads
from gantailor.export.runtimes import latency_runtimes
from gantailor.run.setup import Setup
from gantailor.search.budget import Budget
from gantailor.search.latency import LatencyProfile
from gantailor.search.spaces.space import Space
from gantailor.supernet.calling import alone, as_tuple, rows_of
from gantailor.supernet.errors import ConfigError


def spread_subnets(space: Space, count: int, *, seed: int = 0) -> np.ndarray:
    """Choice indices ``[count, n_variables]`` spread over the space's costs; the two ends are among them."""
    rng = np.random.default_rng(seed)
    whole = Budget(space, int(space.macs(space.largest)[0]), fill=False)
    drawn = [space.smallest, space.largest] + [whole.sample(rng) for _ in range(count - 2)]
    return np.stack(drawn)


def measure_profile(
    setup: Setup,
    *,
    runtime: str = "onnxruntime-cpu",
    subnets: int = 40,
    runs: int = 20,
    threads: int = 1,
    on_subnet: Callable[[int, int], None] | None = None,
) -> tuple[LatencyProfile, pd.DataFrame]:
    """Time subnets of the search space in turn, at its picture size and batch 1; the fit and the measured table.

    Raises:
        ConfigError: the runtime is unknown, or fewer than 8 subnets.
    """
    known = latency_runtimes(threads)
    if runtime not in known:
        raise ConfigError(f"runtime {runtime!r} cannot be timed here; there are {', '.join(known)}")
    if subnets < 8:
        raise ConfigError(f"a latency profile needs at least 8 subnets, not {subnets}")
    supernet, space = setup.traced, setup.space
    indices = spread_subnets(space, subnets)
    example = rows_of(alone(supernet.example_inputs), slice(1))
    runners = {}
    with torch_threads(threads), torch.inference_mode():
        for number, row in enumerate(indices):
            narrow = supernet.extract(space.to_config(row)).eval()
            runners[str(number)] = known[runtime](narrow, example)
            if on_subnet:
                on_subnet(number + 1, subnets)
        times = interleaved(runners, warm_up=3, runs=runs)
    milliseconds = [float(np.median(times[str(number)])) for number in range(subnets)]
    size = " and ".join("x".join(map(str, one.shape)) for one in as_tuple(example))
    device = f"{runtime}, {threads} threads, {size}, {platform.machine()}"
    table = pd.DataFrame(space.sizes(indices), columns=[width.name for width in supernet.graph.widths])
    table["latency_ms"] = milliseconds
    return LatencyProfile.fit(supernet, space.sizes(indices), milliseconds, device=device), table


def profile_from_table(setup: Setup, path: str | Path, *, device: str) -> LatencyProfile:
    """From a CSV made elsewhere: a column for each width, and ``latency_ms``.

    Raises:
        ConfigError: columns are missing, or the widths are not of this space.
    """
    names = [width.name for width in setup.traced.graph.widths]
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:
        said = " ".join(str(error).split())
        raise ConfigError(f"latency table {str(path)!r} cannot be read: {said}; give a CSV file") from None
    missing = [name for name in [*names, "latency_ms"] if name not in table]
    if missing:
        raise ConfigError(f"latency table {str(path)!r} lacks the columns {', '.join(missing)}")
    return LatencyProfile.fit(
        setup.traced, table[names].to_numpy(np.int64), table["latency_ms"].to_numpy(np.float64), device=device
    )
