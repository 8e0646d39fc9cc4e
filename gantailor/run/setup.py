"""What a configuration makes: data, teacher, traced graph, space, budget. Each is made once and shared, read only."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gantailor.evaluators.metric import find_metric
from gantailor.evaluators.scoring import Scoring
from gantailor.export.devices import device
from gantailor.export.runtimes import latency_runtimes
from gantailor.run import ranking
from gantailor.run.config import Config
from gantailor.run.folder import RunFolder
from gantailor.run.progress import Reporter
from gantailor.run.teacher import Teacher
from gantailor.search.budget import Budget
from gantailor.search.limits import parse_budget
from gantailor.search.spaces.space import Space, space
from gantailor.supernet.calibration import has_running_statistics, recalibrate
from gantailor.supernet.decisions import Decisions
from gantailor.supernet.errors import ConfigError
from gantailor.supernet.importance.diversity import Scores
from gantailor.supernet.importance.ranking import order_channels
from gantailor.supernet.supernet import Supernet
from gantailor.supernet.traits import Traits, traits_of
from gantailor.supernet.verify import verify
from gantailor.zoo.data.read import read_domains, read_split
from gantailor.zoo.generators.record import build

CALIBRATION_IMAGES = 128  # enough for means and variances of hundreds of thousands of places


class Setup:
    """What a configuration makes; all that is returned is shared and must not be changed (take a copy).

    Args:
        folder: a run folder, whose earlier decisions (the repaired trace, the ranking) are replayed.
    """

    def __init__(self, config: Config, folder: RunFolder | None = None, report: Reporter | None = None) -> None:
        self.config, self.folder, self.report = config, folder, report or Reporter()
        self._data: dict[str, Any] = {}

    @cached_property
    def teacher_record(self) -> Teacher | None:
        """Which teacher there is; None where only an architecture counts (``teacher: none``)."""
        return Teacher.of(self.config)

    @property
    def taught(self) -> bool:
        """Whether there is a trained teacher."""
        return self.teacher_record is not None

    @cached_property
    def teacher(self) -> nn.Module:
        """The trained generator; the untrained one to compress where there is none. Frozen, on the CPU."""
        return self.generator if self.teacher_record is None else self.teacher_record.load()

    @cached_property
    def generator(self) -> nn.Module:
        """The generator to compress: the teacher, or where that is of another kind, one with fresh weights. Frozen."""
        if self.teacher_record is not None and self.teacher_record.same_architecture(self.config):
            return self.teacher
        torch.manual_seed(self.config.seed)
        return build(self.config.generator, **self.config.options).eval().requires_grad_(False)

    @cached_property
    def traits(self) -> Traits:
        """What the generator declares about itself."""
        return traits_of(self.generator)

    def data(self, split: str = "train") -> Any:
        """One split, train, search or test: what the generator takes, and real pictures.

        A generator that takes latents gets other ones in each split, beside the real pictures that it was trained on.
        """
        if split not in self._data:
            self._data[split] = read_split(self.config.data, split, self.traits)
        return self._data[split]

    def domains(self) -> Any:
        """Two unpaired sets of pictures, for a CycleGAN or MUNIT.

        Raises:
            DataError: the data has none.
        """
        if "domains" not in self._data:
            self._data["domains"] = read_domains(self.config.data)
        return self._data["domains"]

    @cached_property
    def example(self) -> Tensor:
        """An input of the size of the data, ``[1, ...]``.

        Raises:
            ConfigError: the generator does not take this size.
        """
        size, multiple = self.config.data.size, self.traits.size_multiple
        if size % multiple:
            raise ConfigError(
                f"data.size {size} does not fit {self.config.generator}: it must be a multiple of {multiple}"
            )
        shape = self.data("train").batch(np.arange(1))[0].shape
        return torch.randn(shape, generator=torch.Generator().manual_seed(0))

    @cached_property
    def traced(self) -> Supernet:
        """The traced and proved supernet, not ranked: all that costs and spaces need.

        What an earlier process of this run decided is replayed; else the trace is proved, and repaired, here.
        """
        stored = self.folder.trace if self.folder is not None else None
        found = json.loads(stored.read_text()).get("decisions") if stored is not None and stored.exists() else None
        decisions = None if found is None else Decisions.from_json(found)
        supernet = Supernet(self.generator, (self.example,), decisions=decisions)
        supernet.generator.requires_grad_(True)
        if decisions is None:
            self.proof = str(verify(supernet, repair=True))
        return supernet

    proof = ""  # what the proof of the trace measured, where it was made here

    @cached_property
    def scores(self) -> Scores:
        """Scores of every channel by the run's criterion."""
        return ranking.scores_of(self)

    @cached_property
    def supernet(self) -> Supernet:
        """The supernet with the teacher's weights, the most important channels first."""
        ranked = self.traced.with_weights(self.traced.generator.state_dict())
        order_channels(ranked, self.scores)
        return ranked

    @cached_property
    def space(self) -> Space:
        """The search space, its widths rounded to what the first device likes if that is asked for."""
        wanted = self.config.space
        if self.config.round_to_device and self.config.devices:
            multiple = max(wanted.rounding, device(self.config.devices[0]).channel_multiple)
            wanted = wanted.model_copy(update={"multiple": multiple})
        return space(wanted, self.traced)

    @cached_property
    def budget(self) -> Budget:
        """The budget, checked against the space."""
        return self.budget_of(self.config.budget)

    def budget_of(self, text: str) -> Budget:
        """Any budget over this space.

        Raises:
            BudgetError: it cannot be read or reached.
        """
        supernet, convention = self.traced, self.config.convention
        config = supernet.full_config()
        full = {"macs": supernet.macs(config, convention=convention), "params": supernet.parameter_count(config)}
        return Budget(self.space, parse_budget(text, full=full), convention, fill=not self.config.search.front)

    @cached_property
    def scoring(self) -> Scoring:
        """What makes evaluators."""
        teacher = self.teacher if self.taught else None
        return Scoring(self.config.evaluation, teacher=teacher, runtimes=latency_runtimes)

    def metrics(self, names: Iterable[str]) -> list[str]:
        """The metrics that the data allows.

        Those that compare picture by picture are against the teacher where no real picture belongs to an input; those
        of sets are left out where there are no real pictures at all.
        """
        real = self.data("test").batch(np.arange(1))[1] is not None
        names = [name for name in names if real or find_metric(name).compares != "sets"]
        if self.data("test").paired:
            return names
        alone = [name for name in names if find_metric(name).compares != "pictures"]
        if not self.taught and len(alone) < len(names):  # nothing to compare with; the search's score is then of sets
            return alone or ["kid"] if names == ["features"] else alone
        return [name if name in alone or name.endswith("]") else f"{name}[teacher]" for name in names]

    @property
    def search_metric(self) -> str:
        """The score that the search follows.

        Raises:
            ConfigError: it compares with what the data does not have.
        """
        wanted = self.config.evaluation.search
        found = self.metrics([wanted])
        if not found:
            raise ConfigError(
                f"evaluation.search {wanted!r} compares with real pictures or a teacher, and there are none; choose "
                "another metric, or give data with targets"
            )
        return found[0]

    def calibrated(self, narrow: nn.Module) -> nn.Module:
        """An extracted subnet with batch norm statistics of its own, from training pictures; in eval mode."""
        if not has_running_statistics(narrow):
            return narrow.eval()
        pairs = self.data("train")
        chosen = np.random.default_rng(0).permutation(len(pairs))[:CALIBRATION_IMAGES]
        size = min(16, len(chosen))
        parts = [chosen[i : i + size] for i in range(0, len(chosen) - size + 1, size)]
        return recalibrate(narrow, (pairs.batch(part)[0] for part in parts))
