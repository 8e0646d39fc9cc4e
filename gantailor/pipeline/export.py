"""Stage "export": the subnet for every device, with what it costs and scores there."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

import gantailor
from gantailor.evaluators.metrics.cost import interleaved, measured_macs
from gantailor.evaluators.scoring import scores_to_json
from gantailor.export.devices import Device, device
from gantailor.export.errors import ExportError
from gantailor.export.export import Exported, arrays, export_model, load_runner, model_files
from gantailor.export.target import find_target, timed_here
from gantailor.export.weights import write_weights
from gantailor.run.run import Run
from gantailor.supernet.calling import Inputs, as_tuple, each, input_names
from gantailor.supernet.files import write_json
from gantailor.supernet.graph import SubnetConfig
from gantailor.supernet.quantization.activation_ranges import load_quantisers

CALIBRATION_PICTURES = 64


def export(run: Run) -> dict[str, Any]:
    """Write ``export/``: safetensors, a folder for each device, and a manifest, all checked against PyTorch."""
    targets, file = [device(name) for name in run.config.devices], run.folder.manifest
    done = json.loads(file.read_text()) if file.exists() else {}
    if done.get("made_from") == made_from(run) and all(_is_done(done["devices"], target) for target in targets):
        return dict(done)
    return export_run(run, targets)


def _is_done(devices: Mapping[str, Any], target: Device) -> bool:
    """Whether a device was exported for as its profile says; what the export filled in counts for nothing."""
    wanted = target.model_dump(mode="json", exclude={"name", "size_multiple", "largest_side"})
    known = {"size": "fixed", **devices.get(target.name, {})}
    return target.name in devices and all(known.get(key) == value for key, value in wanted.items())


def export_run(run: Run, devices: list[Device]) -> dict[str, Any]:
    """Write ``export/``: the subnet's weights, and a folder for each device; the manifest of all.

    Raises:
        ExportError: see ``export_model``; or the subnet does not cost what was planned.
    """
    config, narrow = run.subnet()
    note_untuned(run)
    folder = run.folder.export
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExportError(f"{str(folder)!r} cannot be written: {error}") from None
    example = each(run.setup.data("test").batch(np.arange(1))[0], Tensor.contiguous)
    measured, planned = measured_macs(narrow, example), run.setup.traced.macs(config)
    if measured != planned:
        raise ExportError(f"the exported generator needs {measured} MACs, {planned} were planned")
    origin = {
        "generator": run.config.generator,
        "options": run.setup.options,
        "config": dict(config),
        "input_shapes": [list(one.shape) for one in as_tuple(example)],
        "decisions": run.setup.traced.decisions.to_json(),
    }
    weights = write_weights(folder, narrow, origin)
    manifest = _manifest(run, config) | _described(narrow, example) | {"sha256": {weights.name: _digest(weights)}}
    manifest |= {"made_from": made_from(run), "devices": {}}
    for target in devices:
        try:
            found = _for_device(run, narrow, example, folder / target.name, target)
        except OSError as error:
            raise ExportError(f"{str(folder / target.name)!r} cannot be written: {error}") from None
        manifest["devices"][target.name] = found
        inside = {key: value for key, value in manifest.items() if key not in ("devices", "sha256")}
        inside |= _described(narrow, example, found)
        write_json(folder / target.name / "manifest.json", {**inside, **found})
    write_json(folder / "manifest.json", manifest)
    return manifest


def _manifest(run: Run, config: SubnetConfig) -> dict[str, Any]:
    """What is so on every device."""
    supernet, teacher = run.setup.traced, run.setup.traced_teacher
    full = teacher.full_config()
    return {
        "gantailor": gantailor.__version__,
        "generator": run.config.generator,
        "options": run.setup.options,
        "config": dict(config),
        "ranking": run.config.ranking,
        "macs": {c: supernet.macs(config, convention=c) for c in ("true", "published")},
        "teacher_macs": {c: teacher.macs(full, convention=c) for c in ("true", "published")},
        "parameters": supernet.parameter_count(config),
        "scores": json.loads(run.folder.scores.read_text()) if run.folder.scores.exists() else {},
    }


def _described(narrow: nn.Module, example: Inputs, found: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What the model takes: ``inputs``, in the order of its forward, and where there is one, ``input`` too.

    Args:
        found: what its export for a device says; names stand for what is free there, and ``multiple_of`` for sides.
    """
    several = as_tuple(example)
    shapes = [list(one.shape) for one in several] if found is None else found["shapes"]
    inputs = [
        {"name": name, "shape": shape, "dtype": "float32", "range": _range(one), "layout": _layout(one)}
        for name, one, shape in zip(input_names(narrow, len(several)), several, shapes, strict=True)
    ]
    for one in inputs:
        if found is not None and "height" in one["shape"]:
            one["multiple_of"] = found["size_multiple"]
    if len(inputs) > 1:
        return {"inputs": inputs}
    only = {**inputs[0], "name": "input"}  # as its files call it
    return {"input": {key: only[key] for key in only if key not in ("name", "dtype")}, "inputs": [only]}


def _layout(one: Tensor) -> str:
    return "NCHW" if one.ndim == 4 else "NC"


def _range(one: Tensor) -> list[int] | None:
    """Pictures lie in [-1, 1], one-hot maps and classes in [0, 1]; latents are normal, without bounds."""
    if bool(((one == 0) | (one == 1)).all()):
        return [0, 1]
    return [-1, 1] if one.ndim == 4 else None


def _for_device(run: Run, narrow: nn.Module, example: Inputs, folder: Path, profile: Device) -> dict[str, Any]:
    """One device's folder and what was measured: latency beside the teacher's, scores where precision was lost."""
    pictures, target = None, find_target(profile.runtime)
    if profile.precision == "int8":
        train = run.setup.data("train")
        pictures = train.batch(np.linspace(0, len(train) - 1, min(CALIBRATION_PICTURES, len(train))).astype(int))[0]
    trained = load_quantisers(run.folder.subnet_ranges, narrow)
    found = export_model(folder, narrow, example, profile, pictures=pictures, trained=trained)
    found["sha256"] = {path.name: _digest(path) for path in model_files(folder, target)}
    if not timed_here(profile):
        return found
    runner = load_runner(folder / target.file, profile)
    with tempfile.TemporaryDirectory() as scratch:
        whole = profile.model_copy(update={"precision": "float32"} if "float32" in target.precisions else {})
        export_model(Path(scratch), run.setup.teacher, example, whole, pictures=pictures)
        runners = {"subnet": runner, "teacher": load_runner(Path(scratch) / target.file, whole)}
        feeds = arrays(example)
        calls = {name: lambda call=call: call(*feeds) for name, call in runners.items()}
        times = interleaved(calls, warm_up=3, runs=15)
    found["latency_ms"] = {name: round(float(np.median(ms)), 3) for name, ms in times.items()}
    if profile.precision != "float32":
        batch = None if profile.batch == "dynamic" else 1
        scores = run.setup.scoring.evaluator(run.setup.metrics(run.config.evaluation.final))(
            Exported(runner, batch=batch), run.setup.data("test")
        )
        found["scores"] = {"subnet, exported": scores_to_json(scores)}
    return found


def note_untuned(run: Run) -> None:
    """Say so where the subnet still has the supernet's weights."""
    if run.config.finetune.kimg and not run.folder.subnet.exists():
        run.report.note(
            "the subnet is not fine-tuned yet, its weights are the supernet's; gantailor compress does that too"
        )


def made_from(run: Run) -> str:
    """Identifies the widths and weights that an export is of, and the scores in its manifest."""
    files = (run.folder.subnet_config, run.folder.subnet, run.folder.scores)
    return hashlib.sha256(b"|".join(file.read_bytes() for file in files if file.exists())).hexdigest()


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
