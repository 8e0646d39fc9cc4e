"""How near pictures are to what they should be, pixel by pixel: the real ones, or the teacher's."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from gantailor.evaluators.errors import EvaluationError
from gantailor.evaluators.scores import Pairs, Score, provenance_of, render, wanted


def side_by_side(
    generator: nn.Module, teacher: nn.Module | None, pairs: Pairs, *, batch: int = 32
) -> Iterator[tuple[Tensor, Tensor]]:
    """Outputs beside what they should be: the teacher's outputs on the same inputs, or the real pictures.

    Raises:
        EvaluationError: the two have different shapes.
    """
    right = (outputs for _, outputs, _ in render(teacher, pairs, batch=batch)) if teacher is not None else None
    for _, made, targets in render(generator, pairs, batch=batch):
        aim = next(right) if right is not None else wanted(targets)
        if made.shape != aim.shape:
            whose = "the teacher" if teacher is not None else "the data set"
            raise EvaluationError(
                f"the generator gives pictures of shape {list(made.shape[1:])}, {whose} {list(aim.shape[1:])}; "
                "only pictures of one shape compare"
            )
        yield made, aim


class Fidelity:
    """L1, PSNR and SSIM, means over pictures; outputs in [-1, 1].

    ``l1`` of the range [-1, 1]; ``psnr`` in dB for a range of 2, each picture at most 100; ``ssim`` at most 1 (Wang et
    al. 2004; torchmetrics, Gaussian window of sigma 1.5). With a ``teacher`` they compare with its outputs on the same
    inputs and are called ``l1[teacher]`` and so on; without, with the real pictures.
    """

    units = {"l1": ("of the range [-1, 1]", True), "psnr": ("dB", False), "ssim": ("at most 1", False)}

    def __init__(self, teacher: nn.Module | None = None, *, batch: int = 32) -> None:
        self.teacher, self.batch = teacher, batch

    def __call__(self, generator: nn.Module, pairs: Pairs) -> dict[str, Score]:
        from torchmetrics.functional.image import structural_similarity_index_measure

        columns: dict[str, list[Tensor]] = {"l1": [], "psnr": [], "ssim": []}
        for made, aim in side_by_side(generator, self.teacher, pairs, batch=self.batch):
            error = made.double() - aim.double()
            columns["l1"].append(error.abs().mean((1, 2, 3)))
            columns["psnr"].append((10 * torch.log10(4 / error.square().mean((1, 2, 3)))).clamp(max=100))
            shades = ((made + 1) / 2, (aim + 1) / 2)  # SSIM compares mean brightness: black must be 0
            ssim = structural_similarity_index_measure(*shades, data_range=1.0, reduction="none")
            columns["ssim"].append(torch.as_tensor(ssim).double().reshape(-1))
        mark, provenance = "", provenance_of(pairs)
        if self.teacher is not None:
            mark, provenance["reference"] = "[teacher]", f"teacher on {pairs.source}"
        return {
            name + mark: Score(float(torch.cat(values).mean()), *self.units[name], provenance)
            for name, values in columns.items()
        }
