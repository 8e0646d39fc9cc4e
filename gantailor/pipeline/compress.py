"""The main job, stage by stage. Each stage is a function of the run folder and writes one file there.

A stage whose file exists is done; delete the file to do it again. Training and search continue from where they were.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from gantailor.evaluators.errors import EvaluationError
from gantailor.export.devices import device
from gantailor.export.export import export_run, made_from
from gantailor.export.targets import check_installed
from gantailor.pipeline import ranking as rankings
from gantailor.pipeline import sparsifying
from gantailor.pipeline.scoring import stamped
from gantailor.pipeline.search import evaluate_all, make_search
from gantailor.pipeline.training import finetune, train
from gantailor.run.defaults import SPARSIFYING
from gantailor.run.run import Run
from gantailor.search.results import best_config, table
from gantailor.supernet.errors import ConfigError
from gantailor.supernet.files import write_bytes, write_json
from gantailor.supernet.graph import SubnetConfig
from gantailor.supernet.quantization.ranges import load_simulated
from gantailor.supernet.training import distributed as workers
from gantailor.supernet.verify import verify
from gantailor.zoo.data.pairs import is_picture


def look(run: Run) -> None:
    """Find mistakes without writing anything: settings, data, teacher, trace, budget, metrics, devices.

    Raises:
        GantailorError: the first that is found.
    """
    sparsifying.check(run)
    run.budget()
    config = run.config
    untrained = config.train.kimg == 0 and config.supernet is None
    if untrained and config.space.name == "uniform" and config.search.trials > 1 and not config.search.front:
        raise ConfigError(
            f"search.trials is {config.search.trials}, but no supernet is trained (train.kimg 0): scores of untrained "
            "subnets say nothing, often the smallest wins. Set search.trials 1, which takes the share that meets "
            "the budget, or a train.kimg"
        )
    for split in ("train", "search", "test"):
        run.data(split)
    final = run.metrics(run.config.evaluation.final)
    run.scoring().evaluator([run.search_metric(), *final])
    kept = {name.removesuffix("[teacher]") for name in final}
    if left := [name for name in run.config.evaluation.final if name not in kept]:
        run.report.note(f"scores without {', '.join(left)}: the data has no real pictures to compare with")
    for name in run.config.devices:
        check_installed(device(name))
    for file in (run.config.ranking if rankings.is_file(run.config.ranking) else None, run.config.supernet):
        if file is not None and not Path(file).is_file():
            raise ConfigError(f"{file!r} does not exist; give the path of a file")


def check(run: Run) -> dict[str, Any]:
    """Find every mistake before any training, prove the trace, and take the folder. Writes ``trace.json``."""
    look(run)
    run.claim()
    supernet = run.supernet()  # ranked from here on, which may take minutes
    if not run.path("ranking.json").exists():
        rankings.save(run.path("ranking.json"), run.scores, **rankings.provenance(run, run.config.ranking))
    proof = verify(supernet, repair=True)
    budget = run.budget()  # widths that had to be frozen move the reachable range
    full = supernet.full_config()
    result = {
        "graph": str(supernet.graph),
        "verified": str(proof),
        "macs_full": {c: supernet.macs(full, convention=c) for c in ("true", "published")},
        "budget_macs": budget.macs,
        "convention": budget.convention,
        "space": budget.space.count,
    }
    write_json(run.path("trace.json"), result)
    return result


def search(run: Run) -> SubnetConfig:
    """Search the best subnet within the budget; writes ``subnet.json`` and ``front.csv``.

    A study that has enough trials for the budget is not searched again; more ``trials`` add to it. A study of a whole
    front answers every later budget.
    """
    searcher = make_search(run)
    with run.report.counting("search", run.config.search.trials) as listener:
        evaluate_all(run, searcher, listener)
    write_bytes(run.path("front.csv"), table(searcher.study).to_csv(index=False).encode())
    best = best_config(searcher.study, searcher.budget, provenance=searcher.provenance)
    _set_aside(run, best)
    write_bytes(run.path("subnet.json"), (best.to_json() + "\n").encode())
    return best


def _set_aside(run: Run, best: SubnetConfig) -> None:
    """Where a longer search found another subnet, what was made of the earlier one moves into ``earlier/``."""
    file = run.path("subnet.json")
    if not file.exists() or SubnetConfig.from_json(file.read_text()) == best:
        return
    folder = run.path("earlier") / hashlib.sha256(file.read_bytes()).hexdigest()[:8]
    folder.mkdir(parents=True, exist_ok=True)
    for found in [*run.folder.glob("subnet.*"), *run.folder.glob("finetune.*"), run.path("export")]:
        if found.exists():
            found.rename(folder / found.name)


def export(run: Run) -> dict[str, Any]:
    """Write ``export/``: safetensors, a folder for each device, and a manifest, all checked against PyTorch."""
    targets, file = [device(name) for name in run.config.devices], run.path("export/manifest.json")
    done = json.loads(file.read_text()) if file.exists() else {}
    if done.get("made_from") == made_from(run) and all(target.name in done["devices"] for target in targets):
        return done
    return export_run(run, targets)


def score(run: Run) -> dict[str, Any]:
    """Scores of teacher and subnet on the test split; writes ``scores.json``."""
    pairs, evaluator = run.data("test"), run.scoring().evaluator(run.metrics(run.config.evaluation.final))
    models: dict[str, nn.Module] = {"teacher": run.teacher()} if run.taught else {}
    models["subnet"] = run.subnet()[1]
    simulated = load_simulated(run.path("subnet.ranges.json"), models["subnet"])
    models |= {"subnet, 8 bits simulated": simulated} if simulated is not None else {}
    last = run.last_subnet()
    models |= {"subnet, last step": last} if last is not None else {}
    scores = {name: stamped(evaluator(model, pairs)) for name, model in models.items()}
    if is_picture(pairs.batch(np.arange(1))[0]):
        with suppress(EvaluationError):  # what no generator at all would score; sizes and channels may differ
            scores = {"input": stamped(evaluator(nn.Identity(), pairs)), **scores}
    write_json(run.path("scores.json"), scores)
    return scores


def report(run: Run) -> None:
    """Write ``front.png``, ``front.svg``, ``front.html`` and ``report.html``."""
    from gantailor.reports import figures, fronts
    from gantailor.reports.report import write_report
    from gantailor.reports.search_result import SearchResult

    found = [SearchResult.read(run.folder)]
    figure = fronts.draw(found)
    figures.save(figure, run.path("front.png"))
    figures.save(figure, run.path("front.svg"))
    fronts.write_page(run.path("front.html"), found)
    write_report(run, figure)


def by_method(stage: str, usual: Callable[[Run], Any]) -> Callable[[Run], Any]:
    """A stage that a method may do in its own way."""
    own = {"train": sparsifying.train, "search": sparsifying.select}[stage]
    return lambda run: (own if run.config.method in SPARSIFYING else usual)(run)


STAGES: dict[str, Callable[[Run], Any]] = {
    "check": check,
    "train": by_method("train", train),
    "search": by_method("search", search),
    "finetune": finetune,
    "evaluate": score,
    "export": export,
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
