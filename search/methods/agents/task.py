"""Pruning agents that keep the local density structure, after Ganjdanesh et al. (AAAI 2024).

Two recurrent networks, the agents, open and close the channels of a trained generator and of its discriminator, whose
weights are frozen. The discriminator's agent maximises, the generator's minimises how well the pruned generator's
pictures can be told from the whole generator's within the neighbourhood of a centre: either makes a picture of a
neighbour, which is judged beside the centre. Both pay for MACs. The paper's code is not public: ``docs/methods.md``
says what follows it, and what is our reading.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gantailor.search.methods.agents.batches import Manifold, NeighbourBatches, Neighbours
from gantailor.search.methods.agents.projection import Projection
from gantailor.search.methods.control import Control, Usage
from gantailor.search.methods.gated import Gated, gumbel_noise
from gantailor.supernet.calling import as_tuple, each
from gantailor.supernet.device import HOST, Device
from gantailor.supernet.graph import Selection
from gantailor.supernet.training import distributed
from gantailor.supernet.training.batches import Batches, PairBatches, PairSource
from gantailor.supernet.training.image_to_image import ImageToImage, judged_pictures
from gantailor.supernet.training.losses import fake_loss, generator_loss, real_loss
from gantailor.supernet.training.recipe import Recipe, require
from gantailor.supernet.training.task import Adam


@dataclass(frozen=True)
class AgentsOptions:
    """Settings of the agents, in ``train.method_options``.

    Attributes:
        neighbours: pictures in a neighbourhood beside its centre; 0 matches globally: each picture with its own
            condition, or without any where the discriminator has none.
        shuffle: 1: each centre has the neighbourhood of another picture, the same one throughout (an ablation).
        feedback: 0: agents do not see each other's decisions nor what these did to the objective.
        alone: 1: the generator's agent alone; the discriminator stays whole.
        discriminator_kimg: images that the discriminator is trained on before, against the whole generator; of one that
            comes trained only the part that tells it the centre, where it sees no condition.
        discriminator_share: the discriminator's MAC target as a share; 0: the generator's.
        agent_lr: AdamW learning rate of the agents, with ``agent_decay``.
        temperature: of the Gumbel sigmoid.
        strength: first weight of the penalty on MACs; it adapts.
        reach: share of the search after which the targets are due; the rest goes on searching at the targets.
    """

    neighbours: int = 5
    shuffle: int = 0
    feedback: int = 1
    alone: int = 0
    discriminator_kimg: float = 2.0
    discriminator_share: float = 0.0
    agent_lr: float = 0.05
    agent_decay: float = 0.01
    temperature: float = 0.4
    strength: float = 2.0
    reach: float = 0.7

    def __post_init__(self) -> None:
        for name in ("agent_lr", "agent_decay", "discriminator_kimg", "neighbours"):
            require(name, getattr(self, name), least=0)
        require("discriminator_share", self.discriminator_share, least=0, most=1)
        require("temperature", self.temperature, above=0)
        require("strength", self.strength, above=0)
        require("reach", self.reach, above=0, most=1)


def share_of(usage: Usage, sizes: Tensor, whole: float) -> Tensor:
    """Cost of sizes ``[widths]`` as a share of the whole cost, differentiable.

    The slope in a size is the cost's central difference of one channel each way, which for MACs, a polynomial of the
    second degree, is the derivative itself; so any budget has one, latency too.
    """
    rows = np.rint(sizes.detach().double().cpu().numpy()).astype(np.int64)[None]
    steps = np.eye(rows.shape[1], dtype=np.int64)
    slopes = (usage(rows + steps) - usage(rows - steps)) / 2
    here = sizes.new_tensor(float(usage(rows)[0]) / whole)
    return here + (sizes.new_tensor(slopes / whole) * (sizes - sizes.detach())).sum()


def penalty(share: Tensor, allowed: float) -> Tensor:
    """``log(max(share, allowed) / allowed)``: nothing below what is allowed."""
    return torch.log(share.clamp(min=allowed) / allowed)


class Agents(ImageToImage):
    """Trains the two agents; nothing else learns once the discriminator is ready.

    Args:
        generator, discriminator: frozen networks; the latter sees what the recipe's discriminators see.
        near: neighbourhoods, or their rows ``[N, k + 1]`` alone; None matches globally.
        usage: costs of generator and discriminator, each as a share of its budget.
        trained: whether the discriminator comes trained.
    """

    repeatable = False  # the agents remember what they did

    def __init__(
        self,
        generator: Gated,
        discriminator: Gated,
        data: PairSource,
        recipe: Recipe,
        *,
        teacher: nn.Module,
        near: Manifold | np.ndarray | None,
        usage: tuple[Usage, Usage],
        trained: bool = False,
        device: Device = HOST,
    ) -> None:
        super().__init__(generator, data, recipe, discriminator=discriminator.generator, teacher=teacher, device=device)
        self.options = o = recipe.options_of(AgentsOptions, method=True)
        self.gated, self.judge, self.trained_judge = generator, discriminator.to(device), trained
        near = Manifold(near) if isinstance(near, np.ndarray) else near
        near = near.shuffled(recipe.seed) if near is not None and o.shuffle else near
        self.batches: Batches = NeighbourBatches(PairBatches(data, recipe), near)
        self.projection: Projection | None = None
        if near is not None and near.centres is not None:
            self.projection = Projection(discriminator.supernet, near.centres.shape[1], seed=recipe.seed).to(device)
            self.optimizers["discriminator"].add_param_group({"params": list(self.projection.parameters())})
        real = self.data.batch(np.arange(1))[1] is not None or (near is not None and near.real is not None)
        learns = not trained or (self.projection is not None and real)
        self.warmup = round(o.discriminator_kimg * 1000 / recipe.batch) if learns else 0
        for name, side in (("generator", self.gated), ("discriminator's agent", self.judge)):
            own = Adam(side.agent.parameters(), lr=o.agent_lr, weight_decay=o.agent_decay, decoupled_weight_decay=True)
            self.optimizers[name] = own
        self._told: Tensor | None = None
        self._slopes: list[Tensor] = []
        due = o.reach * max(0, recipe.steps - self.warmup)
        self.controls = tuple(
            Control(side.gates, used, due, strength=o.strength, name=name)
            for side, used, name in zip((self.gated, self.judge), usage, ("generator", "discriminator"), strict=True)
        )

    def parts(self) -> dict[str, nn.Module]:
        """Both sides with weights, agents and gates, and what the controls remember."""
        states = {f"{control.name} strength": control.state for control in self.controls}
        told = {} if self.projection is None else {"projection": self.projection}
        return {"generator": self.gated, "discriminator": self.judge, **told, **states}

    def backward(self, step: int, batch: Neighbours, share: float) -> dict[str, Tensor]:  # type: ignore[override]
        """The discriminator's own training first; then the gradients of the two agents."""
        learning = step < self.warmup
        self.judge.generator.requires_grad_(learning and not self.trained_judge)
        if self.projection is not None:
            self.projection.requires_grad_(learning)
        if learning:
            return self._teach_discriminator(batch, share)
        return self._teach_agents(step - self.warmup, batch, share)

    def _teach_discriminator(self, batch: Neighbours, share: float) -> dict[str, Tensor]:
        """Real pictures of the neighbourhoods against the whole generator's."""
        assert self.teacher is not None
        pruned, gates = self._placed(batch.pruned), torch.ones_like(self.judge.decision)
        real = batch.others.targets if batch.real is None else batch.real
        assert real is not None
        made, _ = self.teacher(pruned.inputs, pruned.keys)
        loss = self._objective(self._judged(gates, batch, real.to(self.device)), self._judged(gates, batch, made))
        torch.autograd.backward(share * loss)
        return {"discriminator": loss.detach()}

    def _objective(self, real: Any, fake: Any) -> Tensor:
        """What the discriminator minimises."""
        gan, reduction = self.recipe.gan, self.recipe.gan_reduction
        return self.recipe.discriminator_weight * (real_loss(gan, real, reduction) + fake_loss(gan, fake, reduction))

    def _judged(self, gates: Tensor, batch: Neighbours, outputs: Tensor) -> Any:
        """Whether pictures belong to the neighbourhoods of the batch's centres."""
        told: AbstractContextManager[None] = nullcontext()
        inputs = each(batch.centres.inputs, lambda one: one.to(self.device))
        if self.projection is not None:
            assert batch.told is not None
            told = self.projection.given(batch.told.to(self.device), gates)
        with self._autocast(), told:
            return self.judge.gated(gates, judged_pictures(self.recipe, inputs, outputs))

    def _decisions(self, step: int) -> tuple[Tensor, Tensor]:
        """The generator's agent decides first, knowing its peer's last decision; the peer knows this one."""
        random = torch.Generator().manual_seed((self.recipe.seed * 1_000_003 + step) % 2**62)
        noise = [gumbel_noise(len(side.decision), random).to(side.decision) for side in (self.gated, self.judge)]
        if self._told is None:  # the same for every part of the step
            self._told = self.judge.told()
        opened = self.gated.decide(self._told if self._listens else None, noise[0], self.options.temperature)
        if self.options.alone:
            return opened, torch.ones_like(self.judge.decision).requires_grad_()
        told = self.gated.told() if self._listens else None
        return opened, self.judge.decide(told, noise[1], self.options.temperature)

    @property
    def _listens(self) -> bool:
        return bool(self.options.feedback) and not self.options.alone

    def _teach_agents(self, step: int, batch: Neighbours, share: float) -> dict[str, Tensor]:
        assert self.teacher is not None
        others, inputs = self._placed(batch.others), self._placed(batch.pruned).inputs
        taught, _ = self.teacher(others.inputs, others.keys)
        opened, open_judge = self._decisions(step)
        with self._autocast():
            fake = self.gated.gated(opened, *as_tuple(inputs))
        judged = self._judged(open_judge, batch, fake.float())
        objective = self._objective(self._judged(open_judge, batch, taught), judged)
        gan = self.recipe.gan_weight * generator_loss(self.recipe.gan, judged, self.recipe.gan_reduction)
        (judge_slopes,) = torch.autograd.grad(objective, open_judge, retain_graph=True)
        (slopes,) = torch.autograd.grad(gan, opened)
        parts = [share * slopes, share * judge_slopes]
        self._slopes = [a + b for a, b in zip(self._slopes, parts, strict=True)] if self._slopes else parts
        losses = {"discriminator": objective.detach(), "gan": gan.detach()}
        sides = ((self.gated, opened, slopes), (self.judge, open_judge, judge_slopes))
        for (side, gates, slope), control in zip(sides, self.controls, strict=True):
            if side is self.judge and self.options.alone:
                continue
            used = share_of(control.usage, side.sizes(gates), control.full)
            paid = control.strength * penalty(used, max(control.planned(step), control.target))
            pull = share * ((gates * slope.detach()).sum() + paid)
            torch.autograd.backward(pull, inputs=list(side.agent.parameters()))
            losses[f"{control.name} cost (target {control.target:.3g})"] = used.detach()
        return losses

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Probabilities and penalties follow; at the end the likeliest channels that fit are kept."""
        if step < self.warmup:
            return
        for side, slopes in zip((self.gated, self.judge), self._slopes, strict=True):
            side.feel(distributed.average(slopes))
        self._told, self._slopes = None, []
        told = [side.told() if self._listens else None for side in (self.judge, self.gated)]
        for side, peer, control in zip((self.gated, self.judge), told, self.controls, strict=True):
            if control.closed or (side is self.judge and self.options.alone):
                continue
            side.refresh(peer)
            control.adapt(step - self.warmup)
            if step + 1 == self.recipe.steps:
                control.close(side.gates.values)

    def selection(self) -> Selection:
        """The generator's channels that stay, or would if the search ended now."""
        return self.controls[0].selection()

    def judge_selection(self) -> Selection:
        """The discriminator's; all of them where its agent is switched off."""
        if self.options.alone:
            return self.judge.gates.places.selection(np.ones(len(self.judge.decision), bool))
        return self.controls[1].selection()

    def outcome(self) -> str:
        """How the search ended, in a line for each side."""
        return "\n".join(control.outcome() for control in self._searching)

    def learned(self) -> str:
        """How much of what is kept was learned, in a line for each side."""
        return "\n".join(control.learned() for control in self._searching)

    @property
    def _searching(self) -> tuple[Control, ...]:
        return self.controls[: 1 if self.options.alone else 2]
