"""Once-for-all training along a path: every budget is a net of one nested order (``frontier.py``).

What trains it: a step runs one net, sliced, that the frontier draws, the frontier itself with what fades; then the
frontier narrows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gantailor.search.methods.control import learned
from gantailor.search.methods.l1_sparsity import Pull, leave_out
from gantailor.search.methods.method import Context, Nets, Trained
from gantailor.search.methods.single_channels import as_computed
from gantailor.search.methods.slimming.task import Slimmed
from gantailor.search.methods.supernet.frontier import Frontier, PathOptions
from gantailor.search.spaces.path import WidthPath
from gantailor.supernet.device import HOST
from gantailor.supernet.errors import ConfigError
from gantailor.supernet.gates import GatePlaces
from gantailor.supernet.graph import Selection
from gantailor.supernet.importance.ranking import l1_scores
from gantailor.supernet.subnets.copying import copied
from gantailor.supernet.supernet import AroundSupernet, Supernet, call_narrow
from gantailor.supernet.training import distributed
from gantailor.supernet.training.recipe import Recipe
from gantailor.supernet.training.task import TaskAround

FAR = 0.15  # of the cost, to which a path has to go for an order by movement


class Fading(AroundSupernet):
    """A supernet in one net of which some units count for less; ``generator`` is the plain one inside.

    Attributes:
        net: that net, by its units, and how much each unit counts in it, ``[units]``.
    """

    def __init__(self, supernet: Supernet, places: GatePlaces) -> None:
        super().__init__(supernet)
        self.places = places
        self.net: tuple[Selection, Tensor] | None = None

    def forward(self, *inputs: Any, config: Selection | None = None, **options: Any) -> Any:
        """As the supernet's, of other nets."""
        if self.net is None or config is not self.net[0]:
            return self.supernet(*inputs, config=config, **options)
        selection, factors = self.net
        tensors = self.places.apply(self.supernet.tensors, factors)
        return call_narrow(self.supernet, selection, inputs, options, tensors=tensors)


class PathTask(TaskAround):
    """Any training task of a supernet, whose nets follow a frontier.

    Args:
        gated: the supernet with trained gates, where these say the order.
    """

    def __init__(
        self, context: Context, frontier: Frontier, supernet: Supernet, recipe: Recipe, *, gated: Slimmed | None = None
    ) -> None:
        self.frontier, self.supernet, self.recipe = frontier, supernet, recipe
        self._inside, self._full = np.zeros(len(frontier.first), bool), False
        self._losses = list[Tensor]()
        self.fading = Fading(supernet, frontier.places) if frontier.fades else None
        super().__init__(context.training(gated or self.fading or supernet, recipe, sample=self._sample))
        self.pull = None if gated is None else Pull(gated.gates, frontier.steps)

    @cached_property
    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """The task's, and that of gates; before each update of the generator its channels are measured."""
        found = self.task.optimizers
        if self.pull is not None:
            leave_out(self.pull.gates, found["generator"])
            return {**found, "gates": self.pull.optimizer}
        # after the update a weight has moved against its gradient, and their product with it
        found["generator"].register_step_pre_hook(lambda *_: self._measure())
        return found

    def parts(self) -> dict[str, nn.Module]:
        """Everything with state."""
        return {**super().parts(), "frontier": self.frontier}

    def _sample(self, rng: np.random.Generator, step: int, position: int) -> Selection:
        whole = bool(self.recipe.in_place_weight) and position == 0
        kept = np.ones(len(self._inside), bool) if whole else self.frontier.draw(rng, step)
        self._inside |= kept
        if np.array_equal(kept, self.frontier.open.cpu().numpy()) and (net := self._faded(step)) is not None:
            return net[0]
        self._full = True
        return self.frontier.places.selection(kept)

    def _faded(self, step: int) -> tuple[Selection, Tensor] | None:
        """The frontier where something fades in it: of a step, whatever parts and places it runs in."""
        if self.fading is None:
            return None
        if self.fading.net is None and (factors := self.frontier.factors(step)) is not None:
            narrowest = self.frontier.places.selection(self.frontier.open.cpu().numpy())
            self.fading.net = narrowest, torch.from_numpy(factors).to(self.frontier.mean)
        return self.fading.net

    @torch.no_grad()
    def _measure(self) -> None:
        """See what each channel is worth in full: where only the frontier ran, in which it may have faded."""
        tensors = self.supernet.tensors
        gradients = {name: tensor.grad for name, tensor in tensors.items() if tensor.grad is not None}
        slopes = self.frontier.places.slopes(tensors, gradients)
        if not self._full and self.fading is not None and self.fading.net is not None:
            slopes = slopes / self.fading.net[1].to(slopes)
        losses = distributed.average(torch.stack(self._losses).mean()[None])
        self.frontier.see(slopes, self._inside, float(losses))
        self._inside[:], self._full, self._losses = False, False, []

    def backward(self, step: int, batch: Any, share: float) -> dict[str, Tensor]:
        """The task's losses, and what the frontier costs."""
        losses = super().backward(step, batch, share)
        if self.pull is None:  # with trained gates nothing is measured, and nothing would take them out again
            own = [value.abs() for name, value in losses.items() if not name.startswith("discriminator")]
            self._losses.append(torch.stack(own).sum().to(HOST))
        frontier = self.frontier
        left = frontier.usage(frontier.places.sizes(frontier.open.cpu().numpy())[None])[0]
        return {**losses, f"cost (target {frontier.target:.3g})": torch.tensor(float(left))}

    def after_step(self, step: int) -> None:
        """The frontier moves on."""
        super().after_step(step)
        if self.pull is not None and step < self.frontier.steps:
            self.pull.shrink(self.frontier.open.to(self.pull.gates.values.device))
        self.frontier.narrow(step)
        if self.fading is not None:
            self.fading.net = None


def check_path(context: Context) -> None:
    """That a path suits the run's settings.

    Raises:
        ConfigError: it does not.
    """
    config = context.config
    options = config.train.options_of(PathOptions, method=True)
    if ">=" in config.budget:
        raise ConfigError(f"space 'path' takes upper limits only, not budget {config.budget!r}")
    if options.order == "ranking" and config.ranking == "none":
        raise ConfigError("train.method_options.order 'ranking' needs one, and ranking is none; choose l1 or another")


def _target(context: Context, options: PathOptions) -> float:
    """Share of the whole cost that the path ends at; 1 where the budget is no less."""
    return options.smallest or min(1.0, 1 / float(context.budget.usage(_full(context.space.supernet))[0]))


def _full(supernet: Supernet) -> np.ndarray:
    return np.array([[width.size for width in supernet.graph.widths]])


def path_training(context: Context) -> PathTask:
    """Training of the supernet along a path."""
    recipe, supernet, space, budget = context.config.train, context.supernet(), context.space, context.budget
    options, graph = recipe.options_of(PathOptions, method=True), supernet.graph
    target = _target(context, options)
    if options.order == "auto":
        aimed = bool(recipe.target_weight) and context.data("train").paired
        options = replace(options, order=best_order(supernet.generator, target, aimed=aimed))
    offered = {name: choices for variable in space.variables for name, choices in variable.sizes}
    places = GatePlaces(graph, [graph.index[name] for name in offered])
    whole = float(budget.usage(_full(supernet))[0])
    least = np.array([offered.get(width.name, (width.size,))[0] for width in graph.widths])
    gated = Slimmed(supernet, [graph.index[name] for name in offered]) if options.order == "gates" else None
    frontier = Frontier(
        places,
        lambda sizes: budget.usage(sizes) / whole,
        target=target,
        first=_first(context, supernet, places, options),
        free=np.array([width.name in offered for width in graph.widths])[places.owner],
        least=np.where(least > 1, 1, least),
        steps=recipe.steps,
        options=options,
        learned=None if gated is None else gated.gates.magnitudes,
    )
    return PathTask(context, frontier, supernet, recipe, gated=gated)


def best_order(generator: nn.Module, target: float, *, aimed: bool) -> str:
    """What ``auto`` means on a path down to a share of the cost, with pictures to aim at or the teacher's alone.

    Movement where layers norm their pictures, by the names of their classes: one over the channels of a pixel leaves
    their scales as they are to each other, and those of weights are none. On a short way there is little of it yet, and
    beside a teacher alone the whole net has nothing to gain: there the measured order is ahead
    (``docs/results/path.md``).
    """
    names = (type(part).__name__ for part in generator.modules())
    normed = any(re.fullmatch(r"(?!_?(Pixel|Spectral|Weight)).*Norm(\dd)?", name) for name in names)
    return "movement" if normed and aimed and target <= FAR else "measured"


def _first(context: Context, supernet: Supernet, places: GatePlaces, options: PathOptions) -> np.ndarray:
    """Importance before anything is measured, ``[units]``."""
    if options.order == "random":
        return np.random.default_rng((context.config.train.seed, 5)).random(int(places.starts[-1]))
    scores = context.scores() if options.order == "ranking" else l1_scores(supernet)
    relative = [scores[width.name] / max(float(np.mean(scores[width.name])), 1e-12) for width in places.graph.widths]
    return np.concatenate(relative)


def path_nets(context: Context, task: PathTask, model: nn.Module) -> Nets:
    """Of a training along a path the frontier and the whole net."""
    frontier, whole = task.frontier, _whole(model)
    narrow = whole.extract(frontier.places.selection(frontier.open.cpu().numpy()))
    return {"narrowest": context.calibrated(narrow), "whole": context.calibrated(whole.extract(whole.full_config()))}


def along_path(context: Context, task: PathTask, model: nn.Module) -> Trained:
    """A supernet with the channels of every width in the order in which they stay, and the path."""
    frontier = task.frontier
    order, times = frontier.path()
    orders = _orders(frontier.places, order)
    ordered = _whole(model).permute_(orders)
    path = WidthPath(dict(ordered.graph.full_config()), frontier.places.owner[order], times[order])
    return Trained(weights=ordered.generator.state_dict(), path=path, orders=orders, notes=(_learned(frontier, order),))


def _whole(model: nn.Module) -> Supernet:
    """A copy of the whole net, on the CPU, with gates in its weights."""
    if isinstance(model, Slimmed):
        return as_computed(model)
    model = model.supernet if isinstance(model, Fading) else model
    assert isinstance(model, Supernet)
    return copied(model).to(HOST).requires_grad_(True)


def _orders(places: GatePlaces, order: np.ndarray) -> Mapping[str, np.ndarray]:
    """For each width its units, those that always stay first and those that go first last."""
    late = np.full(int(places.starts[-1]), len(order))
    late[order] = np.arange(len(order))
    return {name: np.argsort(-part, kind="stable") for name, part in places.by_width(late).items()}


def _learned(frontier: Frontier, order: np.ndarray) -> str:
    target = frontier.target
    now, begun = frontier.kept(target, order), frontier.kept(target, frontier.start)
    return f"path down to {target:.3g} of the cost: {learned(now, begun, frontier.free)}"
