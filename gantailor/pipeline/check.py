"""Stage "check": every mistake before any training, the proof of the trace, and the folder taken."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import yaml

from gantailor.evaluators.metric import find_metric
from gantailor.export.devices import device
from gantailor.export.sides import check_sides
from gantailor.export.target import check_device
from gantailor.export.weights import plain
from gantailor.pipeline.context import RunContext
from gantailor.pipeline.estimates import note_estimates
from gantailor.pipeline.export import keep_inputs
from gantailor.pipeline.search.ray import check_ray
from gantailor.pipeline.search.study import front_profile, objectives_of
from gantailor.pipeline.shapes import (
    check_features,
    check_networks,
    look,
    trainings,
)
from gantailor.records.modules import noted_modules
from gantailor.records.places import check_there, noted, value_of
from gantailor.run import ranking
from gantailor.run.config import is_file
from gantailor.run.data import (
    check_counts,
    check_statistics,
    contents,
    note_other_data,
    note_sample,
    note_shared,
)
from gantailor.run.inputs import check_size
from gantailor.run.run import Run, with_file
from gantailor.run.study import storage_of
from gantailor.search.methods.method import DISCRIMINATOR
from gantailor.search.storage import check_storage, prepare_storage
from gantailor.search.strategies import make_strategy
from gantailor.supernet.calling import as_tuple, forward
from gantailor.supernet.device import find_precision
from gantailor.supernet.errors import ConfigError, first_line
from gantailor.supernet.files import write_json
from gantailor.supernet.importance.ranking import criterion
from gantailor.supernet.plugins import own_function
from gantailor.supernet.subnets.copying import copied
from gantailor.supernet.training.task import check_coupled, check_parts, coupled_terms
from gantailor.supernet.traits import traits_of
from gantailor.zoo.data import SPLITS
from gantailor.zoo.tasks.training import find_training


def find_mistakes(run: Run) -> None:
    """Find mistakes without writing anything: settings, data, teacher, trace, budget, metrics, devices.

    Raises:
        GantailorError: the first that is found.
    """
    setup, config = run.setup, run.config
    run.check_folder()  # whose decisions are replayed from here on
    for recipe in (config.train, config.finetune):
        find_precision(recipe.precision, setup.device)
        check_parts(recipe)
    _check_names(run)
    looked = look(run)
    coupled = coupled_terms({"generator": copied(setup.generator).train()})
    for _, recipe in trainings(run):
        check_coupled(recipe, coupled)
    _check_teacher(run)
    check_features(run, looked.inputs)
    run.method.check(RunContext(run))
    _check_options(run)
    _check_unpaired(run)
    _check_handed_on(run)
    _ = setup.budget
    _check_untrained(run)
    _check_strategy(run)
    _check_storage(run)
    for split in SPLITS:
        setup.data(split)
    check_counts(run)
    check_statistics(run)
    final = setup.metrics(config.evaluation.final)
    setup.scoring.evaluator([setup.search_metric, *final])
    kept = {name.removesuffix("[teacher]") for name in final}
    if left := [name for name in config.evaluation.final if name.removesuffix("[teacher]") not in kept]:
        run.report.note(f"scores without {', '.join(left)}: the data has no real pictures to compare with")
    for name in config.devices:
        check_sides(device(name), setup.generator, setup.example)
    _check_files(run)
    check_networks(run, looked)
    note_sample(run)
    note_shared(run)


def _check_names(run: Run) -> None:
    """That all that the settings name can be imported and is what it should be, before anything is read or traced."""
    config = run.config
    if not is_file(config.ranking):
        criterion(config.ranking)
    make_strategy(config.search.strategy, seed=config.seed)
    for name in (config.evaluation.search, *config.evaluation.final):
        find_metric(name)
    for recipe in (config.train, config.finetune):
        find_training(recipe.task)
    for name, value in (("region", config.region), ("embedding", config.embedding)):
        if value is not None:
            own_function(value, name)
    for name in config.devices:
        check_device(device(name))


def _check_teacher(run: Run) -> None:
    """That a teacher of another architecture takes the same inputs and gives what is compared with the generator's."""
    setup, config, record = run.setup, run.config, run.setup.teacher_record
    if record is None or record.same_architecture(config):
        return
    teacher = setup.teacher
    check_size(config, traits_of(teacher).size_multiple, f"teacher {record.generator!r}")
    try:
        with torch.no_grad():
            theirs, mine = (forward(model, setup.example).shape for model in (teacher, setup.generator))
    except (RuntimeError, TypeError) as error:
        shapes = " and ".join(str(tuple(one.shape)) for one in as_tuple(setup.example))
        raise ConfigError(
            f"teacher {record.generator!r} cannot run on the generator's input {shapes}: "
            f"{first_line(error)}; give a teacher for the same data"
        ) from None
    if theirs != mine:
        raise ConfigError(
            f"teacher {record.generator!r} makes {tuple(theirs)} of an input that {config.generator!r} makes "
            f"{tuple(mine)} of; give a teacher for the same data"
        )
    if setup.taken and not config.supernet:
        run.report.note(setup.taken.said(record.generator))


def _check_options(run: Run) -> None:
    """That the method has the options that are set, with values that it allows."""
    recipe, options = run.config.train, run.method.options
    if options is not None:
        recipe.options_of(options, method=True)
    elif recipe.method_options:
        raise ConfigError(f"method {run.method.name!r} has no train.method_options; leave them out")


def _check_unpaired(run: Run) -> None:
    """That a discriminator can see the pictures of the other domain, which belong to no input."""
    if getattr(run.setup.data("train"), "others", None) is None:
        return
    for section, recipe in trainings(run):
        if recipe.conditional and recipe.gan != "none":
            raise ConfigError(
                f"{section}.conditional true shows the discriminator an input beside each picture, and the pictures of "
                f"B belong to none; set {section}.conditional to false"
            )


def _check_handed_on(run: Run) -> None:
    """That there is something to hand on, and the same discriminator in both trainings."""
    config, first, second = run.config, run.config.train, run.config.finetune
    if config.hand_on == "none" or not second.kimg or DISCRIMINATOR in run.method.partners:
        return
    if not first.kimg:
        raise ConfigError(
            f"hand_on {config.hand_on!r} has nothing to hand on: train.kimg is 0; set hand_on to none, or a train.kimg"
        )
    if "none" in (first.gan, second.gan):
        raise ConfigError(
            f"hand_on {config.hand_on!r} needs a discriminator in both trainings; set train.gan and finetune.gan"
        )
    if other := first.unlike_discriminators(second):
        raise ConfigError(
            f"hand_on {config.hand_on!r} goes on with a discriminator: make {', '.join(other)} the same in train and "
            "finetune"
        )


def _check_files(run: Run) -> None:
    """That the files which the settings name can be read."""
    config = run.config
    folder, begun = run.folder, {"ranking": run.folder.ranking, "supernet": run.folder.supernet}
    for name in ("ranking", "supernet", "discriminator"):
        file = value_of(config, name)
        if file is None or (name in begun and begun[name].exists()):  # later the run's own counts
            continue
        check_there(config, folder, name)
        if not Path(file).is_file():
            raise ConfigError(f"{name} {file!r} does not exist; give the path of a file")
    if config.supernet and not run.folder.supernet.exists():
        with_file(run.setup.traced, config.supernet)
    if is_file(config.ranking) and not run.folder.ranking.exists():  # later the run's own counts
        ranking.load(config.ranking, run.setup.traced)
    for recipe in (config.train, config.finetune):
        if recipe.kimg and recipe.perceptual_weight:
            run.setup.scoring.perceptual(recipe.perceptual_loss)
    front_profile(config)


def _check_untrained(run: Run) -> None:
    config = run.config
    if config.narrowing and config.finetune.bits:
        raise ConfigError(
            f"narrowing {config.narrowing} and finetune.bits {config.finetune.bits} do not go together, for ranges "
            "belong to one net; set one of them to 0"
        )
    untrained = run.method.searches and config.train.kimg == 0 and config.supernet is None
    if config.space.name == "path" and not run.method.searches:
        raise ConfigError(f"space 'path' is the supernet's; method {run.method.name!r} chooses channels itself")
    if config.space.name == "path" and config.train.kimg == 0 and run.setup.path is None:
        raise ConfigError(
            "space 'path' is made by a training, and train.kimg is 0; set a train.kimg, or as supernet the file of one "
            "that was trained along a path"
        )
    if config.search.trials == 0 and (config.space.name != "path" or config.search.front):
        raise ConfigError(
            "search.trials 0 takes the path's net at the budget; without space path, or with search.front, the search "
            "needs one or more"
        )
    if untrained and config.space.name == "uniform" and config.search.trials > 1 and not config.search.front:
        raise ConfigError(
            f"search.trials is {config.search.trials}, but no supernet is trained (train.kimg 0): scores of untrained "
            "subnets say nothing, often the smallest wins. Set search.trials 1, which takes the share that meets "
            "the budget, or a train.kimg"
        )


def _check_storage(run: Run) -> None:
    """That the study can be kept where it is meant to be: searching begins hours later."""
    settings = run.config.search
    if run.until in ("check", "train") and not settings.storage:
        return
    if settings.storage or run.folder.search.exists():
        check_storage(storage_of(run), name=settings.study, objectives=objectives_of(run))


def _check_strategy(run: Run) -> None:
    """That the strategy can begin with this budget (evolution's random subnets have to meet it), and what it says."""
    settings = run.config.search
    if not run.method.searches or not settings.trials:
        return
    remark = getattr(make_strategy(settings.strategy, seed=run.config.seed), "remark", None)
    if remark is not None and (said := remark(run.setup.budget, settings.trials)):
        run.report.note(said)
    if settings.ray_address:
        check_ray(settings, run.config.device, soon=run.until not in ("check", "train"))
    if settings.tuning_kimg:
        _check_tuning(run)


def _check_tuning(run: Run) -> None:
    """That finalists can be tuned, and how much that is."""
    settings, length = run.config.search, run.config.finetune.kimg
    if settings.tuning_kimg > length:
        raise ConfigError(
            f"search.tuning_kimg {settings.tuning_kimg:g} is more than finetune.kimg {length:g}, of which it is the "
            "beginning; lower it"
        )
    if run.config.finetune.lr == "auto":
        raise ConfigError(
            "finetune.lr auto is found when the subnet is chosen, and search.tuning_kimg tunes before; give a number"
        )
    if settings.front:
        raise ConfigError("search.front answers every budget by inherited scores; leave search.tuning_kimg out")
    most = settings.finalists * settings.tuning_kimg
    run.report.note(f"search: {settings.finalists} finalists are tuned at its end, on {most:g} kimg in all at most")


def check(run: Run) -> dict[str, Any]:
    """Find every mistake before any training, and take the folder.

    Writes ``trace.json``, with what tracing and its repair decided, ``shown.safetensors`` and ``ranking.json``.
    """
    find_mistakes(run)
    setup, folder = run.setup, run.folder
    if not folder.trace.exists():  # told once
        note_estimates(run)
    run.claim()
    prepare_storage(storage_of(run))
    described = _described(run)
    note_other_data(run, described["data"])
    write_json(folder.trace, described)  # the decisions are replayed, a budget may be another
    if not folder.shown.exists():
        keep_inputs(run)
    if not folder.ranking.exists():  # which may take minutes
        ranking.save(folder.ranking, setup.scores, **ranking.provenance(setup, run.config.ranking))
    return described


def _described(run: Run) -> dict[str, Any]:
    """What ``trace.json`` holds."""
    supernet, budget = run.setup.traced, run.setup.budget
    full, matched = supernet.full_config(), run.setup.loaded.matched if run.setup.taught else None
    return {
        "graph": str(supernet.graph),
        "options": yaml.safe_dump(plain(run.setup.options), default_flow_style=True),  # keys may be numbers
        "input_shapes": [list(one.shape) for one in as_tuple(run.setup.example)],
        "decisions": supernet.decisions.to_json(),
        "teacher_names": matched.to_json() if matched is not None else None,
        "verified": run.setup.proof or run.folder.stored_trace().get("verified", ""),
        "macs_full": {c: supernet.macs(full, convention=c) for c in ("true", "published")},
        "budget_macs": budget.macs,
        "convention": budget.convention,
        "profiles": {name: asdict(profile) for name, profile in budget.profiles.items()},
        "space": run.setup.offered.count,
        "places": noted(run.config, run.folder),
        "modules": noted_modules(run.folder.stored_config(), run.folder),
        **contents(run),
    }
