"""Several compression methods on one teacher, data set and image budget: a table, a plot and pictures."""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from gantailor import fronts, pipeline
from gantailor.config import load_config
from gantailor.methods import METHODS
from gantailor.progress import Reporter
from gantailor.run import Run
from gantailor.scoring import lower_is_better
from search.budget import format_macs
from supernet.errors import BusyError, ConfigError, GantailorError, nearest
from supernet.files import write_bytes
from supernet.graph import SubnetConfig
from zoo.data import is_picture, picture_grid, to_uint8

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COSTS = ("macs", "kimg", "seconds", "seeds")
SHOWN = 6  # pictures in the grid


class Comparison(BaseModel):
    """What is compared: every method at every budget with every seed, on as many images each."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    methods: dict[str, dict[str, Any]] = Field(
        {name: {} for name in METHODS}, description="names, each with its own settings above the common ones"
    )
    budgets: tuple[str, ...] = Field(("0.1x",), min_length=1, description="as in budget")
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1, description="each is a run of its own")
    kimg: float = Field(
        16.0, gt=0, description="thousands of images that each run is trained on in all, unless a method sets its own"
    )
    share: float = Field(0.5, gt=0, lt=1, description="part of them that a method's own training sees")
    common: dict[str, Any] = Field({}, description="settings of gantailor compress, for every run")

    @field_validator("methods", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        """A list of methods, or a mapping of names to settings; a name that is no method sets ``method`` itself."""
        found = {name: {} for name in value} if isinstance(value, list) else value
        for name, settings in found.items() if isinstance(found, Mapping) else ():
            if name not in METHODS and "method" not in (settings or {}):
                raise ValueError(f"{name!r} is no method ({nearest(name, METHODS)}); give it a method: of its own")
        return {name: settings or {} for name, settings in found.items()} if isinstance(found, Mapping) else found

    @classmethod
    def read(cls, path: str) -> Comparison:
        """From a YAML file.

        Raises:
            ConfigError: it cannot be read, or says something that is not allowed.
        """
        try:
            values = yaml.safe_load(Path(path).read_text(encoding="utf8")) or {}
            return cls.model_validate(values)
        except (OSError, yaml.YAMLError) as error:
            raise ConfigError(f"config {path!r} cannot be read: {error}") from None
        except ValidationError as error:
            allowed = ", ".join(cls.model_fields)
            said = "\n".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            raise ConfigError(f"{said}\nsettings of a comparison: {allowed}") from None

    def runs(self, folder: Path, report: Reporter) -> Iterator[Entry]:
        """Every run, a seed after the other, so that an unfinished comparison has something of everything."""
        for seed in self.seeds:
            for budget in self.budgets:
                for name, own in self.methods.items():
                    run = Run(folder / f"{name}-{budget}-{seed}", self._config(name, own, budget, seed), report=report)
                    yield Entry(name, budget, seed, run)

    def _config(self, name: str, own: Mapping[str, Any], budget: str, seed: int) -> Any:
        flags: dict[str, Any] = {"method": name} if name in METHODS else {}
        flags |= {**_flat(self.common), **_flat(own), "budget": budget, "seed": seed}
        flags |= {"train.seed": seed, "finetune.seed": seed}
        trains = load_config(None, flags).train.kimg > 0  # pruning by a ranking trains nothing before
        first = self.kimg * self.share if trains else 0.0
        lengths = {"train.kimg": first, "finetune.kimg": self.kimg - first}
        return load_config(None, {**flags, **lengths, **{k: v for k, v in _flat(own).items() if k in lengths}})


@dataclass(frozen=True)
class Entry:
    """One run of a comparison."""

    method: str
    budget: str
    seed: int
    run: Run

    @property
    def done(self) -> bool:
        """Whether it has its scores."""
        return self.run.path("scores.json").exists()

    def row(self) -> dict[str, Any]:
        """Costs and scores on the test split."""
        scores = json.loads(self.run.path("scores.json").read_text())
        config = SubnetConfig.from_json(self.run.path("subnet.json").read_text())
        macs = self.run.traced().macs(config, convention=self.run.config.convention)
        lengths = self.run.config.train.kimg + self.run.config.finetune.kimg
        row = {"method": self.method, "budget": self.budget, "seed": self.seed, "macs": macs, "kimg": lengths}
        row["seconds"] = sum(_seconds(self.run.path(f"{name}.ckpt.jsonl")) for name in ("supernet", "subnet"))
        return row | {name: score["value"] for name, score in scores["subnet"].items()}


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted names; ``options`` are one."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        nested = isinstance(value, Mapping) and name != "options" and not name.endswith("_options")
        found |= _flat(value, f"{prefix}{name}.") if nested else {f"{prefix}{name}": value}
    return found


def _seconds(log: Path) -> float:
    """What a training took, from its log: interruptions and scoring not counted."""
    rows = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    latest = {row["kimg"]: row["images_per_second"] for row in rows}  # after a resume some lines come again
    points = sorted(latest)
    return sum(1000 * (b - a) / latest[b] for a, b in itertools.pairwise([0.0, *points]) if latest[b])


def run_all(comparison: Comparison, folder: Path) -> dict[str, str]:
    """Every run to its scores; what is done stays, what another process works on is left to it. Failures by name."""
    report, failed = Reporter(), {}
    entries = list(comparison.runs(folder, report))
    for number, entry in enumerate(entries):
        name = entry.run.folder.name
        report.note(f"==== {name}, {number + 1} of {len(entries)}{', done' if entry.done else ''}")
        if entry.done:
            continue
        try:
            pipeline.compress(entry.run, until="evaluate")
        except BusyError:
            report.note(f"{name} is in work in another process")
        except GantailorError as error:  # one that fails does not take the others with it
            failed[name] = str(error)
            report.note(f"{name} failed: {error}")
    return failed


def results(comparison: Comparison, folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A row for each finished run, and mean and standard deviation for each method and budget."""
    entries = [entry for entry in comparison.runs(folder, Reporter(quiet=True)) if entry.done]
    frame = pd.DataFrame([entry.row() for entry in entries])
    if frame.empty:
        raise ConfigError(f"{str(folder)!r} has no finished run yet")
    grouped = frame.drop(columns="seed").groupby(["method", "budget"], sort=False)
    wide = grouped.agg(["mean", "std"])
    wide["seeds"] = grouped.size()
    return frame, wide


def teacher_scores(comparison: Comparison, folder: Path) -> dict[str, float]:
    """The teacher's scores and MACs, from the first run that has a teacher."""
    for entry in comparison.runs(folder, Reporter(quiet=True)):
        scores = json.loads(entry.run.path("scores.json").read_text()) if entry.done else {}
        if "teacher" in scores:
            supernet = entry.run.traced()
            macs = supernet.macs(supernet.full_config(), convention=entry.run.config.convention)
            return {"macs": macs} | {name: score["value"] for name, score in scores["teacher"].items()}
    return {}


def _metrics(wide: pd.DataFrame) -> list[str]:
    return [name for name in dict.fromkeys(wide.columns.get_level_values(0)) if name not in COSTS]


def markdown(wide: pd.DataFrame, teacher: Mapping[str, float]) -> str:
    """The table: a line for each method and budget, mean and standard deviation over seeds."""
    metrics = _metrics(wide)
    lines = [
        "| method | budget | MACs | " + " | ".join(metrics) + " | kimg | training | seeds |",
        "|---" * (len(metrics) + 6) + "|",
    ]
    if teacher:
        cells = " | ".join(f"{teacher[name]:.4g}" if name in teacher else "" for name in metrics)
        lines.append(f"| teacher | | {format_macs(teacher['macs'])} | {cells} | | | |")
    for (method, budget), row in wide.iterrows():
        cells = " | ".join(_with_spread(row[name, "mean"], row[name, "std"]) for name in metrics)
        costs = f"{row['kimg', 'mean']:g} | {row['seconds', 'mean'] / 60:.1f} min | {int(row['seeds', ''])}"
        lines.append(f"| {method} | {budget} | {format_macs(row['macs', 'mean'])} | {cells} | {costs} |")
    return "\n".join(lines) + "\n"


def _with_spread(mean: float, std: float) -> str:
    return f"{mean:.4g}" if np.isnan(std) else f"{mean:.4g} ± {std:.2g}"


def draw(wide: pd.DataFrame, teacher: Mapping[str, float]) -> Figure:
    """Each score against MACs and against training time, a line for each method: mean, and the spread over seeds."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, NullFormatter

    metrics = _metrics(wide)
    figure = Figure(figsize=(4.2 * len(metrics), 7.2), layout="constrained")
    grid = figure.subplots(2, len(metrics), squeeze=False, sharey="col")
    for column, metric in enumerate(metrics):
        for axis, cost, scale in ((grid[0, column], "macs", 1.0), (grid[1, column], "seconds", 60.0)):
            for number, (method, part) in enumerate(wide.groupby(level="method", sort=False)):
                part = part.sort_values((cost, "mean"))
                axis.errorbar(
                    part[cost, "mean"] / scale,
                    part[metric, "mean"],
                    yerr=part[metric, "std"].fillna(0),
                    label=str(method),
                    color=fronts.COLOURS[number % len(fronts.COLOURS)],
                    marker=fronts.MARKERS[number % len(fronts.MARKERS)],
                    capsize=3,
                )
            axis.grid(alpha=0.3)
            axis.set_ylabel(
                f"{metric} ({'lower' if lower_is_better(metric.partition('[')[0]) else 'higher'} is better)"
            )
        if metric in teacher:
            grid[0, column].axhline(teacher[metric], color="0.4", linestyle=":", label="teacher")
        grid[0, column].set_xscale("log")
        grid[0, column].set_xlabel("MACs")
        grid[0, column].xaxis.set_major_formatter(FuncFormatter(lambda x, _: format_macs(x)))
        grid[0, column].xaxis.set_minor_formatter(NullFormatter())
        grid[1, column].set_xlabel("minutes of training")
    grid[0, 0].legend(fontsize=8)
    return figure


@torch.no_grad()
def pictures(comparison: Comparison, folder: Path, budget: str) -> bytes | None:
    """A row for each of a few test pictures: input, teacher, every method at a budget (its first seed), real."""
    entries = [e for e in comparison.runs(folder, Reporter(quiet=True)) if e.done and e.budget == budget]
    first = {e.method: e for e in reversed(entries)}
    if not first:
        return None
    run = next(iter(first.values())).run
    pairs = run.data("test")
    inputs, targets = pairs.batch(np.linspace(0, len(pairs) - 1, min(SHOWN, len(pairs))).astype(int))
    taught = [e.run.teacher()(inputs) for e in entries if e.run.taught][:1]
    made = [first[name].run.subnet()[1](inputs) for name in comparison.methods if name in first]
    columns = [inputs, *taught, *made, targets]
    return picture_grid([to_uint8(images) for images in columns if is_picture(images)])


def compare(arguments: argparse.Namespace) -> None:
    """Run what is missing, then write ``results.csv``, ``table.md``, ``compare.png`` and ``.svg``, and pictures."""
    comparison, folder = Comparison.read(arguments.config), Path(arguments.out)
    if arguments.dry_run:
        for entry in comparison.runs(folder, Reporter(quiet=True)):
            print(f"{entry.run.folder}: budget {entry.run.budget()}{', done' if entry.done else ''}")
        return
    failed = run_all(comparison, folder)
    frame, wide = results(comparison, folder)
    teacher = teacher_scores(comparison, folder)
    text = markdown(wide, teacher)
    write_bytes(folder / "results.csv", frame.to_csv(index=False).encode())
    write_bytes(folder / "table.md", text.encode())
    figure = draw(wide, teacher)
    for name in ("compare.png", "compare.svg"):
        fronts.save(figure, folder / name)
    for budget in comparison.budgets:
        sheet = pictures(comparison, folder, budget)
        if sheet is not None:
            write_bytes(folder / f"pictures-{budget}.png", sheet)
    print(text)
    print(f"plot: {folder / 'compare.png'}  table: {folder / 'table.md'}")
    if failed:
        raise ConfigError("some runs failed:\n" + "\n".join(f"{name}: {said}" for name, said in failed.items()))
