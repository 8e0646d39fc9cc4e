"""Core ML packages, zipped: written here, run on Apple's devices only."""

from __future__ import annotations

import contextlib
import io
import tempfile
from pathlib import Path

from torch import Tensor, nn

from gantailor.export.devices import Device
from gantailor.export.helpers import exported_program
from gantailor.export.rewrites import COMMON
from gantailor.export.target import Runner, Target
from gantailor.supernet.files import write_bytes


def write(model: nn.Module, example: Tensor, path: Path, device: Device) -> str:
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
    import zipfile

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for file in sorted(p for p in folder.rglob("*") if p.is_file()):
            archive.write(file, f"{folder.name}/{file.relative_to(folder)}")
    write_bytes(path, buffer.getvalue())


def load(path: Path, device: Device) -> Runner:
    """Unpacked beside the zip file and run by Core ML."""
    import zipfile

    import coremltools

    zipfile.ZipFile(path).extractall(path.parent)
    model = coremltools.models.MLModel(str(path.parent / "model.mlpackage"))
    name = model.get_spec().description.input[0].name
    return lambda x: next(iter(model.predict({name: x}).values()))


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
)
