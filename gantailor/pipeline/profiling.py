"""Latencies on this machine: profiles for budgets such as ``latency_ms<=12@FILE``, and those of what was exported."""

from __future__ import annotations

import os
import platform
import re
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from gantailor.evaluators.metrics.cost import interleaved, torch_threads
from gantailor.export.checking import arrays
from gantailor.export.devices import Device
from gantailor.export.export import export_model, load_runner
from gantailor.export.runtimes import latency_runtimes
from gantailor.export.target import Runner, find_target, timed_here
from gantailor.run.inputs import timed_teacher
from gantailor.run.run import Run
from gantailor.run.setup import Setup
from gantailor.search.budget import Budget
from gantailor.search.latency import LatencyProfile
from gantailor.search.spaces.space import Space
from gantailor.supernet.calling import Inputs, alone, as_tuple, rows_of
from gantailor.supernet.device import processor
from gantailor.supernet.errors import ConfigError, GantailorError

if TYPE_CHECKING:
    import pandas as pd


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
    import pandas as pd  # slow to import, and mistakes are told before

    table = pd.DataFrame(space.sizes(indices), columns=[width.name for width in supernet.graph.widths])
    table["latency_ms"] = milliseconds
    return LatencyProfile.fit(supernet, space.sizes(indices), milliseconds, device=device), table


def profile_from_table(setup: Setup, path: str | Path, *, device: str) -> LatencyProfile:
    """From a CSV made elsewhere: a column for each width, and ``latency_ms``.

    Raises:
        ConfigError: columns are missing, or the widths are not of this space.
    """
    import pandas as pd

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


WARM_UP, RUNS = 3, 15  # of what was exported
Call = Callable[[], object]


def add_latencies(run: Run, narrow: nn.Module, example: Inputs, devices: dict[str, Any], out: Path) -> dict[str, Any]:
    """Times the exported subnet, beside the teacher, on every device that runs here: all in turn, at one moment.

    Args:
        devices: what the manifest says of each; gets ``latency_ms`` and ``latency_p95_ms`` of ``subnet`` and
            ``teacher``, and ``timing``, the circumstances.
        out: the folder with a folder for each.

    Returns:
        For the manifest: ``timing``, and where the budget is in milliseconds ``budget_ms``, what the subnet takes.
    """
    loaded = {name: _loaded(out, name, found) for name, found in devices.items()}
    runners = {name: both for name, both in loaded.items() if both is not None}
    limits = _limits(run, narrow, example)
    calls: dict[str, Call] = {f"{n}|budget": limit.pop("call") for n, limit in enumerate(limits) if limit["call"]}
    feeds, teachers = arrays(example), dict[str, str]()
    with tempfile.TemporaryDirectory() as scratch:
        for name, (profile, runner) in runners.items():
            calls[f"{name}|subnet"] = _bound(runner, feeds)
            whole = _in_float32(profile)
            teachers[name] = key = f"teacher|{whole.model_copy(update={'name': ''})!r}"
            if key not in calls:  # one for all precisions of a runtime
                teacher = export_model(Path(scratch) / name, timed_teacher(run.setup), example, whole, pictures=example)
                calls[key] = _bound(load_runner(Path(scratch) / name / teacher["file"], whole), feeds)
        timing = circumstances() | {"together": list(runners)}
        threads = max((limit["threads"] for limit in limits), default=1)
        with torch_threads(threads), torch.inference_mode():
            times = interleaved(calls, warm_up=WARM_UP, runs=RUNS)
    for name in runners:
        both = {"subnet": times[f"{name}|subnet"], "teacher": times[teachers[name]]}
        devices[name]["latency_ms"] = {who: round(float(np.median(ms)), 3) for who, ms in both.items()}
        devices[name]["latency_p95_ms"] = {who: round(float(np.quantile(ms, 0.95)), 3) for who, ms in both.items()}
        devices[name]["timing"] = timing
    told = [_told(run, limit, times.get(f"{n}|budget")) for n, limit in enumerate(limits)]
    return ({"timing": timing} if runners else {}) | ({"budget_ms": told} if told else {})


def _bound(runner: Callable[..., object], feeds: tuple[np.ndarray, ...]) -> Call:
    return lambda: runner(*feeds)


def _loaded(out: Path, name: str, found: Mapping[str, Any]) -> tuple[Device, Runner] | None:
    """The profile that a manifest's entry was made with, and its model; none where it cannot be timed here (any more).

    What was exported earlier may need a package, or a module of one's own, that is gone.
    """
    said = {field: found[field] for field in Device.model_fields if field in found and field != "name"}
    asked = found.get("threads_asked", found["threads"])
    profile = Device.model_validate({**said, "name": name, "threads": asked})
    with suppress(GantailorError):
        if timed_here(profile):
            return profile, load_runner(out / name / found["file"], profile)
    return None


def _in_float32(profile: Device) -> Device:
    """The same device, as the teacher is timed on it."""
    return profile.model_copy(
        update={"precision": "float32"} if "float32" in find_target(profile.runtime).precisions else {}
    )


def circumstances() -> dict[str, Any]:
    """What a timing depends on: processor, CPUs, load of the last minute, runs, date (UTC)."""
    load = None
    with suppress(OSError):
        load = round(os.getloadavg()[0], 2)
    date = datetime.now(UTC).isoformat(timespec="seconds")
    return {
        "processor": processor(),
        "cpus": os.cpu_count(),
        "load": load,
        "warm_up": WARM_UP,
        "runs": RUNS,
        "date": date,
    }


def _limits(run: Run, narrow: nn.Module, example: Inputs) -> list[dict[str, Any]]:
    """The budget's limits in milliseconds, and where this machine can time them, a ``call`` that does."""
    budget, supernet, found = run.setup.budget, run.setup.traced, []
    sizes = np.array([list(run.subnet_config().values())])
    for limit in budget.bounds:
        if limit.metric != "latency_ms":
            continue
        profile = budget.profiles[limit.profile]
        known = re.match(r"(\S+), (\d+) threads, .*, (\S+)$", profile.device)
        threads, call = int(known[2]) if known else 1, None
        if known and known[3] == platform.machine() and known[1] in (runtimes := latency_runtimes(threads)):
            call = runtimes[known[1]](narrow, example)
        predicted = round(float(profile.predict_sizes(supernet, sizes)[0]), 3)
        found.append(
            {
                "limit": limit.upper,
                "device": profile.device,
                "threads": threads,
                "predicted": predicted,
                "call": call,
            }
        )
    return found


def _told(run: Run, limit: dict[str, Any], times: np.ndarray | None) -> dict[str, Any]:
    """A limit with what was measured; a note where it is not kept, or cannot be measured."""
    told = {key: value for key, value in limit.items() if key not in ("call", "threads")}
    if times is None:
        run.report.note(f"the budget of {limit['limit']:g} ms is of {limit['device']}, which cannot be timed here")
        return {**told, "measured": None, "met": None}
    measured = round(float(np.median(times)), 3)
    if measured > limit["limit"]:
        run.report.note(
            f"the subnet takes {measured:g} ms on {limit['device']}, more than the budget of {limit['limit']:g} ms "
            f"(predicted: {limit['predicted']:g}); search again with a smaller one, or measure on a quiet machine"
        )
    return {**told, "measured": measured, "met": measured <= limit["limit"]}
