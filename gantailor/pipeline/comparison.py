"""Several compression methods on one teacher, data set and image budget: a table, a plot and pictures."""

from __future__ import annotations

import argparse
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from torch import nn

from gantailor.evaluators.errors import EvaluationError
from gantailor.pipeline import compress as pipeline
from gantailor.reports import comparison as comparison_report
from gantailor.reports import figures
from gantailor.reports.progress import Reporter
from gantailor.run.config import Config, explain, load_config, read_yaml
from gantailor.run.defaults import METHODS, SPARSIFYING, merged
from gantailor.run.run import Run
from gantailor.supernet.errors import BusyError, ConfigError, GantailorError, nearest
from gantailor.supernet.files import write_bytes
from gantailor.supernet.graph import SubnetConfig
from gantailor.supernet.quantization.ranges import load_simulated
from gantailor.supernet.training import distributed as workers
from gantailor.zoo.data.pairs import is_picture, picture_grid, to_uint8

SHOWN = 6  # pictures in the grid
SUPERNET = ("ranking.json", "supernet.ckpt.jsonl", "supernet.watch.jsonl", "supernet.safetensors")  # the last counts


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

    @field_validator("common")
    @classmethod
    def _lengths(cls, value: dict[str, Any]) -> dict[str, Any]:
        """Lengths are the comparison's own, so that all see as many images."""
        for part in ("train", "finetune"):
            if "kimg" in (value.get(part) or {}):
                raise ValueError(
                    f"{part}.kimg is set by kimg and share for all; a method may have its own under methods"
                )
        return value

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
        values = read_yaml(path)
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ConfigError("\n".join(_explain(e) for e in error.errors())) from None

    def entries(self, folder: Path) -> list[Entry]:
        """Every run, a seed after the other, so that an unfinished comparison has something of everything."""
        return [
            Entry(name, budget, seed, self._config(name, own, budget, seed), folder / _place(name, budget, seed))
            for seed in self.seeds
            for budget in self.budgets
            for name, own in self.methods.items()
        ]

    def _config(self, name: str, own: Mapping[str, Any], budget: str, seed: int) -> Config:
        method = {"method": name} if name in METHODS else {}
        fixed = {"budget": budget, "seed": seed, "train": {"seed": seed}, "finetune": {"seed": seed}}
        above = merged(own, fixed)
        under = merged(method, self.common)
        trains = load_config(None, merged(under, above)).train.kimg > 0  # pruning by a ranking trains nothing before
        first = self.kimg * self.share if trains else 0.0
        lengths = {"train": {"kimg": first}, "finetune": {"kimg": self.kimg - first}}
        return load_config(None, merged(merged(under, lengths), above))


def _explain(error: Any) -> str:
    where = ".".join(map(str, error["loc"]))
    if error["type"] == "extra_forbidden":
        allowed = ", ".join(Comparison.model_fields)
        return f"{where} is no setting of a comparison ({allowed}); what every run shares goes under common:"
    if error["type"] == "tuple_type":
        return f"{where} cannot be {error['input']!r}: give a list, [{error['input']}]"
    return explain(error)


def _place(name: str, budget: str, seed: int) -> str:
    return re.sub(r"[^\w.,<=@-]+", "_", f"{name}-{budget}-{seed}")


@dataclass(frozen=True)
class Entry:
    """One run of a comparison; what it loads goes with the ``Run`` that ``open`` makes."""

    method: str
    budget: str
    seed: int
    config: Config
    folder: Path

    def open(self, report: Reporter | None = None) -> Run:
        """The run itself."""
        return Run(self.folder, self.config, report=report or Reporter(quiet=True))

    @property
    def done(self) -> bool:
        """Whether it has its scores."""
        return (self.folder / "scores.json").exists()

    def scores(self) -> dict[str, Any]:
        """What the run scored, by generator and metric."""
        return json.loads((self.folder / "scores.json").read_text()) if self.done else {}

    def row(self) -> dict[str, Any]:
        """Costs and scores on the test split."""
        scores = self.scores()
        subnet = SubnetConfig.from_json((self.folder / "subnet.json").read_text())
        macs = self.open().traced().macs(subnet, convention=self.config.convention)
        lengths = self.config.train.kimg + self.config.finetune.kimg
        row = {"method": self.method, "budget": self.budget, "seed": self.seed, "macs": macs, "kimg": lengths}
        row["seconds"] = sum(_seconds(self.folder / f"{name}.ckpt.jsonl") for name in ("supernet", "subnet"))
        found = scores.get("subnet, 8 bits simulated", scores["subnet"])  # slimming's result is the one in 8 bits
        return row | {name: score["value"] for name, score in found.items()}


def _seconds(log: Path) -> float:
    """What a training took, from its log: interruptions and scoring not counted."""
    rows = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    latest = {row["kimg"]: row["images_per_second"] for row in rows}  # after a resume some lines come again
    points = sorted(latest)
    return sum(1000 * (b - a) / latest[b] for a, b in itertools.pairwise([0.0, *points]) if latest[b])


def check_folders(entries: Sequence[Entry]) -> None:
    """That what lies in the folders was made with these settings.

    Raises:
        ConfigError: a run was made with others.
    """
    for entry in entries:
        try:
            other = entry.open().changed()
        except (OSError, json.JSONDecodeError) as error:
            raise ConfigError(f"{str(entry.folder)!r} cannot be read: {error}; delete it") from None
        if other:
            raise ConfigError(
                f"{str(entry.folder)!r} was made with other settings ({', '.join(other)}); choose another --out, or "
                "delete that folder"
            )


def run_all(entries: Sequence[Entry]) -> dict[str, str]:
    """Every run to its scores; what is done stays, what another process works on is left to it. Failures by name."""
    report, failed = Reporter(), {}
    for number, entry in enumerate(entries):
        name = entry.folder.name
        report.note(f"==== {name}, {number + 1} of {len(entries)}{', done' if entry.done else ''}")
        if entry.done:
            continue
        run = entry.open(report)
        try:
            pipeline.look(run)
            run.claim()  # the folder is this process's from here on
            take_supernet(entry, entries)
            pipeline.compress(run, until="evaluate")
        except BusyError:
            report.note(f"{name} is in work in another process")
        except (GantailorError, EvaluationError) as error:  # one that fails does not take the others with it
            failed[name] = str(error)
            report.note(f"{name} failed: {error}")
        finally:
            run.release()
    return failed


def take_supernet(entry: Entry, entries: Sequence[Entry]) -> None:
    """A supernet is trained once for all budgets: the one of a run that differs in nothing else is copied."""
    if entry.config.method in SPARSIFYING or (entry.folder / SUPERNET[-1]).exists():
        return
    for other in entries:
        same = other.config.model_copy(update={"budget": entry.config.budget}) == entry.config
        if same and (other.folder / SUPERNET[-1]).exists():
            entry.folder.mkdir(parents=True, exist_ok=True)
            for file in (other.folder / name for name in SUPERNET):
                if file.exists():
                    write_bytes(entry.folder / file.name, file.read_bytes())
            return


def results(entries: Sequence[Entry]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A row for each finished run, and mean and standard deviation for each method and budget."""
    frame = pd.DataFrame([entry.row() for entry in entries if entry.done])
    if frame.empty:
        raise ConfigError(f"{str(entries[0].folder.parent)!r} has no finished run yet")
    grouped = frame.drop(columns="seed").groupby(["method", "budget"], sort=False)
    wide = grouped.agg(["mean", "std"])
    wide["seeds"] = grouped.size()
    return frame, wide


def teacher_scores(entries: Sequence[Entry]) -> dict[str, float]:
    """The teacher's scores and MACs, from the first run that has a teacher."""
    for entry in entries:
        scores = entry.scores()
        if "teacher" in scores:
            supernet = entry.open().traced()
            macs = supernet.macs(supernet.full_config(), convention=entry.config.convention)
            return {"macs": macs} | {name: score["value"] for name, score in scores["teacher"].items()}
    return {}


def histories(entries: Sequence[Entry]) -> pd.DataFrame:
    """The search's score as the methods' own trainings went: a row for each look (``train.watch_kimg``)."""
    rows = []
    for entry in entries:
        if entry.config.method not in SPARSIFYING:  # a supernet's looks are at several widths, not at the budget
            continue
        log = entry.folder / f"{entry.config.method}.watch.jsonl"
        for line in log.read_text().splitlines() if log.exists() else ():
            step, score = list(json.loads(line).values())[:2]
            kimg = step * entry.config.train.batch / 1000
            rows.append(
                {"method": entry.method, "budget": entry.budget, "seed": entry.seed, "kimg": kimg, "score": score}
            )
    frame = pd.DataFrame(rows)
    return frame.drop_duplicates(["method", "budget", "seed", "kimg"], keep="last") if rows else frame


def _result(run: Run) -> nn.Module:
    """What a run's scores in the table are of."""
    subnet = run.subnet()[1]
    return load_simulated(run.path("subnet.ranges.json"), subnet) or subnet


@torch.no_grad()
def pictures(entries: Sequence[Entry]) -> tuple[list[str], bytes]:
    """A row for each of a few test pictures, every method of these runs (its first seed); what the columns are."""
    runs = {entry.method: entry.open() for entry in reversed(entries)}
    first = {entry.method: runs[entry.method] for entry in entries}  # in the order of the methods
    pairs = next(iter(first.values())).data("test")
    inputs, targets = pairs.batch(np.linspace(0, len(pairs) - 1, min(SHOWN, len(pairs))).astype(int))
    taught = [("teacher", run.teacher()(inputs)) for run in first.values() if run.taught][:1]
    made = {name: _result(run)(inputs) for name, run in first.items()}
    columns = {"input": inputs, **dict(taught), **made, "real": targets}
    shown = {name: to_uint8(images) for name, images in columns.items() if is_picture(images)}
    return list(shown), picture_grid(list(shown.values()), names=list(shown))


def compare(arguments: argparse.Namespace) -> None:
    """Run what is missing; then write table, plots, pictures and ``compare.html``, which has them all."""
    entries, folder = Comparison.read(arguments.config).entries(Path(arguments.out)), Path(arguments.out)
    if workers.world() > 1:
        raise ConfigError("compare runs in one process; start it several times instead of with torchrun")
    check_folders(entries)
    if arguments.dry_run:
        for entry in entries:
            run = entry.open()
            pipeline.look(run)
            print(f"{entry.folder}: budget {run.budget()}{', done' if entry.done else ''}")
        return
    failed = run_all(entries)
    text = write(entries, folder)
    print(f"{text}\npage: {folder / 'compare.html'}  table: {folder / 'table.md'}")
    if failed:
        raise ConfigError("some runs failed:\n" + "\n".join(f"{name}: {said}" for name, said in failed.items()))


def write(entries: Sequence[Entry], folder: Path) -> str:
    """Everything that is made of finished runs; the table."""
    frame, wide = results(entries)
    teacher, history = teacher_scores(entries), histories(entries)
    text, figure = comparison_report.markdown(wide, teacher), comparison_report.draw(wide, teacher)
    images = {"compare": ("Scores against MACs and training time", figures.rendered(figure, "png"))}
    if not history.empty:
        write_bytes(folder / "history.csv", history.to_csv(index=False).encode())
        order = list(dict.fromkeys(wide.index.get_level_values("method")))
        drawn = comparison_report.draw_histories(history, entries[0].open().search_metric(), order)
        title = "The search's score while each method decides, a thin line for each seed"
        images["history"] = (title, figures.rendered(drawn, "png"))
    for budget in dict.fromkeys(entry.budget for entry in entries):
        if done := [entry for entry in entries if entry.done and entry.budget == budget]:
            shown, sheet = pictures(done)
            images[f"pictures-{budget}"] = (f"Budget {budget}: {', '.join(shown)}", sheet)
    write_bytes(folder / "results.csv", frame.to_csv(index=False).encode())
    write_bytes(folder / "table.md", text.encode())
    figures.save(figure, folder / "compare.svg")
    for name, (_, data) in images.items():
        write_bytes(folder / f"{name}.png", data)
    page = comparison_report.page(text, dict(images.values()), entries[0].config.convention)
    write_bytes(folder / "compare.html", page.encode())
    return text
