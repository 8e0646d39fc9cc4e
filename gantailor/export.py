"""Export of a subnet: ONNX and safetensors with a manifest, checked numerically before it is called done."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import gantailor
from evaluators.cost import measured_macs
from supernet.errors import GantailorError
from supernet.files import save_tensors, write_json
from supernet.graph import SubnetConfig
from supernet.supernet import Supernet

TOLERANCE = 1e-4


class ExportError(GantailorError):
    """A model could not be written, or differs from what it was made from."""


def export_onnx(folder: Path, narrow: nn.Module, config: SubnetConfig, supernet: Supernet, run: Any) -> dict[str, Any]:
    """Write ``model.onnx``, ``model.safetensors`` and ``manifest.json`` into a folder.

    Raises:
        ExportError: the ``onnx`` extra is missing, or the written model differs by more than 1e-4.
    """
    folder.mkdir(parents=True, exist_ok=True)
    example = torch.rand(1, *supernet.example_inputs[0].shape[1:], generator=torch.Generator().manual_seed(0)) * 2 - 1
    difference = write_onnx(folder / "model.onnx", narrow, example)
    if not difference <= TOLERANCE:
        raise ExportError(f"the ONNX model differs from PyTorch by {difference:.1e}; allowed is {TOLERANCE}")
    save_tensors(
        folder / "model.safetensors", narrow.state_dict(), {"config": dict(config), "generator": run.generator}
    )
    measured, planned = measured_macs(narrow, example), supernet.macs(config)
    if measured != planned:
        raise ExportError(f"the exported generator needs {measured} MACs, {planned} were planned")
    full = supernet.full_config()
    manifest = {
        "gantailor": gantailor.__version__,
        "generator": run.generator,
        "options": run.options,
        "config": dict(config),
        "input": {"shape": list(example.shape), "range": [-1, 1], "layout": "NCHW"},
        "macs": {c: supernet.macs(config, convention=c) for c in ("true", "published")},
        "teacher_macs": {c: supernet.macs(full, convention=c) for c in ("true", "published")},
        "parameters": supernet.parameter_count(config),
        "onnx_max_difference": difference,
        "sha256": {
            f: hashlib.sha256((folder / f).read_bytes()).hexdigest() for f in ("model.onnx", "model.safetensors")
        },
    }
    write_json(folder / "manifest.json", manifest)
    return manifest


def write_onnx(path: Path, model: nn.Module, example: torch.Tensor) -> float:
    """Write the ONNX file; the largest difference between PyTorch and onnxruntime on the example.

    Raises:
        ExportError: the ``onnx`` extra is missing.
    """
    onnxruntime = _onnxruntime()
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)  # torchvision: not needed
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file = Path(scratch) / "model.onnx"
        torch.onnx.export(
            model,
            (example,),
            str(file),
            dynamo=True,
            external_data=False,
            verbose=False,
            input_names=["input"],
            output_names=["output"],
        )
        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        output = session.run(None, {"input": example.numpy()})[0]
        os.replace(file, path)
    with torch.no_grad():
        return float(np.abs(model(example).numpy() - output).max())


def onnx_runtime(model: nn.Module, example: torch.Tensor, *, threads: int = 1) -> Callable[[], object]:
    """A function that runs the model once in onnxruntime, for timing."""
    onnxruntime = _onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        write_onnx(file, model, example)
        session = onnxruntime.InferenceSession(file.read_bytes(), options, providers=["CPUExecutionProvider"])
    feed = {"input": example.numpy()}
    return lambda: session.run(None, feed)


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise ExportError("ONNX export is not installed; run: pip install 'gantailor[onnx]'") from None
    onnxruntime.set_default_logger_severity(3)
    return onnxruntime
