"""Command ``compare``: several methods on one teacher and image budget."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gantailor.comparison.cluster import Cluster, run_all_on
from gantailor.comparison.results import write_comparison
from gantailor.comparison.runs import Comparison, check_folders, run_all
from gantailor.pipeline.check import find_mistakes
from gantailor.supernet.errors import ConfigError
from gantailor.supernet.training import distributed


def compare(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run what is missing; then write table, plots, pictures and ``compare.html``, which has them all."""
    entries, folder = Comparison.read(arguments.config).entries(Path(arguments.out)), Path(arguments.out)
    if distributed.world() > 1:
        raise ConfigError("compare runs in one process; start it several times instead of with torchrun")
    check_folders(entries)
    if arguments.dry_run:
        for entry in entries:
            run = entry.open()
            find_mistakes(run)
            print(f"{entry.folder}: budget {run.setup.budget}{', done' if entry.done else ''}")
        return {"runs": [{"run": entry.folder, "done": entry.done} for entry in entries]}
    if arguments.ray_address:
        failed = run_all_on(Cluster(arguments.ray_address, arguments.ray_cpus, arguments.ray_gpus), entries)
    else:
        failed = run_all(entries)
    text = write_comparison(entries, folder)
    print(f"{text}\npage: {folder / 'compare.html'}  table: {folder / 'table.md'}")
    if failed:
        raise ConfigError("some runs failed:\n" + "\n".join(f"{name}: {said}" for name, said in failed.items()))
    files = {name: folder / file for name, file in (("page", "compare.html"), ("table", "table.md"))}
    return {**files, "results": folder / "results.csv", "runs": [entry.folder for entry in entries]}
