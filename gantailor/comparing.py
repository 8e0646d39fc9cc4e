"""Several compression methods on one teacher, data set and image budget: a table, a plot and pictures."""

from __future__ import annotations

import argparse
import itertools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from evaluators.errors import EvaluationError
from gantailor import comparison_report, fronts, pipeline, sparsifying
from gantailor.config import load_config
from gantailor.methods import METHODS, SPARSIFYING
from gantailor.progress import Reporter
from gantailor.run import Run
from supernet import workers
from supernet.errors import BusyError, ConfigError, GantailorError, nearest
from supernet.files import write_bytes
from supernet.graph import SubnetConfig
from zoo.data import is_picture, picture_grid, to_uint8

SHOWN = 6  # pictures in the grid


class Comparison(BaseModel):
    """What is compared: every method at every budget with every seed, on as many images each."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    methods: dict[str, dict[str, Any]] = Field(
        {name: {} for name in METHODS},
        min_length=1,
        description="names, each with its own settings above the common ones",
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
        if isinstance(value, list):
            if not all(isinstance(name, str) for name in value):
                raise ValueError("give a list of names, or a mapping of names to settings")
            value = {name: {} for name in value}
        found = value
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
                    place = re.sub(r"[^\w.,<=@-]+", "_", f"{name}-{budget}-{seed}")
                    run = Run(folder / place, self._config(name, own, budget, seed), report=report)
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
        found = scores.get("subnet, 8 bits simulated", scores["subnet"])  # slimming's result is the one in 8 bits
        return row | {name: score["value"] for name, score in found.items()}


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted names; ``options`` are one."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        nested = isinstance(value, Mapping) and name != "options" and not name.endswith("_options")
        if value is not None:
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
        except (GantailorError, EvaluationError) as error:  # one that fails does not take the others with it
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


def histories(comparison: Comparison, folder: Path) -> pd.DataFrame:
    """The search's score as the methods' own trainings went: a row for each look (``train.watch_kimg``)."""
    rows = []
    for entry in comparison.runs(folder, Reporter(quiet=True)):
        if entry.run.config.method not in SPARSIFYING:  # a supernet's looks are at several widths, not at the budget
            continue
        log = entry.run.path(f"{entry.run.config.method}.watch.jsonl")
        for line in log.read_text().splitlines() if log.exists() else ():
            step, score = list(json.loads(line).values())[:2]
            kimg = step * entry.run.config.train.batch / 1000
            rows.append(
                {"method": entry.method, "budget": entry.budget, "seed": entry.seed, "kimg": kimg, "score": score}
            )
    frame = pd.DataFrame(rows)
    return frame.drop_duplicates(["method", "budget", "seed", "kimg"], keep="last") if rows else frame


@torch.no_grad()
def pictures(comparison: Comparison, folder: Path, budget: str) -> tuple[list[str], bytes | None]:
    """A row for each of a few test pictures, every method at a budget (its first seed); what the columns are."""
    entries = [e for e in comparison.runs(folder, Reporter(quiet=True)) if e.done and e.budget == budget]
    first = {e.method: e for e in reversed(entries)}
    if not first:
        return [], None
    pairs = next(iter(first.values())).run.data("test")
    inputs, targets = pairs.batch(np.linspace(0, len(pairs) - 1, min(SHOWN, len(pairs))).astype(int))
    taught = [("teacher", e.run.teacher()(inputs)) for e in entries if e.run.taught][:1]
    made = {name: first[name].run.subnet()[1](inputs) for name in comparison.methods if name in first}
    columns = {"input": inputs, **dict(taught), **made, "real": targets}
    shown = {name: to_uint8(images) for name, images in columns.items() if is_picture(images)}
    return list(shown), picture_grid(list(shown.values()))


def compare(arguments: argparse.Namespace) -> None:
    """Run what is missing; then write table, plots, pictures and ``compare.html``, which has them all."""
    comparison, folder = Comparison.read(arguments.config), Path(arguments.out)
    if workers.world() > 1:
        raise ConfigError("compare runs in one process; start it several times instead of with torchrun")
    if arguments.dry_run:
        for entry in comparison.runs(folder, Reporter(quiet=True)):
            sparsifying.check(entry.run)
            print(f"{entry.run.folder}: budget {entry.run.budget()}{', done' if entry.done else ''}")
        return
    failed = run_all(comparison, folder)
    text = write(comparison, folder)
    print(f"{text}\npage: {folder / 'compare.html'}  table: {folder / 'table.md'}")
    if failed:
        raise ConfigError("some runs failed:\n" + "\n".join(f"{name}: {said}" for name, said in failed.items()))


def write(comparison: Comparison, folder: Path) -> str:
    """Everything that is made of finished runs; the table."""
    frame, wide = results(comparison, folder)
    teacher, history = teacher_scores(comparison, folder), histories(comparison, folder)
    text, figure = comparison_report.markdown(wide, teacher), comparison_report.draw(wide, teacher)
    config = next(comparison.runs(folder, Reporter(quiet=True))).run.config
    images = {"compare": ("Scores against MACs and training time", comparison_report.rendered(figure))}
    if not history.empty:
        write_bytes(folder / "history.csv", history.to_csv(index=False).encode())
        score = next(comparison.runs(folder, Reporter(quiet=True))).run.search_metric()
        drawn = comparison_report.rendered(comparison_report.draw_histories(history, score))
        images["history"] = ("The search's score while each method decides, a thin line for each seed", drawn)
    for budget in comparison.budgets:
        shown, sheet = pictures(comparison, folder, budget)
        if sheet is not None:
            images[f"pictures-{budget}"] = (f"Budget {budget}: {', '.join(shown)}", sheet)
    write_bytes(folder / "results.csv", frame.to_csv(index=False).encode())
    write_bytes(folder / "table.md", text.encode())
    fronts.save(figure, folder / "compare.svg")
    for name, (_, data) in images.items():
        write_bytes(folder / f"{name}.png", data)
    page = comparison_report.page(text, dict(images.values()), config.convention)
    write_bytes(folder / "compare.html", page.encode())
    return text
