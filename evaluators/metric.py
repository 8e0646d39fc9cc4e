"""What a metric is: one record, from which the command line, the search and the reports know all that they need.

A metric of one's own is such a record in any module, named as ``module:name`` in ``evaluation.search``,
``evaluation.final`` and ``--metrics``::

    def make_sharpness(context):
        def sharpness(generator, pairs):
            edges = [outputs.diff(dim=-1).abs().mean() for _, outputs, _ in render(generator, pairs)]
            return {"sharpness": SHARPNESS.score(float(torch.stack(edges).mean()), provenance_of(pairs))}

        return sharpness


    SHARPNESS = Metric(
        name="sharpness", unit="mean step", lower_is_better=False, compares="outputs", make=make_sharpness
    )
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from torch import nn

from gantailor.evaluators.config import EvaluationConfig, check_metric
from gantailor.evaluators.metrics import METRICS
from gantailor.evaluators.scores import Evaluator, Score
from gantailor.supernet.calling import Inputs
from gantailor.supernet.errors import ConfigError, EvaluationError
from gantailor.supernet.plugins import find

if TYPE_CHECKING:
    from gantailor.evaluators.features.extractor import Extractor
    from gantailor.evaluators.metrics.perceptual import Lpips

NO_PROTOCOL = ("search", "search_images", "final")  # settings that say which scores there are, not how they are made
Compares = Literal["sets", "pictures", "inputs", "outputs", "latents", "generator"]
Runtime = Callable[[nn.Module, Inputs], Callable[[], object]]


@dataclass(frozen=True, kw_only=True, eq=False)
class MetricContext:
    """What an evaluator may be made from.

    Attributes:
        config: the settings of ``evaluation``.
        metrics: names of the records that this evaluator shall compute, of those that share its ``make``.
        teacher: whose pictures are the aim in place of the real ones, for ``name[teacher]``; else ``None``.
        batch: pictures that go through a network at once.
        halves: scores shall have those of halves of the pictures too, where the metric knows how.
        extractor: gives the configured feature extractor, loaded once for all metrics.
        lpips: gives LPIPS from the configured files, loaded once for all metrics.
        runtimes: gives what a forward is timed with, by name, from a number of threads; PyTorch alone if ``None``.
    """

    config: EvaluationConfig
    metrics: tuple[str, ...]
    teacher: nn.Module | None = None
    batch: int = 32
    halves: bool = False
    extractor: Callable[[], Extractor]
    lpips: Callable[[], Lpips]
    runtimes: Callable[[int], Mapping[str, Runtime]] | None = None


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric. What has no default must be said, the direction above all: a search follows it.

    Attributes:
        name: begins the names of its scores: ``l1``, ``fid[efficientnet-lite0]``; no colon and no bracket.
        unit: of a score.
        lower_is_better: the direction, which searches and reports follow.
        compares: what with what: ``sets``, all outputs with all real pictures; ``pictures``, each output with its own
            real picture or with the teacher's (``name[teacher]``); ``inputs``, each output with what it was made from;
            ``outputs``, outputs among themselves; ``latents``, outputs of latents that it draws itself; ``generator``,
            no pictures at all, as a cost.
        make: makes the evaluator. Metrics with the same function share one evaluator, and so one pass over the
            pictures; the context names those that are wanted.
        needs: settings of ``evaluation`` that must have a value.
        check: says in one line what else is missing, and how to mend it; ``None`` where nothing is.
        reads: settings of ``evaluation`` that its figures depend on, so that a run knows a score of other settings from
            the same one; all of them where that is not said.
        least: pictures on each side without which it cannot be computed; a run says so before it begins.
        variants: what may stand behind the name, as the 768 in ``fid768[inception-2015-12-05]``.

    Raises:
        ConfigError: a name with colon or bracket, no unit, or an unknown ``compares`` or setting.
    """

    name: str
    unit: str
    lower_is_better: bool
    compares: Compares
    make: Callable[[MetricContext], Evaluator]
    needs: tuple[str, ...] = ()
    reads: tuple[str, ...] | None = None
    check: Callable[[EvaluationConfig], str | None] | None = None
    least: int = 1
    variants: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.name or set(self.name) & set(":[]"):
            raise ConfigError(f"a metric's name cannot be {self.name!r}; give letters, digits and underscores")
        if not self.unit:
            raise ConfigError(f"metric {self.name!r} has no unit; say what its figures count")
        if not isinstance(self.lower_is_better, bool):
            raise ConfigError(f"metric {self.name!r} has lower_is_better {self.lower_is_better!r}; say True or False")
        if self.compares not in get_args(Compares):
            allowed = ", ".join(get_args(Compares))
            raise ConfigError(f"metric {self.name!r} compares {self.compares!r}; allowed are {allowed}")
        for setting in (*self.needs, *(self.reads or ())):
            if setting not in EvaluationConfig.model_fields:
                allowed = ", ".join(EvaluationConfig.model_fields)
                raise ConfigError(f"metric {self.name!r} needs {setting!r}, which is no setting; allowed are {allowed}")

    @property
    def direction(self) -> Literal["lower", "higher"]:
        """Which figures are better, as a word."""
        return "lower" if self.lower_is_better else "higher"

    def missing(self, config: EvaluationConfig) -> str | None:
        """What it cannot be computed without, as one line for the user; ``None`` where nothing is missing."""
        absent = [setting for setting in self.needs if getattr(config, setting) is None]
        if absent:
            fields = EvaluationConfig.model_fields
            parts = [f"evaluation.{setting} ({fields[setting].description})" for setting in absent]
            return f"metric {self.name!r} needs {' and '.join(parts)}"
        return self.check(config) if self.check is not None else None

    def settings(self, config: EvaluationConfig) -> dict[str, Any]:
        """The settings that its figures depend on, as JSON values."""
        names = [n for n in EvaluationConfig.model_fields if n not in NO_PROTOCOL] if self.reads is None else self.reads
        return config.model_dump(mode="json", include=set(names))

    def score(self, value: float, provenance: dict[str, Any], halves: tuple[float, ...] = ()) -> Score:
        """A figure with this metric's unit and direction, and those of halves of the pictures.

        Raises:
            EvaluationError: it is not finite.
        """
        if not math.isfinite(value):
            raise EvaluationError(f"metric {self.name!r} is {value}, not a finite number; look at the pictures")
        return Score(value, self.unit, self.lower_is_better, provenance, halves)

    def names(self, key: str) -> bool:
        """Whether a score of its evaluator is called so: ``fid``, ``fid[...]``, or ``fid768[...]`` of a variant."""
        base = key.partition("[")[0]
        return base == self.name or (base.startswith(self.name) and base.removeprefix(self.name) in self.variants)


def find_metric(name: str) -> Metric:
    """The record behind ``l1``, ``l1[teacher]``, ``module:name`` or ``module:name[teacher]``.

    Raises:
        ConfigError: an unknown name, or one that stands for no ``Metric``.
    """
    base = check_metric(name)
    found = find(base, METRICS, "metric")
    if not isinstance(found, Metric):
        raise ConfigError(
            f"metric {base!r} is a {type(found).__name__}, but a Metric record is expected: NAME = "
            "gantailor.evaluators.metric.Metric(name=..., unit=..., lower_is_better=..., compares=..., make=...)"
        )
    return found


def metric_of(score: str) -> Metric:
    """The record of a score, by the score's name: ``fid768[inception-2015-12-05]``, ``module:name[teacher]``.

    Raises:
        ConfigError: no metric has such scores.
    """
    base = score.partition("[")[0]
    if base not in METRICS and ":" not in base:
        for name in METRICS:
            if base.startswith(name) and find_metric(name).names(score):
                return find_metric(name)
    try:
        return find_metric(base)
    except ConfigError:  # a variant of one's own, as module:name768
        module, _, attribute = base.partition(":")
        for end in range(1, len(attribute)):
            found = getattr(sys.modules.get(module), attribute[:end], None)
            if isinstance(found, Metric) and attribute[end:] in found.variants:
                return found
        raise
