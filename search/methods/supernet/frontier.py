"""Once-for-all training along a path: channels close one by one, and every budget is a net of one nested order.

This project's own way of training a supernet, put together from known parts: sliced subnets of shared weights (Cai et
al. 2020, arXiv 1908.09791), gradual pruning (Zhu and Gupta 2017, arXiv 1710.01878) by Taylor importance (Molchanov et
al. 2019, arXiv 1906.10771, eq. 8) under one global threshold of cost.

The *frontier* is the narrowest net so far. It narrows along a straight line in the logarithm of the cost, from the
whole net to the smallest budget; a unit that leaves it is closed for good, and the later a unit closes the longer every
budget keeps it. A step runs one net, sliced: the frontier, or one of a cost drawn log-uniformly between it and the
whole net, so that what is closed for the narrow nets goes on learning in wider ones. Before a unit closes it may fade:
in the frontier it counts for less and less, so that the others take over what it did while it still does some.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from gantailor.search.methods.control import Usage
from gantailor.search.spaces.path import NEVER
from gantailor.supernet.gates import GatePlaces
from gantailor.supernet.training.recipe import require, require_one

ORDERS = ("movement", "measured", "gates", "ranking", "random")
WARM = 5  # steps before the measured order counts; until then channels go by the L1 norms of what reads them


@dataclass(frozen=True)
class PathOptions:
    """Settings of a training along a path (``space: path``), in ``train.method_options``.

    Attributes:
        smallest: cost that the path goes down to, as a share of the whole net's; 0: the run's budget.
        reach: share of the training after which it is there.
        narrowest: probability that a step trains the frontier; else a wider net. 1: only ever the narrowest so far.
        order: what closes channels. ``movement``: L1 norms at first, each width's relative to their mean, and from
            there what the training makes of a channel: it rises by how much the losses would fall with more of it,
            summed over the steps whose net holds it (movement pruning, Sanh et al. 2020, arXiv 2005.07683).
            ``measured``: the running mean of a channel's squared Taylor importance over those steps. ``gates``: the
            smallest of scales that are trained and pay an L1 penalty, as slimming's are. ``ranking``: the run's
            ranking, each width's scores relative to their mean. ``random``: the control. ``auto``: movement where the
            generator has norms, which take the scale out of what a channel adds, pictures have targets, and the path
            goes down to 15% of the cost or less; else measured.
        over_cost: the measured importance is divided by this power of the cost that the whole net loses with a
            channel; 0: not.
        memory: decay of the running mean, a step.
        movement: by how many of its width's mean norms a channel rises whose growth would take away the whole of the
            losses; 0: the order by movement stays what it was at first, the ablation.
        fade: share of the narrowing over which a channel fades before it closes, where the order is by movement; 0: it
            closes at once. (Where no norm takes scales out, weights grow against it, and wider nets break.)
    """

    smallest: float = 0.0
    reach: float = 0.5
    narrowest: float = 0.75
    order: str = "auto"
    over_cost: float = 1.0
    memory: float = 0.95
    movement: float = 2.5
    fade: float = 0.3

    def __post_init__(self) -> None:
        require("smallest", self.smallest, least=0, most=0.999)
        require("reach", self.reach, above=0, most=1)
        require("narrowest", self.narrowest, least=0, most=1)
        require_one("order", self.order, ("auto", *ORDERS))
        require("over_cost", self.over_cost, least=0, most=4)
        require("memory", self.memory, least=0, most=0.9999)
        require("movement", self.movement, least=0)
        require("fade", self.fade, least=0, most=1)


class Frontier(nn.Module):
    """The order of a supernet's units so far, and the nets along it.

    Args:
        usage: cost of sizes ``[N, widths]`` as a share of the whole net's.
        target: share that the path ends at.
        first: importance of every unit before anything is measured, ``[units]``.
        free: whether each unit may go, ``[units]``.
        least: units of each width that always stay, ``[widths]``.
        steps: of the whole training.
        learned: importance of every unit now, ``[units]``, where trained gates say it.
    """

    open: Tensor  # [units], whether the frontier has it
    place: Tensor  # [units], the how manieth it was closed; NEVER
    time: Tensor  # [units], the step at which it was closed; NEVER
    moved: Tensor  # [units], sum of the slopes downwards, as shares of the losses
    mean: Tensor  # [units], decayed sum of squared slopes
    weight: Tensor  # [units], of the weights in that sum
    seen: Tensor

    def __init__(
        self,
        places: GatePlaces,
        usage: Usage,
        *,
        target: float,
        first: np.ndarray,
        free: np.ndarray,
        least: np.ndarray,
        steps: int,
        options: PathOptions,
        learned: Callable[[], np.ndarray] | None = None,
    ) -> None:
        super().__init__()
        self.places, self.usage, self.target, self.options, self.learned = places, usage, target, options, learned
        self.first, self.free, self.least = first, free, least
        self.steps = max(1, round(options.reach * steps))
        self.costs = _unit_costs(places, usage) ** options.over_cost
        units = len(first)
        self.register_buffer("open", torch.ones(units, dtype=torch.bool))
        self.register_buffer("place", torch.full((units,), NEVER))
        self.register_buffer("time", torch.full((units,), NEVER))
        self.register_buffer("moved", torch.zeros(units, dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(units, dtype=torch.float64))
        self.register_buffer("weight", torch.zeros(units, dtype=torch.float64))
        self.register_buffer("seen", torch.tensor(0))
        self.start = self.order()

    def planned(self, step: int) -> float:
        """Share of the whole cost that the frontier is down to after a step; -1 is before the first."""
        return float(self.target ** min(1.0, (step + 1) / self.steps))

    @property
    def importance(self) -> np.ndarray:
        """Of every unit, ``[units]``."""
        if self.learned is not None:
            return self.learned()
        found: np.ndarray = self.first
        if self.options.order == "movement":
            found = self.first + self.options.movement * self.moved.cpu().numpy()
        elif self.options.order == "measured" and int(self.seen) >= WARM:
            found = (self.mean / self.weight.clamp(min=1e-12)).cpu().numpy() / self.costs
        return found

    def order(self) -> np.ndarray:
        """The units that may go, the next to go first: those that are closed in the order in which they were."""
        place = self.place.cpu().numpy()
        order = np.lexsort((self.importance, np.where(place == NEVER, len(place), place)))
        stays, owner = ~self.free, self.places.owner
        for width, least in enumerate(self.least):
            stays[order[owner[order] == width][::-1][:least]] = True
        found: np.ndarray = order[~stays[order]]
        return found

    def kept(self, share: float, order: np.ndarray | None = None) -> np.ndarray:
        """The units of the widest net of the order that costs no more than a share of the whole one's, a mask."""
        order = self.order() if order is None else order

        def left(count: int) -> np.ndarray:
            mask = np.ones(len(self.first), bool)
            mask[order[:count]] = False
            return mask

        def fits(count: int) -> bool:
            return bool(self.usage(self.places.sizes(left(count))[None])[0] <= share)

        return left(bisect_left(range(len(order)), True, key=fits))

    def draw(self, rng: np.random.Generator, step: int) -> np.ndarray:
        """The units of a step's net, a mask."""
        share = self.planned(step - 1)
        if rng.random() >= self.options.narrowest:
            return self.kept(float(np.exp(rng.uniform(np.log(share), 0))))
        return self.open.cpu().numpy() if step else np.ones(len(self.first), bool)

    @property
    def fades(self) -> bool:
        """Whether channels fade before they close."""
        return self.options.fade > 0 and self.options.order == "movement"

    def factors(self, step: int) -> np.ndarray | None:
        """How much each unit counts in the frontier in a step, ``[units]``, in (0, 1]; nothing where all count in full.

        Those that the plan closes soon, by the order of now: the sooner, the less. At first soon is the next step, so
        that nothing leaves a trained net at once.
        """
        if not self.fades or not step or step >= self.steps:
            return None
        ahead = min(max(1, round(self.options.fade * self.steps)), step)
        order = self.order()
        later = self.kept(self.planned(step - 1 + ahead), order)
        going = order[self.open.cpu().numpy()[order] & ~later[order]]
        found = np.ones(len(self.first))
        found[going] = (np.arange(len(going)) + 1) / (len(going) + 1)
        return found

    def see(self, slopes: Tensor, inside: np.ndarray, losses: float) -> None:
        """What a step says of the units, ``[units]``.

        Args:
            slopes: by how much the losses rise with each.
            inside: those that the step's nets hold.
            losses: what they add up to, in absolute values.
        """
        decay, held = self.options.memory, torch.from_numpy(inside).to(self.mean.device)
        slopes = torch.where(held, slopes.to(self.mean), 0)
        self.seen += 1
        self.moved -= slopes / max(losses, 1e-30)
        for sums, value in ((self.mean, slopes.square()), (self.weight, torch.ones_like(self.weight))):
            sums.copy_(torch.where(held, decay * sums + (1 - decay) * value, sums))

    def narrow(self, step: int) -> None:
        """Close what the plan leaves out after a step."""
        if step >= self.steps:
            return
        order = self.order()
        kept = self.kept(self.planned(step), order)
        gone = order[self.open.cpu().numpy()[order] & ~kept[order]]
        closed = int((self.place != NEVER).sum())
        self.place[gone] = torch.arange(closed, closed + len(gone)).to(self.place)
        self.time[gone] = step + 1
        self.open[gone] = False

    def path(self) -> tuple[np.ndarray, np.ndarray]:
        """The order, first to go first, and the step of each unit's closing, ``[units]``."""
        return self.order(), self.time.cpu().numpy()


def _unit_costs(places: GatePlaces, usage: Usage) -> np.ndarray:
    """Share of the whole cost that goes with one unit of its width, ``[units]``."""
    full = np.array([width.size for width in places.graph.widths])
    lost = usage(full[None])[0] - usage(full - np.eye(len(full), dtype=np.int64))
    found: np.ndarray = np.maximum(lost, 1e-9)[places.owner]
    return found
