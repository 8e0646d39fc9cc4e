"""OpenVINO's IR, by way of ONNX: Intel's CPUs."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from torch import nn

from gantailor.export.devices import Device
from gantailor.export.helpers import counted
from gantailor.export.rewrites import COMMON
from gantailor.export.target import Runner, Target
from gantailor.export.targets.onnxruntime import write_onnx
from gantailor.supernet.calling import Inputs
from gantailor.supernet.files import write_bytes


def write(model: nn.Module, example: Inputs, path: Path, device: Device) -> str:
    """Write ``model.xml`` and ``model.bin``; OpenVINO itself puts weights into float16."""
    import openvino

    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "model.onnx"
        write_onnx(model, example, file, device)
        made = openvino.Core().read_model(file)
        target = Path(scratch) / "model.xml"
        openvino.save_model(made, target, compress_to_fp16=device.precision == "float16")
        write_bytes(path.with_suffix(".bin"), target.with_suffix(".bin").read_bytes())
        write_bytes(path, target.read_bytes())
        count = len(made.get_ordered_ops())
    return f"{count} of {count} operators in OpenVINO"


def load(path: Path, device: Device) -> Runner:
    """Compiled for the CPU, in the precision of the device."""
    import numpy as np
    import openvino

    hint = "f32" if device.precision == "float32" else "f16"
    settings = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": device.threads}
    compiled = openvino.Core().compile_model(path, "CPU", settings)

    def run(*feeds: np.ndarray) -> np.ndarray:
        return np.asarray(compiled(list(feeds))[0])

    precision = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    known = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}
    processors = compiled.get_property("EXECUTION_DEVICES")
    run.__dict__["ran"] = {
        "threads": compiled.get_property("INFERENCE_NUM_THREADS"),
        "precision": known.get(precision, precision),
        "on": " ".join([processors] if isinstance(processors, str) else processors),
    }
    return run


def weights(path: Path) -> dict[str, int]:
    """Numbers of each type among the constants."""
    import openvino

    names = {"f64": "float64", "f32": "float32", "f16": "float16", "bf16": "bfloat16", "i8": "int8", "u8": "uint8"}
    constants = [op for op in openvino.Core().read_model(path).get_ordered_ops() if op.get_type_name() == "Constant"]
    ends = [op.output(0) for op in constants]
    return counted((names.get(end.element_type.get_type_name(), "other"), end.tensor.size) for end in ends)


TARGET = Target(
    name="openvino",
    file="model.xml",
    write=write,
    load=load,
    packages=("onnx", "onnxscript", "openvino"),
    extra="openvino",
    precisions=("float32", "float16"),
    dynamic=True,
    sizes="free",
    rewrites=COMMON,
    weights=weights,
)
