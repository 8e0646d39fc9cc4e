"""Tensors as files have them: floating ones to float32; what cannot be a weight is named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gantailor.supernet.errors import CheckpointError
from gantailor.zoo.reading.files import SAVE


def as_float32(value: Any) -> Any:
    """Floating dense tensors as float32, in mappings and lists too; names as texts. Anything else as it is."""
    if isinstance(value, Mapping):
        return {str(name): as_float32(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [as_float32(inner) for inner in value]
    if isinstance(value, Tensor) and value.is_floating_point() and _fault(value) is None:
        return value.detach().float()
    return value


def check_tensors(state: Mapping[str, Any], source: str, expected: Mapping[str, Tensor] | None = None) -> None:
    """That every tensor can be a weight.

    Args:
        expected: the generator's tensors: where these are floating, whole numbers are a mistake.

    Raises:
        CheckpointError: names the first that cannot.
    """
    for name, value in state.items():
        if not isinstance(value, Tensor):
            continue
        fault = _fault(value)
        if fault is None and not value.is_floating_point():
            wanted = (expected or {}).get(name)
            if wanted is not None and wanted.is_floating_point():
                fault = (
                    f"holds whole numbers ({_kind(value)}), as quantised weights do; save them as float32 with {SAVE}"
                )
        elif fault is None and not bool(torch.isfinite(value).all()):
            wrong = "NaN" if bool(torch.isnan(value).any()) else "infinite values"
            fault = f"holds {wrong}: the training diverged; give a checkpoint from before that"
        if fault is not None:
            raise CheckpointError(f"{source!r}: {name!r} {fault}")


def _kind(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def _fault(value: Tensor) -> str | None:
    """Why a tensor of this kind, whatever its numbers, is no weight."""
    if value.is_complex():
        return f"is complex ({_kind(value)}); weights are real numbers: give those of the real generator"
    if value.is_quantized:
        return f"is quantised ({_kind(value)}); give the float32 weights, or save value.dequantize()"
    if value.layout != torch.strided:
        layout = str(value.layout).removeprefix("torch.")
        return f"is sparse ({layout}); save value.to_dense()"
    if value.is_meta:
        return f"has no values (it is on the meta device); save it with them: {SAVE}"
    return None
