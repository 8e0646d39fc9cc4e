"""The finalists of a run's search: short tunings, each the beginning of a fine-tuning, which the best goes on with."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from gantailor.pipeline.search.halving import Finalists, Tune
from gantailor.pipeline.search.processes import run_workers
from gantailor.pipeline.search.ray import run_on_cluster
from gantailor.pipeline.search.study import make_search
from gantailor.pipeline.training.finetune import at_its_end, tuning_of
from gantailor.run.config import Config
from gantailor.run.folder import write_config
from gantailor.run.run import Run
from gantailor.search.study import Search
from gantailor.supernet.errors import ConfigError
from gantailor.supernet.files import write_bytes, write_json
from gantailor.supernet.graph import SubnetConfig
from gantailor.supernet.subnets.copying import copied
from gantailor.supernet.training import distributed
from gantailor.supernet.training.trainer import Trainer


def tune_finalists(run: Run, searcher: Search) -> Finalists:
    """Tune the best subnets of a search whose trials are done, in as many processes.

    Raises:
        ConfigError: they would train under ``torchrun``, where this stage is one process's.
        SearchError: workers are lost one after the other.
    """
    finalists, settings = make_finalists(run, searcher), run.config.search
    count = len(finalists.rows)
    if not finalists.unfinished(count):
        return finalists
    if distributed.world() > 1:
        raise ConfigError(
            "search.tuning_kimg tunes in processes of its own, not under torchrun; run gantailor search with the same "
            "settings in this folder first (search.workers shares it), then this again"
        )
    arguments = (str(run.folder.path.resolve()), run.config.model_dump(mode="json"))
    if settings.ray_address:
        run_on_cluster(settings, work, (*arguments, max(1, int(settings.ray_cpus))), results=_told(run, finalists))
    elif settings.workers == 1:
        finalists.run(count)
    else:
        threads = max(1, torch.get_num_threads() // settings.workers)
        run_workers(work, (*arguments, threads), count=settings.workers, results=lambda: finalists.history().counted)
    return finalists


def _told(run: Run, finalists: Finalists) -> Callable[[], None]:
    """Tells of every finalist that has ended, elsewhere."""
    shown = 0

    def tell() -> None:
        nonlocal shown
        if (ended := len(finalists.history().values)) != shown:
            shown = ended
            run.report.note(f"{ended} of {len(finalists.rows)} finalists are tuned to the end")

    return tell


def work(folder: str, config: dict[str, Any], threads: int) -> None:
    """A worker process."""
    torch.set_num_threads(threads)
    run = Run(folder, Config.model_validate(config))
    finalists = make_finalists(run, make_search(run))
    finalists.run(len(finalists.rows))


def make_finalists(run: Run, searcher: Search) -> Finalists:
    """The finalists, with the run's own fine-tuning."""
    settings = run.config.search
    tuning = f"{run.config.finetune.model_dump_json()}|{run.config.hand_on}|{run.narrowing}"
    tune = _tune(run, searcher.provenance)
    return Finalists(searcher, tune, count=settings.finalists, kimg=settings.tuning_kimg, settings=tuning)


def _folder(run: Run, config: SubnetConfig, provenance: str) -> Path:
    known = f"{config.to_json()}|{provenance}"
    return run.folder.file("finalists") / hashlib.sha256(known.encode()).hexdigest()[:12]


def _tune(run: Run, provenance: str) -> Tune:
    """Fine-tuning by the run's own recipe, from where it stopped to a number of images; the search's score then."""
    recipe, metric = run.config.finetune, run.setup.search_metric
    evaluator = None

    def tune(config: SubnetConfig, kimg: float) -> float:
        nonlocal evaluator
        folder, step = _folder(run, config, provenance), max(1, round(kimg * 1000 / recipe.batch))
        file = folder / "scores.json"
        known: dict[str, float] = run.folder.stored(file)
        if str(step) not in known:
            write_config(folder / "subnet.json", config)
            trainer = Trainer(tuning_of(run, config)[0], recipe, workers=run.config.data.workers)
            trained = trainer.run(folder / "subnet.ckpt.safetensors", stop_after=step)
            evaluator = evaluator or run.setup.scoring.evaluator([metric])
            known[str(step)] = next(iter(evaluator(copied(at_its_end(trained)), run.sample).values())).value
            write_json(file, known)
            run.report.note(f"finalist {folder.name}: {metric} {known[str(step)]:.5g} after {kimg:g} kimg")
        return known[str(step)]

    return tune


def go_on_with(run: Run, config: SubnetConfig, provenance: str) -> None:
    """Fine-tuning of the chosen subnet, if that has not begun, goes on where its tuning stopped."""
    checkpoint = run.folder.subnet_checkpoint
    if checkpoint.exists() or run.folder.subnet.exists():
        return
    for theirs in sorted(_folder(run, config, provenance).glob("subnet.ckpt.*")):  # the log first: both or none count
        write_bytes(checkpoint.with_name(theirs.name), theirs.read_bytes())
