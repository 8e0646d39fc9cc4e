"""The search of a run: its objectives, its evaluations, in one process or in several."""

from __future__ import annotations

import hashlib
import multiprocessing
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from gantailor.evaluators.metric import find_metric
from gantailor.evaluators.scores import Subset
from gantailor.run.run import Run, load_supernet
from gantailor.search.latency import LatencyProfile
from gantailor.search.study import Objective, Search, SearchError, open_study, release_dead
from gantailor.supernet.graph import SubnetConfig

Listener = Callable[[int, float], None]


def objectives_of(run: Run) -> tuple[Objective, ...]:
    """The score that the search follows, and a cost where it searches the whole front."""
    score = Objective(run.search_metric(), find_metric(run.search_metric()).lower_is_better)
    cost = Objective(run.config.search.front_cost.partition("@")[0])
    return (score, cost) if run.config.search.front else (score,)


def make_search(run: Run) -> Search:
    """A search on the run's study, with the trained supernet."""
    supernet, evaluation = run.supernet(), run.config.evaluation
    load_supernet(supernet, run.path("supernet.safetensors"))
    pairs = Subset(run.data("search"), evaluation.search_images)
    metric = run.search_metric()
    evaluator = run.scoring().evaluator([metric])

    file = run.config.search.front_cost.partition("@")[2]
    profile = LatencyProfile.load(file) if file and run.config.search.front else None

    def score(config: SubnetConfig) -> dict[str, float]:
        scores = evaluator(run.calibrated(supernet.extract(config)), pairs)
        found = {metric: next(iter(scores.values())).value, "params": float(supernet.parameter_count(config))}
        if profile:
            found["latency_ms"] = float(profile.predict_sizes(supernet, np.array([list(config.values())]))[0])
        return found

    timing = repr(profile) if profile else ""
    parts = (run.path("supernet.safetensors").read_bytes(), metric, pairs.digest(), evaluation.extractor, timing)
    content = b"|".join(part if isinstance(part, bytes) else part.encode() for part in parts)
    objectives = objectives_of(run)
    return Search(
        open_study(run.config.search.storage or run.path("search.journal"), name="gantailor", objectives=objectives),
        run.budget(),
        score,
        objectives=objectives,
        strategy=run.config.search.strategy,
        seed=run.config.seed,
        provenance=hashlib.sha256(content).hexdigest()[:12],
        lock=run.path(".search.lock"),
    )


def evaluate_all(run: Run, searcher: Search, listener: Listener) -> None:
    """Evaluate until the configured number of subnets have scores.

    Raises:
        SearchError: evaluations fail one after the other, or no worker is left.
    """
    settings = run.config.search
    first = searcher.objectives[0]

    def best(done: int, _: object = None) -> None:
        history = searcher.history()
        if len(history.values):
            low = float(history.values[:, 0].min())
            listener(done, low if first.minimize else -low)

    if settings.ray_address:
        from gantailor.pipeline.ray_search import evaluate_with_ray

        release_dead(searcher.study)
        evaluate_with_ray(run, searcher, on_trial=best)
    elif settings.workers == 1:
        searcher.run(settings.trials, on_trial=best)
    else:
        _evaluate_in_processes(run, searcher, best)


def _evaluate_in_processes(run: Run, searcher: Search, on_trial: Callable[[int], None]) -> None:
    """Worker processes on this machine share the study; a dead one is not replaced, its subnet is tried again."""
    context = multiprocessing.get_context("spawn")
    settings = run.config.search
    threads = max(1, torch.get_num_threads() // settings.workers)
    arguments = (str(run.folder), run.config.model_dump(mode="json"), threads)
    while True:
        workers = [context.Process(target=work, args=arguments, daemon=True) for _ in range(settings.workers)]
        for worker in workers:
            worker.start()
        shown = -1
        while any(worker.is_alive() for worker in workers):
            time.sleep(0.3)
            done = searcher.history().counted
            if done != shown:
                on_trial(done)
                shown = done
        codes: Sequence[Any] = [worker.exitcode for worker in workers]
        if searcher.history().counted >= settings.trials or all(code == 0 for code in codes):
            break
        if all(code == 1 for code in codes):
            raise SearchError("every search worker failed; the reasons stand above and in the study's trials")
    searcher.run(settings.trials)  # what a killed worker left


def work(folder: str, config: dict[str, Any], threads: int) -> None:
    """A worker process."""
    from gantailor.run.config import Config

    torch.set_num_threads(threads)
    run = Run(folder, Config.model_validate(config))
    make_search(run).run(run.config.search.trials)
