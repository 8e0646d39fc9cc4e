"""ONNX files for onnxruntime: CPUs, and the GPUs that its providers know."""

from __future__ import annotations

import ast
import platform
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import gantailor
from gantailor.export.devices import Device
from gantailor.export.helpers import batched, counted, free_sizes
from gantailor.export.quantization import kept_in_float, layer_names
from gantailor.export.rewrites import COMMON, in_precision
from gantailor.export.rewriting.functions import as_onnx_has_it
from gantailor.export.target import Runner, Target
from gantailor.supernet.calling import Inputs, as_tuple, input_names, rows_of, size_of
from gantailor.supernet.files import write_bytes
from gantailor.supernet.quantization.quantisers import Quantisers

OPERATORS = ("Conv", "ConvTranspose", "Gemm", "MatMul")  # that are quantised


def write_onnx(model: nn.Module, example: Inputs, path: Path, device: Device) -> str:
    """Write an ONNX file in the types that the model has.

    ``input`` and ``output`` are its ends; several inputs have the names of the forward's arguments.
    """
    import onnx

    names = _names(model, example)
    given, dynamic = batched(model, example, device, most=1024)
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        file = Path(scratch) / "model.onnx"
        with free_sizes(device), as_onnx_has_it():
            torch.onnx.export(
                model,
                given,
                str(file),
                dynamo=True,
                external_data=False,
                verbose=False,
                input_names=names,
                output_names=["output"],
                opset_version=device.opset,
                dynamic_shapes=dynamic,
            )
        whole = onnx.load(file)
        nodes = len(whole.graph.node)
        _forget_places(whole)
        onnx.save(whole, file)
        Path(file).replace(path)
    return f"{nodes} of {nodes} operators in onnxruntime"


def _forget_places(model: Any) -> None:
    """Leave out the lines of source that PyTorch notes at each node: paths of this machine, a half of a small file."""
    graphs = [model.graph, *model.functions]
    for node in (node for graph in graphs for node in graph.node):
        kept = [(entry.key, entry.value) for entry in node.metadata_props if not entry.key.endswith("stack_trace")]
        del node.metadata_props[:]
        for key, value in kept:
            node.metadata_props.add(key=key, value=value)


def _names(model: nn.Module, example: Inputs) -> list[str]:
    return list(input_names(model, len(example))) if isinstance(example, tuple) and len(example) > 1 else ["input"]


def write(model: nn.Module, example: Inputs, path: Path, device: Device) -> str:
    """Write an ONNX file; in float16 its weights and operators are, with casts at its ends."""
    return write_onnx(in_precision(model, device), example, path, device)


def load(path: Path, device: Device) -> Runner:
    """A session with those of the device's providers that are here, else on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads, options.inter_op_num_threads = device.threads, 1
    here = [p for p in device.providers if p in onnxruntime.get_available_providers()]
    providers = [*here, *(() if "CPUExecutionProvider" in here else ("CPUExecutionProvider",))]
    session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=providers)
    names = [end.name for end in session.get_inputs()]

    def run(*feeds: np.ndarray) -> np.ndarray:
        made: np.ndarray = session.run(None, dict(zip(names, feeds, strict=True)))[0]
        return made

    threads = session.get_session_options().intra_op_num_threads
    run.__dict__["ran"] = {"threads": threads, "on": session.get_providers()[0]}
    return run


def overflows() -> bool:
    """Whether this processor adds pairs of products of 8 bits in 16, where they are cut off: one of x86 without VNNI.

    onnxruntime's documentation then advises weights of 7 bits, which hold everywhere.
    """
    told = Path("/proc/cpuinfo")
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    return x86 and told.exists() and "vnni" not in told.read_text(encoding="utf8", errors="replace")


def quantise(model: nn.Module, pictures: Inputs, path: Path, device: Device, trained: Quantisers | None = None) -> str:
    """Write an ONNX file with QDQ nodes; returns which layers stayed in float.

    With ``trained`` quantisers only what onnxruntime cannot quantise does, and inputs have the ranges of the training.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    narrow, kept = overflows(), [] if trained else kept_in_float(model, rows_of(pictures, slice(8)))
    with tempfile.TemporaryDirectory() as scratch:
        raw, ready, file = (Path(scratch) / name for name in ("raw.onnx", "ready.onnx", "model.onnx"))
        write_onnx(model, rows_of(pictures, slice(1)), raw, device)
        quant_pre_process(raw, ready, skip_symbolic_shape=True)
        graph = onnx.load(ready).graph
        layers = _layers(onnx.load(raw).graph, graph, layer_names(model))
        kept += sorted({layers[node] for node in _unquantisable(graph) if node in layers} - set(kept))
        left_out = [*_unquantisable(graph), *(node for node, layer in layers.items() if layer in kept)]
        ranges = _ranges(graph, trained, layers) if trained else {}
        overrides = {name: [{"quant_type": QuantType.QUInt8, **range_}] for name, range_ in ranges.items()}
        quantize_static(
            ready,
            file,
            _reader(pictures, _names(model, pictures)),
            quant_format=QuantFormat.QDQ,
            per_channel=trained.per_channel if trained else True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            reduce_range=narrow,
            nodes_to_exclude=left_out,
            op_types_to_quantize=list(OPERATORS),
            extra_options={"ActivationSymmetric": False, "TensorQuantOverrides": overrides},
        )
        write_bytes(path, file.read_bytes())
    told = ["ranges of the training"] if trained else []
    told += [f"kept in float: {', '.join(kept) or 'none'}"] if kept or narrow or not trained else []
    return ", ".join([*told, *(["weights of 7 bits: this processor has no VNNI"] if narrow else [])])


def _layers(raw: Any, ready: Any, names: dict[str, str]) -> dict[str, str]:
    """Which module each node of the prepared graph comes from, by the node's name.

    Weights do not tell: they are transposed, folded and renamed on the way. The exporter notes the modules around each
    node; preparing drops the notes, and keeps the node's name in front of its own.
    """
    found: dict[str, str] = {}
    for node in raw.node:
        notes = [entry.value for entry in node.metadata_props if entry.key.endswith("name_scopes")]
        modules = [scope for scope in ast.literal_eval(notes[0]) if scope in names] if notes else []
        if modules:
            found[node.name] = names[modules[-1]]
    bases = {node.name: node.name.partition("/")[0] for node in ready.node if node.op_type in OPERATORS}
    return {name: found[base] for name, base in bases.items() if base in found}


def _unquantisable(graph: Any) -> list[str]:
    """Transposed convolutions in groups of several outputs, with a bias: onnxruntime has no scales for that bias."""
    shapes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    grouped = [
        node
        for node in graph.node
        if node.op_type == "ConvTranspose" and any(a.name == "group" and a.i > 1 for a in node.attribute)
    ]
    return [node.name for node in grouped if len(node.input) > 2 and shapes.get(node.input[1], [0, 0])[1] != 1]


def _reader(pictures: Inputs, names: list[str]) -> Any:
    """onnxruntime's way to be given one picture after another."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left: Iterator[int] = iter(range(size_of(pictures)))

        def get_next(self) -> Any:
            row = next(self.left, None)
            if row is None:
                return None
            return {name: one[row : row + 1].numpy() for name, one in zip(names, as_tuple(pictures), strict=True)}

    return Reader()


def _ranges(graph: Any, trained: Quantisers, layers: dict[str, str]) -> dict[str, dict[str, Any]]:
    """For each tensor that enters or leaves a quantised layer the range of the training, the widest of its readers'.

    A tensor that one layer writes and the next reads has one range already (``Quantisers.rounding``).
    """
    found: dict[str, dict[str, Any]] = {}
    for end, by_layer in trained.found().items():
        for layer, (low, high) in by_layer.items():
            for node in graph.node:
                if layers.get(node.name) != layer:
                    continue
                tensor = node.input[0] if end == "input" else node.output[0]
                known = found.get(tensor, {"rmin": 0.0, "rmax": 0.0})
                wide = {"rmin": min(known["rmin"], low), "rmax": max(known["rmax"], high)}
                found[tensor] = {name: np.array(value, np.float32) for name, value in wide.items()}
    return found


def describe(path: Path, texts: Mapping[str, str]) -> None:
    """Put them into the file's ``metadata_props``, which sessions hand out as ``custom_metadata_map``."""
    import onnx

    model = onnx.load(path)
    onnx.helper.set_model_props(model, dict(texts))
    model.producer_name, model.producer_version = "gantailor", gantailor.__version__
    write_bytes(path, model.SerializeToString())


def weights(path: Path) -> dict[str, int]:
    """Numbers of each type among the initialisers."""
    import onnx

    kinds = onnx.TensorProto.DataType
    found = onnx.load(path).graph.initializer
    return counted((_TYPES.get(kinds.Name(t.data_type), "other"), int(np.prod(t.dims))) for t in found)


_TYPES = {
    "DOUBLE": "float64",
    "FLOAT": "float32",
    "FLOAT16": "float16",
    "BFLOAT16": "bfloat16",
    "INT8": "int8",
    "UINT8": "uint8",
}

TARGET = Target(
    name="onnxruntime",
    file="model.onnx",
    write=write,
    load=load,
    packages=("onnx", "onnxruntime", "onnxscript"),
    extra="onnx",
    precisions=("float32", "float16", "int8"),
    dynamic=True,
    sizes="free",
    rewrites=COMMON,
    quantise=quantise,
    timed_here=lambda device: "CPUExecutionProvider" in device.providers,  # a CUDA device's file runs on the CPU too
    describe=describe,
    weights=weights,
)
