"""Eight bits after training: static quantisation with calibration pictures, sensitive layers kept in float."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gantailor.export.devices import Device
from gantailor.export.rewrites import ExportError
from gantailor.export.targets import TARGETS, exported_program, quietly
from gantailor.supernet.files import write_bytes
from gantailor.supernet.quantization.quantisers import LAYERS, Quantisers, quantise_activation, quantise_weight

GOAL = 38.0  # dB between the quantised and the float outputs, predicted; layers stay in float until it is met
KEPT = 0.1  # at most this share of the weights stays in float


def sensitivities(model: nn.Module, pictures: Tensor) -> dict[str, float]:
    """Mean squared output error when one layer alone has 8-bit weights (per channel) and inputs (per tensor).

    Args:
        pictures: ``[N, C, H, W]``, a few.
    """
    found: dict[str, float] = {}
    with torch.no_grad():
        expected = model(pictures)
        for name, layer in model.named_modules():
            if not isinstance(layer, LAYERS):
                continue
            weight = layer.weight.detach().clone()
            handle = layer.register_forward_pre_hook(lambda _, inputs: (_rounded_input(inputs[0]), *inputs[1:]))
            try:
                channel = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
                layer.weight.data = quantise_weight(weight, channel=channel)
                found[name] = float((model(pictures) - expected).square().mean())
            finally:
                handle.remove()
                layer.weight.data = weight
    return found


def _rounded_input(x: Tensor) -> Tensor:
    """Rounded to 8 bits over the range it has."""
    return quantise_activation(x, x.amin().clamp(max=0), x.amax().clamp(min=0))


def kept_in_float(model: nn.Module, pictures: Tensor) -> list[str]:
    """Layers that stay in float, the most sensitive for their size first: errors of layers add up nearly enough.

    They are taken until the rest promises ``GOAL`` dB (range of outputs: 2), or hold a tenth of the weights.
    """
    errors = sensitivities(model, pictures)
    sizes = {name: next(model.get_submodule(name).parameters()).numel() for name in errors}
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


def quantise_onnx(
    model: nn.Module, pictures: Tensor, path: Path, device: Device, trained: Quantisers | None = None
) -> str:
    """Write an ONNX file with QDQ nodes; returns which layers stayed in float.

    With ``trained`` quantisers none does, and the layers' inputs have the ranges of the training.

    Raises:
        ExportError: nothing to calibrate with, or the extra is missing.
    """
    kept = [] if trained else kept_in_float(model, pictures[:8])
    with quietly("onnx"), tempfile.TemporaryDirectory() as scratch:
        import onnx
        from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process

        class Reader(CalibrationDataReader):  # type: ignore[misc]
            def __init__(self) -> None:
                self.left: Iterator[np.ndarray] = iter(pictures.numpy())

            def get_next(self) -> Any:
                picture = next(self.left, None)
                return None if picture is None else {"input": picture[None]}

        raw, ready, file = (Path(scratch) / name for name in ("raw.onnx", "ready.onnx", "model.onnx"))
        TARGETS["onnxruntime"].write(model, pictures[:1], raw, device.model_copy(update={"precision": "float32"}))
        quant_pre_process(raw, ready, skip_symbolic_shape=True)
        graph = onnx.load(ready).graph
        weights = {f"{name}.weight" for name in kept}
        left_out = [node.name for node in graph.node if weights & set(node.input)]
        ranges = _onnx_ranges(graph, trained) if trained else {}
        overrides = {name: [{"quant_type": QuantType.QUInt8, **range_}] for name, range_ in ranges.items()}
        quantize_static(
            ready,
            file,
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=trained.per_channel if trained else True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=left_out,
            op_types_to_quantize=["Conv", "ConvTranspose", "Gemm", "MatMul"],
            extra_options={"ActivationSymmetric": False, "TensorQuantOverrides": overrides},
        )
        write_bytes(path, file.read_bytes())
    return "ranges of the training" if trained else f"kept in float: {', '.join(kept) or 'none'}"


def _onnx_ranges(graph: Any, trained: Quantisers) -> dict[str, dict[str, Any]]:
    """For each tensor that enters or leaves a quantised layer the range of the training, the widest of its readers'.

    A tensor that one layer writes and the next reads has one range already (``Quantisers.rounding``).
    """
    found: dict[str, dict[str, Any]] = {}
    for end, by_layer in trained.found().items():
        for layer, (low, high) in by_layer.items():
            for node in graph.node:
                if f"{layer}.weight" not in node.input:
                    continue
                tensor = node.input[0] if end == "input" else node.output[0]
                known = found.get(tensor, {"rmin": 0.0, "rmax": 0.0})
                wide = {"rmin": min(known["rmin"], low), "rmax": max(known["rmax"], high)}
                found[tensor] = {name: np.array(value, np.float32) for name, value in wide.items()}
    return found


def quantise_executorch(model: nn.Module, pictures: Tensor, path: Path, device: Device) -> str:
    """Write an ExecuTorch program for XNNPACK in 8 bits (torchao's PT2E); returns the delegate's coverage."""
    with quietly("executorch"):
        from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
            XNNPACKQuantizer,
            get_symmetric_quantization_config,
        )
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

        aten = torch.ops.aten
        kept = kept_in_float(model, pictures[:8])
        quantizer = XNNPACKQuantizer()  # convolutions and linear layers only: norms are lost in 8 bits
        settings = get_symmetric_quantization_config(is_per_channel=True)
        for operator in (aten.conv2d.default, aten.conv_transpose2d.input, aten.linear.default):
            quantizer.set_operator_type(operator, settings)
        quantizer.set_filter_function(lambda node: not _inside(node, kept))
        program = exported_program(model, pictures[:1], device).module()
        prepared = prepare_pt2e(program, quantizer)
        with torch.no_grad():
            for picture in pictures:
                prepared(picture[None])
        converted = convert_pt2e(prepared)
        coverage = TARGETS["executorch"].write(converted, pictures[:1], path, device)
    return f"{coverage}; kept in float: {', '.join(kept) or 'none'}"


def _inside(node: Any, names: list[str]) -> bool:
    """Whether a node of an exported program comes from one of these modules."""
    stack = [str(path) for path, _ in node.meta.get("nn_module_stack", {}).values()]
    return any(path == name or path.endswith(f".{name}") for path in stack for name in names)


QUANTISERS = {"onnxruntime": quantise_onnx, "executorch": quantise_executorch}


def quantise(model: nn.Module, pictures: Tensor, path: Path, device: Device, trained: Quantisers | None = None) -> str:
    """Write an 8-bit model for the device's runtime.

    Args:
        pictures: ``[N, C, H, W]`` to calibrate with, as the generator takes them.
        trained: quantisers that the generator was trained with; used where the runtime's tools take ranges.

    Raises:
        ExportError: no pictures, or the runtime has no 8-bit form here.
    """
    if not len(pictures):
        raise ExportError("8 bits need pictures to calibrate with, there are none: name a data folder with train/")
    if device.runtime not in QUANTISERS:
        raise ExportError(f"{device.runtime} has no 8-bit export here; there is one for {', '.join(QUANTISERS)}")
    if trained is not None and trained.bits != 8:
        raise ExportError(
            f"the generator was trained in {trained.bits} bits, {device.runtime} computes in 8: train with bits: 8, or "
            "choose a float device"
        )
    if trained is not None and device.runtime == "onnxruntime":
        return quantise_onnx(model, pictures.contiguous(), path, device, trained)
    return QUANTISERS[device.runtime](model, pictures.contiguous(), path, device)
