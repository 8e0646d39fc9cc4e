"""How near a subnet's pictures are to its teacher's, on the same inputs."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from evaluators.errors import EvaluationError
from evaluators.scores import Pairs, Score, render


@torch.no_grad()
def fidelity(subnet: nn.Module, teacher: nn.Module, pairs: Pairs, *, batch: int = 32) -> dict[str, Score]:
    """L1, PSNR and SSIM between the outputs of subnet and teacher, means over pictures; outputs in [-1, 1].

    ``l1[teacher]`` of the range [-1, 1]; ``psnr[teacher]`` in dB for a range of 2, each picture at most 100;
    ``ssim[teacher]`` at most 1 (Wang et al. 2004; torchmetrics, Gaussian window of sigma 1.5).

    Raises:
        EvaluationError: the two give pictures of different shapes, or there are none.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    columns: dict[str, list[torch.Tensor]] = {"l1": [], "psnr": [], "ssim": []}
    if not len(pairs):
        raise EvaluationError("fidelity needs at least one picture; the data set is empty")
    both = zip(render(subnet, pairs, batch=batch), render(teacher, pairs, batch=batch), strict=True)
    for (made, _), (wanted, _) in both:
        if made.shape != wanted.shape:
            raise EvaluationError(
                f"the subnet gives pictures of shape {list(made.shape[1:])}, the teacher {list(wanted.shape[1:])}; "
                "fidelity compares a generator with the one it was cut from"
            )
        error = made.double() - wanted.double()
        columns["l1"].append(error.abs().mean((1, 2, 3)))
        columns["psnr"].append((10 * torch.log10(4 / error.square().mean((1, 2, 3)))).clamp(max=100))
        shades = ((made + 1) / 2, (wanted + 1) / 2)  # SSIM compares mean brightness: black must be 0
        ssim = structural_similarity_index_measure(*shades, data_range=1.0, reduction="none")
        columns["ssim"].append(torch.as_tensor(ssim).double().reshape(-1))
    provenance: dict[str, Any] = {
        "reference": f"teacher on {pairs.source}",
        "reference_hash": pairs.digest(),
        "images": len(pairs),
    }
    units = {"l1": ("of the range [-1, 1]", True), "psnr": ("dB", False), "ssim": ("at most 1", False)}
    return {
        f"{name}[teacher]": Score(float(torch.cat(values).mean()), *units[name], provenance)
        for name, values in columns.items()
    }
