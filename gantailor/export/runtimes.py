"""What a forward can be timed with on this machine."""

from __future__ import annotations

import importlib.util

from gantailor.evaluators.metric import Runtime
from gantailor.evaluators.metrics.cost import torch_runtime
from gantailor.export.export import local_runtime


def latency_runtimes(threads: int) -> dict[str, Runtime]:
    """The runtimes that are installed here, by name: PyTorch, and others where their extras are there."""
    found: dict[str, Runtime] = {"torch-cpu": torch_runtime}
    if importlib.util.find_spec("onnxruntime") and importlib.util.find_spec("onnxscript"):
        found["onnxruntime-cpu"] = local_runtime("onnxruntime-cpu", threads=threads)
    if importlib.util.find_spec("openvino"):
        found["openvino"] = local_runtime("openvino", threads=threads)
    return found
