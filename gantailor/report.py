"""Results to look at: the accuracy-compute front and a self-contained page."""

from __future__ import annotations

import base64
import io
import json
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np
import torch

from supernet.files import write_bytes
from zoo.data import to_uint8

if TYPE_CHECKING:
    from gantailor.run import Run


def _png(picture: np.ndarray) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


@torch.no_grad()
def write_report(run: Run, *, pictures: int = 12) -> None:
    """``report.html``: pictures before and after, scores, costs and widths, in one file without network."""
    config, narrow = run.subnet()
    pairs, supernet = run.data("test"), run.supernet()
    chosen = np.linspace(0, len(pairs) - 1, min(pictures, len(pairs))).astype(int)
    inputs, targets = pairs.batch(chosen)
    columns = {"input": inputs, "teacher": run.teacher()(inputs), "subnet": narrow(inputs)}
    if targets is not None:
        columns["real"] = targets
    rows = [
        {name: _png(to_uint8(images[i : i + 1])[0]) for name, images in columns.items()} for i in range(len(chosen))
    ]
    full = supernet.full_config()
    costs: list[dict[str, Any]] = [
        {"name": "teacher", "macs": supernet.macs(full), "published": supernet.macs(full, convention="published")},
        {"name": "subnet", "macs": supernet.macs(config), "published": supernet.macs(config, convention="published")},
    ]
    for cost, subnet in zip(costs, (full, config), strict=True):
        cost["parameters"] = supernet.parameter_count(subnet)
    widths = [(w.name, config[w.name], w.size) for w in supernet.graph.widths]
    environment = jinja2.Environment(loader=jinja2.PackageLoader("gantailor", ""), autoescape=True)
    page = environment.get_template("report.html").render(
        rows=rows,
        columns=list(columns),
        costs=costs,
        widths=widths,
        scores=json.loads(run.path("scores.json").read_text()),
        front=base64.b64encode(run.path("front.png").read_bytes()).decode(),
        config=run.config.model_dump(mode="json"),
    )
    write_bytes(run.path("report.html"), page.encode())
