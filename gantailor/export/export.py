"""Export of a subnet for devices: each model is checked numerically before it is called done."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import gantailor
from gantailor.evaluators.metrics.cost import interleaved, measured_macs
from gantailor.export.devices import Device, device
from gantailor.export.quantization import quantise
from gantailor.export.rewrites import ExportError, rewritten
from gantailor.export.targets import TARGETS, Runner
from gantailor.pipeline.scoring import stamped
from gantailor.run.run import Run
from gantailor.supernet.files import save_tensors, write_bytes, write_json
from gantailor.supernet.quantization.activation_ranges import load_quantisers
from gantailor.supernet.quantization.quantisers import LAYERS, Quantised, Quantisers

LARGEST = 1e-4  # difference of a float32 model from PyTorch
LEAST_PSNR = {"float16": 40.0, "int8": 20.0}  # dB; a coarser model below is broken; one pixel may be off by more
CALIBRATION_PICTURES = 64


class Exported(nn.Module):
    """An exported model as a module, for evaluators; a static batch is fed picture by picture."""

    def __init__(self, runner: Runner, *, batch: int | None = 1) -> None:
        super().__init__()
        self.runner, self.batch = runner, batch

    def forward(self, x: Tensor) -> Tensor:
        parts = x.split(self.batch) if self.batch else [x]
        return torch.from_numpy(np.concatenate([self.runner(np.ascontiguousarray(part.numpy())) for part in parts]))


def export_model(
    folder: Path,
    model: nn.Module,
    example: Tensor,
    target: Device,
    *,
    pictures: Tensor | None = None,
    trained: Quantisers | None = None,
) -> dict[str, Any]:
    """Write the model for a device with ``check.npz`` and ``bench.py``; what was found, for its manifest.

    Args:
        example: one input, ``[1, ...]``.
        pictures: to calibrate 8 bits with, ``[N, ...]``.
        trained: quantisers that the model was trained with in 8 bits; the result is compared with what they compute.

    Raises:
        ExportError: an extra is missing, an operator is not supported, or the written model computes something else.
    """
    runtime = TARGETS[target.runtime]
    if target.batch == "dynamic" and not runtime.dynamic:
        raise ExportError(f"{target.runtime} has no dynamic batch here; use batch: static")
    folder.mkdir(parents=True, exist_ok=True)
    file, example = folder / runtime.file, example.contiguous()
    made = rewritten(model, target.runtime, example)
    try:
        if target.precision == "int8":
            known = trained.without_outputs(_changed(model, made)) if trained is not None else None
            coverage = quantise(made, pictures if pictures is not None else example[:0], file, target, known)
        else:
            coverage = runtime.write(made, example, file, target)
    except (RuntimeError, ValueError, NotImplementedError, TypeError) as error:
        raise ExportError(
            f"device {target.name!r}: {target.runtime} cannot take this generator: {str(error).splitlines()[0]}; "
            "choose another device"
        ) from error
    simulated = Quantised(model, trained).eval() if trained is not None and target.precision == "int8" else None
    inputs = torch.cat([example, example.flip(-1), example]) if target.batch == "dynamic" else example
    with torch.no_grad():  # what was trained in 8 bits may be far from its float form
        expected = (model if simulated is None else simulated)(inputs).numpy()
    result: dict[str, Any] = {"device": target.name, **target.model_dump(mode="json", exclude={"name"})}
    result |= {"file": runtime.file, "delegated": coverage, "bytes": _bytes(folder, runtime.file)}
    if target.checked_here:
        runner, output = _run(file, inputs, target)
        result |= _checked(output, expected, target)
        if simulated is not None:
            shown = example if pictures is None else pictures
            exported = Exported(runner, batch=None if target.batch == "dynamic" else 1)
            with torch.no_grad():
                result["psnr_to_simulated"] = psnr(exported(shown).numpy(), simulated(shown).numpy())
    buffer = io.BytesIO()
    np.savez(buffer, input=example.numpy(), output=expected[:1])
    write_bytes(folder / "check.npz", buffer.getvalue())
    shutil.copy(Path(__file__).with_name("bench.py"), folder / "bench.py")
    return result


def _run(file: Path, inputs: Tensor, target: Device) -> tuple[Runner, np.ndarray]:
    """The written model, loaded again, and its outputs."""
    try:
        runner = TARGETS[target.runtime].load(file, target)
        return runner, runner(inputs.numpy())
    except RuntimeError as error:
        raise ExportError(
            f"device {target.name!r}: {target.runtime} wrote a model that it cannot run: {error}; choose another "
            "device" + (", or batch: static" if target.batch == "dynamic" else "")
        ) from error


def _changed(model: nn.Module, made: nn.Module) -> list[str]:
    """Layers that a batch norm was folded into: what they write is not what was measured in training."""
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, LAYERS)}
    others: dict[str, Any] = dict(made.named_modules())
    return [name for name, layer in layers.items() if not torch.equal(layer.weight, others[name].weight)]


def _bytes(folder: Path, file: str) -> int:
    return sum(path.stat().st_size for path in folder.glob(f"{file.partition('.')[0]}.*"))


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    """In dB, for pictures in [-1, 1]."""
    return float(10 * np.log10(4 / max(float(np.square(first - second).mean()), 1e-20)))


def _checked(output: np.ndarray, expected: np.ndarray, target: Device) -> dict[str, float]:
    difference = float(np.abs(output - expected).max())
    found = psnr(output, expected)
    least = LEAST_PSNR.get(target.precision)
    if not (difference <= LARGEST if least is None else found >= least):
        raise ExportError(
            f"the {target.name} model differs from PyTorch by {difference:.1e} ({found:.0f} dB); "
            + (f"allowed is {LARGEST}" if least is None else f"at least {least:.0f} dB are expected")
            + "; choose another device or precision"
        )
    return {"max_difference": difference, "psnr_to_pytorch": found}


def export_run(run: Run, devices: list[Device]) -> dict[str, Any]:
    """Write ``export/``: the subnet's weights, and a folder for each device; the manifest of all.

    Raises:
        ExportError: see ``export_model``; or the subnet does not cost what was planned.
    """
    config, narrow = run.subnet()
    supernet, folder = run.supernet(), run.path("export")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExportError(f"{str(folder)!r} cannot be written: {error}") from None
    example = run.data("test").batch(np.arange(1))[0].contiguous()
    measured, planned = measured_macs(narrow, example), supernet.macs(config)
    if measured != planned:
        raise ExportError(f"the exported generator needs {measured} MACs, {planned} were planned")
    stored = {"config": dict(config), "generator": run.config.generator}
    save_tensors(folder / "model.safetensors", narrow.state_dict(), stored)
    full = supernet.full_config()
    manifest: dict[str, Any] = {
        "gantailor": gantailor.__version__,
        "generator": run.config.generator,
        "options": run.config.options,
        "config": dict(config),
        "ranking": run.config.ranking,
        "input": {"shape": list(example.shape), "range": [-1, 1], "layout": "NCHW"},
        "macs": {c: supernet.macs(config, convention=c) for c in ("true", "published")},
        "teacher_macs": {c: supernet.macs(full, convention=c) for c in ("true", "published")},
        "parameters": supernet.parameter_count(config),
        "scores": json.loads(run.path("scores.json").read_text()) if run.path("scores.json").exists() else {},
        "sha256": {"model.safetensors": _digest(folder / "model.safetensors")},
        "made_from": made_from(run),
        "devices": {},
    }
    for target in devices:
        try:
            found = _for_device(run, narrow, example, folder / target.name, target)
        except OSError as error:
            raise ExportError(f"{str(folder / target.name)!r} cannot be written: {error}") from None
        manifest["devices"][target.name] = found
        inside = {key: value for key, value in manifest.items() if key not in ("devices", "sha256")}
        write_json(folder / target.name / "manifest.json", {**inside, **found})
    write_json(folder / "manifest.json", manifest)
    return manifest


def _for_device(run: Run, narrow: nn.Module, example: Tensor, folder: Path, target: Device) -> dict[str, Any]:
    """One device's folder and what was measured: latency beside the teacher's, scores where precision was lost."""
    pictures = None
    if target.precision == "int8":
        train = run.data("train")
        pictures = train.batch(np.linspace(0, len(train) - 1, min(CALIBRATION_PICTURES, len(train))).astype(int))[0]
    trained = load_quantisers(run.path("subnet.ranges.json"), narrow)
    found = export_model(folder, narrow, example, target, pictures=pictures, trained=trained)
    file = TARGETS[target.runtime].file
    found["sha256"] = {path.name: _digest(path) for path in sorted(folder.glob(f"{file.partition('.')[0]}.*"))}
    if not target.timed_here:
        return found
    runner = TARGETS[target.runtime].load(folder / file, target)
    with tempfile.TemporaryDirectory() as scratch:
        whole = target.model_copy(update={"precision": "float32"})
        export_model(Path(scratch), run.teacher(), example, whole)
        runners = {"subnet": runner, "teacher": TARGETS[target.runtime].load(Path(scratch) / file, whole)}
        feed = example.numpy()
        calls = {name: lambda call=call: call(feed) for name, call in runners.items()}
        times = interleaved(calls, warm_up=3, runs=15)
    found["latency_ms"] = {name: round(float(np.median(ms)), 3) for name, ms in times.items()}
    if target.precision != "float32":
        batch = None if target.batch == "dynamic" else 1
        scores = run.scoring().evaluator(run.metrics(run.config.evaluation.final))(
            Exported(runner, batch=batch), run.data("test")
        )
        found["scores"] = {"subnet, exported": stamped(scores)}
    return found


def made_from(run: Run) -> str:
    """Identifies the widths and weights that an export is of, and the scores in its manifest."""
    files = [run.path(name) for name in ("subnet.json", "subnet.safetensors", "scores.json")]
    return hashlib.sha256(b"|".join(file.read_bytes() for file in files if file.exists())).hexdigest()


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def local_runtime(name: str, *, threads: int = 1) -> Callable[[nn.Module, Tensor], Callable[[], object]]:
    """For timing: from a model and an example to a function that runs it once on a device of this machine."""
    target = device(name).model_copy(update={"threads": threads})
    runtime = TARGETS[target.runtime]

    def make(model: nn.Module, example: Tensor) -> Callable[[], object]:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / runtime.file
            runtime.write(rewritten(model, target.runtime, example), example, file, target)
            runner = runtime.load(file, target)
        feed = example.contiguous().numpy()
        return lambda: runner(feed)

    return make
