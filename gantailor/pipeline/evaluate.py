"""Stage "evaluate": scores of teacher and subnet on the test split."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
from torch import nn

from gantailor.evaluators.scoring import scores_to_json
from gantailor.run.run import Run
from gantailor.supernet.calling import FirstInput, first
from gantailor.supernet.errors import EvaluationError
from gantailor.supernet.files import write_json
from gantailor.supernet.quantization.activation_ranges import load_fake_quantized
from gantailor.zoo.data.pictures import is_picture


def evaluate(run: Run) -> dict[str, Any]:
    """Scores of the input, the teacher and the subnet; writes ``scores.json``."""
    setup = run.setup
    pairs, evaluator = setup.data("test"), setup.scoring.evaluator(setup.metrics(run.config.evaluation.final))
    scores = {name: scores_to_json(evaluator(model, pairs)) for name, model in models_of(run).items()}
    if is_picture(first(pairs.batch(np.arange(1))[0])):
        with suppress(EvaluationError):  # what no generator at all would score; sizes and channels may differ
            scores = {"input": scores_to_json(evaluator(FirstInput(), pairs)), **scores}
    write_json(run.folder.scores, scores)
    return scores


def models_of(run: Run) -> dict[str, nn.Module]:
    """The generators that a run can be asked for, by the names that its scores have."""
    models: dict[str, nn.Module] = {"teacher": run.setup.teacher} if run.setup.taught else {}
    models["subnet"] = run.subnet()[1]
    simulated = load_fake_quantized(run.folder.subnet_ranges, models["subnet"])
    models |= {"subnet, 8 bits simulated": simulated} if simulated is not None else {}
    last = run.last_subnet()
    return models | ({"subnet, last step": last} if last is not None else {})
