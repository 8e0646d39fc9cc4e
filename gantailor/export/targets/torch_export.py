"""PyTorch's exported programs (.pt2)."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from torch import nn

from gantailor.export.devices import Device
from gantailor.export.helpers import counted_state, exported_program
from gantailor.export.rewrites import in_precision
from gantailor.export.target import Runner, Target
from gantailor.supernet.calling import Inputs
from gantailor.supernet.files import write_bytes


def write(model: nn.Module, example: Inputs, path: Path, device: Device) -> str:
    """Write what ``torch.export`` traced."""
    buffer = io.BytesIO()
    program = exported_program(in_precision(model, device), example, device)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # lines of source, with their paths on this machine
    torch.export.save(program, buffer)
    write_bytes(path, buffer.getvalue())
    return "all in PyTorch"


def load(path: Path, device: Device) -> Runner:
    """The program as a module."""
    import torch

    module = torch.export.load(str(path)).module()

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


TARGET = Target(
    name="torch-export",
    file="model.pt2",
    write=write,
    load=load,
    precisions=("float32", "float16"),
    dynamic=True,
    sizes="free",
    weights=lambda path: counted_state(torch.export.load(str(path)).state_dict),
)
