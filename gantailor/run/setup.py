"""What a configuration makes of its inputs: traced graph, ranking, space, budget, evaluators. Each is made once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

from gantailor.evaluators.metric import find_metric
from gantailor.evaluators.scores import has_real
from gantailor.evaluators.scoring import Scoring
from gantailor.export.devices import device
from gantailor.export.runtimes import latency_runtimes
from gantailor.run import ranking
from gantailor.run.config import Config
from gantailor.run.folder import decided
from gantailor.run.inputs import Inputs
from gantailor.search.budget import Budget
from gantailor.search.costs import CostLimits, full_costs
from gantailor.search.latency import LatencyProfile
from gantailor.search.limits import parse_budget
from gantailor.search.spaces.config import SpaceConfig
from gantailor.search.spaces.path import WidthPath, neighbourhood, points
from gantailor.search.spaces.space import Space, space
from gantailor.supernet.calling import as_tuple
from gantailor.supernet.decisions import Decisions
from gantailor.supernet.errors import ConfigError
from gantailor.supernet.files import stored_info
from gantailor.supernet.importance.diversity import Scores
from gantailor.supernet.importance.ranking import order_channels
from gantailor.supernet.supernet import Supernet
from gantailor.supernet.training.teaching.distillation import proposed_layers
from gantailor.supernet.traits import traits_of
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

    profiles: Mapping[str, LatencyProfile] = MappingProxyType({})  # by the names that budgets have; others are read
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
    def layers(self) -> Mapping[str, str]:
        """Layers of the generator whose features are compared, and what they are called in the teacher.

        Those that are set; those that the generator declares, in the order of the teacher's; else, of the teacher's own
        architecture, those that the graph proposes.
        """
        if self.config.teacher.layers is not None:
            return self.config.teacher.layers
        mine = self.traits.feature_layers or self.proposed_layers
        theirs = mine if self.same_architecture or not self.taught else traits_of(self.teacher).feature_layers
        return dict(zip(mine, theirs if len(theirs) == len(mine) else mine, strict=True))

    @cached_property
    def proposed_layers(self) -> tuple[str, ...]:
        """Layers to compare of a generator that declares none, unless some are set, or no training compares any."""
        wanted = any(recipe.kimg and recipe.feature_weight for recipe in (self.config.train, self.config.finetune))
        known = self.traits.feature_layers or self.config.teacher.layers is not None
        if known or not wanted or not self.same_architecture:
            return ()
        return proposed_layers(self.traced)

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
    def offered(self) -> Space:
        """The search space as settings describe it."""
        return space(wanted_space(self.config), self.traced)

    @cached_property
    def space(self) -> Space:
        """The search space: where there is a path, what lies along it, or around its net at the budget."""
        config, every, found = wanted_space(self.config), self.offered, self.path
        if config.name != "path" or found is None:
            return every
        if self.config.search.front:
            return points(found, self.traced, config)
        wanted = parse_budget(self.config.budget, full=full_costs(self.traced, self.config.convention))
        limits = CostLimits(every, wanted, self.config.convention, profiles=dict(self.profiles))
        return neighbourhood(found, self.traced, config, limits.usage)

    @cached_property
    def path(self) -> WidthPath | None:
        """The path in the trained supernet's file, or before a training in that of ``config.supernet``, if it has one.

        Raises:
            CheckpointError: the file is damaged, or the path is another generator's.
        """
        own = None if self.folder is None or not self.folder.supernet.exists() else self.folder.supernet
        file = own or (Path(self.config.supernet) if self.config.supernet else None)
        info = {} if file is None else stored_info(file)
        return WidthPath.from_json(info["path"], self.traced.graph) if "path" in info else None

    def look_again(self) -> None:
        """A training has ended, and with it the space along its path is there."""
        for name in ("path", "space", "budget"):
            self.__dict__.pop(name, None)

    @cached_property
    def budget(self) -> Budget:
        """The budget, checked against the space."""
        return self.budget_of(self.config.budget)

    def budget_of(self, text: str) -> Budget:
        """Any budget over this space.

        Raises:
            BudgetError: it cannot be read or reached.
        """
        convention, fill = self.config.convention, not self.config.search.front
        return Budget.of(self.space, text, convention=convention, profiles=self.profiles, fill=fill)

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
        real = has_real(self.data("test"))
        names = [name for name in names if real or find_metric(name).compares != "sets"]
        if self.data("test").paired:
            return names
        alone = [name for name in names if find_metric(name).compares != "pictures"]
        if not self.taught and len(alone) < len(names):  # nothing to compare with; the search's score is then of sets
            return alone or ["kid"] if names == ["features"] else alone
        to_teacher = [name if name in alone or name.endswith("]") else f"{name}[teacher]" for name in names]
        return list(dict.fromkeys(to_teacher))

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


def wanted_space(config: Config) -> SpaceConfig:
    """Settings of the space, rounded to what the first device likes if that is asked for."""
    wanted = config.space
    if not config.round_to_device or not config.devices:
        return wanted
    multiple = max(wanted.rounding, device(config.devices[0]).channel_multiple)
    return wanted.model_copy(update={"multiple": multiple})
