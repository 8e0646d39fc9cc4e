"""From metric names to an evaluator, and from scores to what a user reads."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

import gantailor
from gantailor.evaluators.config import EvaluationConfig
from gantailor.evaluators.errors import EvaluationError
from gantailor.evaluators.features.extractor import Extractor, make_extractor
from gantailor.evaluators.metrics.cost import Cost, Latency, measured_macs, torch_runtime
from gantailor.evaluators.metrics.distribution import METRICS, Distribution, FeatureError
from gantailor.evaluators.metrics.fidelity import Fidelity
from gantailor.evaluators.metrics.perceptual import Lpips, Perceptual
from gantailor.evaluators.metrics.segmentation import LabelTable, Segmentation
from gantailor.evaluators.scores import Evaluator, Pairs, Score, provenance_differences
from gantailor.evaluators.weights import weights_digest
from gantailor.supernet.errors import ConfigError, nearest

FAMILIES = {
    **dict.fromkeys(METRICS, "distribution"),
    "features": "features",
    **dict.fromkeys(("l1", "psnr", "ssim"), "fidelity"),
    **dict.fromkeys(("lpips", "diversity"), "perceptual"),
    **dict.fromkeys(("miou", "pixel_accuracy"), "segmentation"),
    **dict.fromkeys(("macs", "parameters", "bytes"), "cost"),
    **dict.fromkeys(("latency_ms", "latency_p95_ms"), "latency"),
}


PICTURE_BY_PICTURE = tuple(name for name in FAMILIES if FAMILIES[name] in ("features", "fidelity")) + ("lpips",)


def lower_is_better(metric: str) -> bool:
    """The direction of a metric."""
    higher = ("precision", "recall", "density", "coverage", "psnr", "ssim", "diversity", "miou", "pixel_accuracy")
    return metric.removesuffix("[teacher]") not in higher


class Several:
    """The wanted scores of several evaluators, in the order asked for."""

    def __init__(self, parts: Sequence[tuple[Evaluator, tuple[str, ...]]]) -> None:
        self.parts = parts

    def __call__(self, generator: nn.Module, pairs: Pairs) -> dict[str, Score]:
        found: dict[str, Score] = {}
        for evaluator, names in self.parts:
            scores = evaluator(generator, pairs)
            found |= {key: score for name in names for key, score in scores.items() if _base(key) == name}
        return found


def _base(key: str) -> str:
    """The metric in a score's name: ``fid768[inception-2015-12-05]`` is ``fid``."""
    return key.partition("[")[0].rstrip("0123456789") if not key.startswith("l1") else "l1"


class Scoring:
    """Makes evaluators by metric names; extractors and networks are loaded once, when first needed.

    A metric against the teacher instead of the real pictures is written ``l1[teacher]``.
    """

    def __init__(self, config: EvaluationConfig, *, teacher: nn.Module | None = None, batch: int = 32) -> None:
        self.config, self.teacher, self.batch = config, teacher, batch
        self._loaded: dict[str, Any] = {}

    def evaluator(self, metrics: Sequence[str]) -> Several:
        """One evaluator for all of the metrics.

        Raises:
            ConfigError: an unknown metric, or one whose weights or network were not named.
        """
        groups: dict[tuple[str, bool], list[str]] = {}
        for metric in metrics:
            base, mark = metric.removesuffix("[teacher]"), metric.endswith("[teacher]")
            if base not in FAMILIES:
                raise ConfigError(f"metric {metric!r} is unknown; {nearest(base, FAMILIES)}")
            if mark and (self.teacher is None or FAMILIES[base] not in ("features", "fidelity", "perceptual")):
                raise ConfigError(f"metric {metric!r} cannot be compared with a teacher here; ask for {base!r}")
            groups.setdefault((FAMILIES[base], mark), []).append(base)
        return Several(
            [
                (self._make(family, self.teacher if mark else None, names), tuple(names))
                for (family, mark), names in groups.items()
            ]
        )

    def _make(self, family: str, teacher: nn.Module | None, names: Sequence[str]) -> Evaluator:
        if family == "distribution":
            return Distribution(self.extractor(), names, batch=self.batch)
        if family == "features":
            return FeatureError(self.extractor(), teacher, batch=self.batch)
        if family == "fidelity":
            return Fidelity(teacher, batch=self.batch)
        if family == "perceptual":
            return Perceptual(self.lpips(), teacher, diversity=200 if "diversity" in names else 0, batch=self.batch)
        if family == "segmentation":
            return self._segmentation()
        if family == "cost":
            return Cost({"true": measured_macs, "published": published_macs})
        return Latency(latency_runtimes(self.config.threads), threads=self.config.threads)

    def extractor(self) -> Extractor:
        """The configured feature extractor."""
        c = self.config
        if "extractor" not in self._loaded:
            self._loaded["extractor"] = make_extractor(c.extractor, c.weights, resize=c.resize)
        return self._loaded["extractor"]

    def lpips(self) -> Lpips:
        """LPIPS from the configured files."""
        features, heads = self.config.lpips_features, self.config.lpips_heads
        if features is None or heads is None:
            raise ConfigError(
                "lpips needs two weights files: evaluation.lpips_features (AlexNet, torchvision's layout) and "
                "evaluation.lpips_heads (lin_v0.1_alex.pth)"
            )
        return Lpips(features, heads)

    def _segmentation(self) -> Segmentation:
        from gantailor.zoo.checkpoints import load_state, read_state
        from gantailor.zoo.generators.record import build

        name, weights = self.config.segmentation, self.config.segmentation_weights
        if name is None or weights is None:
            raise ConfigError(
                "miou and pixel_accuracy need evaluation.segmentation (module:function) and "
                "evaluation.segmentation_weights"
            )
        network = build(name)
        load_state(network, read_state(Path(weights)), weights)
        table = LabelTable.read(self.config.labels)
        return Segmentation(network, table, name=name.replace(":", "."), weights_hash=weights_digest(weights))


def latency_runtimes(threads: int) -> dict[str, Callable[[nn.Module, Tensor], Callable[[], object]]]:
    """The runtimes that are installed here: PyTorch, and onnxruntime where the extra is there."""
    from gantailor.export.export import local_runtime

    found: dict[str, Callable[[nn.Module, Tensor], Callable[[], object]]] = {"torch-cpu": torch_runtime}
    if importlib.util.find_spec("onnxruntime") and importlib.util.find_spec("onnxscript"):
        found["onnxruntime-cpu"] = local_runtime("onnxruntime-cpu", threads=threads)
    if importlib.util.find_spec("openvino"):
        found["openvino"] = local_runtime("openvino", threads=threads)
    return found


def published_macs(model: nn.Module, example: Tensor) -> int:
    """MACs as the GAN Compression tables count them, read off a trace."""
    from gantailor.supernet.supernet import Supernet

    supernet = Supernet(model, (example,))
    return supernet.macs(supernet.full_config(), convention="published")


class Subset:
    """The first ``count`` pictures of a data set, for a search."""

    def __init__(self, pairs: Pairs, count: int) -> None:
        self.pairs, self.count = pairs, min(count, len(pairs))
        self.source = pairs.source if self.count == len(pairs) else f"{pairs.source}[:{self.count}]"

    def __len__(self) -> int:
        return self.count

    def batch(self, indices: np.ndarray) -> tuple[Tensor, Tensor | None]:
        return self.pairs.batch(indices)

    def digest(self) -> str:
        return f"{self.pairs.digest()}[:{self.count}]"


def stamped(scores: Mapping[str, Score]) -> dict[str, dict[str, Any]]:
    """Scores as JSON, with the toolkit's version in their provenance."""
    rows = {name: score.to_dict() for name, score in scores.items()}
    for row in rows.values():
        row["provenance"] = {**row["provenance"], "gantailor": gantailor.__version__, "torch": torch.__version__}
    return rows


def show(rows: Mapping[str, dict[str, Any]], *, as_json: bool = False) -> None:
    """Print scores: a line each and what they share, or JSON."""
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    width = max(map(len, rows))
    for name, row in rows.items():
        better = "lower" if row["lower_is_better"] else "higher"
        value = f"{row['value']:,}" if isinstance(row["value"], int) else f"{row['value']:.6g}"
        print(f"{name:<{width}}  {value:>16}  {row['unit']}, {better} is better")
    shared: dict[str, Any] = {}
    for row in rows.values():
        shared = {**row["provenance"], **shared}
    print("  ".join(f"{name} {value}" for name, value in shared.items()))


def compare(rows: Mapping[str, dict[str, Any]], earlier: str) -> None:
    """Print the change of every score, and warn in red where the protocol is not the earlier one's.

    Raises:
        ConfigError: the file is unreadable, or has none of the scores.
    """
    try:
        before = json.loads(Path(earlier).read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise ConfigError(f"--against {earlier!r} cannot be read: {error}; give what --json printed") from None
    both = [name for name in rows if name in before]
    if not both:
        raise ConfigError(
            f"--against {earlier!r} has none of {', '.join(rows)}; ask for the same metrics and extractor"
        )
    for name in both:
        differences = provenance_differences(before[name]["provenance"], rows[name]["provenance"])
        print(f"{name}: {rows[name]['value'] - before[name]['value']:+.6g} against {earlier}", file=sys.stderr)
        if differences:
            text = f"warning: {name} does not compare: " + "; ".join(differences)
            print(f"\033[31m{text}\033[0m" if sys.stderr.isatty() else text, file=sys.stderr)


def score_folders_by_name(
    scoring: Scoring, images: str, reference: str, metrics: Sequence[str], **options: Any
) -> dict[str, Score]:
    """Scores of one folder of pictures against another: as sets, and picture by picture where names match.

    Raises:
        ConfigError: a metric that needs a generator.
        EvaluationError: from the folders.
    """
    from gantailor.evaluators.folder import NamedPairs, score_folders

    as_sets = [m for m in metrics if FAMILIES.get(m) == "distribution"]
    by_name = [m for m in metrics if FAMILIES.get(m) in ("fidelity", "perceptual", "features")]
    for metric in metrics:
        if metric not in as_sets + by_name:
            allowed = [
                m for m, family in FAMILIES.items() if family in ("distribution", "fidelity", "perceptual", "features")
            ]
            raise EvaluationError(f"metric {metric!r} is unknown for folders; allowed are {', '.join(allowed)}")
    scores = dict(score_folders(images, reference, scoring.extractor(), as_sets, **options)) if as_sets else {}
    if by_name:
        pairs = NamedPairs(images, reference)
        one_by_one = Scoring(scoring.config, batch=1)  # sizes may differ from file to file
        scores |= one_by_one.evaluator(by_name)(nn.Identity(), pairs)
    return scores
