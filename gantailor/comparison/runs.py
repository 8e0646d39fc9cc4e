"""Several compression methods on one teacher, data set and image budget: which runs that makes, and running them."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from gantailor.pipeline.compress import compress
from gantailor.run.config import Config
from gantailor.run.defaults import merged
from gantailor.run.folder import RunFolder, read_config
from gantailor.run.loading import explain, load_config, read_yaml
from gantailor.run.progress import Reporter
from gantailor.run.run import Run
from gantailor.search.methods import METHODS
from gantailor.search.methods.method import method as find_method
from gantailor.supernet.errors import ConfigError, nearest
from gantailor.supernet.files import read_rows
from gantailor.supernet.graph import SubnetConfig

STAMPS = ("convention", "units", "data", "weights", "settings", "version", "date")  # of a row: what its figures are of
WEIGHTS = "subnet.safetensors"
ROWS = ("teacher", "input")  # of every table, beside the methods
# Rows of scores.json that every run has alike, as the table has them.
UNTRAINED = ("teacher", "input", "input, nearest", "input, enlarged")
# Files of a trained supernet, which another run may go on with; the last one counts.
SUPERNET = ("trace.json", "ranking.json", "supernet.ckpt.jsonl", "supernet.watch.jsonl", "supernet.safetensors")


class Rates(BaseModel):
    """Learning rates that each arm without one of its own is tried at."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    lr: tuple[float, ...] = Field(min_length=2, description="rates of both trainings")
    kimg: float = Field(gt=0, description="thousands of images of a trial")


class Pace(BaseModel):
    """As many minutes of training for every run, in place of as many images."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    minutes: float = Field(gt=0, description="of training, scores and search not counted")
    kimg: float = Field(gt=0, description="thousands of images of the short run that measures an arm's speed")


class Comparison(BaseModel):
    """What is compared: every method at every budget with every seed, on as many images each, or for as long."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
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
    rates: Rates | None = Field(
        None, description="lr: [..], kimg: N; every arm is first tried at each rate, and goes on with its best"
    )
    pace: Pace | None = Field(
        None, description="minutes: N, kimg: N; in place of kimg, every run trains for as long, as a short run tells"
    )

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
            if name in ROWS:
                raise ValueError(f"no method can be called {name!r}, which is a row of its own; choose another name")
            if name not in METHODS and ":" not in name and "method" not in (settings or {}):
                raise ValueError(f"{name!r} is no method ({nearest(name, METHODS)}); give it a method: of its own")
        return {name: settings or {} for name, settings in found.items()} if isinstance(found, Mapping) else found

    @model_validator(mode="after")
    def _one_length(self) -> Comparison:
        if self.pace is None:
            return self
        if "kimg" in self.model_fields_set:
            raise ValueError("kimg is as many images for all, pace as many minutes: leave one of them out")
        for name, own in self.methods.items():
            if any("kimg" in (own.get(part) or {}) for part in ("train", "finetune")):
                raise ValueError(f"{name} has a kimg of its own, and pace sets every length: leave one of them out")
        return self

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

    def entries(self, folder: Path, lengths: Mapping[tuple[str, str], float] | None = None) -> list[Entry]:
        """Every run, a seed after the other, so that an unfinished comparison has something of everything.

        Args:
            lengths: kimg of a method at a budget in place of the comparison's; what has none is left out.
        """
        return [
            Entry(name, budget, seed, one.config_of(name, own, budget, seed), folder / place(name, budget, seed))
            for seed in self.seeds
            for budget in self.budgets
            for name, own in self.methods.items()
            if lengths is None or (name, budget) in lengths
            for one in [self if lengths is None else self.model_copy(update={"kimg": lengths[name, budget]})]
        ]

    def config_of(self, name: str, own: Mapping[str, Any], budget: str, seed: int) -> Config:
        """Settings of one run of an arm."""
        method = {"method": name} if name in METHODS or ":" in name else {}
        fixed = {"budget": budget, "seed": seed, "train": {"seed": seed}, "finetune": {"seed": seed}}
        above = merged(own, fixed)
        under = merged(method, self.common)
        trains = load_config(None, merged(under, above)).train.kimg > 0  # pruning by a ranking trains nothing before
        first = self.kimg * self.share if trains else 0.0
        lengths = {"train": {"kimg": first}, "finetune": {"kimg": self.kimg - first}}
        config = load_config(None, merged(merged(under, lengths), above))
        own_end = "smallest" in config.train.method_options  # 0 says: at each budget, a path for each
        if goes_to_budget(config) and not own_end and (end := self._narrowest()):
            config = load_config(None, merged(merged(under, lengths), merged(above, end)))
        return config

    def _narrowest(self) -> dict[str, Any] | None:
        """A path that all budgets share goes down to the smallest of them; shares of the whole, or it is not shared."""
        if len(self.budgets) < 2 or not all(re.fullmatch(r"\d*\.?\d+x", budget) for budget in self.budgets):
            return None
        return {"train": {"method_options": {"smallest": min(float(budget[:-1]) for budget in self.budgets)}}}


def goes_to_budget(config: Config) -> bool:
    """Whether a supernet is trained along a path that ends at the run's own budget."""
    path = config.space.name == "path" and find_method(config.method).searches and config.train.kimg > 0
    return path and not config.train.method_options.get("smallest")


def _explain(error: Any) -> str:
    where = ".".join(map(str, error["loc"]))
    if error["type"] == "extra_forbidden":
        allowed = ", ".join(Comparison.model_fields)
        return f"{where} is no setting of a comparison ({allowed}); what every run shares goes under common:"
    return explain(error, Comparison)


def place(name: str, budget: str, seed: int) -> str:
    """The name of a run's folder."""
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

    def complete(self, run: Run) -> None:
        """All that a comparison needs of it."""
        compress(run, until="evaluate")

    def scores(self) -> dict[str, Any]:
        """What the run scored, by generator and metric."""
        return RunFolder(self.folder).stored(self.folder / "scores.json")

    def row(self) -> dict[str, Any]:
        """Costs and scores on the test split, and what they are of: ``STAMPS``."""
        scores, traced = self.scores(), self.open().setup.traced
        subnet = read_config(self.folder / "subnet.json")
        found = result_scores(scores)
        row: dict[str, Any] = {"method": self.method, "budget": self.budget, "seed": self.seed}
        row["macs"] = traced.macs(subnet, convention=self.config.convention)
        row["params"] = traced.parameter_count(subnet)
        row["kimg"], row["seconds"] = self.spent(subnet)
        row |= {name: score["value"] for name, score in found.items()}
        return row | self._stamps(found)

    def spent(self, subnet: SubnetConfig) -> tuple[float, float]:
        """Thousands of images that it was trained on, and seconds that this took."""
        logs, beside = [self.folder / f"{name}.ckpt.jsonl" for name in ("supernet", "subnet")], self._beside(subnet)
        tuned = sum(read_rows(log)[-1]["kimg"] for log in beside)
        seconds = sum(map(_seconds, [*logs, *beside]))
        return self.config.train.kimg + self.config.finetune.kimg + tuned, seconds

    def _beside(self, subnet: SubnetConfig) -> list[Path]:
        """Logs of the finalists' tunings, but for the chosen one's, which its fine-tuning began with."""
        folders = sorted(file.parent for file in self.folder.glob("finalists/*/subnet.json"))
        others = [f for f in folders if read_config(f / "subnet.json") != subnet]
        return [log for folder in others if read_rows(log := folder / "subnet.ckpt.jsonl")]

    def _stamps(self, scores: Mapping[str, Any]) -> dict[str, str]:
        """What a row's figures are of, in words that a reader of the CSV takes for words."""
        units = {"macs": "multiply-accumulates a picture", "params": "parameters", "kimg": "thousand pictures"}
        units |= {"seconds": "s"} | {name: score["unit"] for name, score in scores.items()}
        weights = next(f for f in map(self.folder.joinpath, (WEIGHTS, SUPERNET[-1])) if f.exists())
        first, written = next(iter(scores.values())), (self.folder / "scores.json").stat().st_mtime
        settings = json.dumps(self.config.shown(), sort_keys=True).encode()
        return {
            "convention": f"macs_{self.config.convention}",
            "units": "; ".join(f"{name}: {unit}" for name, unit in units.items()),
            "data": f"{first['provenance'].get('reference')}, {first['provenance'].get('reference_hash')}",
            "weights": _sha256(weights.read_bytes()),
            "settings": _sha256(settings),
            "version": f"gantailor {first['provenance'].get('gantailor', 'unknown')}",
            "date": datetime.fromtimestamp(written, UTC).isoformat(timespec="seconds"),
        }


def result_scores(scores: Mapping[str, Any]) -> Mapping[str, Any]:
    """Those of what a run is there for: slimming's result is the one in 8 bits."""
    found: Mapping[str, Any] = scores.get("subnet, 8 bits simulated", scores["subnet"])
    return found


def _sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()[:16]}"


def _seconds(log: Path) -> float:
    """What a training took, from its log: interruptions and scoring not counted."""
    latest = {row["kimg"]: row["images_per_second"] for row in read_rows(log)}  # after a resume some lines come again
    points = sorted(latest)
    spent = (1000 * (b - a) / latest[b] for a, b in itertools.pairwise([0.0, *points]) if latest[b])
    return float(sum(spent))
