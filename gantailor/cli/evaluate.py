"""Command ``evaluate``: scores of a run, of a checkpoint, of an export, or of folders of pictures."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from typing import Any

from gantailor.cli.flags import config_of, given_settings, places_of
from gantailor.evaluators.config import EvaluationConfig
from gantailor.evaluators.folder import FOLDER_METRICS, evaluate_folders
from gantailor.evaluators.metric import find_metric
from gantailor.evaluators.scores import Score, against_teacher
from gantailor.evaluators.scoring import Scoring, scores_to_json
from gantailor.export.export import Exported
from gantailor.inference.models import described, is_exported, open_generator
from gantailor.pipeline.evaluate import add_scores, rows_of_metrics
from gantailor.pipeline.export import note_untuned, renew_scores
from gantailor.pipeline.report import report as write_pages
from gantailor.reports.scores import print_changes, print_scores
from gantailor.run.data import note_other_data
from gantailor.run.inputs import placed_teacher
from gantailor.run.loading import load_config
from gantailor.run.progress import Reporter
from gantailor.run.run import Run, open_run
from gantailor.run.setup import Setup
from gantailor.supernet.errors import ConfigError
from gantailor.supernet.files import cache_folder


def evaluate(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """Score a run, a checkpoint, an export, or a folder of pictures; the scores with their provenance."""
    metrics = tuple(metric.strip() for metric in (arguments.metrics or "").split(",") if metric.strip())
    if arguments.metrics is not None and not metrics:
        raise ConfigError(
            f"--metrics {arguments.metrics!r} names none; give some, --metrics fid,kid say, or leave it out"
        )
    if arguments.run is not None and not (arguments.images or arguments.reference):
        rows = _of_run(arguments, metrics)
    elif arguments.images or arguments.reference:
        rows = scores_to_json(_of_folders(arguments, metrics))
    elif arguments.weights and is_exported(arguments.weights):
        rows = scores_to_json(_of_export(arguments, metrics))
    else:
        rows = scores_to_json(_of_checkpoint(arguments, metrics))
    if arguments.against:
        print_changes(rows, arguments.against)
    print_scores(rows)
    return rows


def _of_folders(arguments: argparse.Namespace, metrics: tuple[str, ...]) -> Mapping[str, Score]:
    if not (arguments.images and arguments.reference):
        raise ConfigError("--images and --reference go together: two folders of pictures")
    if arguments.run is not None:
        raise ConfigError("score a run, or --images against --reference, not both")
    config = config_of(arguments, _base(arguments, "evaluation.weights"))
    return evaluate_folders(
        Scoring(config.evaluation),
        arguments.images,
        arguments.reference,
        metrics or FOLDER_METRICS,
        cache=cache_folder(),
        skip_corrupt=arguments.skip_corrupt or config.data.skip_corrupt,
        background=config.data.background,
        on_picture=Reporter().pictures("pictures"),
    )


def _of_run(arguments: argparse.Namespace, metrics: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Of the run's subnet, with the run's own settings of scores but for those given here.

    Those of the test split are added to the run's. Where its data or teacher lie now may be given too.
    """
    given = given_settings(arguments)
    where = places_of(given)
    given |= _base(arguments, "teacher")
    if other := [name for name in given if not name.startswith("evaluation.")]:
        raise ConfigError(f"a run has its own {', '.join(other)}; leave it out, or give --weights without a run")
    run = open_run(arguments.run, trust_code=arguments.trust_code, where=where)
    known_by = run.config.evaluation
    if given:
        values = run.config.model_dump(mode="json")
        changed = load_config({"evaluation": values["evaluation"]}, given).evaluation
        run = type(run)(run.folder.path, run.config.model_copy(update={"evaluation": changed}))
    note_untuned(run)
    setup = run.setup
    note_other_data(run, {arguments.split: setup.data(arguments.split).digest()})
    wanted = setup.metrics(metrics or run.config.evaluation.final)
    if arguments.split != "test" or not os.access(run.folder.path, os.W_OK):
        scores = setup.scoring.evaluator(wanted)(run.subnet()[1].to(setup.device), setup.data(arguments.split))
        return scores_to_json(scores)
    return _added(run, wanted, known_by)


def _added(run: Run, metrics: Sequence[str], known_by: EvaluationConfig) -> dict[str, dict[str, Any]]:
    """The subnet's, from the run's scores, its manifests and its report, which have these too from now on."""
    run.subnet_config()  # said before anything is written
    run.folder.lock()
    try:
        before = run.folder.stored(run.folder.scores)
        scores = add_scores(run, metrics, known_by)
        renew_scores(run)
        # A page tells of an export too: where that is gone, or moved with an earlier subnet, compress writes both.
        if scores != before and run.folder.report.exists() and run.folder.manifest.exists():
            write_pages(run)
    finally:
        run.release()
    return rows_of_metrics(scores["subnet"], metrics, run.config.evaluation)


def _of_checkpoint(arguments: argparse.Namespace, metrics: tuple[str, ...]) -> Mapping[str, Score]:
    """Of a generator on a data split, not against the teacher, which is itself."""
    skip = {"data.skip_corrupt": True} if arguments.skip_corrupt else {}
    setup = Setup(config_of(arguments, _base(arguments, "teacher") | skip))
    asked: Any = metrics or setup.metrics(setup.config.evaluation.final)
    wanted = [name for name in asked if not against_teacher(name)]
    if len(wanted) < len(asked) and (metrics or not wanted):
        raise ConfigError(
            f"{', '.join(name for name in asked if against_teacher(name))} would compare the checkpoint with itself; "
            "score a run, or ask for a metric against real pictures: --metrics fid"
        )
    return setup.scoring.evaluator(wanted)(placed_teacher(setup), setup.data(arguments.split))


def _of_export(arguments: argparse.Namespace, metrics: tuple[str, ...]) -> Mapping[str, Score]:
    """Of an exported generator, which says itself what it is, on a data split; beside a teacher where one is given."""
    given, name = given_settings(arguments), str(arguments.weights)
    if wrong := [setting for setting in ("generator", "options") if setting in given]:
        raise ConfigError(f"{name!r} is an export and says its own {', '.join(wrong)}; leave that out")
    generator = open_generator(name, trust_code=arguments.trust_code)
    base = {name: value for name, value in _base(arguments, "teacher").items() if name != "teacher"}
    base |= {"teacher.weights": "none"} | ({"data.skip_corrupt": True} if arguments.skip_corrupt else {})
    setup = Setup(config_of(arguments, base | described(name)))
    setup.generator = generator
    asked: Any = metrics or setup.config.evaluation.final
    if isinstance(generator, Exported) and (costs := [n for n in asked if find_metric(n).compares == "generator"]):
        raise ConfigError(
            f"{', '.join(costs)} are counted in PyTorch; score the model.safetensors of the same export, or start the "
            "bench.py beside the model for milliseconds"
        )
    wanted = metrics or setup.metrics(asked)
    return setup.scoring.evaluator(wanted)(generator.to(setup.device), setup.data(arguments.split))


def _base(arguments: argparse.Namespace, weights: str) -> dict[str, Any]:
    """What the command's own flags set; ``weights`` is the setting that ``--weights`` means."""
    base = {"evaluation.extractor": arguments.extractor, weights: arguments.weights}
    return {name: value for name, value in base.items() if value is not None}
