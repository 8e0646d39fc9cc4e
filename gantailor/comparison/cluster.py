"""The runs of a comparison as tasks of a Ray cluster: it places them, and starts again what a lost node worked on."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gantailor.comparison.running import leader, reason_of, wait_for, work_on
from gantailor.comparison.runs import Entry
from gantailor.pipeline.search.ray import RESTARTS, connect
from gantailor.run.progress import Reporter
from gantailor.supernet.errors import BusyError, ConfigError, first_line


@dataclass(frozen=True)
class Cluster:
    """Where the runs are computed, and what each of them takes there.

    Attributes:
        address: ``auto``, ``local``, or the cluster's own.
        cpus: also the threads that a run computes with.
        gpus: a share of one; 0 computes on CPUs.
    """

    address: str
    cpus: int = 1
    gpus: float = 0.0


def run_all_on(cluster: Cluster, entries: Sequence[Entry]) -> dict[str, str]:
    """As ``running.run_all``, several at a time. The folder has to lie where every node sees it. Failures by name.

    A run on a node that is lost goes on elsewhere from its last checkpoint.

    Raises:
        ConfigError: there is no such cluster.
    """
    connect(cluster.address, cluster.gpus, setting="--ray-gpus")
    report, failed = Reporter(), dict[str, str]()
    entries = [replace(entry, folder=entry.folder.resolve()) for entry in entries]
    started, left = time.monotonic(), sum(not entry.done for entry in entries)
    report.note(f"{len(entries)} runs, {len(entries) - left} of them done, on the Ray cluster at {cluster.address}")
    for number, (name, where, said) in enumerate(_results(cluster, entries), 1):
        spent = (time.monotonic() - started) / 60
        if said:
            known, failed[name] = said in failed.values(), said
            if known:
                continue
        report.note(
            f"{name}: {f'failed: {said}' if said else f'done on {where}'}, {number} of {left}; "
            f"{spent:.1f} minutes so far, about {spent / number * (left - number):.0f} left"
        )
    return failed


def _results(cluster: Cluster, entries: Sequence[Entry]) -> Iterator[tuple[str, str, str]]:
    """Name, host and failure of each run, as they end. A supernet that several share is trained before they start."""
    import ray

    task = ray.remote(num_cpus=cluster.cpus, num_gpus=cluster.gpus, max_retries=RESTARTS)(_work)
    everything: Any = ray.put(list(entries))
    place, started = Path.cwd(), dict[int, Any]()
    for number, entry in enumerate(entries):
        if not entry.done:
            first = started.get(leader(entry, entries))
            started[number] = task.remote(number, everything, place, cluster.cpus, first)
    arms = {entry.folder.name: (entry.method, entry.budget) for entry in entries}
    waiting = {reference: entries[number].folder.name for number, reference in started.items()}
    try:
        while waiting:
            (reference,), _ = ray.wait(list(waiting), num_returns=1)
            name = waiting.pop(reference)
            try:
                where, said, mistaken = ray.get(reference)
            except ray.exceptions.RayError as error:
                lost = f"its process was lost {RESTARTS + 1} times, or is no run of ours: {first_line(error)}"
                where, said, mistaken = "", lost, False
            yield name, where, said
            if mistaken:  # what is wrong with an arm's settings is wrong with every seed
                for other in [r for r in waiting if arms[waiting[r]] == arms[name]]:
                    ray.cancel(other)
                    yield waiting.pop(other), "", said
    finally:
        for reference in waiting:  # an interruption: each saves where it is
            ray.cancel(reference)


def _work(number: int, entries: Sequence[Entry], place: Path, cpus: int, _first: Any) -> tuple[str, str, bool]:
    """One run to its scores, on a node: which, why it failed, and whether for its settings.

    ``_first`` has ended when this starts.
    """
    import torch

    os.chdir(place)  # names of files and modules are meant from there
    torch.set_num_threads(cpus)
    while True:
        try:
            work_on(entries[number], entries, Reporter(quiet=True))
            return platform.node(), "", False
        except BusyError:  # a process that the cluster has given up ends a little later
            wait_for([entries[number]])
        except Exception as error:  # also of somebody's own code
            return platform.node(), reason_of(error), isinstance(error, ConfigError)
