"""Stage "export": the subnet for every device, with what it costs and scores there."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import gantailor
from gantailor.evaluators.metrics.cost import measured_macs
from gantailor.evaluators.scoring import scores_to_json
from gantailor.export.devices import Device, device, is_name
from gantailor.export.errors import ExportError
from gantailor.export.export import Exported, export_model, load_runner, model_files
from gantailor.export.helpers import in_range
from gantailor.export.target import find_target, timed_here
from gantailor.export.weights import write_weights
from gantailor.pipeline.profiling import add_latencies
from gantailor.run.folder import damaged
from gantailor.run.run import Run
from gantailor.supernet.calling import Inputs, as_tuple, each, input_names, rows_of
from gantailor.supernet.files import write_json
from gantailor.supernet.graph import SubnetConfig
from gantailor.supernet.quantization.activation_ranges import load_quantisers

CALIBRATION_PICTURES = 64
CHECKED_PICTURES = 4


def export(run: Run) -> dict[str, Any]:
    """Write ``export/``: safetensors, a folder for each device, and a manifest, all checked against PyTorch."""
    targets, file = [device(name) for name in run.config.devices], run.folder.manifest
    done = run.folder.stored(file)
    whole = done.get("made_from") == made_from(run) and _lies_there(run.folder.export, done)
    earlier = _earlier(run) if whole else {}
    if whole and all(_is_done(earlier, target) for target in targets):
        renew_scores(run)
        return run.folder.stored(file)
    return export_run(run, targets)


def renew_scores(run: Run) -> None:
    """Put the run's scores as they are now into the manifests of its export, if there is one of this subnet."""
    file, scores = run.folder.manifest, run.folder.stored(run.folder.scores)
    done = run.folder.stored(file)
    if done.get("made_from") != made_from(run) or done.get("scores") == scores:
        return
    with damaged(file):
        for name in done["devices"]:
            inner = run.folder.export / name / file.name
            if is_name(name) and inner.is_file():
                own = done["devices"][name].get("scores", {})
                write_json(inner, {**run.folder.stored(inner), "scores": own or scores})
    write_json(file, {**done, "scores": scores})


def _is_done(devices: Mapping[str, Any], target: Device) -> bool:
    """Whether one of these devices is as its profile says; what the export filled in counts for nothing."""
    wanted = target.model_dump(mode="json", exclude={"name", "size_multiple", "largest_side", "threads"})
    known = {"size": "fixed", "picture_range": [-1, 1], **devices.get(target.name, {})}
    asked = known.get("threads_asked", known.get("threads"))
    return target.name in devices and asked == target.threads and all(known.get(k) == v for k, v in wanted.items())


def export_run(run: Run, devices: list[Device]) -> dict[str, Any]:
    """Write ``export/``: the subnet's weights, and a folder for each device; the manifest of all.

    What was exported of the same subnet for other devices stays in the manifest; all of them are timed anew together.

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
    shown = shown_inputs(run)
    example = rows_of(shown, slice(1))
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
    manifest = _manifest(run, config) | _described(narrow, shown) | {"sha256": {weights.name: digest_of(weights)}}
    manifest |= {"made_from": made_from(run), "devices": _earlier(run)}
    for target in devices:
        try:
            manifest["devices"][target.name] = _for_device(run, narrow, shown, folder / target.name, target)
        except OSError as error:
            raise ExportError(f"{str(folder / target.name)!r} cannot be written: {error}") from None
    manifest |= add_latencies(run, narrow, example, manifest["devices"])
    for name, found in manifest["devices"].items():
        inside = {key: value for key, value in manifest.items() if key not in ("devices", "sha256")}
        inside |= _described(narrow, shown, found)
        write_json(folder / name / "manifest.json", {**inside, **found})
    write_json(folder / "manifest.json", manifest)
    return manifest


def shown_inputs(run: Run) -> Inputs:
    """A few inputs of the test split, spread over it, for exports to be compared on."""
    test = run.setup.data("test")
    rows = np.unique(np.linspace(0, len(test) - 1, min(CHECKED_PICTURES, len(test))).astype(int))
    return each(test.batch(rows)[0], Tensor.contiguous)


def _earlier(run: Run) -> dict[str, Any]:
    """What the manifest says of devices that the same subnet was exported for before, and that still lie there."""
    done = run.folder.stored(run.folder.manifest)
    if done.get("made_from") != made_from(run):
        return {}
    folder = run.folder.export
    with damaged(run.folder.manifest):
        return {n: found for n, found in done["devices"].items() if is_name(n) and _lies_there(folder / n, found)}


def _lies_there(folder: Path, found: Mapping[str, Any]) -> bool:
    """Whether the files that a manifest speaks of are there, and whole."""
    files = {folder / Path(name).name: digest for name, digest in found.get("sha256", {}).items()}
    return all(file.is_file() and digest_of(file) == digest for file, digest in files.items())


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
        "scores": run.folder.stored(run.folder.scores),
    }


def _described(narrow: nn.Module, shown: Inputs, found: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What the model takes: ``inputs``, in the order of its forward, and where there is one, ``input`` too.

    Args:
        shown: what it was fed, ``[N, ...]``.
        found: what its export for a device says; names stand for what is free there, and ``multiple_of`` for sides.
    """
    several, found = as_tuple(shown), found or {}
    shapes = found.get("shapes", [[1, *one.shape[1:]] for one in several])
    wanted = tuple(found.get("picture_range", (-1, 1)))
    inputs = [
        {
            "name": name,
            "shape": shape,
            "dtype": str(one.dtype).removeprefix("torch."),
            "range": range_of(one) if wanted == (-1, 1) else list(wanted),
            "fed": [round(float(end), 4) for end in in_range(torch.stack([one.min(), one.max()]), wanted)],
            "layout": _layout(one),
        }
        for name, one, shape in zip(input_names(narrow, len(several)), several, shapes, strict=True)
    ]
    for one in inputs:
        if "height" in one["shape"]:
            one["multiple_of"] = found["size_multiple"]
    if len(inputs) > 1:
        return {"inputs": inputs}
    taken, made = find_target(found["runtime"]).ends if found else ("input", "output")
    only = {**inputs[0], "name": taken}  # as its files call it
    one_input = {"input": {key: only[key] for key in only if key not in ("name", "dtype")}, "inputs": [only]}
    return one_input | ({"output": {"name": made}} if found else {})


def _layout(one: Tensor) -> str:
    return {3: "NCL", 4: "NCHW", 5: "NCDHW"}.get(one.ndim, "NC")


def range_of(one: Tensor) -> list[int] | None:
    """Pictures lie in [-1, 1], one-hot maps and classes in [0, 1]; latents are normal, without bounds.

    A picture has no zero (of 8 bits 127.5 would be), so a plain white one is no map; a latent of one pixel is none.
    """
    if bool(((one == 0) | (one == 1)).all()) and bool((one == 0).any()):
        return [0, 1]
    pixels = one.ndim == 4 and one.shape[2] * one.shape[3] > 1
    return [-1, 1] if pixels and float(one.abs().max()) <= 1 else None


def _for_device(run: Run, narrow: nn.Module, shown: Inputs, folder: Path, profile: Device) -> dict[str, Any]:
    """One device's folder, and where precision was lost its scores."""
    pictures, target = None, find_target(profile.runtime)
    if profile.precision == "int8":
        train = run.setup.data("train")
        pictures = train.batch(np.linspace(0, len(train) - 1, min(CALIBRATION_PICTURES, len(train))).astype(int))[0]
    trained = load_quantisers(run.folder.subnet_ranges, narrow)
    found = export_model(folder, narrow, shown, profile, pictures=pictures, trained=trained)
    found["threads_asked"] = profile.threads
    found["sha256"] = {path.name: digest_of(path) for path in model_files(folder, target)}
    if profile.precision != "float32" and timed_here(profile):
        runner, batch = load_runner(folder / target.file, profile), None if profile.batch == "dynamic" else 1
        scores = run.setup.scoring.evaluator(run.setup.metrics(run.config.evaluation.final))(
            Exported(runner, batch=batch, picture_range=profile.picture_range), run.setup.data("test")
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
    """Identifies the widths and weights that an export is of."""
    files = (run.folder.subnet_config, run.folder.subnet)
    return hashlib.sha256(b"|".join(file.read_bytes() for file in files if file.exists())).hexdigest()


def digest_of(path: Path) -> str:
    """sha256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
