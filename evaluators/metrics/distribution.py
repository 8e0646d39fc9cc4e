"""Generated pictures against real ones as sets of features."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from gantailor.evaluators.config import EvaluationConfig
from gantailor.evaluators.features import INCEPTION_VARIANTS, missing_weights
from gantailor.evaluators.features.extractor import Extractor, extractor_provenance
from gantailor.evaluators.halves import halves_of_mean, halves_of_sets
from gantailor.evaluators.metric import Metric, MetricContext
from gantailor.evaluators.metrics.distances import (
    Gaussian,
    finite,
    frechet,
    frechet_distance,
    kernel_distance,
    kernel_distance_subsets,
)
from gantailor.evaluators.metrics.manifold import density_coverage, precision_recall
from gantailor.evaluators.scores import Pairs, Score, provenance_of, real_batches, render, to_teacher, wanted
from gantailor.supernet.device import device_of, placed
from gantailor.supernet.errors import EvaluationError

_READS = ("extractor", "weights", "resize")


def make_distribution(context: MetricContext) -> Distribution:
    """One pass for all metrics of sets."""
    return Distribution(context.extractor(), context.metrics, batch=context.batch, halves=context.halves)


def make_feature_error(context: MetricContext) -> FeatureError:
    """From the configured extractor."""
    return FeatureError(context.extractor(), context.teacher, batch=context.batch, halves=context.halves)


def _missing(config: EvaluationConfig) -> str | None:
    return missing_weights(config.extractor, config.weights)


def _of_sets(name: str, unit: str, *, lower_is_better: bool, least: int) -> Metric:
    return Metric(
        name=name,
        unit=unit,
        lower_is_better=lower_is_better,
        compares="sets",
        make=make_distribution,
        reads=_READS,
        check=_missing,
        least=least,
        variants=INCEPTION_VARIANTS,
    )


FID = _of_sets("fid", "squared feature distance", lower_is_better=True, least=2)
KID = _of_sets("kid", "squared MMD", lower_is_better=True, least=2)
PRECISION = _of_sets("precision", "share", lower_is_better=False, least=4)  # 3 neighbours of each
RECALL = _of_sets("recall", "share", lower_is_better=False, least=4)
DENSITY = _of_sets("density", "neighbours per k", lower_is_better=False, least=6)  # 5 neighbours
COVERAGE = _of_sets("coverage", "share", lower_is_better=False, least=6)
DISTANCES = {"fid": frechet_distance, "kid": kernel_distance}  # that halves of the pictures can tell something of
OF_SETS = {metric.name: metric for metric in (FID, KID, PRECISION, RECALL, DENSITY, COVERAGE)}
FEATURES = Metric(
    name="features",
    unit="mean squared difference",
    lower_is_better=True,
    compares="pictures",
    make=make_feature_error,
    reads=_READS,
    check=_missing,
)


@dataclass(frozen=True, eq=False)
class Reference:
    """The features ``[N, d]`` of the real pictures; their normal distribution is fitted once, when asked for."""

    features: np.ndarray

    @cached_property
    def fit(self) -> Gaussian:
        """Mean and covariance of the features."""
        return Gaussian.fit(self.features)


def score_features(
    fake: np.ndarray, real: np.ndarray | Reference, metrics: Sequence[str], *, seed: int = 2020
) -> dict[str, float]:
    """The metrics of generated features against real ones, by their plain names.

    KID is the published protocol (100 subsets of 1,000, drawn by ``seed``) where both sets have 1,000 images, and the
    estimate over all images otherwise.

    Raises:
        EvaluationError: unknown metric, too few images, or features that are not finite.
    """
    known_metrics(metrics)
    reference = real if isinstance(real, Reference) else Reference(real)
    fake, truth = finite(fake), finite(reference.features)
    values: dict[str, float] = {}
    if "fid" in metrics:
        values["fid"] = frechet(Gaussian.fit(fake), reference.fit)
    if "kid" in metrics:
        enough = min(len(fake), len(truth)) >= 1000
        values["kid"] = kernel_distance_subsets(fake, truth, seed=seed)[0] if enough else kernel_distance(fake, truth)
    if {"precision", "recall"} & set(metrics):
        values |= precision_recall(truth, fake)
    if {"density", "coverage"} & set(metrics):
        values |= density_coverage(truth, fake)
    return {metric: values[metric] for metric in metrics}


def known_metrics(metrics: Sequence[str]) -> Sequence[str]:
    """The same metrics.

    Raises:
        EvaluationError: there is none, or one is unknown.
    """
    unknown = [metric for metric in metrics if metric not in OF_SETS]
    if unknown or not metrics:
        raise EvaluationError(f"metric {(unknown or [''])[0]!r} is unknown; allowed are {', '.join(OF_SETS)}")
    return metrics


class _RealFeatures:
    """The extractor's features of each data set's real pictures, made once."""

    def __init__(self, extractor: Extractor) -> None:
        self.extractor = extractor
        self._known: dict[str, Reference] = {}

    def of(self, pairs: Pairs, device: torch.device) -> Reference:
        """Made on a device, where they are not known yet."""
        key = pairs.digest()
        if key not in self._known:
            self._known[key] = Reference(features_of(self.extractor, real_batches(pairs, device=device)))
        return self._known[key]


def features_of(extractor: Extractor, batches: Iterable[Tensor]) -> np.ndarray:
    """Features ``[N, d]`` of pictures in batches, brought from the device at once."""
    found: np.ndarray = torch.cat([extractor(pictures) for pictures in batches]).cpu().numpy()
    return found


def _made(extractor: Extractor, generator: nn.Module, pairs: Pairs, batch: int) -> np.ndarray:
    return features_of(extractor, (outputs for _, outputs, _ in render(generator, pairs, batch=batch)))


class Distribution:
    """FID, KID, precision, recall, density and coverage against the data set's real pictures.

    Scores are named ``fid[efficientnet-lite0]``, ``fid768[inception-2015-12-05]``: a figure never travels without its
    extractor. The features of the real pictures are computed once for a data set.

    Args:
        halves: FID and KID also of halves of the pictures.
    """

    def __init__(
        self,
        extractor: Extractor,
        metrics: Sequence[str] = ("fid", "kid"),
        *,
        seed: int = 2020,
        batch: int = 32,
        halves: bool = False,
    ) -> None:
        self.extractor, self.metrics, self.seed, self.batch = extractor, tuple(known_metrics(metrics)), seed, batch
        self.halves = halves
        self._real = _RealFeatures(extractor)

    def __call__(self, generator: nn.Module, pairs: Pairs) -> dict[str, Score]:
        made, real = _made(self.extractor, generator, pairs, self.batch), self._real.of(pairs, device_of(generator))
        provenance = provenance_of(pairs, **extractor_provenance(self.extractor), seed=self.seed)
        values = score_features(made, real, self.metrics, seed=self.seed)
        halves = {
            m: halves_of_sets(made, real.features, DISTANCES[m]) if self.halves and m in DISTANCES else ()
            for m in values
        }
        return {
            feature_score_name(m, self.extractor): OF_SETS[m].score(v, provenance, halves[m]) for m, v in values.items()
        }


class FeatureError:
    """Mean squared difference between the features of each output and of what it should be: a search's quick score.

    Unlike FID it means something on a hundred pictures. With a ``teacher`` its outputs are the aim, without the real
    pictures. Named ``features[efficientnet-lite0]``.
    """

    def __init__(
        self, extractor: Extractor, teacher: nn.Module | None = None, *, batch: int = 32, halves: bool = False
    ) -> None:
        self.extractor, self.teacher, self.batch, self.halves = extractor, teacher, batch, halves
        self._real, self._taught = _RealFeatures(extractor), dict[str, np.ndarray]()

    def _aims(self, pairs: Pairs, device: torch.device) -> np.ndarray:
        if self.teacher is None:
            wanted(pairs.batch(np.arange(1))[1])  # a picture's own: others are of no input
            return self._real.of(pairs, device).features
        key = pairs.digest()
        if key not in self._taught:
            self._taught[key] = _made(self.extractor, placed(self.teacher, device), pairs, self.batch)
        return self._taught[key]

    def __call__(self, generator: nn.Module, pairs: Pairs) -> dict[str, Score]:
        made = finite(_made(self.extractor, generator, pairs, self.batch))
        errors = np.square(made - self._aims(pairs, device_of(generator)), dtype=np.float64)
        provenance = provenance_of(pairs, teacher=self.teacher, **extractor_provenance(self.extractor))
        key = f"features[{self.extractor.name}]"
        halves = halves_of_mean(errors.mean(1)) if self.halves else ()
        score = FEATURES.score(float(errors.mean()), provenance, halves)
        return {key if self.teacher is None else to_teacher(key): score}


def feature_score_name(metric: str, extractor: Extractor) -> str:
    """``fid768[inception-2015-12-05]``."""
    return f"{metric}{extractor.variant}[{extractor.name}]"
