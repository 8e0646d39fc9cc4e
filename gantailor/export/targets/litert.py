"""LiteRT's files (TFLite), for Android. Its converter wants older packages beside it than ours: see docs/devices.md."""

from __future__ import annotations

import contextlib
import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from gantailor.export.devices import Device
from gantailor.export.rewrites import COMMON, output_paddings
from gantailor.export.target import Runner, Target
from gantailor.supernet.calling import Inputs, as_tuple, rows_of, size_of
from gantailor.supernet.files import write_bytes
from gantailor.supernet.quantization.quantisers import Quantisers

LAYERS = ("CONV_2D", "DEPTHWISE_CONV_2D", "CONV_2D_TRANSPOSE", "FULLY_CONNECTED")  # that have other types
SIGNATURE = "serving_default"


def write(model: nn.Module, example: Inputs, path: Path, device: Device) -> str:
    """Write a flatbuffer; in float16 the weights of layers are, and are computed with in float32 on a CPU."""
    content, told = _converted(model, example)
    if device.precision == "float16":
        quantizer = _quantizer(content, half=True)
        content = _quantised(quantizer, None)
    write_bytes(path, content)
    return told


def quantise(model: nn.Module, pictures: Inputs, path: Path, device: Device, trained: Quantisers | None = None) -> str:
    """Write layers with int8 weights by channel and int8 inputs; norms and all else stay in float.

    Args:
        trained: not used: the quantiser measures ranges itself.
    """
    content, told = _converted(model, rows_of(pictures, slice(1)))
    fed = [
        {f"args_{place}": one[row : row + 1].numpy() for place, one in enumerate(as_tuple(pictures))}
        for row in range(size_of(pictures))
    ]
    quantizer = _quantizer(content, half=False)
    with contextlib.redirect_stdout(io.StringIO()):
        ranges = quantizer.calibrate({SIGNATURE: fed}, num_threads=1)
    write_bytes(path, _quantised(quantizer, ranges))
    return f"{told}; kept in float: none"


def _converted(model: nn.Module, example: Inputs) -> tuple[bytes, str]:
    """The flatbuffer in float32, and how much of it LiteRT runs."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        import litert_torch

        made = litert_torch.convert(model, as_tuple(example))
        with tempfile.TemporaryDirectory() as scratch:
            file = Path(scratch) / "model.tflite"
            made.export(str(file))
            return file.read_bytes(), "all in LiteRT"


def _quantizer(content: bytes, *, half: bool) -> Any:
    from ai_edge_quantizer import quantizer
    from ai_edge_quantizer.algorithm_manager import AlgorithmName
    from ai_edge_quantizer.qtyping import ComputePrecision, OpQuantizationConfig, TensorDataType
    from ai_edge_quantizer.qtyping import TensorQuantizationConfig as Tensors
    from ai_edge_quantizer.qtyping import TFLOperationName as Names

    found = quantizer.Quantizer(bytearray(content))
    for name in LAYERS:
        operation = getattr(Names, name)
        if half:
            numbers = OpQuantizationConfig(
                weight_tensor_config=Tensors(num_bits=16, dtype=TensorDataType.FLOAT),
                compute_precision=ComputePrecision.FLOAT,
                explicit_dequantize=True,
            )
            found.update_quantization_recipe(".*", operation, numbers, AlgorithmName.FLOAT_CASTING)
        else:
            found.add_static_config(".*", operation, activation_num_bits=8, weight_num_bits=8)
    return found


def _quantised(quantizer: Any, ranges: Any) -> bytes:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return bytes(
            quantizer.quantize(ranges, enable_progress_bar=False, enable_progress_report=False).quantized_model
        )


def load(path: Path, device: Device) -> Runner:
    """LiteRT's interpreter on the CPU, with XNNPACK."""
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=device.threads)
    interpreter.allocate_tensors()
    ((_, ends),) = interpreter.get_signature_list().items()
    call = interpreter.get_signature_runner()
    names = sorted(ends["inputs"], key=lambda name: int(name.rpartition("_")[2]))

    def run(*feeds: np.ndarray) -> np.ndarray:
        made = call(**{name: np.ascontiguousarray(feed) for name, feed in zip(names, feeds, strict=True)})
        return np.array(made[ends["outputs"][0]], np.float32)

    run.__dict__["ran"] = {"threads": device.threads, "on": "CPU"}
    return run


TARGET = Target(
    name="litert",
    file="model.tflite",
    write=write,
    load=load,
    packages=("litert_torch", "ai_edge_quantizer", "ai_edge_litert"),
    extra="litert",
    precisions=("float32", "float16", "int8"),
    rewrites=(*COMMON, output_paddings),
    quantise=quantise,
    ends=("args_0", "output_0"),
)
