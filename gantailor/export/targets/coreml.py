"""Core ML packages, zipped: written here, run on Apple's devices only."""

from __future__ import annotations

import contextlib
import io
import math
import tempfile
import zipfile
from pathlib import Path

from torch import nn

from gantailor.export.devices import Device
from gantailor.export.helpers import counted, exported_program
from gantailor.export.rewrites import COMMON
from gantailor.export.target import Runner, Target
from gantailor.supernet.calling import Inputs
from gantailor.supernet.files import write_bytes


def write(model: nn.Module, example: Inputs, path: Path, device: Device) -> str:
    """Write ``model.mlpackage`` into a zip file, in the device's precision (Core ML's own choice is float16)."""
    with contextlib.redirect_stderr(io.StringIO()):
        import coremltools

        program = exported_program(model, example, device).run_decompositions({})
        precision = getattr(coremltools.precision, device.precision.upper())
        made = coremltools.convert(program, compute_precision=precision)
        with tempfile.TemporaryDirectory() as scratch:
            made.save(str(Path(scratch) / "model.mlpackage"))
            _zip(Path(scratch) / "model.mlpackage", path)
    return "not known before it runs on the device"


def _zip(folder: Path, path: Path) -> None:
    """A Core ML package is a folder; one file is written atomically."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for file in sorted(p for p in folder.rglob("*") if p.is_file()):
            archive.write(file, f"{folder.name}/{file.relative_to(folder)}")
    write_bytes(path, buffer.getvalue())


def weights(path: Path) -> dict[str, int]:
    """Numbers of each type among the constants of the ML program; read on any machine."""
    import coremltools
    from coremltools.proto.MIL_pb2 import DataType

    with tempfile.TemporaryDirectory() as scratch:
        zipfile.ZipFile(path).extractall(scratch)
        model = coremltools.models.MLModel(str(Path(scratch) / "model.mlpackage"), skip_model_load=True)
        program = model.get_spec().mlProgram
    blocks = [b for function in program.functions.values() for b in function.block_specializations.values()]
    kinds = [op.outputs[0].type.tensorType for block in blocks for op in block.operations if op.type == "const"]
    return counted(
        (DataType.Name(kind.dataType).lower(), math.prod(d.constant.size for d in kind.dimensions)) for kind in kinds
    )


def load(path: Path, device: Device) -> Runner:
    """Unpacked beside the zip file and run by Core ML."""
    import zipfile

    import coremltools

    zipfile.ZipFile(path).extractall(path.parent)
    model = coremltools.models.MLModel(str(path.parent / "model.mlpackage"))
    names = [end.name for end in model.get_spec().description.input]
    return lambda *feeds: next(iter(model.predict(dict(zip(names, feeds, strict=True))).values()))


TARGET = Target(
    name="coreml",
    file="model.mlpackage.zip",
    write=write,
    load=load,
    packages=("coremltools",),
    extra="coreml",
    precisions=("float32", "float16"),
    rewrites=COMMON,
    runs_here=False,
    weights=weights,
)
