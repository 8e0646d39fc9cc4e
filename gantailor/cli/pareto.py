"""Command ``pareto``: the front of what was searched."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from gantailor.reports import figures, fronts
from gantailor.reports.published import published_points
from gantailor.reports.scores import warn
from gantailor.reports.search_result import SearchResult, table_of
from gantailor.reports.tables import csv_bytes
from gantailor.run.folder import write_config
from gantailor.search.limits import format_macs
from gantailor.supernet.errors import ConfigError


def pareto(arguments: argparse.Namespace) -> dict[str, Any]:
    """Draw the fronts of runs; the best of each for a budget."""
    if arguments.table:
        _check_table(Path(arguments.table))
    trust, out = arguments.trust_code, Path(arguments.out or arguments.run[0])
    if arguments.out is None and out.is_dir() and not os.access(out, os.W_OK):
        raise ConfigError(f"{str(out)!r} cannot be written; say where the pages go: --out FOLDER")
    runs = [SearchResult.read(folder, budget=arguments.budget, trust_code=trust) for folder in arguments.run]
    convention = arguments.convention or runs[0].run.config.convention
    points = None
    if arguments.published:
        points = published_points(arguments.published, runs[0].score, convention)
    warn(fronts.unlike_runs(runs))
    figure = fronts.draw(runs, convention=convention, log=not arguments.linear, published=points)
    for suffix in ("png", "svg"):
        figures.save(figure, out / f"front.{suffix}")
    fronts.write_page(out / "front.html", runs, convention=convention, published=points, pictures=arguments.pictures)
    shown = [_print(found, convention, out if arguments.budget else None, arguments.budget) for found in runs]
    if arguments.table:
        _write_table(table_of(runs), Path(arguments.table))
    print(f"{out / 'front.html'}, front.png, front.svg")
    return {"page": out / "front.html", "runs": shown}


def _print(found: SearchResult, convention: str, out: Path | None, budget: str | None) -> dict[str, Any]:
    columns = ["trial", "macs_true", "macs_published", "params", found.score]
    rows = found.frame.loc[found.front(convention), columns]
    print(f"{found.name}: {len(found.frame)} subnets evaluated, the front:")
    print(rows.to_string(index=False))
    best = found.frame.loc[found.chosen]
    print(f"best within {found.budget}: trial {best['trial']}, {found.score} {best[found.score]:.5g}, ", end="")
    print(f"{format_macs(best['macs_true'])} MACs (true), {format_macs(best['params'])} parameters")
    if out is not None:
        file = out / f"subnet-{found.name}-{best['trial']}.json" if out != found.run.folder.path else None
        file = file or out / f"subnet-{best['trial']}.json"
        write_config(file, found.config)
        print(f"its widths: {file}; fine-tune and export the best within this budget with (one more is tried at most):")
        folder = found.run.folder.path
        print(f"  gantailor compress {folder}/config.json --out {folder} --budget '{budget}' --trials 1")
    return {
        "run": found.run.folder,
        "evaluated": len(found.frame),
        "front": rows.to_dict("records"),
        "budget": str(found.budget),
        "best": best[columns].to_dict(),
        "widths": found.config,
    }


def _check_table(path: Path) -> None:
    if path.suffix not in (".csv", ".parquet"):
        raise ConfigError(f"--table {str(path)!r}: the name must end with .csv or .parquet")


def _write_table(frame: Any, path: Path) -> None:
    try:
        path.write_bytes(csv_bytes(frame)) if path.suffix == ".csv" else frame.to_parquet(path, index=False)
    except ImportError:
        raise ConfigError("Parquet needs pyarrow; run: pip install pyarrow, or choose .csv") from None
    except OSError as error:
        raise ConfigError(f"--table {str(path)!r} cannot be written: {error}") from None
