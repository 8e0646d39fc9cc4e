"""The main job, stage by stage. Each stage is a function of the run folder and writes one file there.

A stage whose file exists is done; delete the file to do it again. Training and search continue from where they were.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from torch import nn

from evaluators.errors import EvaluationError
from gantailor.export import export_onnx
from gantailor.run import Run, load_supernet
from gantailor.scoring import Subset, stamped
from gantailor.training import finetune, train
from search.study import best_config, open_study, run_search, table
from supernet import workers
from supernet.files import write_bytes, write_json
from supernet.graph import SubnetConfig
from supernet.verify import verify


def check(run: Run) -> dict[str, Any]:
    """Find every mistake before any training: data, teacher, trace, proof, budget. Writes ``trace.json``."""
    budget, supernet = run.budget(), run.supernet()
    for split in ("train", "search", "test"):
        run.data(split)
    run.scoring().evaluator([run.search_metric(), *run.config.evaluation.final])
    run.claim()
    proof = verify(supernet, repair=True)
    budget = run.budget()  # widths that had to be frozen move the reachable range
    full = supernet.full_config()
    result = {
        "graph": str(supernet.graph),
        "verified": str(proof),
        "macs_full": {c: supernet.macs(full, convention=c) for c in ("true", "published")},
        "budget_macs": budget.macs,
        "convention": budget.convention,
        "space": len(budget.space),
    }
    write_json(run.path("trace.json"), result)
    return result


def search(run: Run) -> SubnetConfig:
    """Search the best subnet within the budget on the search split; writes ``subnet.json`` and ``front.csv``."""
    if run.path("subnet.json").exists():
        return SubnetConfig.from_json(run.path("subnet.json").read_text())
    budget, supernet = run.budget(), run.supernet()
    load_supernet(supernet, run.path("supernet.safetensors"))
    study = open_study(run.path("search.journal"), name="gantailor")
    pairs = Subset(run.data("search"), run.config.evaluation.search_images)
    evaluator = run.scoring().evaluator([run.search_metric()])

    def score(config: SubnetConfig) -> float:
        found = next(iter(evaluator(run.calibrated(supernet.extract(config)), pairs).values()))
        return found.value if found.lower_is_better else -found.value

    with run.report.counting("search", run.config.trials) as listener:
        run_search(study, budget, score, trials=run.config.trials, seed=run.config.seed, on_trial=listener)
    write_bytes(run.path("front.csv"), table(study).to_csv(index=False).encode())
    best = best_config(study, budget)
    write_bytes(run.path("subnet.json"), (best.to_json() + "\n").encode())
    return best


def export(run: Run) -> dict[str, Any]:
    """Write ``export/``: ONNX, safetensors and a manifest, checked against the PyTorch subnet and the supernet."""
    config, narrow = run.subnet()
    return export_onnx(run.path("export"), narrow, config, run.supernet(), run.config)


def score(run: Run) -> dict[str, Any]:
    """Scores of teacher and subnet on the test split; writes ``scores.json``."""
    pairs, evaluator = run.data("test"), run.scoring().evaluator(run.config.evaluation.final)
    models = {"teacher": run.teacher(), "subnet": run.subnet()[1]}
    last = run.last_subnet()
    models |= {"subnet, last step": last} if last is not None else {}
    scores = {name: stamped(evaluator(model, pairs)) for name, model in models.items()}
    with suppress(EvaluationError):  # what no generator at all would score, where inputs are pictures like the outputs
        scores = {"input": stamped(evaluator(nn.Identity(), pairs)), **scores}
    write_json(run.path("scores.json"), scores)
    return scores


def report(run: Run) -> None:
    """Write ``front.png`` and ``report.html``."""
    from gantailor.report import draw_front, write_report

    draw_front(run)
    write_report(run)


STAGES: dict[str, Callable[[Run], Any]] = {
    "check": check,
    "train": train,
    "search": search,
    "finetune": finetune,
    "export": export,
    "evaluate": score,
    "report": report,
}


def compress(run: Run, *, until: str = "report") -> None:
    """All stages in order, up to and including one; what is already done is not done again."""
    try:
        for name, stage in STAGES.items():
            if workers.rank() == 0:
                run.report.stage(name)
            if workers.rank() == 0 or name in ("train", "finetune"):  # the only stages that several processes share
                stage(run)
            workers.wait()
            if name == until:
                break
    finally:
        run.release()
