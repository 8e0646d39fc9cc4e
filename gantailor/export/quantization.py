"""Eight bits after training: static quantisation with calibration pictures, sensitive layers kept in float."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from gantailor.export.devices import Device
from gantailor.export.errors import ExportError
from gantailor.export.target import find_target
from gantailor.supernet.calling import Inputs, each, forward, size_of
from gantailor.supernet.quantization.quantisers import LAYERS, Quantisers, quantise_activation, quantise_weight

GOAL = 38.0  # dB between the quantised and the float outputs, predicted; layers stay in float until it is met
KEPT = 0.1  # at most this share of the weights stays in float


def sensitivities(model: nn.Module, pictures: Inputs) -> dict[str, float]:
    """Mean squared output error when one layer alone has 8-bit weights (per channel) and inputs (per tensor).

    Args:
        pictures: ``[N, C, H, W]``, a few; of several inputs a tuple.
    """
    found: dict[str, float] = {}
    with torch.no_grad():
        expected = forward(model, pictures)
        for name, layer in model.named_modules():
            if not isinstance(layer, LAYERS):
                continue
            weight = layer.weight.detach().clone()
            handle = layer.register_forward_pre_hook(lambda _, inputs: (_rounded_input(inputs[0]), *inputs[1:]))
            try:
                channel = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
                layer.weight.data = quantise_weight(weight, channel=channel)
                found[name] = float((forward(model, pictures) - expected).square().mean())
            finally:
                handle.remove()
                layer.weight.data = weight
    return found


def _rounded_input(x: Tensor) -> Tensor:
    """Rounded to 8 bits over the range it has."""
    return quantise_activation(x, x.amin().clamp(max=0), x.amax().clamp(min=0))


def kept_in_float(model: nn.Module, pictures: Inputs) -> list[str]:
    """Layers that stay in float, the most sensitive for their size first."""
    errors = sensitivities(model, pictures)
    return most_sensitive(errors, {name: next(model.get_submodule(name).parameters()).numel() for name in errors})


def most_sensitive(errors: Mapping[str, float], sizes: Mapping[str, int]) -> list[str]:
    """Layers whose errors are largest for their numbers of weights: errors of layers add up nearly enough.

    They are taken until the rest promises ``GOAL`` dB (range of outputs: 2), or hold a tenth of the weights.

    Args:
        errors: mean squared error of the output with one layer alone in 8 bits.
    """
    allowed, left = 4 / 10 ** (GOAL / 10), sum(errors.values())
    kept: list[str] = []
    room = KEPT * sum(sizes.values())
    for name in sorted(errors, key=lambda n: -errors[n] / sizes[n]):
        if left <= allowed:
            break
        if sizes[name] <= room:
            kept.append(name)
            room -= sizes[name]
            left -= errors[name]
    return kept


def layer_names(model: nn.Module) -> dict[str, str]:
    """Every path of every module, and the first one of the same module: a shared layer has several."""
    firsts: dict[int, str] = {}
    paths = dict(model.named_modules(remove_duplicate=False))
    return {path: firsts.setdefault(id(module), path) for path, module in paths.items()}


def quantise(model: nn.Module, pictures: Inputs, path: Path, device: Device, trained: Quantisers | None = None) -> str:
    """Write an 8-bit model for the device's runtime.

    Args:
        pictures: ``[N, C, H, W]`` to calibrate with, as the generator takes them; of several inputs a tuple.
        trained: quantisers that the generator was trained with; used where the runtime's tools take ranges.

    Raises:
        ExportError: no pictures, or the runtime has no 8-bit form here.
    """
    target = find_target(device.runtime)
    if not size_of(pictures):
        raise ExportError("8 bits need pictures to calibrate with, there are none: name a data folder with train/")
    if target.quantise is None:
        raise ExportError(f"{target.name} has no 8-bit export here; it has {', '.join(target.precisions)}")
    if trained is not None and trained.bits != 8:
        raise ExportError(
            f"the generator was trained in {trained.bits} bits, {target.name} computes in 8: train with bits: 8, or "
            "choose a float device"
        )
    return target.quantise(model, each(pictures, Tensor.contiguous), path, device, trained)
