"""From metric names to one evaluator that computes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

import gantailor
from gantailor.evaluators.config import EvaluationConfig
from gantailor.evaluators.features.extractor import Extractor, make_extractor
from gantailor.evaluators.features.gram import GramLoss
from gantailor.evaluators.metric import Metric, MetricContext, Runtime, find_metric
from gantailor.evaluators.metrics import TEACHER_MARK
from gantailor.evaluators.metrics.perceptual import LPIPS, Lpips
from gantailor.evaluators.scores import Evaluator, Pairs, Score, to_teacher
from gantailor.supernet.errors import ConfigError, EvaluationError, first_line


@dataclass(frozen=True, eq=False)
class Part:
    """An evaluator, and the metrics that are wanted of it by the names that they were asked by.

    Attributes:
        to_teacher: it compares with the teacher.
    """

    evaluator: Evaluator
    metrics: Mapping[str, Metric]
    to_teacher: bool

    def __call__(self, generator: nn.Module, pairs: Pairs) -> dict[str, Score]:
        """The wanted scores, metric by metric.

        Raises:
            EvaluationError: a metric got no score.
        """
        scores, found = self.evaluator(generator, pairs), dict[str, Score]()
        for name, metric in self.metrics.items():
            own = {key: score for key, score in scores.items() if metric.names(key)}
            if not own:
                given = ", ".join(scores) or "none"
                raise EvaluationError(
                    f"metric {name!r} got no score for {len(pairs)} pictures: {metric.name!r} is wanted, given: {given}"
                )
            for label, score in own.items():  # one's own carries the name that finds its record again
                key = name + label.removeprefix(metric.name)
                found[to_teacher(key) if self.to_teacher else key] = metric.score(
                    score.value, score.provenance, score.halves
                )
        return found


class EvaluatorCollection:
    """The wanted scores of several evaluators as those of one; unit and direction are the metrics' records'."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = tuple(parts)

    def __call__(self, generator: nn.Module, pairs: Pairs) -> dict[str, Score]:
        found: dict[str, Score] = {}
        for part in self.parts:
            found |= part(generator, pairs)
        return found


class Scoring:
    """Makes evaluators by metric names; extractors and networks are loaded once, when first needed.

    A metric against the teacher instead of the real pictures is written ``l1[teacher]``; one's own ``module:name``.

    Args:
        teacher: for metrics against the teacher.
        batch: pictures that go through a network at once.
        extractor: in place of the configured one.
        runtimes: what latencies are measured with, by name, from a number of threads; PyTorch alone if missing.
    """

    def __init__(
        self,
        config: EvaluationConfig,
        *,
        teacher: nn.Module | None = None,
        batch: int = 32,
        extractor: Extractor | None = None,
        runtimes: Callable[[int], Mapping[str, Runtime]] | None = None,
    ) -> None:
        self.config, self.teacher, self.batch, self.runtimes = config, teacher, batch, runtimes
        self._extractor = extractor
        self._lpips: Lpips | None = None

    def evaluator(
        self, metrics: Sequence[str], *, batch: int | None = None, halves: bool = False
    ) -> EvaluatorCollection:
        """One evaluator for all of the metrics; those that share a ``make`` share a pass over the pictures.

        Args:
            halves: also on halves of the pictures, which tells how much a score owes to their choice.

        Raises:
            ConfigError: an unknown metric, one that cannot be compared with a teacher, or one whose weights or network
                were not named.
        """
        groups: dict[tuple[Callable[[MetricContext], Evaluator], bool], dict[str, Metric]] = {}
        for name in metrics:
            metric = self._checked(name)
            group = groups.setdefault((metric.make, name.endswith(TEACHER_MARK)), {})
            group[name.removesuffix(TEACHER_MARK)] = metric
        with torch.random.fork_rng(devices=[]):  # a network is made with random weights before its own are loaded
            return EvaluatorCollection(
                [
                    Part(make(self._context(wanted, marked, batch or self.batch, halves)), wanted, marked)
                    for (make, marked), wanted in groups.items()
                ]
            )

    def _checked(self, name: str) -> Metric:
        metric = find_metric(name)
        if name.endswith(TEACHER_MARK) and (self.teacher is None or metric.compares != "pictures"):
            base = name.removesuffix(TEACHER_MARK)
            raise ConfigError(f"metric {name!r} cannot be compared with a teacher here; ask for {base!r}")
        if missing := metric.missing(self.config):
            raise ConfigError(missing)
        return metric

    def _context(self, metrics: Mapping[str, Metric], to_teacher: bool, batch: int, halves: bool) -> MetricContext:
        return MetricContext(
            config=self.config,
            metrics=tuple(metric.name for metric in metrics.values()),
            teacher=self.teacher if to_teacher else None,
            batch=batch,
            halves=halves,
            extractor=self.extractor,
            lpips=self.lpips,
            runtimes=self.runtimes,
        )

    def extractor(self) -> Extractor:
        """The configured feature extractor.

        Raises:
            EvaluationError: it is not installed, or its weights are missing or wrong.
        """
        if self._extractor is None:
            self._extractor = make_extractor(self.config.extractor, self.config.weights, resize=self.config.resize)
        return self._extractor

    def check(self, made: Tensor, aim: Tensor) -> None:
        """That the networks which were loaded so far take such pictures, generated ones and real ones.

        Raises:
            EvaluationError: one does not.
        """
        extractor, lpips = self._extractor, self._lpips
        networks: dict[str, Callable[[], object]] = {}
        if extractor is not None:
            networks[f"extractor {extractor.name!r}"] = lambda: [extractor(images) for images in (made, aim)]
        if lpips is not None:
            networks["LPIPS"] = lambda: lpips(made, made)
        for name, call in networks.items():
            try:
                with torch.no_grad():
                    call()
            except RuntimeError as error:
                raise EvaluationError(
                    f"{name} cannot take pictures {list(made.shape)}: {first_line(error)}; raise data.size, or choose "
                    "other scores"
                ) from error

    def lpips(self) -> Lpips:
        """LPIPS from the configured files.

        Raises:
            ConfigError: a file was not named.
            EvaluationError: a file is missing or wrong.
        """
        features, heads = self.config.lpips_features, self.config.lpips_heads
        if features is None or heads is None:
            raise ConfigError(str(LPIPS.missing(self.config)))
        if self._lpips is None:
            self._lpips = Lpips(features, heads, network=self.config.lpips_network)
        return self._lpips

    def perceptual(self, kind: Literal["lpips", "gram"]) -> Lpips | GramLoss:
        """The perceptual loss of a recipe from the configured files.

        Raises:
            ConfigError: a file was not named, or is not of the network that it needs.
            EvaluationError: a file is missing or wrong.
        """
        if kind == "lpips":
            return self.lpips()
        if self.config.lpips_features is None or self.config.lpips_network != "vgg":
            raise ConfigError(
                "perceptual_loss gram needs VGG16's weights: set evaluation.lpips_network vgg and lpips_features"
            )
        return GramLoss(self.config.lpips_features)


def scores_to_json(scores: Mapping[str, Score]) -> dict[str, dict[str, Any]]:
    """Scores as JSON, with the versions of the toolkit and of PyTorch in their provenance."""
    rows = {name: score.to_dict() for name, score in scores.items()}
    for row in rows.values():
        row["provenance"] = {**row["provenance"], "gantailor": gantailor.__version__, "torch": torch.__version__}
    return rows
