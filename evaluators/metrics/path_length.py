"""Perceptual path length: how evenly pictures change along paths of latents.

Karras et al. 2019 (arXiv 1812.04948); in w at the ends of paths and without a crop, 2020 (arXiv 1912.04958).
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gantailor.evaluators.metric import Metric, MetricContext
from gantailor.evaluators.metrics.perceptual import Lpips
from gantailor.evaluators.pictures.rgb import as_rgb
from gantailor.evaluators.scores import Pairs, Score, provenance_of
from gantailor.supernet.calling import evaluating
from gantailor.supernet.device import device_of, exact
from gantailor.supernet.errors import EvaluationError
from gantailor.supernet.traits import maps_latents

EPSILON = 1e-4  # length of a step, of a path of length 1
SIDE = 256  # larger pictures are pooled to it, as LPIPS was made for
_FILES = ("lpips_features", "lpips_heads")
_UNIT = "LPIPS per squared step"
Space = Literal["w", "z"]


def make_path_length(context: MetricContext) -> PathLength:
    """One evaluator for both spaces."""
    config = context.config
    spaces: dict[str, Space] = {"ppl_w": "w", "ppl_z": "z"}
    return PathLength(
        context.lpips(),
        [space for name, space in spaces.items() if name in context.metrics],
        samples=config.path_samples,
        crop=config.path_crop,
        batch=context.batch,
    )


def _along(name: str) -> Metric:
    reads = (*_FILES, "lpips_network", "path_samples", "path_crop")
    return Metric(
        name=name,
        unit=_UNIT,
        lower_is_better=True,
        compares="latents",
        make=make_path_length,
        needs=_FILES,
        reads=reads,
    )


PPL_W = _along("ppl_w")
PPL_Z = _along("ppl_z")


def slerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """On the unit sphere ``[N, d]``, the shares ``t`` ``[N, 1]`` of the ways from a to b."""
    a, b = (F.normalize(x, dim=1) for x in (a, b))
    cosine = (a * b).sum(1, keepdim=True).clamp(-1, 1)
    angle, across = t * torch.acos(cosine), F.normalize(b - cosine * a, dim=1)
    return F.normalize(a * torch.cos(angle) + across * torch.sin(angle), dim=1)


class PathLength:
    """LPIPS between pictures of two latents that are ``EPSILON`` of a path apart, over its square; the mean over paths.

    ``ppl_w[vgg-v0.1]``: straight paths in w, at their ends (StyleGAN2's); where there is no mapping network, in the
    generator's own latents. ``ppl_z[...]``: arcs between latents, anywhere on them (StyleGAN's). Lower is smoother. The
    smallest and the largest 1% of the paths are left out, as published. The two pictures have the same noise, the
    generator's own; published is one that is drawn anew for each batch. Pictures are not rounded to 8 bits, in which
    such neighbours would be equal.

    Args:
        samples: number of paths; latents are drawn by a fixed seed.
        crop: whether the middle of the pictures alone counts, as StyleGAN does for faces.
    """

    def __init__(
        self, lpips: Lpips, spaces: list[Space], *, samples: int = 1000, crop: bool = False, batch: int = 16
    ) -> None:
        self.lpips, self.spaces, self.samples, self.crop, self.batch = lpips, spaces, samples, crop, batch

    def __call__(self, generator: nn.Module, pairs: Pairs) -> dict[str, Score]:
        if not len(pairs):
            raise EvaluationError(f"data set {pairs.source!r} is empty; a score needs pictures")
        latents = pairs.batch(np.arange(1))[0]
        if not isinstance(latents, Tensor) or latents.ndim != 2:
            raise EvaluationError("a path length moves latents, and this generator takes pictures; leave out ppl")
        scores: dict[str, Score] = {}
        for space in self.spaces:
            metric = PPL_W if space == "w" else PPL_Z
            mapped = space == "w" and maps_latents(generator)
            provenance = provenance_of(
                pairs,
                weights=self.lpips.weights_hash[:12],
                paths=self.samples,
                space=space if mapped or space == "z" else "latents, as there is no mapping network",
                sampling="end" if space == "w" else "full",
                crop=self.crop,
                pictures="not rounded",
            )
            with torch.no_grad(), evaluating(generator):
                lengths = self._lengths(generator, latents.shape[1], space, mapped)
            scores[f"{metric.name}[{self.lpips.name}]"] = metric.score(_trimmed_mean(lengths), provenance)
        return scores

    def _lengths(self, generator: Any, width: int, space: Space, mapped: bool) -> Tensor:
        random, found, device = torch.Generator().manual_seed(0), [], device_of(generator)
        for start in range(0, self.samples, self.batch):
            count = min(self.batch, self.samples - start)
            ends = torch.randn(2 * count, width, generator=random).to(device)
            where = torch.rand(count, 1, generator=random).to(device)
            if space == "w":
                first, last = (generator.mapping(ends) if mapped else ends).chunk(2)
                moved = torch.cat([first, first.lerp(last, EPSILON)])
            else:
                first, last = ends.chunk(2)
                arcs = [slerp(first, last, share) for share in (where, where + EPSILON)]
                moved = torch.cat(arcs) * width**0.5  # as long as latents are
            images = generator(moved, input_is_latent=True) if mapped else generator(moved)
            found.append(self._distances(images.float()))
        return torch.cat(found)

    def _distances(self, images: Tensor) -> Tensor:
        if not torch.isfinite(images).all():
            raise EvaluationError("the generator's outputs hold NaN or infinity; look at its weights")
        if images.ndim != 4:
            raise EvaluationError(f"a path length compares pictures [N, C, H, W], not {list(images.shape)}")
        factor = images.shape[2] // SIDE  # of the whole picture, as published, also where it is cropped
        if self.crop:
            eighth = images.shape[2] // 8, images.shape[3] // 8
            images = images[:, :, 3 * eighth[0] : 7 * eighth[0], 2 * eighth[1] : 6 * eighth[1]]
        images = as_rgb(F.avg_pool2d(images, factor) if factor > 1 else images)
        return self.lpips(*images.chunk(2)) / EPSILON**2


def _trimmed_mean(lengths: Tensor) -> float:
    values = exact(lengths).cpu().numpy()
    low, high = np.percentile(values, 1, method="lower"), np.percentile(values, 99, method="higher")
    return float(values[(values >= low) & (values <= high)].mean())
