"""About how long a run's trainings will take, and how much memory at least, from a step or two."""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gantailor.evaluators.scores import Subset
from gantailor.pipeline.context import RunContext
from gantailor.pipeline.search.curve import SCORED
from gantailor.pipeline.shapes import trainings
from gantailor.pipeline.training.rate import SHARE, USUAL
from gantailor.run.config import Config
from gantailor.run.run import Run
from gantailor.supernet.device import described, device_of, peak_memory, synchronize
from gantailor.supernet.errors import ConfigError, GantailorError, first_line
from gantailor.supernet.subnets.copying import copied
from gantailor.supernet.supernet import Supernet
from gantailor.supernet.training import distributed
from gantailor.supernet.training.image_to_image import Sampler
from gantailor.supernet.training.recipe import Recipe
from gantailor.supernet.training.task import Task

FEW = 2  # pictures of a first step: some layers and losses need two
# Seconds of such steps, after which no more are taken; and of a whole batch, below which two of these are measured:
LONG, WHOLE = 20.0, 10.0  # what is fixed in a step does not grow with its pictures.
TRIES = 4  # steps on a few pictures, of which the fastest counts
SOME, JUDGED = 16, 3  # pictures that are tried; rows of scores at the end
FIXED = 15.0  # seconds of loading, proof and export
PER_PARAMETER = 4  # weight, gradient, and Adam's two moments


@dataclass(frozen=True)
class Estimate:
    """What one training is expected to take.

    Attributes:
        section: ``train`` or ``finetune``.
        count: training pictures.
        seconds: of all steps, and of those at other rates where ``lr`` is auto.
        size: bytes, beside what the process has already.
    """

    section: str
    recipe: Recipe
    count: int
    seconds: float
    size: int

    def __str__(self) -> str:
        recipe, epochs = self.recipe, self.recipe.steps * self.recipe.batch / self.count
        plan = f"{recipe.steps:,} steps of {recipe.batch}, {epochs:.3g} epochs"
        rates = ", some rates tried before" if recipe.lr == "auto" else ""
        return f"{self.section}: {recipe.kimg:g} kimg in {plan}{rates}, {about(self.seconds)}"


def note_estimates(run: Run) -> None:
    """Tell what the run will train on, for how long, and in how much memory.

    A training's first step is taken on copies, for two pictures, with a subnet of middling width; its time grows with
    the batch, which is tried whole where it promises to be short. Memory on a CPU is the most that the process had so
    far, and to it weights, gradients and optimisers of the larger training and what autograd keeps of one batch; what
    layers and scores need for a moment is not in it. Processes that share a training (``torchrun``) work in step, and
    are told nothing.

    Raises:
        GantailorError: the step cannot be taken.
    """
    setup = run.setup
    if distributed.world() > 1:
        return
    counts = [f"{len(setup.data(split)):,} {split}" for split in ("train", "search", "test")]
    lines, before = [f"pictures: {', '.join(counts)}"], peak_memory(setup.device)
    due = [(section, recipe) for section, recipe in trainings(run) if section != "train" or not run.is_trained]
    lines += [f"train: done before, {run.folder.supernet}"] if run.is_trained else []
    found = [estimate(run, section, recipe) for section, recipe in due]
    lines += map(str, found)
    if found:
        run.expected = {one.section: one.seconds for one in found}
        with suppress(GantailorError):  # a score of more pictures than are tried
            run.expected["evaluate"] = _beside_seconds(run, [one.recipe for one in found])
            lines.append(f"in all, with scores, search and export: {about(sum(run.expected.values()))}")
        most = before + max(one.size for one in found)
        lines.append(f"memory: at least {most / 2**30:.2g} GiB on {described(setup.device)}")
    run.report.note("\n".join(lines))


def _beside_seconds(run: Run, recipes: Sequence[Recipe]) -> float:
    """What is no training: pictures that are scored, and what each run has."""
    sample, config = run.sample, run.config
    few = Subset(sample, min(len(sample), SOME))
    evaluator, model = run.setup.scoring.evaluator([run.setup.search_metric]), copied(run.setup.generator).eval()
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of scores of few pictures
        fastest = _fastest(lambda: _seconds(lambda: evaluator(model, few)), 2)
    looks = sum(recipe.kimg / recipe.watch_kimg for recipe in recipes if recipe.watch_kimg)
    along = SCORED if run.setup.path is not None or config.space.name == "path" else 0
    scored = (looks + along + config.search.trials) * len(sample) + JUDGED * len(run.setup.data("test"))
    return FIXED + scored * fastest / len(few)


def about(seconds: float) -> str:
    """A time to expect, as one says it."""
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"about {seconds / size:.0f} {unit}"
    whole = max(1, round(seconds))
    return f"about {whole} second{'s' if whole > 1 else ''}"


def estimate(run: Run, section: str, recipe: Recipe) -> Estimate:
    """Of one of the run's trainings.

    Raises:
        GantailorError: its first step cannot be taken.
    """
    context = _Probe(run)
    with torch.random.fork_rng(devices=[]), _explaining(section):
        if section == "train":
            task = run.method.task(context)
        else:
            task = run.method.finetune(context, *context.narrowed())
        seconds, kept = _measure(task, recipe)
    weights = [sum(p.numel() * p.element_size() for p in net.parameters()) for net in task.parts().values()]
    size = PER_PARAMETER * sum(weights) + int(kept * recipe.batch / recipe.accumulate)
    swept = 1 + (USUAL * SHARE if recipe.lr == "auto" else 0)
    return Estimate(section, recipe, len(context.data("train")), swept * recipe.steps * seconds, size)


def _measure(task: Task, recipe: Recipe) -> tuple[float, float]:
    """Seconds of a step, and the bytes that autograd keeps of one picture."""
    batch, parts, saved = recipe.batch, recipe.accumulate, Saved()
    few = min(FEW, batch)
    with saved.counting():
        first = _step(task, batch // few)
    each, some = saved.most / few, _fastest(lambda: _step(task, batch // few), TRIES, first)
    if batch == few or some * batch / few > WHOLE:
        return some * batch / few, each
    return parts * min(_step(task, parts), _step(task, parts)), each


def _fastest(measure: Callable[[], float], tries: int, *known: float) -> float:
    """Of so many seconds measured, fewer where they are long: the first prepares much, and others may be at work."""
    found = list(known)
    while len(found) < tries and sum(found) < LONG:
        found.append(measure())
    return min(found)


def _step(task: Task, parts: int) -> float:
    """Seconds of a step on one of so many parts of a batch, without the optimisers, which take little of it."""
    part = task.batches(0, 0, parts)

    def run() -> None:
        task.backward(0, part, 1.0)
        synchronize(device_of(task.generator))

    return _seconds(run)


def _seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


@contextmanager
def _explaining(section: str) -> Iterator[None]:
    """What is raised by PyTorch within the block is told in a line."""
    try:
        yield
    except GantailorError:
        raise
    except (RuntimeError, TypeError, ValueError) as error:
        raise ConfigError(f"the first step of {section} fails: {first_line(error)}") from error


class _Probe(RunContext):
    """The run without what takes time: channels are not ranked, nothing is compiled."""

    @property
    def config(self) -> Config:
        # A step is tried on a part of a batch, which is no setting of the user's to be warned of.
        changed = {"accumulate": 1, "coupled": "parts", "teacher_cache": "none", "compile": False}
        recipes = {name: getattr(self.run.config, name).model_copy(update=changed) for name in ("train", "finetune")}
        return self.run.config.model_copy(update=recipes)

    def supernet(self) -> Supernet:
        return copied(self.setup.traced)

    def narrowed(self) -> tuple[nn.Module, dict[str, nn.Module]]:
        """A subnet that meets the budget, and what would be narrowed along: alike where it is alike, else whole."""
        config = self.space.to_config(self.budget.sample(np.random.default_rng(0)))
        wholes = {name: self.run.method.partner(self, name) for name in self.run.method.partners}
        partners = {
            name: whole.extract(config if whole.full_config().keys() == config.keys() else whole.full_config())
            for name, whole in wholes.items()
        }
        return self.setup.traced.extract(config), partners

    def training(
        self,
        model: nn.Module,
        recipe: Recipe,
        *,
        sample: Sampler | None = None,
        discriminator: nn.Module | None = None,
    ) -> Task:
        middle = self.space.to_config((self.space.smallest + self.space.largest) // 2)
        always = None if sample is None else lambda rng, step, position: middle
        return super().training(model, recipe, sample=always, discriminator=discriminator)

    def embeddings(self, pictures: Any = None) -> np.ndarray:
        return np.random.default_rng(0).normal(size=(len(self.data("train") if pictures is None else pictures), 8))


class Saved:
    """Bytes of the tensors that autograd keeps for its backward passes.

    Attributes:
        now, most: at this moment, and at most so far.
    """

    def __init__(self) -> None:
        self.now = self.most = 0
        self._held: Counter[int] = Counter()

    def counting(self) -> Any:
        """Within the block tensors are counted; a storage counts once, weights do not count."""
        return torch.autograd.graph.saved_tensors_hooks(lambda tensor: _Kept(self, tensor), lambda kept: kept.tensor)

    def hold(self, storage: int, size: int) -> None:
        """A tensor is kept."""
        self._held[storage] += 1
        if self._held[storage] == 1:
            self.now += size
            self.most = max(self.most, self.now)

    def drop(self, storage: int, size: int) -> None:
        """It is no longer."""
        self._held[storage] -= 1
        if not self._held[storage]:
            self.now -= size


class _Kept:
    """A tensor that autograd keeps, until it is dropped."""

    def __init__(self, tally: Saved, tensor: Tensor) -> None:
        # Detached: the graph would hold what holds the graph, which no collector of Python's sees.
        self.tensor, self._tally, storage = tensor.detach(), tally, tensor.untyped_storage()
        weight = tensor.is_leaf and tensor.requires_grad
        self._counted = (storage._cdata, 0 if weight else storage.nbytes())
        tally.hold(*self._counted)

    def __del__(self) -> None:
        self._tally.drop(*self._counted)
