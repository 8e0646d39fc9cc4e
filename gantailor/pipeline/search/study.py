"""The search of a run: its objectives, its evaluations, in one process or in several."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from gantailor.evaluators.metric import metric_of
from gantailor.evaluators.scores import Subset
from gantailor.pipeline.search.processes import run_workers
from gantailor.run.config import Config
from gantailor.run.progress import Reporter
from gantailor.run.run import Run
from gantailor.run.study import digest, storage_of, study_name
from gantailor.search.latency import LatencyProfile
from gantailor.search.scoring import Objective, Scorer
from gantailor.search.storage import open_study, reaching
from gantailor.search.study import EVERY, Search
from gantailor.supernet.files import write_json
from gantailor.supernet.graph import SubnetConfig

Listener = Callable[[int, float], None]


def objectives_of(run: Run) -> tuple[Objective, ...]:
    """The score that the search follows, and a cost where it searches the whole front."""
    score = Objective(run.setup.search_metric, metric_of(run.setup.search_metric).lower_is_better)
    cost = Objective(run.config.search.front_cost.partition("@")[0])
    return (score, cost) if run.config.search.front else (score,)


def make_search(run: Run) -> Search:
    """A search on the run's study, with the trained supernet; ``study.json`` says which study that is."""
    pairs = run.sample
    profile = front_profile(run.config)
    weights, timing = run.folder.supernet.read_bytes(), repr(profile) if profile else ""
    stamps = (run.setup.search_metric, pairs.digest(), run.config.evaluation.extractor, timing)
    provenance = digest(weights, *(stamp.encode() for stamp in stamps))
    objectives, budget = objectives_of(run), run.setup.budget
    name = study_name(run, provenance, objectives, budget.space)
    study = open_study(storage_of(run), name=name, objectives=objectives, space=budget.space)
    write_json(run.folder.study, {"name": name, "provenance": provenance})
    return Search(
        study,
        budget,
        _scorer(run, pairs, profile),
        objectives=objectives,
        strategy=run.config.search.strategy,
        seed=run.config.seed,
        provenance=provenance,
        lock=run.folder.search_lock,
    )


def front_profile(config: Config) -> LatencyProfile | None:
    """The latency profile whose times are the front's cost; None for another cost.

    Raises:
        ConfigError: it cannot be read.
    """
    file = config.search.front_cost.partition("@")[2]
    return LatencyProfile.load(file) if file and config.search.front else None


def _scorer(run: Run, pairs: Subset, profile: LatencyProfile | None) -> Scorer:
    supernet, metric = run.trained(), run.setup.search_metric
    evaluator = run.setup.scoring.evaluator([metric])

    def score(config: SubnetConfig) -> dict[str, float]:
        scores = evaluator(run.setup.calibrated(supernet.extract(config)), pairs)
        found = {metric: next(iter(scores.values())).value, "params": float(supernet.parameter_count(config))}
        if profile:
            found["latency_ms"] = float(profile.predict_sizes(supernet, np.array([list(config.values())]))[0])
        return found

    return score


def evaluate_all(run: Run, searcher: Search, listener: Listener) -> None:
    """Evaluate until the configured number of subnets have scores.

    Raises:
        SearchError: evaluations fail one after the other, or workers are lost one after the other.
    """
    settings = run.config.search
    first = searcher.objectives[0]
    if not searcher.unfinished(settings.trials):
        return

    def best(done: int, _: Any = None) -> None:
        history = searcher.history()
        if len(history.values):
            low = float(history.values[:, 0].min())
            listener(done, low if first.minimize else -low)

    if settings.ray_address:
        from gantailor.pipeline.search.ray import evaluate_with_ray

        if searcher.probing is not None:
            evaluate_with_ray(run, searcher.probing, on_trial=lambda done: None, trials=EVERY)
        evaluate_with_ray(run, searcher, on_trial=best)
    elif settings.workers == 1:
        searcher.run(settings.trials, on_trial=best)
    else:
        _evaluate_in_processes(run, searcher, best)
    _note_what_is_missing(run, searcher)


def _note_what_is_missing(run: Run, searcher: Search) -> None:
    """Fewer subnets or scores than were asked for are no silent end."""
    history, trials = searcher.history(), run.config.search.trials
    if history.counted < trials:
        run.report.note(
            f"the search ends with {history.counted} of {trials} subnets: {run.config.search.strategy} found no other "
            f"in the space that meets {searcher.budget}"
        )
    if failed := history.failed:
        run.report.note(f"{len(failed)} subnets have no score, the last because of {failed[-1]}")


def _evaluate_in_processes(run: Run, searcher: Search, on_trial: Callable[[int], None]) -> None:
    """Worker processes on this machine share the study; the subnet of one that is killed is tried again."""
    workers, shown = run.config.search.workers, -1

    def results() -> int:
        nonlocal shown
        history = searcher.history()
        if history.counted != shown:
            shown = history.counted
            on_trial(shown)
        return len(history.values) + len(history.probes[0])

    threads = max(1, torch.get_num_threads() // workers)
    run_workers(work, (str(run.folder), run.config.model_dump(mode="json"), threads), count=workers, results=results)


def work(folder: str, config: dict[str, Any], threads: int) -> None:
    """A worker process."""
    torch.set_num_threads(threads)
    run = Run(folder, Config.model_validate(config), report=Reporter(quiet=True))  # the parent tells
    with reaching(storage_of(run)):
        make_search(run).run(run.config.search.trials)
