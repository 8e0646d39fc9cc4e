"""Stage "export": the subnet for every device, with what it costs and scores there."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import gantailor
from gantailor.evaluators.metrics.cost import measured_macs
from gantailor.evaluators.scores import evenly
from gantailor.evaluators.scoring import scores_to_json
from gantailor.export.devices import Device, device, is_name
from gantailor.export.errors import ExportError
from gantailor.export.export import Exported, export_model, load_runner, model_files
from gantailor.export.target import find_target, timed_here
from gantailor.export.weights import write_weights
from gantailor.handover.card import FILE as CARD
from gantailor.handover.card import write_card
from gantailor.handover.interface import for_apps_first, interface
from gantailor.pipeline.profiling import add_latencies
from gantailor.records.places import missing, noted_digest
from gantailor.run.folder import damaged
from gantailor.run.run import Run
from gantailor.supernet.calling import Inputs, as_tuple, each, rows_of
from gantailor.supernet.device import computed
from gantailor.supernet.files import load_tensors, save_tensors, state_digest, write_json
from gantailor.supernet.graph import SubnetConfig
from gantailor.supernet.quantization.activation_ranges import load_quantisers
from gantailor.zoo.data import SPLITS
from gantailor.zoo.data.read import find_kind
from gantailor.zoo.generators.given import is_given
from gantailor.zoo.reading.files import split_file

CALIBRATION_PICTURES = 64
CHECKED_PICTURES = 4


def export(run: Run) -> dict[str, Any]:
    """Write ``export/``: safetensors, a folder for each device, manifest, model card; all checked against PyTorch."""
    targets, file = [device(name) for name in run.config.devices], run.folder.manifest
    done = run.folder.stored(file)
    whole = (done.get("made_from"), done.get("licence")) == (made_from(run), run.config.licence)
    whole = whole and _lies_there(run.folder.export, done)
    earlier = _earlier(run) if whole else {}
    if whole and all(_is_done(earlier, target) for target in targets):
        renew_scores(run)
        return run.folder.stored(file)
    return export_run(run, targets)


def renew_scores(run: Run) -> None:
    """Put the run's scores as they are now into the manifests of its export, if there is one of this subnet."""
    file, known = run.folder.manifest, run.folder.stored(run.folder.scores)
    done, scores = run.folder.stored(file), _figures(run)
    if done.get("made_from") != made_from(run):
        return
    if done.get("scores") == scores:
        if not (run.folder.export / CARD).exists():  # an earlier version wrote none
            _write_card(run, done)
        return
    write_json(run.folder.export / "scores.json", known)
    with damaged(file):
        for name in done["devices"]:
            inner = run.folder.export / name / file.name
            if is_name(name) and inner.is_file():
                own = done["devices"][name].get("scores", {})
                write_json(inner, {**run.folder.stored(inner), "scores": own or scores})
    write_json(file, {**done, "scores": scores})
    _write_card(run, {**done, "scores": scores})


def _write_card(run: Run, manifest: Mapping[str, Any], folder: Path | None = None) -> None:
    folder = folder or run.folder.export
    config = run.config
    made = {"method": config.method, "budget": config.budget, "ranking": config.ranking, "space": config.space.name}
    with damaged(run.folder.manifest):
        if not write_card(folder, manifest, made):
            run.report.note(f"{folder / CARD} was edited and stays as it is; delete it to have it anew")


def _is_done(devices: Mapping[str, Any], target: Device) -> bool:
    """Whether one of these devices is as its profile says; what the export filled in counts for nothing."""
    wanted = target.model_dump(mode="json", exclude={"name", "size_multiple", "largest_side", "threads"})
    known = {"size": "fixed", "picture_range": [-1, 1], **devices.get(target.name, {})}
    asked = known.get("threads_asked", known.get("threads"))
    return target.name in devices and asked == target.threads and all(known.get(k) == v for k, v in wanted.items())


def export_run(run: Run, devices: list[Device], out: Path | None = None) -> dict[str, Any]:
    """Write ``export/``: the subnet's weights, and a folder for each device; the manifest of all.

    What was exported of the same subnet for other devices stays in the manifest; all of them are timed anew together.
    Neither data nor teacher are needed but to calibrate 8 bits, and to score what is not in float32.

    Args:
        out: another folder than the run's ``export``, for a run that cannot be written.

    Raises:
        ExportError: see ``export_model``; or the subnet does not cost what was planned.
    """
    config, narrow = run.subnet()
    note_untuned(run)
    folder = out or run.folder.export
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
    manifest = _manifest(run, config, narrow, shown) | {"sha256": {weights.name: digest_of(weights)}}
    manifest |= {"made_from": made_from(run), "devices": _earlier(run) if out is None else {}}
    for target in devices:
        try:
            manifest["devices"][target.name] = _for_device(run, narrow, shown, folder / target.name, target)
        except OSError as error:
            raise ExportError(f"{str(folder / target.name)!r} cannot be written: {error}") from None
    manifest |= add_latencies(run, narrow, example, manifest["devices"], folder)
    inside = {key: value for key, value in manifest.items() if key not in ("devices", "sha256")}
    for name, found in manifest["devices"].items():
        write_json(folder / name / "manifest.json", for_apps_first({**inside, **found}))
        manifest["devices"][name] = {key: value for key, value in found.items() if key not in ("licence", "provenance")}
    write_json(folder / "scores.json", run.folder.stored(run.folder.scores))
    write_json(folder / "manifest.json", manifest)
    _write_card(run, manifest, folder)
    return manifest


def shown_inputs(run: Run) -> Inputs:
    """A few inputs of the test split, spread over it, for exports to be compared on: those that the run kept."""
    file = run.folder.shown
    if not file.exists():
        return chosen_inputs(run)
    tensors, _ = load_tensors(file)
    shapes = [list(one.shape[1:]) for one in tensors.values()]
    with damaged(file):
        if shapes != [shape[1:] for shape in run.folder.stored_trace()["input_shapes"]]:
            raise ValueError(f"it holds inputs of {shapes}")
    return tuple(tensors.values()) if len(tensors) > 1 else next(iter(tensors.values()))


def keep_inputs(run: Run) -> None:
    """Keep what exports are compared on in the folder, so that they need no data."""
    inputs = as_tuple(chosen_inputs(run))
    save_tensors(run.folder.shown, {f"input{number}": one for number, one in enumerate(inputs)}, {})


def chosen_inputs(run: Run) -> Inputs:
    """The same from the data."""
    test = run.setup.data("test")
    rows = evenly(len(test), CHECKED_PICTURES)
    return each(test.batch(rows)[0], Tensor.contiguous)


def _earlier(run: Run) -> dict[str, Any]:
    """What the manifest says of devices that the same subnet was exported for before, and that still lie there."""
    done = run.folder.stored(run.folder.manifest)
    if (done.get("made_from"), done.get("licence")) != (made_from(run), run.config.licence):
        return {}
    folder = run.folder.export
    with damaged(run.folder.manifest):
        return {n: found for n, found in done["devices"].items() if is_name(n) and _lies_there(folder / n, found)}


def _lies_there(folder: Path, found: Mapping[str, Any]) -> bool:
    """Whether the files that a manifest speaks of are there, and whole."""
    files = {folder / Path(name).name: digest for name, digest in found.get("sha256", {}).items()}
    return all(file.is_file() and digest_of(file) == digest for file, digest in files.items())


def _manifest(run: Run, config: SubnetConfig, narrow: nn.Module, shown: Inputs) -> dict[str, Any]:
    """What is so on every device."""
    supernet, teacher = run.setup.traced, run.setup.traced_teacher
    full, about = teacher.full_config(), _about(run)
    one = rows_of(shown, slice(1))
    described = interface(narrow, shown, computed(narrow, one), fit=about["fit"], background=about["background"])
    return {
        **described,
        "licence": about["licence"],
        "provenance": about["provenance"],
        "generator": run.config.generator,
        "options": run.setup.options,
        "config": dict(config),
        "ranking": run.config.ranking,
        "macs": {c: supernet.macs(config, convention=c) for c in ("true", "published")},
        "teacher_macs": {c: teacher.macs(full, convention=c) for c in ("true", "published")},
        "parameters": supernet.parameter_count(config),
        "teacher_parameters": teacher.parameter_count(full),
        "scores": _figures(run),
    }


def _about(run: Run) -> dict[str, Any]:
    """What every file of the export is told of where it comes from, and how pictures are brought to size."""
    config, record = run.config, run.setup.teacher_record
    source = None
    if record is not None:
        source = {"generator": record.generator, **_teacher_file(run, record.weights)}
    gone, known = missing(config), run.folder.stored_trace().get("data")
    digests = known if "data.path" in gone else {split: run.setup.data(split).digest() for split in SPLITS}
    provenance = {
        "gantailor": gantailor.__version__,
        "torch": torch.__version__,
        "teacher": source,
        "data": {"kind": config.data.kind, "licence": find_kind(config.data.kind).licence, "digests": digests},
        "subnet": made_from(run),
    }
    data = run.setup.data_config
    return {"licence": config.licence, "provenance": provenance, "fit": data.fit, "background": data.background}


def _teacher_file(run: Run, weights: str) -> dict[str, str | None]:
    """The name and the sha256 of a teacher's file, as noted where it is not there."""
    if is_given(weights):
        return {"file": weights, "sha256": state_digest(run.setup.loaded.module)}
    file = split_file(weights)[0]
    return {"file": file.name, "sha256": digest_of(file) if file.is_file() else noted_digest(run.folder)}


def figures_of(scores: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Scores without their provenance, which ``scores.json`` beside a manifest has."""
    names = ("value", "unit", "lower_is_better")
    return {who: {key: {n: row[n] for n in names} for key, row in rows.items()} for who, rows in scores.items()}


def _figures(run: Run) -> dict[str, dict[str, Any]]:
    """Those of the run's ``scores.json``."""
    with damaged(run.folder.scores):
        return figures_of(run.folder.stored(run.folder.scores))


def _for_device(run: Run, narrow: nn.Module, shown: Inputs, folder: Path, profile: Device) -> dict[str, Any]:
    """One device's folder, and where precision was lost its scores."""
    pictures, target = None, find_target(profile.runtime)
    if profile.precision == "int8":  # calibrated on training pictures
        train = run.setup.data("train")
        pictures = train.batch(evenly(len(train), CALIBRATION_PICTURES))[0]
    trained = load_quantisers(run.folder.subnet_ranges, narrow)
    found = export_model(folder, narrow, shown, profile, pictures=pictures, trained=trained, about=_about(run))
    found["threads_asked"] = profile.threads
    found["sha256"] = {path.name: digest_of(path) for path in model_files(folder, target)}
    gone = missing(run.config)
    if gone and profile.precision != "float32":
        run.report.note(f"{profile.name}: {', '.join(gone)} of the run is not there, so the file is not scored")
    elif profile.precision != "float32" and timed_here(profile):
        runner, batch = load_runner(folder / target.file, profile), None if profile.batch == "dynamic" else 1
        scores = run.setup.scoring.evaluator(run.setup.metrics(run.config.evaluation.final))(
            Exported(runner, batch=batch, picture_range=profile.picture_range), run.setup.data("test")
        )
        rows = {"subnet, exported": scores_to_json(scores)}
        write_json(folder / "scores.json", rows)
        found["scores"] = figures_of(rows)
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
