"""Stage "finetune": the chosen subnet alone, beside the teacher."""

from __future__ import annotations

from torch import nn

from gantailor.pipeline.context import RunContext
from gantailor.pipeline.training.fit import Nets, Watcher, fit
from gantailor.pipeline.training.rate import at_its_rate
from gantailor.run.folder import read_config
from gantailor.run.run import Run, with_file
from gantailor.search.methods.method import DISCRIMINATOR
from gantailor.supernet.errors import RunError
from gantailor.supernet.files import load_tensors, save_tensors
from gantailor.supernet.graph import SubnetConfig
from gantailor.supernet.quantization.activation_ranges import (
    make_quantisers,
    save_activation_ranges,
    set_activation_ranges,
)
from gantailor.supernet.quantization.quantisers import Quantised
from gantailor.supernet.subnets.copying import copied
from gantailor.supernet.subnets.slicing import kept_channels
from gantailor.supernet.training import distributed
from gantailor.supernet.training.narrowing import Narrowing, NarrowingTask
from gantailor.supernet.training.task import Task
from gantailor.supernet.training.teaching.distillation import FeatureMaps, for_channels
from gantailor.zoo.checkpoints import load_state, read_state
from gantailor.zoo.tasks.training import judge_of


def finetune(run: Run) -> None:
    """Fine-tune the extracted subnet.

    Writes ``subnet.safetensors`` (the best by the search's score) and, where that is another,
    ``subnet.last.safetensors``.
    """
    folder = run.folder
    if folder.subnet.exists():
        return
    run = at_its_rate(run, "finetune", _begin)
    recipe, watcher = run.config.finetune, None
    if distributed.rank() == 0:
        watcher = Watcher(run, "finetune", lambda net: {"subnet": at_its_end(net)}, best=folder.subnet_best)
    task, partners, handed = tuning_of(run, run.subnet_config())
    if handed and distributed.rank() == 0:
        run.report.note(f"fine-tuning goes on with the {' and the '.join(handed)} of the training before it")
    trained = fit(run, task, recipe, checkpoint=folder.subnet_checkpoint, title="fine-tune", on_watch=watcher)
    tuned = at_its_end(trained)
    if watcher is not None:
        judge = judge_of(task)
        if judge is not None and recipe.kimg and DISCRIMINATOR not in partners:
            save_tensors(folder.subnet_discriminator, judge.state_dict(), {"stage": "finetune"})
        _store(run, tuned, partners, watcher)


def _begin(run: Run) -> tuple[Task, Nets]:
    """The fine-tuning at its beginning, and the net that is looked at."""
    return tuning_of(run, run.subnet_config())[0], lambda net: {"subnet": at_its_end(net)}


def tuning_of(run: Run, config: SubnetConfig) -> tuple[Task, dict[str, nn.Module], list[str]]:
    """The fine-tuning of a subnet of these widths from the weights that it inherits, at its beginning.

    Its task, the nets that were narrowed along, and what was handed on by the training before.

    Raises:
        GantailorError: what should be handed on is not there.
    """
    model, context = _tuned(run, config), RunContext(run)
    partners = narrow_partners(run, context)
    task = run.method.finetune(context, model, partners)
    handed = _go_on(run, task, config)
    if isinstance(model, Narrowing):
        task = NarrowingTask(task, model, steps=run.narrowing * run.config.finetune.steps)
    return task, partners, handed


def _tuned(run: Run, config: SubnetConfig) -> nn.Module:
    """What fine-tuning trains: the narrow net, rounded where that is asked for, or the whole one on its way there."""
    recipe = run.config.finetune
    if run.narrowing and recipe.kimg:
        return Narrowing(copied(run.trained()), config, convention=run.config.convention)
    narrow = run.setup.calibrated(run.trained().extract(config))
    quantisers = make_quantisers(narrow, recipe)
    if quantisers is None:
        return narrow
    set_activation_ranges(quantisers, run.folder.ranges)  # the forward rounds; what is stored are the plain weights
    return Quantised(narrow, quantisers)


def at_its_end(model: nn.Module) -> nn.Module:
    """The narrow net of a fine-tuning, which may still be on its way there."""
    return model.narrow() if isinstance(model, Narrowing) else model


def _go_on(run: Run, task: Task, config: SubnetConfig) -> list[str]:
    """Put into a training what the one before it handed on, as ``hand_on`` says; what that was.

    Raises:
        CheckpointError: the file of a discriminator is missing, or belongs to another.
        RunError: there is nothing.
    """
    folder, wanted, judge = run.folder, run.config.hand_on, judge_of(task)
    if wanted == "none" or not run.config.finetune.kimg or DISCRIMINATOR in run.method.partners:
        return []
    handed = []
    if judge is not None:
        load_state(judge, read_state(folder.supernet_discriminator), str(folder.supernet_discriminator))
        handed.append("discriminator")
    maps = task.parts().get("maps")
    if wanted == "all" and isinstance(maps, FeatureMaps) and folder.supernet_maps.exists():
        graph = run.setup.supernet.graph
        kept = kept_channels(graph, maps.layers, graph.full_config() if run.narrowing else config)
        maps.take_over(for_channels(load_tensors(folder.supernet_maps)[0], kept))
        handed.append("1x1 maps")
    if not handed:
        raise RunError(f"hand_on is {wanted!r}, but the training before left nothing to go on with; set it to none")
    return handed


def narrow_partners(run: Run, context: RunContext) -> dict[str, nn.Module]:
    """The nets that were narrowed along with the generator, extracted."""
    found: dict[str, nn.Module] = {}
    for name in run.method.partners:
        file = run.folder.file(f"{name}.json")
        if file.exists():
            whole = with_file(run.method.partner(context, name), run.folder.weights_of(name))
            found[name] = whole.extract(read_config(file))
    return found


def _store(run: Run, tuned: nn.Module, partners: dict[str, nn.Module], watcher: Watcher) -> None:
    """Write the best weights, and those of the last step where they are others."""
    folder, step = run.folder, run.config.finetune.steps
    for name, partner in partners.items():
        save_tensors(folder.weights_of(f"subnet_{name}"), partner.state_dict(), {"stage": "finetune"})
    if folder.subnet_best.exists() and watcher.rows():
        state, info = load_tensors(folder.subnet_best)
        if info["step"] != max(int(row["step"]) for row in watcher.rows()):
            last = {"stage": "finetune", "step": step}
            save_tensors(folder.subnet_last, _plain(tuned).state_dict(), last)
        tuned.load_state_dict(state)
        step = info["step"]
    if isinstance(tuned, Quantised):
        save_activation_ranges(folder.subnet_ranges, tuned.quantisers)
    save_tensors(folder.subnet, _plain(tuned).state_dict(), {"stage": "finetune", "step": step})


def _plain(model: nn.Module) -> nn.Module:
    return model.generator if isinstance(model, Quantised) else model
