"""Activation ranges of quantization-aware training, between trainings and exports: stored beside the weights."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from gantailor.supernet.files import write_json
from gantailor.supernet.quantization.quantisers import Quantised, Quantisers, Ranges
from gantailor.supernet.received.documents import read_json
from gantailor.supernet.training.recipe import Recipe


def make_quantisers(model: nn.Module, recipe: Recipe) -> Quantisers | None:
    """The recipe's quantisers for a generator, or None where it trains in float."""
    if not recipe.bits:
        return None
    return Quantisers(model, bits=recipe.bits, per_channel=recipe.weights_per_channel, ranges=recipe.ranges)


def save_activation_ranges(path: Path, quantisers: Quantisers) -> None:
    """Write what an export in 8 bits needs of a quantised training."""
    found = {"bits": quantisers.bits, "per_channel": quantisers.per_channel, "ranges": quantisers.found()}
    write_json(path, found)


def set_activation_ranges(quantisers: Quantisers, path: Path) -> None:
    """Begin where another training of these layers ended, if it left its ranges."""
    if path.exists():
        quantisers.set(read_json(path)["ranges"])


def load_quantisers(path: Path, model: nn.Module) -> Quantisers | None:
    """The quantisers that a training left behind, in eval mode; None where there are none."""
    if not path.exists():
        return None
    stored = read_json(path)
    ranges: Ranges = "calibrated" if "output" in stored["ranges"] else "published"
    quantisers = Quantisers(model, bits=stored["bits"], per_channel=stored["per_channel"], ranges=ranges)
    set_activation_ranges(quantisers, path)
    return quantisers.eval()


def load_fake_quantized(path: Path, model: nn.Module) -> Quantised | None:
    """The model computing as those quantisers do; None where there are none."""
    quantisers = load_quantisers(path, model)
    return None if quantisers is None else Quantised(model, quantisers)
