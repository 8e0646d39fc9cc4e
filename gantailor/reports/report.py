"""The report of a run: one self-contained page."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np
import torch
from torch import Tensor

from gantailor.evaluators.pictures.modes import background_of
from gantailor.evaluators.pictures.rgb import as_rgb, as_seen
from gantailor.reports import figures
from gantailor.run.inputs import placed_teacher
from gantailor.run.run import Run
from gantailor.supernet.calling import first
from gantailor.supernet.device import computed
from gantailor.supernet.files import write_bytes
from gantailor.zoo.data.pictures import is_picture, to_uint8

if TYPE_CHECKING:
    from matplotlib.figure import Figure

AMPLIFIED = 4  # differences of pictures are shown so many times as strong


def _png(picture: np.ndarray) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return figures.data_url(buffer.getvalue())


def _columns(run: Run, narrow: torch.nn.Module, count: int) -> dict[str, np.ndarray]:
    """Pictures uint8 ``[N, H, W, 3]`` of each column of the grid; differences are those of what is seen."""
    pairs, background = run.setup.data("test"), background_of(run.config.data.background)
    inputs, targets = pairs.batch(np.linspace(0, len(pairs) - 1, min(count, len(pairs))).astype(int))
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
    """Losses of every training as an SVG, smoothed over a fiftieth of its steps; empty without logs."""
    import pandas as pd
    from matplotlib.figure import Figure

    logs = {
        "supernet": run.folder.supernet_checkpoint.with_suffix(".jsonl"),
        "fine-tuning": run.folder.subnet_checkpoint.with_suffix(".jsonl"),
    }
    frames = {
        name: pd.read_json(file, lines=True) for name, file in logs.items() if file.exists() and file.stat().st_size
    }
    if not frames:
        return ""
    figure = Figure(figsize=(4.2 * len(frames), 3), layout="constrained")
    for axes, (name, frame) in zip(np.atleast_1d(figure.subplots(1, len(frames))), frames.items(), strict=True):
        smooth = frame.rolling(max(1, len(frame) // 50), min_periods=1).mean(numeric_only=True)
        losses = [c for c in frame if c not in ("step", "kimg", "images_per_second")]
        for column, colour in zip(losses, figures.COLOURS, strict=False):
            axes.plot(frame["kimg"], smooth[column], label=column, color=colour, lw=1.2)
        axes.set_title(name, fontsize=9)
        axes.set_xlabel("thousand images", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.legend(frameon=False, fontsize=7)
    return figures.svg(figure, salt="curves")


@torch.no_grad()
def write_report(run: Run, front: Figure, *, pictures: int = 12) -> None:
    """``report.html``: costs, scores, pictures before and after, front, training, provenance; needs no network.

    Args:
        front: the search's, drawn by ``fronts.draw``.
    """
    config, narrow = run.subnet()
    manifest = run.folder.stored(run.folder.manifest)
    columns = _columns(run, narrow, pictures)
    count = len(next(iter(columns.values())))
    rows = [{name: _png(images[i]) for name, images in columns.items()} for i in range(count)]
    environment = jinja2.Environment(loader=jinja2.PackageLoader("gantailor.reports", ""), autoescape=True)
    page = environment.get_template("report.html").render(
        rows=rows,
        columns=list(columns),
        before=next(name for name in ("teacher", "real", "input", "subnet") if name in columns),
        costs=_costs(run, manifest),
        devices=manifest["devices"],
        widths=[(w.name, config[w.name], w.size) for w in run.setup.traced.graph.widths],
        scores=run.folder.stored(run.folder.scores),
        front=figures.svg(front, salt="front"),
        curves=_curves(run),
        amplified=AMPLIFIED,
        config=run.config.shown(),
        manifest={
            key: value for key, value in manifest.items() if key not in ("devices", "scores", "config", "options")
        },
    )
    write_bytes(run.folder.report, page.encode())
