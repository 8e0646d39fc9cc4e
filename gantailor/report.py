"""Results to look at: the accuracy-compute front and a self-contained page."""

from __future__ import annotations

import base64
import io
import json
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np
import pandas as pd
import torch

from search.budget import format_macs
from search.study import pareto_rows
from supernet.files import write_bytes
from zoo.data import to_uint8

if TYPE_CHECKING:
    from gantailor.run import Run


def draw_front(run: Run) -> None:
    """``front.png``: score against MACs of everything the search evaluated, the front marked."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    frame = pd.read_csv(run.path("front.csv"))
    front = frame[pareto_rows(frame)].sort_values("macs")
    budget = run.budget()
    figure, axes = plt.subplots(figsize=(6.4, 4), layout="constrained")
    axes.scatter(frame["macs"] / 1e6, frame["score"], s=18, color="#999999", label="evaluated")
    axes.plot(front["macs"] / 1e6, front["score"], "o-", color="#0072B2", label="Pareto front")
    best = frame.loc[frame["score"].idxmin()]
    axes.plot(best["macs"] / 1e6, best["score"], "*", ms=14, color="#D55E00", label="chosen")
    axes.axvline(budget.macs / 1e6, color="#444444", ls="--", lw=1, label=f"budget {format_macs(budget.macs)}")
    axes.set_xlabel(f"million MACs ({budget.convention})")
    axes.set_ylabel(f"{run.search_metric()} on the search pictures (lower is better)", fontsize="small")
    axes.legend(frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=150)
    plt.close(figure)
    write_bytes(run.path("front.png"), buffer.getvalue())


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
