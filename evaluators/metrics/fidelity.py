"""How near pictures are to what they should be, pixel by pixel: the real ones, or the teacher's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from gantailor.evaluators.metric import Metric, MetricContext
from gantailor.evaluators.scores import Pairs, Score, provenance_of, render, to_teacher, wanted
from gantailor.supernet.device import device_of, exact, placed
from gantailor.supernet.errors import EvaluationError


def make_fidelity(context: MetricContext) -> Fidelity:
    """One pass for those of the three that are wanted."""
    return Fidelity(context.teacher, batch=context.batch, metrics=context.metrics)


L1 = Metric(name="l1", unit="of the range [-1, 1]", lower_is_better=True, compares="pictures", make=make_fidelity)
PSNR = Metric(name="psnr", unit="dB", lower_is_better=False, compares="pictures", make=make_fidelity)
WINDOW = 11  # pixels, of SSIM
SSIM = Metric(name="ssim", unit="at most 1", lower_is_better=False, compares="pictures", make=make_fidelity)


def side_by_side(
    generator: nn.Module, teacher: nn.Module | None, pairs: Pairs, *, batch: int = 32
) -> Iterator[tuple[Tensor, Tensor]]:
    """Outputs beside what they should be: the teacher's outputs on the same inputs, or the real pictures.

    Raises:
        EvaluationError: the two have different shapes.
    """
    taught = None if teacher is None else render(placed(teacher, device_of(generator)), pairs, batch=batch)
    right = None if taught is None else (outputs for _, outputs, _ in taught)
    for _, made, targets in render(generator, pairs, batch=batch):
        aim = next(right) if right is not None else wanted(targets)
        if made.shape != aim.shape:
            whose = "the teacher" if teacher is not None else "the data set"
            raise EvaluationError(
                f"the generator gives pictures of shape {list(made.shape[1:])}, {whose} {list(aim.shape[1:])}; "
                "only pictures of one shape compare"
            )
        yield made, aim


def _l1(made: Tensor, aim: Tensor) -> Tensor:
    return (exact(made) - exact(aim)).abs().mean((1, 2, 3))


def _psnr(made: Tensor, aim: Tensor) -> Tensor:
    error = exact(made) - exact(aim)
    return (10 * torch.log10(4 / error.square().mean((1, 2, 3)))).clamp(max=100)


def _ssim(made: Tensor, aim: Tensor) -> Tensor:
    from torchmetrics.functional.image import structural_similarity_index_measure

    if min(made.shape[2:]) < WINDOW:
        sides = " x ".join(map(str, made.shape[2:]))
        raise EvaluationError(
            f"ssim compares windows of {WINDOW} x {WINDOW} pixels, pictures of {sides} have none; choose l1 or psnr, "
            "or raise data.size"
        )
    shades = ((made + 1) / 2, (aim + 1) / 2)  # SSIM compares mean brightness: black must be 0
    ssim = structural_similarity_index_measure(*shades, data_range=1.0, reduction="none")
    return exact(torch.as_tensor(ssim)).reshape(-1)


# A figure for each of N pictures, from two tensors [N, C, H, W].
MEASURES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"l1": _l1, "psnr": _psnr, "ssim": _ssim}


class Fidelity:
    """L1, PSNR and SSIM, means over pictures; outputs in [-1, 1].

    ``l1`` of the range [-1, 1]; ``psnr`` in dB for a range of 2, each picture at most 100; ``ssim`` at most 1 (Wang et
    al. 2004; torchmetrics, Gaussian window of sigma 1.5). With a ``teacher`` they compare with its outputs on the same
    inputs and are called ``l1[teacher]`` and so on; without, with the real pictures.

    Args:
        metrics: names of those that are computed; SSIM takes the longest.

    Raises:
        EvaluationError: shapes that differ; pictures smaller than the window of SSIM, if that is computed.
    """

    def __init__(
        self,
        teacher: nn.Module | None = None,
        *,
        batch: int = 32,
        metrics: Sequence[str] = ("l1", "psnr", "ssim"),
    ) -> None:
        self.teacher, self.batch, self.metrics = teacher, batch, tuple(metrics)

    def __call__(self, generator: nn.Module, pairs: Pairs) -> dict[str, Score]:
        columns: dict[Metric, list[Tensor]] = {m: [] for m in (L1, PSNR, SSIM) if m.name in self.metrics}
        for made, aim in side_by_side(generator, self.teacher, pairs, batch=self.batch):
            for metric, values in columns.items():
                values.append(MEASURES[metric.name](made, aim))
        provenance = provenance_of(pairs, teacher=self.teacher)
        scores = {m.name: m.score(float(torch.cat(values).mean()), provenance) for m, values in columns.items()}
        return scores if self.teacher is None else {to_teacher(key): score for key, score in scores.items()}
