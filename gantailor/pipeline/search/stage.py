"""Stage "search": which widths the subnet has, searched, or as the method's own training chose them."""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path

import numpy as np
from optuna.trial import TrialState

from gantailor.pipeline.search.curve import score_path
from gantailor.pipeline.search.finalists import go_on_with, tune_finalists
from gantailor.pipeline.search.study import evaluate_all, make_search
from gantailor.reports.tables import csv_bytes
from gantailor.run.folder import read_config, write_config
from gantailor.run.run import Run
from gantailor.run.study import storage_of
from gantailor.search.errors import SearchError
from gantailor.search.limits import format_macs
from gantailor.search.results import best_config, best_trial, table
from gantailor.search.storage import reaching
from gantailor.search.study import Search
from gantailor.supernet.errors import RunError
from gantailor.supernet.files import write_bytes
from gantailor.supernet.graph import SubnetConfig


def search(run: Run) -> SubnetConfig:
    """Choose the subnet within the budget; writes ``subnet.json`` and ``front.csv``.

    A study that has enough trials for the budget is not searched again; more ``trials`` add to it. A study of a whole
    front answers every later budget. With ``search.tuning_kimg`` the best are tuned before one is chosen. What a method
    chose itself is the study's only subnet.
    """
    folder = run.folder
    put_back(run)
    with reaching(storage_of(run)):
        searcher = make_search(run)
        _tell_of_others(run, searcher)
        _tell_of_end(run)
        _evaluate(run, searcher)
        found = table(searcher.study, searcher.budget.space, provenance=searcher.provenance)
        best = best_config(searcher.study, searcher.budget, provenance=searcher.provenance)
        write_bytes(folder.front, csv_bytes(found))
        score_path(run, searcher)
        if not folder.selected.exists() and not run.config.search.front:
            _tell_gain(run, searcher)
            best = _best_tuned(run, searcher) if run.config.search.tuning_kimg else best
    set_aside(run, best)
    write_config(folder.subnet_config, best)
    go_on_with(run, best, searcher.provenance)
    return best


def _evaluate(run: Run, searcher: Search) -> None:
    """Score what a method kept, the path's net alone, or as many subnets as are wanted."""
    if run.folder.selected.exists():
        _take_selected(run, searcher)
    elif not run.config.search.trials:
        searcher.take(searcher.budget.space.starts[0], "path")
    else:
        with run.report.counting("search", run.config.search.trials) as listener:
            evaluate_all(run, searcher, listener)


def _tell_of_end(run: Run) -> None:
    """A path answers budgets below its end too, with nets that were never trained."""
    path, supernet, budget = run.setup.path, run.setup.traced, run.setup.budget
    if path is None or budget.usage(path.rounded(path.sizes[path.trained], run.config.space.rounding)[None])[0] <= 1:
        return
    ends = supernet.macs(dict(zip(path.full, path.sizes[path.trained].tolist(), strict=True)))
    share = ends / supernet.macs(supernet.full_config())
    run.report.note(
        f"budget {run.config.budget} lies below the path's end, {format_macs(ends)} MACs ({share:.2g} of the whole): "
        "its net was never trained, and has all to learn in fine-tuning; for a path down to it, train with "
        "train.method_options.smallest"
    )


def _tell_of_others(run: Run, searcher: Search) -> None:
    """Who shares a study may think that its trials are theirs, too; machines that train by themselves differ."""
    trials = searcher.study.get_trials(deepcopy=False) if run.config.search.study else ()
    others = sum(trial.user_attrs.get("provenance") != searcher.provenance for trial in trials)
    if others:
        run.report.note(
            f"{others} trials of study {searcher.study.study_name!r} are of other weights, data or scores and do not "
            "count here; machines that search together take one trained file: --supernet FILE --train.kimg 0"
        )


def _tell_gain(run: Run, searcher: Search) -> None:
    """What the search's pick gained over uniform widths, or the path's net, by the scores that it followed."""
    history, budget = searcher.history(), searcher.budget
    begun, within = (history.indices == budget.baseline).all(1), history.values[budget.fits(history.indices), 0]
    if begun.any() and len(within) > 1:
        sign = _sign(searcher)
        compared = _gained(sign * float(within.min()), sign * float(history.values[begun, 0][0]), searcher)
        run.report.note(f"{searcher.objectives[0].name} inherited: {compared}")


def _sign(searcher: Search) -> int:
    return 1 if searcher.objectives[0].minimize else -1


def _gained(best: float, begun: float, searcher: Search) -> str:
    name = "the path's net" if searcher.budget.space.starts else "uniform widths"
    gain = _sign(searcher) * (begun - best) / max(abs(begun), 1e-12)
    return f"{best:.5g}, of {name} {begun:.5g}, " + (f"{gain:.1%} gained" if gain > 0 else "nothing gained")


def _best_tuned(run: Run, searcher: Search) -> SubnetConfig:
    """The best of the finalists after tuning.

    Raises:
        SearchError: none could be tuned.
    """
    finalists = tune_finalists(run, searcher)
    trials = finalists.study.get_trials(deepcopy=False)
    ended = sum(trial.state == TrialState.COMPLETE for trial in trials)
    if not ended:
        reasons = [trial.user_attrs["reason"] for trial in trials if "reason" in trial.user_attrs]
        raise SearchError(f"no finalist could be tuned, the last for: {reasons[-1] if reasons else 'nobody knows'}")
    _, indices = best_trial(finalists.study, finalists.budget, provenance=finalists.provenance)
    mine, begun = finalists.tuned(indices), finalists.tuned(finalists.budget.baseline)
    said = f"{ended} of {len(finalists.rows)} finalists were tuned on {finalists.lengths[-1]:g} kimg, others on less"
    if begun:
        rung = len(begun) - 1
        compared = _gained(mine[rung], begun[rung], finalists)
        said += f"; {finalists.objectives[0].name} after {finalists.lengths[rung]:g}: {compared}"
    run.report.note(said)
    return finalists.budget.space.to_config(indices)


def _take_selected(run: Run, searcher: Search) -> None:
    """Score what the method kept, and note it in the study.

    Raises:
        RunError: its widths are not of the run's space.
    """
    config = read_config(run.folder.selected)
    try:
        indices = [v.choices.index(v.choice_of(config)) for v in searcher.budget.space.variables]
    except (KeyError, ValueError):
        raise RunError(
            f"method {run.config.method!r} chose widths that space {run.config.space.name!r} does not have; set "
            "space: every"
        ) from None
    searcher.take(np.array(indices), run.config.method)


def set_aside(run: Run, best: SubnetConfig) -> None:
    """Where a longer search found another subnet, what was made of the earlier one moves into ``earlier/``.

    Its widths move last: a folder there without them is one that a kill left half full, see ``put_back``.
    """
    folder = run.folder
    file = folder.subnet_config
    if not file.exists() or read_config(file) == best:
        return
    known = hashlib.sha256(file.read_bytes()).hexdigest()[:8]
    names = itertools.chain([known], (f"{known}-{number}" for number in itertools.count(2)))  # it may come again
    earlier = next(place for name in names if not (place := folder.file("earlier") / name).exists())
    earlier.mkdir(parents=True)
    made = [*folder.path.glob("subnet[._]*"), *folder.path.glob("finetune.*"), folder.export]
    for found in filter(Path.exists, (*(one for one in made if one != file), file)):
        found.rename(earlier / found.name)
    run.report.note(f"another subnet was found; what was made of the earlier one lies in {earlier} now")


def put_back(run: Run) -> None:
    """What a killed process was about to set aside is where it was, so that it is set aside whole, or not at all."""
    folder = run.folder
    for half in sorted(folder.file("earlier").glob("*/")):
        if not (half / folder.subnet_config.name).exists():
            for file in half.iterdir():
                file.rename(folder.file(file.name))
            half.rmdir()
