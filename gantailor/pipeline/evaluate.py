"""Stage "evaluate": scores of teacher and subnet on the test split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gantailor.evaluators.scores import against_teacher
from gantailor.evaluators.scoring import scores_to_json
from gantailor.run.inputs import placed_teacher
from gantailor.run.run import Run
from gantailor.run.shapes import output_of
from gantailor.supernet.calling import first
from gantailor.supernet.files import write_json
from gantailor.supernet.quantization.activation_ranges import load_fake_quantized
from gantailor.zoo.data.pictures import is_picture

ENLARGED = {"input, nearest": "nearest", "input, enlarged": "bicubic"}  # rows where outputs are larger than inputs


def evaluate(run: Run) -> dict[str, Any]:
    """Scores of the input, the teacher and the subnet; writes ``scores.json``. The teacher has none against itself.

    ``input`` is what no generator at all would score. Where outputs are larger, inputs are enlarged: ``input,
    enlarged`` bicubically, the usual baseline of super-resolution, and ``input, nearest`` by repeating pixels. There is
    none where inputs and outputs do not have the same channels.
    """
    setup = run.setup
    pairs, evaluator = setup.data("test"), setup.scoring.evaluator(setup.metrics(run.config.evaluation.final))
    scores = {name: scores_to_json(evaluator(model, pairs)) for name, model in models_of(run).items()}
    if "teacher" in scores:  # not against itself
        scores["teacher"] = {name: row for name, row in scores["teacher"].items() if not against_teacher(name)}
    inputs = pairs.batch(np.arange(1))[0]
    made = output_of(setup.generator, inputs, f"generator {run.config.generator!r}")
    if setup.traits.takes == "pictures" and is_picture(first(inputs)) and first(inputs).shape[1] == made.shape[1]:
        factors = [large / small for large, small in zip(made.shape[2:], first(inputs).shape[2:], strict=True)]
        names = {"input": "bicubic"} if factors == [1, 1] else ENLARGED
        plain = {name: Enlarged(factors, mode).to(setup.device) for name, mode in names.items()}
        scores = {**{name: scores_to_json(evaluator(model, pairs)) for name, model in plain.items()}, **scores}
    write_json(run.folder.scores, scores)
    return scores


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
