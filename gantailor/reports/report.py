"""The report of a run: one self-contained page."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np
import torch
from torch import Tensor

from gantailor.evaluators.halves import interval
from gantailor.evaluators.pictures.modes import background_of
from gantailor.evaluators.pictures.rgb import as_rgb, as_seen
from gantailor.evaluators.scores import evenly
from gantailor.reports import figures
from gantailor.reports.curves import draw_curves
from gantailor.reports.pages import with_policy
from gantailor.run.folder import damaged
from gantailor.run.inputs import placed_teacher
from gantailor.run.run import Run
from gantailor.search.limits import format_macs
from gantailor.supernet.calling import first
from gantailor.supernet.device import computed
from gantailor.supernet.files import read_rows, write_bytes
from gantailor.zoo.data.pictures import is_picture, to_uint8

if TYPE_CHECKING:
    from matplotlib.figure import Figure

AMPLIFIED = 4  # differences of pictures are shown so many times as strong
SMALL = 200  # pixels of width below which a picture is enlarged on the page, its pixels as squares
MOST_PIXELS = 400  # to about so many


def _png(picture: np.ndarray) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return figures.data_url(buffer.getvalue())


def _columns(run: Run, narrow: torch.nn.Module, count: int) -> dict[str, np.ndarray]:
    """Pictures uint8 ``[N, H, W, 3]`` of each column of the grid; differences are those of what is seen."""
    pairs, background = run.setup.data("test"), background_of(run.config.data.background)
    inputs, targets = pairs.batch(evenly(len(pairs), count))
    shown: dict[str, Tensor | None] = {"input": first(inputs)}
    if run.setup.taught:
        shown["teacher"] = computed(placed_teacher(run.setup), inputs)
    shown |= {"subnet": computed(narrow.to(run.setup.device), inputs), "real": targets if pairs.paired else None}
    columns = {
        name: as_seen(as_rgb(as_seen(images), background)) for name, images in shown.items() if is_picture(images)
    }
    if run.setup.taught:
        difference = (columns["teacher"] - columns["subnet"]).abs()
        columns["difference"] = (difference * AMPLIFIED / 2).clamp(0, 1) * 2 - 1
    order = ("input", "teacher", "subnet", "difference", "real")
    return {name: to_uint8(columns[name]) for name in order if name in columns}


def _costs(run: Run, manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """Teacher and subnet: MACs, parameters, bytes of float32 weights, milliseconds on each device."""
    supernet, teacher = run.setup.traced, run.setup.traced_teacher
    with damaged(run.folder.manifest):
        devices = {name: found["latency_ms"] for name, found in manifest["devices"].items() if "latency_ms" in found}
    rows = []
    for name, graph, config in (
        ("teacher", teacher, teacher.full_config()),
        ("subnet", supernet, run.subnet_config()),
    ):
        row: dict[str, Any] = {
            "name": name if run.setup.taught or name == "subnet" else "whole generator",
            "macs": graph.macs(config),
            "parameters": graph.parameter_count(config),
        }
        row |= {"published": graph.macs(config, convention="published"), "bytes": 4 * row["parameters"]}
        rows.append(row | {"ms": {device: times[name] for device, times in devices.items()}})
    return rows


def _curves(run: Run) -> str:
    """Losses of every training as an SVG; empty without logs."""
    logs = {
        "supernet": run.folder.supernet_checkpoint.with_suffix(".jsonl"),
        "fine-tuning": run.folder.subnet_checkpoint.with_suffix(".jsonl"),
    }
    return draw_curves({name: read_rows(file) for name, file in logs.items()}, salt="curves")


def said(costs: Sequence[Mapping[str, Any]], scores: Mapping[str, Mapping[str, Any]]) -> str:
    """What was achieved, in a sentence: ``12.4x fewer MACs, 8.1x faster on onnxruntime-cpu, l1 0.105 beside ...``."""
    whole, narrow = costs
    parts = [f"{whole['macs'] / narrow['macs']:.1f}x fewer MACs than the {whole['name']}"]
    for device, ms in list(narrow["ms"].items())[:1]:
        ratio = whole["ms"][device] / ms
        parts.append(f"{ratio:.1f}x {'faster' if ratio >= 1 else 'as fast'} on {device}")
    taught = scores.get("teacher", {})
    for name in list(scores["subnet"])[-2:]:  # the teacher has none against itself
        beside = f" beside the teacher's {taught[name]['value']:.4g}" if name in taught else ""
        parts.append(f"{name} {scores['subnet'][name]['value']:.4g}{beside}")
    return ", ".join(parts)


def worse_than_nothing(scores: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A sentence for each way of using no generator at all that scores better than the result."""
    lines = []
    for name, row in scores.items():
        shared = {key: score for key, score in scores["subnet"].items() if key in row and name.startswith("input")}
        better = [key for key, score in shared.items() if _sign(score) * (row[key]["value"] - score["value"]) < 0]
        if better:
            lines.append(
                f"The untouched {name} scores better than the subnet by {', '.join(better)}: train it longer, or give "
                "it a wider budget."
            )
    return lines


def beside_the_teacher(scores: Mapping[str, Mapping[str, Any]]) -> dict[tuple[str, str], str]:
    """By column and score how many percent it is from the teacher's, with the 95% interval over the test pictures."""
    found, taught = {}, scores.get("teacher", {})
    for name, row in scores.items():
        for key in row if name.startswith("subnet") else ():
            ours, theirs = (np.array(one.get(key, {}).get("halves", ())) for one in (row, taught))
            if len(theirs) and ours.shape == theirs.shape and (known := taught[key]["value"]) > 0:
                percent = 100 * (row[key]["value"] / known - 1)
                half = interval([percent], 100 * (ours - theirs)[None] / known)[1]
                found[name, key] = f"{percent:+.1f} ± {half:.1f}%"
    return found


def _sign(score: Mapping[str, Any]) -> int:
    return 1 if score["lower_is_better"] else -1


def format_bytes(count: float) -> str:
    """``4700000`` as ``4.7 MB``."""
    for size, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:.3g} B"


def _scored(scores: Mapping[str, Any], devices: Mapping[str, Any]) -> dict[str, Any]:
    """Columns of the table of scores: what was scored here, and what runs on the devices."""
    exported = {f"subnet, {name}": found.get("scores", {}).get("subnet, exported") for name, found in devices.items()}
    return {**scores, **{name: row for name, row in exported.items() if row}}


QUANTITIES = (
    ("macs", "MACs (true)", format_macs),
    ("published", "MACs (published)", format_macs),
    ("parameters", "parameters", format_macs),
    ("bytes", "weights in float32", format_bytes),
)


@torch.no_grad()
def write_report(run: Run, front: Sequence[Figure], *, pictures: int = 8) -> None:
    """``report.html``: costs, scores, pictures before and after, front, training, provenance; needs no network.

    Args:
        front: the search's plots, as of ``fronts.draw_parts``.
    """
    config, narrow = run.subnet()
    manifest = run.folder.stored(run.folder.manifest)
    columns = _columns(run, narrow, pictures)
    count = len(next(iter(columns.values())))
    rows = [{name: _png(images[i]) for name, images in columns.items()} for i in range(count)]
    environment = jinja2.Environment(loader=jinja2.PackageLoader("gantailor.reports", ""), autoescape=True)
    costs, scores = _costs(run, manifest), run.folder.stored(run.folder.scores)
    width = columns["subnet"].shape[2]
    page = environment.get_template("report.html").render(
        said=said(costs, scores),
        worse=worse_than_nothing(scores),
        rows=rows,
        columns=list(columns),
        pixels=width < SMALL,
        large=max(MOST_PIXELS, width) if width < SMALL else width,
        quantities=QUANTITIES,
        scored=_scored(scores, manifest["devices"]),
        beside=beside_the_teacher(scores),
        size=format_bytes,
        before=next(name for name in ("teacher", "real", "input", "subnet") if name in columns),
        costs=costs,
        devices=manifest["devices"],
        widths=[(w.name, config[w.name], w.size) for w in run.setup.traced.graph.widths],
        scores=scores,
        front=figures.svgs(front, salt="front"),
        curves=_curves(run),
        amplified=AMPLIFIED,
        config=run.config.shown(),
        manifest={
            key: value for key, value in manifest.items() if key not in ("devices", "scores", "config", "options")
        },
    )
    write_bytes(run.folder.report, with_policy(page))
