"""TorchScript, which PyTorch deprecates."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import numpy as np
import torch
from torch import nn

from gantailor.export.devices import Device
from gantailor.export.helpers import counted_state
from gantailor.export.rewrites import in_precision
from gantailor.export.target import Runner, Target
from gantailor.supernet.calling import Inputs
from gantailor.supernet.files import write_bytes


def write(model: nn.Module, example: Inputs, path: Path, device: Device) -> str:
    """Write a trace."""
    logging.getLogger(__name__).warning("TorchScript is deprecated in PyTorch; device torch-export is its successor")
    buffer = io.BytesIO()
    with torch.no_grad():
        traced = torch.jit.trace(in_precision(model, device), example, check_trace=False)  # type: ignore[no-untyped-call]
        torch.jit.save(traced, buffer)
    write_bytes(path, buffer.getvalue())
    return "all in PyTorch"


def load(path: Path, device: Device) -> Runner:
    """The trace as a module."""
    import torch

    module = torch.jit.load(str(path))  # type: ignore[no-untyped-call]

    def run(*feeds: np.ndarray) -> np.ndarray:
        before = torch.get_num_threads()
        torch.set_num_threads(device.threads)
        run.__dict__["ran"] = {"threads": torch.get_num_threads(), "on": "CPU"}
        try:
            with torch.inference_mode():
                output: np.ndarray = module(*map(torch.from_numpy, feeds)).numpy()
                return output
        finally:
            torch.set_num_threads(before)

    return run


def weights(path: Path) -> dict[str, int]:
    """Numbers of each type in the state."""
    return counted_state(torch.jit.load(str(path)).state_dict())  # type: ignore[no-untyped-call]


TARGET = Target(
    name="torchscript",
    file="model.pt",
    write=write,
    load=load,
    precisions=("float32", "float16"),
    dynamic=True,
    sizes="free",
    weights=weights,
)
