"""The runtimes that generators are exported for, by the name that a device profile gives them; nothing is imported."""

from __future__ import annotations

TARGETS: dict[str, str] = {
    "onnxruntime": "gantailor.export.targets.onnxruntime:TARGET",
    "openvino": "gantailor.export.targets.openvino:TARGET",
    "executorch": "gantailor.export.targets.executorch:TARGET",
    "torch-export": "gantailor.export.targets.torch_export:TARGET",
    "torchscript": "gantailor.export.targets.torchscript:TARGET",
    "ncnn": "gantailor.export.targets.ncnn:TARGET",
    "litert": "gantailor.export.targets.litert:TARGET",
    "coreml": "gantailor.export.targets.coreml:TARGET",
}
