"""What a configuration makes of its inputs: traced graph, ranking, space, budget, evaluators. Each is made once."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

import numpy as np

from gantailor.evaluators.metric import find_metric
from gantailor.evaluators.scoring import Scoring
from gantailor.export.devices import device
from gantailor.export.runtimes import latency_runtimes
from gantailor.run import ranking
from gantailor.run.folder import decided
from gantailor.run.inputs import Inputs
from gantailor.search.budget import Budget
from gantailor.search.limits import parse_budget
from gantailor.search.spaces.space import Space, space
from gantailor.supernet.calling import as_tuple
from gantailor.supernet.decisions import Decisions
from gantailor.supernet.errors import ConfigError
from gantailor.supernet.importance.diversity import Scores
from gantailor.supernet.importance.ranking import order_channels
from gantailor.supernet.supernet import Supernet
from gantailor.supernet.verify import verify


class Setup(Inputs):
    """What a configuration makes; all that is returned is shared and must not be changed (take a copy)."""

    @cached_property
    def traced(self) -> Supernet:
        """The traced and proved supernet, not ranked: all that costs and spaces need.

        What an earlier process of this run decided is replayed; else the trace is proved, and repaired, here.
        """
        found = decided(self.folder).get("decisions")
        decisions = None if found is None else Decisions.from_json(found)
        supernet = Supernet(self.generator, as_tuple(self.example), decisions=decisions)
        supernet.generator.requires_grad_(True)
        if decisions is None:
            with self.report.proving() as tell:
                self.proof = str(verify(supernet, repair=True, on_progress=tell))
        return supernet

    proof = ""  # what the proof of the trace measured, where it was made here

    @cached_property
    def traced_teacher(self) -> Supernet:
        """What the teacher costs: the traced generator, or where the teacher is of another kind, its own graph."""
        if (
            self.teacher_record is None or self.same_architecture
        ):  # with other statistics it is another module of the same costs
            return self.traced
        return Supernet(self.teacher, as_tuple(self.example), unknown="freeze")

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
