"""Runtimes: how a generator is written for each, and run here."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import os
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gantailor.evaluators.metrics.cost import torch_threads
from gantailor.export.devices import Device
from gantailor.export.rewrites import ExportError
from gantailor.supernet.files import write_bytes

Runner = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Target:
    """A runtime.

    Attributes:
        file: name of the model file.
        extra: what to install.
        write: writes the model; returns how much of it the fast backend runs, in words.
        load: from a file to a function that runs it.
        dynamic: whether the format has a dynamic batch.
    """

    file: str
    extra: str
    write: Callable[[nn.Module, Tensor, Path, Device], str]
    load: Callable[[Path, Device], Runner]
    dynamic: bool


@contextlib.contextmanager
def quietly(extra: str) -> Iterator[None]:
    """Without the exporters' warnings; a missing package becomes one message."""
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)  # torchvision: not needed
    for name in ("torchao", "torch.utils._pytree", "coremltools"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except ImportError as error:
            raise ExportError(
                f"{error.name or error} is not installed; run: pip install 'gantailor[{extra}]'"
            ) from None


def _batched(example: Tensor, device: Device, *, most: int) -> tuple[Tensor, Any]:
    """What an exporter traces with, and its dynamic shapes: a batch of one would be taken for a constant."""
    if device.batch == "static":
        return example, None
    return torch.cat([example, example]), ({0: torch.export.Dim("batch", min=1, max=most)},)


def _write_onnx(model: nn.Module, example: Tensor, path: Path, device: Device) -> str:
    example, dynamic = _batched(example, device, most=1024)
    with quietly("onnx"), tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        import onnx

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
            opset_version=device.opset,
            dynamic_shapes=dynamic,
        )
        nodes = len(onnx.load(file).graph.node)
        os.replace(file, path)
    return f"{nodes} of {nodes} operators in onnxruntime"


def _load_onnx(path: Path, device: Device) -> Runner:
    with quietly("onnx"):
        import onnxruntime

        onnxruntime.set_default_logger_severity(3)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = device.threads, 1
        here = [p for p in device.providers if p in onnxruntime.get_available_providers()]
        providers = [*here, *(() if "CPUExecutionProvider" in here else ("CPUExecutionProvider",))]
        session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=providers)
    return lambda x: session.run(None, {"input": x})[0]


def _write_openvino(model: nn.Module, example: Tensor, path: Path, device: Device) -> str:
    with quietly("openvino"), tempfile.TemporaryDirectory() as scratch:
        import openvino

        file = Path(scratch) / "model.onnx"
        _write_onnx(model, example, file, device)
        made = openvino.Core().read_model(file)
        target = Path(scratch) / "model.xml"
        openvino.save_model(made, target, compress_to_fp16=device.precision == "float16")
        write_bytes(path.with_suffix(".bin"), target.with_suffix(".bin").read_bytes())
        write_bytes(path, target.read_bytes())
        count = len(made.get_ordered_ops())
    return f"{count} of {count} operators in OpenVINO"


def _load_openvino(path: Path, device: Device) -> Runner:
    with quietly("openvino"):
        import openvino

        hint = "f32" if device.precision == "float32" else "f16"
        settings = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": device.threads}
        compiled = openvino.Core().compile_model(path, "CPU", settings)
    return lambda x: np.asarray(compiled(x)[0])


def exported_program(model: nn.Module, example: Tensor, device: Device) -> Any:
    """``torch.export``'s program with a static or a dynamic batch."""
    example, dynamic = _batched(example, device, most=64)
    with torch.no_grad():  # strides become part of a program, hence contiguous
        return torch.export.export(model, (example.contiguous(),), dynamic_shapes=dynamic)


def _write_executorch(model: nn.Module, example: Tensor, path: Path, device: Device) -> str:
    with quietly("executorch"), contextlib.redirect_stderr(io.StringIO()):
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

    with quietly("executorch"):
        program = exported_program(model, example, device)
        before = sum(node.op == "call_function" for node in program.graph.nodes)
        lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
        left = Counter(
            str(node.target).partition(">")[0].rpartition(": ")[2].partition(".default")[0]
            for node in lowered.exported_program().graph.nodes
            if node.op == "call_function" and "delegate" not in str(node.target) and "getitem" not in str(node.target)
        )
        write_bytes(path, lowered.to_executorch().buffer)
    outside = ", ".join(f"{count} {name}" for name, count in left.most_common(4))
    inside = max(0, before - left.total())
    return f"{inside} of {before} operators in XNNPACK" + (f", outside: {outside}" if outside else "")


def _load_executorch(path: Path, device: Device) -> Runner:
    with quietly("executorch"):
        from executorch.runtime import Runtime

        method = Runtime.get().load_program(path).load_method("forward")
    # the runtime writes every output into the same memory, hence the copy
    return lambda x: method.execute([torch.from_numpy(np.ascontiguousarray(x))])[0].numpy().copy()


def _write_torch_export(model: nn.Module, example: Tensor, path: Path, device: Device) -> str:
    program = exported_program(model, example, device)
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    write_bytes(path, buffer.getvalue())
    return "all in PyTorch"


def _load_torch_export(path: Path, device: Device) -> Runner:
    module = torch.export.load(str(path)).module()
    return _torch_runner(module, device)


def _write_torchscript(model: nn.Module, example: Tensor, path: Path, device: Device) -> str:
    logging.getLogger(__name__).warning("TorchScript is deprecated in PyTorch; device torch-export is its successor")
    buffer = io.BytesIO()
    with quietly("onnx"), torch.no_grad():
        torch.jit.save(torch.jit.trace(model, example, check_trace=False), buffer)
    write_bytes(path, buffer.getvalue())
    return "all in PyTorch"


def _load_torchscript(path: Path, device: Device) -> Runner:
    with quietly("onnx"):
        module = torch.jit.load(str(path))
    return _torch_runner(module, device)


def _torch_runner(module: Any, device: Device) -> Runner:
    def run(x: np.ndarray) -> np.ndarray:
        with torch_threads(device.threads), torch.inference_mode():
            return module(torch.from_numpy(x)).numpy()

    return run


def _write_coreml(model: nn.Module, example: Tensor, path: Path, device: Device) -> str:
    with quietly("coreml"), contextlib.redirect_stderr(io.StringIO()):
        import coremltools

        program = exported_program(model, example, device).run_decompositions({})
        made = coremltools.convert(program)
        with tempfile.TemporaryDirectory() as scratch:
            made.save(str(Path(scratch) / "model.mlpackage"))
            _zip(Path(scratch) / "model.mlpackage", path)
    return "not known before it runs on the device"


def _zip(folder: Path, path: Path) -> None:
    """A Core ML package is a folder; one file is written atomically."""
    import zipfile

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for file in sorted(p for p in folder.rglob("*") if p.is_file()):
            archive.write(file, f"{folder.name}/{file.relative_to(folder)}")
    write_bytes(path, buffer.getvalue())


def _load_coreml(path: Path, device: Device) -> Runner:
    raise ExportError("Core ML runs on Apple's devices only; copy the folder there and start its bench.py")


TARGETS: dict[str, Target] = {
    "onnxruntime": Target("model.onnx", "onnx", _write_onnx, _load_onnx, True),
    "openvino": Target("model.xml", "openvino", _write_openvino, _load_openvino, True),
    "executorch": Target("model.pte", "executorch", _write_executorch, _load_executorch, True),
    "torch-export": Target("model.pt2", "onnx", _write_torch_export, _load_torch_export, True),
    "torchscript": Target("model.pt", "onnx", _write_torchscript, _load_torchscript, True),
    "coreml": Target("model.mlpackage.zip", "coreml", _write_coreml, _load_coreml, False),
}


def check_installed(device: Device) -> None:
    """That what writes for the device is there, before anything long begins.

    Raises:
        ExportError: a package is missing; says which extra to install.
    """
    needed = {
        "onnxruntime": ("onnx", "onnxruntime", "onnxscript"),
        "openvino": ("onnx", "onnxscript", "openvino"),
        "executorch": ("executorch",),
        "coreml": ("coremltools",),
    }
    missing = [name for name in needed.get(device.runtime, ()) if importlib.util.find_spec(name) is None]
    if missing:
        raise ExportError(
            f"device {device.name!r} needs {', '.join(missing)}; run: pip install "
            f"'gantailor[{TARGETS[device.runtime].extra}]', or choose other devices"
        )
