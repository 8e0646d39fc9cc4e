"""ExecuTorch programs for XNNPACK: Android and ARM."""

from __future__ import annotations

import contextlib
import io
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from gantailor.export.devices import Device
from gantailor.export.helpers import exported_program
from gantailor.export.quantization import kept_in_float, layer_names
from gantailor.export.rewrites import COMMON, instance_norms, reflection_pads
from gantailor.export.rewriting.functions import instance_norms_of_forwards
from gantailor.export.target import Runner, Target
from gantailor.supernet.calling import Inputs, forward, rows_of, size_of
from gantailor.supernet.files import write_bytes
from gantailor.supernet.quantization.quantisers import Quantisers


def write(model: nn.Module, example: Inputs, path: Path, device: Device) -> str:
    """Write a program that XNNPACK runs as far as it can; says what stays outside."""
    with contextlib.redirect_stderr(io.StringIO()):
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

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


def load(path: Path, device: Device) -> Runner:
    """The program's ``forward`` in ExecuTorch's own Python runtime."""
    import warnings

    import numpy as np
    import torch
    from executorch.extension.pybindings import portable_lib
    from executorch.runtime import Runtime

    def threads() -> int | str:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the pool is "experimental"
            known = hasattr(portable_lib, "_threadpool_get_thread_count")
            return portable_lib._threadpool_get_thread_count() if known else "unknown"

    used = portable_lib.__dict__  # the pool is the process's: another one under a loaded program ends in a crash
    if threads() not in (device.threads, "unknown") and not used.get("gantailor_has_loaded"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            portable_lib._unsafe_reset_threadpool(device.threads)
    used["gantailor_has_loaded"] = True
    method = Runtime.get().load_program(path).load_method("forward")

    def run(*feeds: np.ndarray) -> np.ndarray:
        # the runtime writes every output into the same memory, hence the copy
        made: np.ndarray = method.execute([torch.from_numpy(np.ascontiguousarray(x)) for x in feeds])[0].numpy().copy()
        return made

    run.__dict__["ran"] = {"threads": threads(), "on": "CPU"}
    return run


def quantise(model: nn.Module, pictures: Inputs, path: Path, device: Device, trained: Quantisers | None = None) -> str:
    """Write a program in 8 bits (torchao's PT2E); returns the delegate's coverage and which layers stayed in float.

    Args:
        trained: not used: PT2E measures ranges itself.
    """
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    aten = torch.ops.aten
    kept = kept_in_float(model, rows_of(pictures, slice(8)))
    paths = [path for path, first in layer_names(model).items() if first in kept]

    class Quantizer(XNNPACKQuantizer):  # type: ignore[misc,unused-ignore]
        def annotate(self, program: Any) -> Any:
            annotated = super().annotate(program)
            _leave_inputs(annotated.graph, paths)
            return annotated

    quantizer = Quantizer()  # convolutions and linear layers only: norms are lost in 8 bits
    settings = get_symmetric_quantization_config(is_per_channel=True)
    for operator in (aten.conv2d.default, aten.conv_transpose2d.input, aten.linear.default):
        quantizer.set_operator_type(operator, settings)
    quantizer.set_filter_function(lambda node: not _inside(node, paths))
    prepared = prepare_pt2e(exported_program(model, rows_of(pictures, slice(1)), device).module(), quantizer)
    with torch.no_grad():
        for row in range(size_of(pictures)):
            forward(prepared, rows_of(pictures, slice(row, row + 1)))
    coverage = write(convert_pt2e(prepared), rows_of(pictures, slice(1)), path, device)
    return f"{coverage}; kept in float: {', '.join(kept) or 'none'}"


def _inside(node: Any, names: list[str]) -> bool:
    """Whether a node of an exported program comes from one of these modules."""
    stack = [_path(str(path)) for path, _ in node.meta.get("nn_module_stack", {}).values()]
    return any(path == name for path in stack for name in names)


def _leave_inputs(graph: Any, kept: list[str]) -> None:
    """What enters a layer that stays in float is not rounded either: by nobody on the way back to the last layers."""
    for node in graph.nodes:
        if node.op != "call_function" or not _inside(node, kept):
            continue
        before, seen = list(node.all_input_nodes[:1]), set[Any]()
        while before:
            source = before.pop()
            if source in seen or _inside(source, kept):
                continue
            seen.add(source)
            annotation = source.meta.get("quantization_annotation")
            if annotation is not None and annotation.output_qspec is not None:
                annotation.output_qspec = None
            else:
                before += source.all_input_nodes


def _path(written: str) -> str:
    """A module's path as ``named_modules`` has it, from what ``torch.export`` keeps: ``L['self'].a.b``, ``a.b``."""
    return re.sub(r"^L\['\w+'\]\.?", "", written)


TARGET = Target(
    name="executorch",
    file="model.pte",
    write=write,
    load=load,
    packages=("executorch",),
    extra="executorch",
    precisions=("float32", "int8"),  # XNNPACK's serialiser stores the weights of a half model in float32
    dynamic=True,
    sizes="bounded",
    rewrites=(*COMMON, instance_norms, reflection_pads, instance_norms_of_forwards),
    quantise=quantise,
)
