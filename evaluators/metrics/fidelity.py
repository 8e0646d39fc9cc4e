"""How near pictures are to what they should be, pixel by pixel: the real ones, or the teacher's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gantailor.evaluators.halves import halves_of_mean
from gantailor.evaluators.metric import Metric, MetricContext
from gantailor.evaluators.pictures.rgb import as_rgb
from gantailor.evaluators.scores import Pairs, Score, provenance_of, render, to_teacher, wanted
from gantailor.supernet.device import device_of, exact, placed
from gantailor.supernet.errors import EvaluationError


def make_fidelity(context: MetricContext) -> Fidelity:
    """One pass for those that are wanted."""
    return Fidelity(context.teacher, batch=context.batch, metrics=context.metrics, halves=context.halves)


def _of_pictures(name: str, unit: str, *, lower_is_better: bool) -> Metric:
    return Metric(
        name=name, unit=unit, lower_is_better=lower_is_better, compares="pictures", make=make_fidelity, reads=()
    )


L1 = _of_pictures("l1", "of the range [-1, 1]", lower_is_better=True)
PSNR = _of_pictures("psnr", "dB", lower_is_better=False)
WINDOW = 11  # pixels, of SSIM
SSIM = _of_pictures("ssim", "at most 1", lower_is_better=False)
# As the tables of super-resolution have them.
PSNR_RGB = _of_pictures("psnr_rgb", "dB", lower_is_better=False)
SSIM_RGB = _of_pictures("ssim_rgb", "at most 1", lower_is_better=False)
PSNR_Y = _of_pictures("psnr_y", "dB", lower_is_better=False)
SSIM_Y = _of_pictures("ssim_y", "at most 1", lower_is_better=False)
FIDELITY = (L1, PSNR, SSIM, PSNR_RGB, SSIM_RGB, PSNR_Y, SSIM_Y)


def side_by_side(
    generator: nn.Module, teacher: nn.Module | None, pairs: Pairs, *, batch: int = 32
) -> Iterator[tuple[Tensor, Tensor, int]]:
    """Outputs beside what they should be: the teacher's outputs on the same inputs, or the real pictures.

    Behind them how many times as wide they are as the inputs; 1 where these are no pictures.

    Raises:
        EvaluationError: the two have different shapes.
    """
    taught = None if teacher is None else render(placed(teacher, device_of(generator)), pairs, batch=batch)
    right = None if taught is None else (outputs for _, outputs, _ in taught)
    for inputs, made, targets in render(generator, pairs, batch=batch):
        aim = next(right) if right is not None else wanted(targets)
        if made.shape != aim.shape:
            whose = "the teacher" if teacher is not None else "the data set"
            raise EvaluationError(
                f"the generator gives pictures of shape {list(made.shape[1:])}, {whose} {list(aim.shape[1:])}; "
                "only pictures of one shape compare"
            )
        yield made, aim, max(1, made.shape[3] // inputs.shape[3]) if inputs.ndim == 4 else 1


def _l1(made: Tensor, aim: Tensor, scale: int) -> Tensor:
    return (exact(made) - exact(aim)).abs().mean((1, 2, 3))


def _psnr(made: Tensor, aim: Tensor, scale: int) -> Tensor:
    error = exact(made) - exact(aim)
    return (10 * torch.log10(4 / error.square().mean((1, 2, 3)))).clamp(max=100)


def _too_small(made: Tensor) -> EvaluationError:
    sides = " x ".join(map(str, made.shape[2:]))
    return EvaluationError(
        f"SSIM compares windows of {WINDOW} x {WINDOW} pixels, pictures of {sides} have none; choose l1 or psnr, "
        "or raise data.size"
    )


def _ssim(made: Tensor, aim: Tensor, scale: int) -> Tensor:
    from torchmetrics.functional.image import structural_similarity_index_measure

    if min(made.shape[2:]) < WINDOW:
        raise _too_small(made)
    shades = ((made + 1) / 2, (aim + 1) / 2)  # SSIM compares mean brightness: black must be 0
    ssim = structural_similarity_index_measure(*shades, data_range=1.0, reduction="none")
    return exact(torch.as_tensor(ssim)).reshape(-1)


def _ssim_inside(made: Tensor, aim: Tensor, scale: int) -> Tensor:
    """SSIM of the windows that lie inside the picture, as Wang et al. 2004 and these tables count it, in float64."""
    if min(made.shape[2:]) < WINDOW:
        raise _too_small(made)
    place = torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2
    bell = torch.exp(-place.square() / (2 * 1.5**2))
    bell = bell / bell.sum()
    a, b = ((exact(images) + 1).mul(127.5).flatten(0, 1).unsqueeze(1) for images in (made, aim))
    bell = bell.to(a.device)

    def blurred(images: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(images, bell.reshape(1, 1, -1, 1)), bell.reshape(1, 1, 1, -1))

    mean_a, mean_b = blurred(a), blurred(b)
    spread_a, spread_b = blurred(a * a) - mean_a.square(), blurred(b * b) - mean_b.square()
    both = blurred(a * b) - mean_a * mean_b
    bright, contrast = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    upper = (2 * mean_a * mean_b + bright) * (2 * both + contrast)
    lower = (mean_a.square() + mean_b.square() + bright) * (spread_a + spread_b + contrast)
    return (upper / lower).reshape(*made.shape[:2], -1).mean((1, 2))


def luma(pictures: Tensor) -> Tensor:
    """The Y of ITU-R BT.601 of pictures ``[N, C, H, W]`` in [-1, 1], as ``[N, 1, H, W]`` in float64.

    ``16 + 65.481 R + 128.553 G + 24.966 B`` of 255 for R, G, B in [0, 1], so black is 16 and white 235; not rounded, as
    BasicSR counts. Grey pictures are their own.
    """
    if pictures.shape[1] == 1:
        return exact(pictures)
    red, green, blue = torch.split((exact(as_rgb(pictures)) + 1) / 2, 1, 1)
    return (16 + 65.481 * red + 128.553 * green + 24.966 * blue) / 127.5 - 1


def _inner(pictures: Tensor, scale: int) -> Tensor:
    """Without a border of ``scale`` pixels, which the tables of super-resolution do not count; whole at scale 1.

    Raises:
        EvaluationError: nothing is left.
    """
    if scale == 1:
        return pictures
    if min(pictures.shape[2:]) <= 2 * scale:
        raise EvaluationError(
            f"pictures of {' x '.join(map(str, pictures.shape[2:]))} are all border, of which {scale} pixels are not "
            "counted; choose psnr or ssim, or raise data.size"
        )
    return pictures[..., scale:-scale, scale:-scale]


def _of_tables(measure: Measure, change: Callable[[Tensor], Tensor]) -> Measure:
    def of_inner(made: Tensor, aim: Tensor, scale: int) -> Tensor:
        return measure(change(_inner(made, scale)), change(_inner(aim, scale)), scale)

    return of_inner


# A figure for each of N pictures, from two tensors [N, C, H, W] and how many times as wide as the inputs they are.
Measure = Callable[[Tensor, Tensor, int], Tensor]
MEASURES: dict[str, Measure] = {
    "l1": _l1,
    "psnr": _psnr,
    "ssim": _ssim,
    "psnr_rgb": _of_tables(_psnr, exact),
    "ssim_rgb": _of_tables(_ssim_inside, exact),
    "psnr_y": _of_tables(_psnr, luma),
    "ssim_y": _of_tables(_ssim_inside, luma),
}


def mean_score(metric: Metric, values: Tensor, provenance: dict[str, Any], halves: bool) -> Score:
    """The mean of a figure for each picture ``[N]``, and those of halves of the pictures where they are wanted."""
    each = halves_of_mean(values.cpu().numpy()) if halves else ()
    return metric.score(float(values.mean()), provenance, each)


TOGETHER = 64  # batches: each tensor takes two kilobytes beside its numbers, which stay on the device


class Fidelity:
    """L1, PSNR and SSIM, means over whole pictures; outputs in [-1, 1].

    ``l1`` of the range [-1, 1]; ``psnr`` in dB for a range of 2, each picture at most 100; ``ssim`` at most 1 (Wang et
    al. 2004; torchmetrics, Gaussian window of sigma 1.5). ``psnr_rgb``, ``ssim_rgb``, ``psnr_y`` and ``ssim_y`` as the
    tables of super-resolution have them: without a border of ``scale`` pixels, the last two of ``luma``. With a
    ``teacher`` they compare with its outputs on the same inputs and are called ``l1[teacher]`` and so on; without, with
    the real pictures.

    Args:
        metrics: names of those that are computed; SSIM takes the longest.
        halves: also of halves of the pictures.

    Raises:
        EvaluationError: shapes that differ; pictures smaller than the window of SSIM, if that is computed.
    """

    def __init__(
        self,
        teacher: nn.Module | None = None,
        *,
        batch: int = 32,
        metrics: Sequence[str] = ("l1", "psnr", "ssim"),
        halves: bool = False,
    ) -> None:
        self.teacher, self.batch, self.metrics, self.halves = teacher, batch, tuple(metrics), halves

    def __call__(self, generator: nn.Module, pairs: Pairs) -> dict[str, Score]:
        columns: dict[Metric, list[Tensor]] = {m: [] for m in FIDELITY if m.name in self.metrics}
        for made, aim, scale in side_by_side(generator, self.teacher, pairs, batch=self.batch):
            for metric, values in columns.items():
                values.append(MEASURES[metric.name](made, aim, scale))
                if len(values) == TOGETHER:
                    values[:] = [torch.cat(values)]
        provenance = provenance_of(pairs, teacher=self.teacher)
        scores = {m.name: mean_score(m, torch.cat(values), provenance, self.halves) for m, values in columns.items()}
        return scores if self.teacher is None else {to_teacher(key): score for key, score in scores.items()}
