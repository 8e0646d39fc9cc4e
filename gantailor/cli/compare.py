"""Command ``compare``: several methods on one teacher and image budget."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gantailor.comparison.cluster import Cluster, run_all_on
from gantailor.comparison.pace import lengths, timed
from gantailor.comparison.rates import chosen, trials
from gantailor.comparison.results import write_comparison
from gantailor.comparison.running import check_folders, run_all
from gantailor.comparison.runs import Comparison, Entry
from gantailor.pipeline.check import find_mistakes
from gantailor.supernet.errors import ConfigError
from gantailor.supernet.training import distributed


def compare(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run what is missing; then write table, plots, pictures and ``compare.html``, which has them all."""
    comparison, folder = Comparison.read(arguments.config), Path(arguments.out)
    if distributed.world() > 1:
        raise ConfigError("compare runs in one process; start it several times instead of with torchrun")
    tried = trials(comparison, folder)
    if arguments.dry_run:
        short = [*tried, *timed(comparison, folder)]
        return _dry_run([*short, *comparison.entries(folder)], chosen_later=bool(short))
    failed = _run(arguments, tried)
    comparison, said = chosen(comparison, tried, folder)
    measured = timed(comparison, folder)
    failed |= _run(arguments, measured)
    kimg, told = lengths(comparison, measured)
    entries = comparison.entries(folder, kimg)
    failed |= _run(arguments, entries)
    if failed and not any(entry.done for entry in entries):
        raise _failures(failed)
    text = write_comparison(entries, folder, [*said, *told])
    print(f"{text}\npage: {folder / 'compare.html'}  table: {folder / 'table.md'}")
    if failed:
        raise _failures(failed)
    files = {name: folder / file for name, file in (("page", "compare.html"), ("table", "table.md"))}
    return {**files, "results": folder / "results.csv", "runs": [entry.folder for entry in entries]}


def _failures(failed: Mapping[str, str]) -> ConfigError:
    """One line for each thing that went wrong, with the runs that it ended."""
    lines = [
        f"{', '.join(name for name, said in failed.items() if said == one)}: {one}"
        for one in dict.fromkeys(failed.values())
    ]
    return ConfigError("some runs failed:\n" + "\n".join(lines))


def _dry_run(entries: Sequence[Entry], *, chosen_later: bool) -> dict[str, Any]:
    """Look for mistakes. Runs whose rate or length is found later are looked at with the common one."""
    if not chosen_later:
        check_folders(entries)
    for entry in entries:
        run = entry.open()
        find_mistakes(run)
        print(f"{entry.folder}: budget {run.setup.budget}{', done' if entry.done else ''}")
    return {"runs": [{"run": entry.folder, "done": entry.done} for entry in entries]}


def _run(arguments: argparse.Namespace, entries: Sequence[Entry]) -> dict[str, str]:
    """What is missing, here or on a cluster; failures by name."""
    if not entries:
        return {}
    check_folders(entries)
    if arguments.ray_address:
        return run_all_on(Cluster(arguments.ray_address, arguments.ray_cpus, arguments.ray_gpus), entries)
    return run_all(entries)
