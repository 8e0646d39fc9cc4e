"""LPIPS v0.1 on AlexNet or VGG16 (Zhang et al. 2018, arXiv 1801.03924), from weights files that the user names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gantailor.evaluators.features.classifiers import Classifier, ClassifierName, read_tensors
from gantailor.evaluators.metric import Metric, MetricContext
from gantailor.evaluators.metrics.fidelity import mean_score, side_by_side
from gantailor.evaluators.pictures.rgb import as_rgb
from gantailor.evaluators.scores import Pairs, Score, provenance_of, render, spread, to_teacher
from gantailor.evaluators.weights import weights_digest
from gantailor.supernet.device import Device, exact, placed
from gantailor.supernet.errors import EvaluationError

PAIRS = 200  # random pairs of outputs that diversity is the mean of
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
_FILES = ("lpips_features", "lpips_heads")
_READS = (*_FILES, "lpips_network")


def make_perceptual(context: MetricContext) -> Perceptual:
    """One pass for both."""
    return Perceptual(
        context.lpips(),
        context.teacher,
        distances="lpips" in context.metrics,
        diversity=PAIRS if "diversity" in context.metrics else 0,
        batch=context.batch,
        halves=context.halves,
    )


LPIPS = Metric(
    name="lpips",
    unit="distance",
    lower_is_better=True,
    compares="pictures",
    make=make_perceptual,
    needs=_FILES,
    reads=_READS,
)
DIVERSITY = Metric(
    name="diversity",
    unit="mean LPIPS of random pairs of outputs",
    lower_is_better=False,
    compares="outputs",
    make=make_perceptual,
    needs=_FILES,
    reads=_READS,
    least=2,
)


class Lpips:
    """Distance ``[N]`` between pictures ``[N, 1, 3 or 4, H, W]`` in [-1, 1], taken as RGB; 0 for equal ones.

    Args:
        features: weights of the network in torchvision's key layout (``features.0.weight``...).
        heads: the official linear heads, ``lin_v0.1_alex.pth`` or ``lin_v0.1_vgg.pth``.
        network: ``alex``, which the authors recommend for scores, or ``vgg``, the usual one in training losses.

    Raises:
        EvaluationError: a missing file, or weights of another network.
    """

    def __init__(self, features: str | Path, heads: str | Path, *, network: ClassifierName = "alex") -> None:
        self.name = f"{network}-v0.1"
        self.network = Classifier(network, features, purpose="LPIPS")
        self.weights_hash = weights_digest(features, heads)
        shapes = {f"lin{k}.model.1.weight": (1, width, 1, 1) for k, width in enumerate(self.network.widths)}
        wanted = f"LPIPS needs the official heads, lin_v0.1_{network}.pth"
        self.heads = list(read_tensors(heads, shapes, title=f"LPIPS's heads for {network}", wanted=wanted).values())

    def to(self, device: Device) -> Lpips:
        """Move to a device, in place."""
        self.network.to(device)
        self.heads = [head.to(device) for head in self.heads]
        return self

    def _features(self, images: Tensor) -> list[Tensor]:
        shift, scale = (images.new_tensor(v).reshape(1, 3, 1, 1) for v in (_SHIFT, _SCALE))
        taps = placed(self.network, images.device)((images - shift) / scale)
        return [x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10) for x in taps]

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        if a.shape != b.shape:
            raise EvaluationError(
                f"LPIPS compares pictures of one size and number of channels, not {list(a.shape)} with {list(b.shape)}"
            )
        pairs = zip(self._features(as_rgb(a)), self._features(as_rgb(b)), self.heads, strict=True)
        parts = [F.conv2d((x - y).square(), head.to(x.device)).mean((1, 2, 3)) for x, y, head in pairs]
        return torch.stack(parts).sum(0)


def pairwise_diversity(lpips: Lpips, images: Tensor, *, pairs: int = 1000, seed: int = 0) -> float:
    """Mean LPIPS between random pairs of different pictures: how varied a set of outputs is (larger is more)."""
    if len(images) < 2:
        raise EvaluationError(f"diversity needs at least 2 pictures, not {len(images)}")
    generator = torch.Generator().manual_seed(seed)
    first = torch.randint(len(images), (pairs,), generator=generator)
    second = (first + torch.randint(1, len(images), (pairs,), generator=generator)) % len(images)
    first, second = first.to(images.device), second.to(images.device)
    with torch.no_grad():
        parts = zip(torch.split(first, 16), torch.split(second, 16), strict=True)
        chunks = [lpips(images[i], images[j]) for i, j in parts]
    return float(exact(torch.cat(chunks)).mean())


class Perceptual:
    """LPIPS to the real pictures, or to the ``teacher``'s on the same inputs, and how varied the outputs are.

    ``lpips[alex-v0.1]`` (or ``lpips[alex-v0.1,teacher]``; ``vgg-v0.1``), lower is better; ``diversity[alex-v0.1]``, the
    mean LPIPS between random pairs of outputs of different inputs, larger is more varied.

    Args:
        distances: whether ``lpips`` is computed.
        diversity: number of pairs of outputs; 0 leaves it out.
        halves: ``lpips`` also of halves of the pictures.
    """

    def __init__(
        self,
        lpips: Lpips,
        teacher: nn.Module | None = None,
        *,
        distances: bool = True,
        diversity: int = PAIRS,
        batch: int = 16,
        halves: bool = False,
    ) -> None:
        self.lpips, self.teacher, self.distances = lpips, teacher, distances
        self.diversity, self.batch, self.halves = diversity, batch, halves

    def __call__(self, generator: nn.Module, pairs: Pairs) -> dict[str, Score]:
        kept: list[Tensor] = []
        distances: list[Tensor] = []
        keep = set(spread(len(pairs), max(2, 2 * self.diversity)).tolist())  # a bounded number stays in memory
        place = 0
        with torch.no_grad():
            for made, aim in self._pictures(generator, pairs):
                if aim is not None:
                    distances.append(self.lpips(made, aim))
                kept += [picture.clone() for number, picture in enumerate(made, place) if number in keep]
                place += len(made)
        scores: dict[str, Score] = {}
        key, weights = f"[{self.lpips.name}]", self.lpips.weights_hash[:12]
        if distances:
            provenance = provenance_of(pairs, teacher=self.teacher, weights=weights)
            name = f"lpips{key}" if self.teacher is None else to_teacher(f"lpips{key}")
            scores[name] = mean_score(LPIPS, exact(torch.cat(distances)), provenance, self.halves)
        if self.diversity and len(kept) > 1:
            varied = pairwise_diversity(self.lpips, torch.stack(kept), pairs=self.diversity)
            provenance = provenance_of(pairs, weights=weights, pairs_of_outputs=self.diversity)
            scores[f"diversity{key}"] = DIVERSITY.score(varied, provenance)
        return scores

    def _pictures(self, generator: nn.Module, pairs: Pairs) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Outputs, and what they are compared with where they are."""
        if self.distances:
            sides = side_by_side(generator, self.teacher, pairs, batch=self.batch)
            yield from ((made, aim) for made, aim, _ in sides)
        else:
            yield from ((made, None) for _, made, _ in render(generator, pairs, batch=self.batch))
