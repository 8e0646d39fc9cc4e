"""Stage "evaluate": scores of teacher and subnet on the test split."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gantailor.evaluators.config import EvaluationConfig
from gantailor.evaluators.metric import find_metric, metric_of
from gantailor.evaluators.metrics import TEACHER_MARK
from gantailor.evaluators.scores import against_teacher
from gantailor.evaluators.scoring import scores_to_json
from gantailor.run.folder import damaged
from gantailor.run.inputs import placed_teacher
from gantailor.run.run import Run
from gantailor.run.shapes import output_of
from gantailor.supernet.calling import first
from gantailor.supernet.files import state_digest, write_json
from gantailor.supernet.quantization.activation_ranges import load_fake_quantized
from gantailor.zoo.data.pictures import is_picture

ENLARGED = {"input, nearest": "nearest", "input, enlarged": "bicubic"}  # rows where outputs are larger than inputs


Rows = dict[str, dict[str, Any]]  # scores by their names, as JSON


def evaluate(run: Run) -> dict[str, Rows]:
    """Scores of the input, the teacher and the subnet; writes ``scores.json``. The teacher has none against itself.

    ``input`` is what no generator at all would score. Where outputs are larger, inputs are enlarged: ``input,
    enlarged`` bicubically, the usual baseline of super-resolution, and ``input, nearest`` by repeating pixels. There is
    none where inputs and outputs do not have the same channels.

    What is there already of the same weights, pictures and settings stays, also what was added later.
    """
    known = run.known_scores | run.folder.stored(run.folder.scores)
    return _scored(run, run.config.evaluation.final, _scored_models(run), known)


def add_scores(run: Run, metrics: Sequence[str], known_by: EvaluationConfig) -> dict[str, Rows]:
    """The scores of a finished run with more metrics, or with other settings of ``evaluation``, in ``scores.json``.

    Where two scores of other settings would be called the same, the later one's name has its settings behind it.

    Args:
        run: with the settings that are wanted now.
        known_by: the settings that scores have which an earlier version stored without a word of them.
    """
    known, models = run.folder.stored(run.folder.scores), _scored_models(run)
    with damaged(run.folder.scores):
        for name, rows in known.items():
            for key, row in rows.items() if name in models else ():
                row.setdefault("of", {**_mark(run, models[name]), "settings": metric_of(key).settings(known_by)})
    return _scored(run, metrics, models, known)


def rows_of_metrics(rows: Mapping[str, Any], metrics: Sequence[str], config: EvaluationConfig) -> Rows:
    """Those of the scores that these metrics have with these settings."""
    return {key: rows[key] for name in metrics for key in rows if _is_of(key, rows[key], name, config)}


def _scored(
    run: Run, metrics: Sequence[str], models: Mapping[str, nn.Module], known: Mapping[str, Mapping[str, Any]]
) -> dict[str, Rows]:
    """What is known and still holds, and what is missing of the metrics, computed now; writes ``scores.json``."""
    setup, config = run.setup, run.config.evaluation
    pairs, wanted, scores = setup.data("test"), setup.metrics(metrics), dict[str, Rows]()
    for name, model in models.items():
        mark = _mark(run, model)
        rows = {key: row for key, row in known.get(name, {}).items() if mark.items() <= row.get("of", {}).items()}
        asked = [metric for metric in wanted if not (name == "teacher" and against_teacher(metric))]  # not itself
        missing = [metric for metric in asked if not rows_of_metrics(rows, [metric], config)]
        found = scores_to_json(setup.scoring.evaluator(missing, halves=True)(model, pairs)) if missing else {}
        for key, row in found.items():
            settings = next(find_metric(m).settings(config) for m in missing if _names(m, key))
            rows[_free_name(key, settings, rows)] = {**row, "of": {**mark, "settings": settings}}
        scores[name] = rows
    write_json(run.folder.scores, scores)
    return scores


def _scored_models(run: Run) -> dict[str, nn.Module]:
    return {**_plain(run), **models_of(run)}


def _mark(run: Run, model: nn.Module) -> dict[str, str]:
    """What scores of a model are of: its weights, and the pictures."""
    return {"weights": state_digest(model)[:12], "data": run.setup.data("test").digest()}


def _names(metric: str, key: str) -> bool:
    """Whether a score is called so as one of a metric's by the name that it was asked by: ``l1``, ``l1[teacher]``."""
    base, record = metric.removesuffix(TEACHER_MARK), find_metric(metric)
    fits = key.startswith(base) and record.names(record.name + key.removeprefix(base))
    return fits and against_teacher(key) == against_teacher(metric)


def _is_of(key: str, row: Mapping[str, Any], metric: str, config: EvaluationConfig) -> bool:
    return _names(metric, key) and row["of"]["settings"] == find_metric(metric).settings(config)


def _free_name(key: str, settings: Mapping[str, Any], rows: Mapping[str, Mapping[str, Any]]) -> str:
    """The name of a score: with its settings where one of other settings has the name."""
    if key not in rows:
        return key
    theirs = rows[key]["of"]["settings"]
    other = [f"{name} {value}" for name, value in settings.items() if theirs.get(name) != value]
    marks = re.sub(r"[\[\],]", "_", "; ".join(other))
    return f"{key[:-1]},{marks}]" if key.endswith("]") else f"{key}[{marks}]"


def _plain(run: Run) -> dict[str, nn.Module]:
    """What no generator at all would make, where that are pictures like the outputs."""
    setup = run.setup
    inputs = setup.data("test").batch(np.arange(1))[0]
    made = output_of(setup.generator, inputs, f"generator {run.config.generator!r}")
    picture = first(inputs)
    if setup.traits.takes != "pictures" or not is_picture(picture) or picture.shape[1] != made.shape[1]:
        return {}
    factors = [large / small for large, small in zip(made.shape[2:], picture.shape[2:], strict=True)]
    names = {"input": "bicubic"} if factors == [1, 1] else ENLARGED
    return {name: Enlarged(factors, mode).to(setup.device) for name, mode in names.items()}


class Enlarged(nn.Module):
    """The first input with its height and width so many times as large; as it is where that is once.

    Args:
        mode: ``bicubic``, without antialiasing, or ``nearest``.
    """

    def __init__(self, factors: Sequence[float], mode: str = "bicubic") -> None:
        super().__init__()
        self.factors, self.mode = tuple(factors), mode
        self.register_buffer("place", torch.zeros(()), persistent=False)  # what can be moved computes where it is

    def forward(self, picture: Tensor, *others: Tensor) -> Tensor:
        size = [round(side * factor) for side, factor in zip(picture.shape[2:], self.factors, strict=True)]
        if list(picture.shape[2:]) == size:
            return picture
        if self.mode == "nearest":
            return F.interpolate(picture, size=size, mode="nearest")
        return F.interpolate(picture, size=size, mode="bicubic", align_corners=False).clamp(-1, 1)


def models_of(run: Run) -> dict[str, nn.Module]:
    """The generators that a run can be asked for, where it computes, by the names that its scores have."""
    models: dict[str, nn.Module] = {"teacher": placed_teacher(run.setup)} if run.setup.taught else {}
    models["subnet"] = run.subnet()[1]
    simulated = load_fake_quantized(run.folder.subnet_ranges, models["subnet"])
    models |= {"subnet, 8 bits simulated": simulated} if simulated is not None else {}
    last = run.last_subnet()
    models |= {"subnet, last step": last} if last is not None else {}
    return {name: model.to(run.setup.device) for name, model in models.items()}
