"""ncnn's files: Android, ARM, and Vulkan's GPUs."""

from __future__ import annotations

import subprocess
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from torch import nn

from gantailor.export.devices import Device
from gantailor.export.errors import ExportError
from gantailor.export.helpers import counted
from gantailor.export.rewrites import COMMON, subpixel_convolutions
from gantailor.export.rewriting.functions import deviations_of_forwards
from gantailor.export.sides import at_sides, sides_of
from gantailor.export.target import Runner, Target
from gantailor.export.targets.ncnn_files import Layer, arrays_of, layers_text, read_layers, renamed
from gantailor.export.targets.ncnn_int8 import in_eight_bits
from gantailor.supernet.calling import Inputs, as_tuple, input_names, rows_of, size_of
from gantailor.supernet.files import write_bytes
from gantailor.supernet.quantization.quantisers import Quantisers
from gantailor.supernet.subnets.copying import copied

INPUT, OUTPUT = "data", "output"  # as the apps call them that run super-resolution


def write(model: nn.Module, example: Inputs, path: Path, device: Device) -> str:
    """Write ``model.param`` and ``model.bin``; in float16 their weights are.

    The ends are ``data`` and ``output``; several inputs have the names of the forward's arguments.
    """
    return _write_files(path, *_converted(model, example, device))


def quantise(model: nn.Module, pictures: Inputs, path: Path, device: Device, trained: Quantisers | None = None) -> str:
    """Write ``model.param`` and ``model.bin`` in 8 bits; returns which layers stayed in float.

    Transposed convolutions, which ncnn has in float alone, become convolutions.

    Args:
        trained: not used: ranges are those at ncnn's own layers.
    """
    made = subpixel_convolutions(copied(model))
    layers, content = _converted(made, rows_of(pictures, slice(1)), device)
    fed = [tuple(one[row].numpy() for one in as_tuple(pictures)) for row in range(size_of(pictures))]
    layers, content, kept = in_eight_bits(layers, content, fed)
    return f"{_write_files(path, layers, content)}; kept in float: {', '.join(kept) or 'none'}"


def _write_files(path: Path, layers: list[Layer], content: bytes) -> str:
    write_bytes(path.with_suffix(".bin"), content)
    write_bytes(path, layers_text(layers).encode())
    return f"{len(layers)} of {len(layers)} layers in ncnn"


def _converted(model: nn.Module, example: Inputs, device: Device) -> tuple[list[Layer], bytes]:
    """The model as ncnn's layers, and the numbers that they hold.

    Raises:
        ExportError: ncnn has no layer for an operation.
    """
    given = as_tuple(example)
    with tempfile.TemporaryDirectory() as scratch, torch.no_grad():
        file = Path(scratch) / "model.pt"
        torch.jit.trace(model, given, check_trace=False).save(str(file))  # type: ignore[no-untyped-call]
        layers, content = _by_pnnx(file, device, given)
        if device.size == "dynamic":
            height, width = (side + 2 * device.size_multiple for side in sides_of(example))
            free = _by_pnnx(file, device, given, as_tuple(at_sides(example, (height, width))))
            if _crops(free[0]) == _crops(layers):  # given two sizes, pnnx may take a slice for nothing
                layers, content = free
    unknown = Counter(layer.kind for layer in layers if not layer.kind.isalnum())  # these keep PyTorch's names
    if unknown:
        told = ", ".join(f"{count} {kind}" for kind, count in unknown.most_common(4))
        raise ExportError(
            f"device {device.name!r}: ncnn has no layer for {told}; choose another device, or write that otherwise"
        )
    names = [INPUT] if len(given) == 1 else input_names(model, len(given))
    ends = {f"in{number}": name for number, name in enumerate(names)} | {"out0": OUTPUT}
    return renamed(layers, ends), content


def _by_pnnx(file: Path, device: Device, *sizes: tuple[torch.Tensor, ...]) -> tuple[list[Layer], bytes]:
    """What pnnx makes of a TorchScript file, for inputs of one size or of any, for which it sees two."""
    import pnnx

    shapes = [",".join(f"[{','.join(map(str, one.shape))}]f32" for one in given) for given in sizes]
    options = [f"inputshape{number or ''}={shape}" for number, shape in zip((0, 2), shapes, strict=False)]
    command = [pnnx.EXEC_PATH, file.name, *options, f"fp16={int(device.precision == 'float16')}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=file.parent, check=False)
    param = file.with_suffix(".ncnn.param")
    if done.returncode or not param.exists():
        raise ExportError(
            f"device {device.name!r}: pnnx cannot convert this generator (status {done.returncode}, "
            f"{_last_line(done.stderr)}); choose another device"
        )
    return read_layers(param.read_text()), file.with_suffix(".ncnn.bin").read_bytes()


def _crops(layers: list[Layer]) -> int:
    return sum(layer.kind == "Crop" for layer in layers)


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "it says nothing")


def load(path: Path, device: Device) -> Runner:
    """A net on the CPU, in the precision of the device; float32 is computed in that throughout."""
    import ncnn
    import numpy as np

    net = ncnn.Net()
    net.opt.num_threads = device.threads
    net.opt.use_vulkan_compute = False
    half = device.precision == "float16"
    for name in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic"):
        setattr(net.opt, name, half)
    for name in ("use_bf16_packed", "use_bf16_storage"):
        setattr(net.opt, name, False)
    if net.load_param(str(path)) or net.load_model(str(path.with_suffix(".bin"))):
        raise ValueError(f"ncnn cannot read {str(path)!r} and the .bin beside it")
    names, (output,) = net.input_names(), net.output_names()

    def run(*feeds: np.ndarray) -> np.ndarray:
        extractor = net.create_extractor()
        for name, feed in zip(names, feeds, strict=True):
            held = np.ascontiguousarray(feed[0])  # a Mat keeps no hold of the array that it was made of
            extractor.input(name, ncnn.Mat(held).clone())
        status, made = extractor.extract(output)
        if status:
            raise ValueError(f"ncnn ends with status {status}")
        return np.array(made)[None]

    run.__dict__["ran"] = {"threads": net.opt.num_threads, "on": "CPU"}
    return run


def weights(path: Path) -> dict[str, int]:
    """Numbers of each type in the ``.bin`` file; none where a layer is unknown here."""
    layers, content = read_layers(path.read_text()), path.with_suffix(".bin").read_bytes()
    try:
        found = arrays_of(layers, content)
    except ExportError:
        return {}
    return counted((str(array.dtype), array.size) for arrays in found.values() for array in arrays)


TARGET = Target(
    name="ncnn",
    file="model.param",
    write=write,
    load=load,
    packages=("pnnx", "ncnn"),
    extra="ncnn",
    precisions=("float32", "float16", "int8"),
    sizes="free",
    rewrites=(*COMMON, deviations_of_forwards),
    quantise=quantise,
    weights=weights,
    ends=(INPUT, OUTPUT),
)
