"""A frozen network whose channels a recurrent network, its agent, opens and closes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from gantailor.supernet.gates import Gates
from gantailor.supernet.supernet import Supernet

INPUT, HIDDEN = 64, 128  # numbers of an agent's fixed input for each width, and of its recurrent state
BASE = 3.0  # added to every decision before the sigmoid: P(open) begins at 1 - exp(-e^3), all but one in 500 million
EVEN = math.log(math.log(2))  # the decision that opens with probability 1/2
LEAST = 4  # channels that every width keeps


class Agent(nn.Module):
    """Scores every channel of a network from what its peer did: a bidirectional GRU over the widths, a head for each.

    Args:
        sizes: channels of each width.
        seen: numbers that describe the peer; 0 for none.
        seed: of inputs and weights.
    """

    inputs: Tensor

    def __init__(self, sizes: list[int], seen: int, *, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.register_buffer("inputs", nn.init.orthogonal_(torch.empty(len(sizes), INPUT)))
            self.peer = nn.Linear(seen, INPUT) if seen else None
            self.memory = nn.GRU(2 * INPUT, HIDDEN, bidirectional=True)
            self.norm = nn.LayerNorm(2 * HIDDEN)
            self.heads = nn.ModuleList(weight_norm(nn.Linear(2 * HIDDEN, size, bias=False)) for size in sizes)

    def forward(self, peer: Tensor | None = None) -> Tensor:
        """Decisions ``[units]`` before noise and sigmoid, from what is known of the peer ``[seen]``."""
        told = self.inputs.new_zeros(INPUT) if peer is None or self.peer is None else self.peer(peer)
        steps = torch.cat([self.inputs, told.expand(len(self.inputs), -1)], 1)
        states = torch.relu(self.norm(self.memory(steps)[0]))
        return torch.cat([head(state) for head, state in zip(self.heads, states, strict=True)]) + BASE


def straight_through(decisions: Tensor, noise: Tensor, temperature: float) -> Tensor:
    """Binary gates: ``s((d + n) / T)`` rounded, with its gradient, ``n`` a Gumbel variable (after arXiv 1611.01144)."""
    soft = torch.sigmoid((decisions + noise) / temperature)
    return (soft > 0.5).to(soft.dtype) + (soft - soft.detach())


def gumbel_noise(count: int, random: torch.Generator) -> Tensor:
    """Standard Gumbel variables ``[count]``: with one added, a decision ``d`` opens with probability 1 - exp(-e^d)."""
    uniform = torch.rand(count, generator=random, dtype=torch.float64).clamp(1e-9, 1 - 1e-9)
    return -(-uniform.log()).log().float()


class Gated(nn.Module):
    """A network with frozen weights whose channels an agent opens and closes.

    Attributes:
        gates: their values rise with the probability that a channel stays, and are 0.5 where it is.
        decision: the last decision ``[units]``, 0 or 1.
        feedback: what it did to the objective: the objective's gradient at each gate, in units of its deviation.
    """

    wraps_generator = True

    decision: Tensor
    feedback: Tensor

    def __init__(self, supernet: Supernet, widths: list[int] | None = None, *, peer: int = 0, seed: int = 0) -> None:
        super().__init__()
        self.supernet = supernet.requires_grad_(False)
        self.gates = Gates(supernet.graph, widths, threshold=0.5, least=LEAST)
        self.gates.values.requires_grad_(False)
        self.agent = Agent([width.size for width in supernet.graph.widths], 2 * peer, seed=seed)
        units = len(self.gates.values)
        self.register_buffer("decision", torch.ones(units))
        self.register_buffer("feedback", torch.zeros(units))
        self.refresh(None)

    @property
    def generator(self) -> nn.Module:
        """The network itself."""
        return self.supernet.generator

    def told(self) -> Tensor:
        """What its peer is told."""
        return torch.cat([self.decision, self.feedback])

    def decide(self, peer: Tensor | None, noise: Tensor, temperature: float) -> Tensor:
        """Gates ``[units]``, 0 or 1, with gradients to the agent; each width keeps its least."""
        decisions = self.agent(peer)
        wanted = straight_through(decisions, noise, temperature)
        wanted = torch.where(self.gates.free, wanted, torch.ones_like(wanted))
        enough = self._enough(wanted.detach() > 0.5, decisions.detach() + noise)
        self.decision.copy_(enough)
        return wanted + (enough - wanted).detach()

    @torch.no_grad()
    def _enough(self, kept: Tensor, order: Tensor) -> Tensor:
        """The decision with the best of every width that would have too few, as 0 and 1."""
        kept = kept.clone()
        kept[self.gates.short(kept, order)] = True
        return kept.to(order.dtype)

    @torch.no_grad()
    def refresh(self, peer: Tensor | None) -> None:
        """Bring the gates' values up to date with the agent; a probability itself would soon be 1 for most of them."""
        gates = self.gates
        values = torch.sigmoid(self.agent(peer) - EVEN)
        values = torch.where(gates.free, values, torch.ones_like(values))
        enough = self._enough(values > 0.5, values).bool()
        gates.values.copy_(torch.where(enough, values.clamp(min=0.5 + 1e-6), values))

    @torch.no_grad()
    def feel(self, slopes: Tensor) -> None:
        """Remember what the decision did to the objective."""
        self.feedback.copy_(slopes / slopes.std().clamp(min=1e-12))

    def sizes(self, gates: Tensor) -> Tensor:
        """Channels of each width, with the gates' gradients."""
        return torch.stack([part.sum() for part in torch.split(gates, np.diff(self.gates.places.starts).tolist())])

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor of the network, without gates."""
        return self.supernet.tensors

    def train(self, mode: bool = True) -> Gated:
        """Batch norms may use a batch's statistics; dropout stays off, as in the network that is matched."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.dropout._DropoutNd):
                module.eval()
        return self

    def gated(self, gates: Tensor, *inputs: Any) -> Any:
        """The network's output with these gates; running statistics stay as they are."""
        tensors = self.gates.places.apply(self.supernet.tensors, gates)
        tensors |= {name: buffer.clone() for name, buffer in self.generator.named_buffers()}
        return self.supernet.call_with(tensors, inputs, {})

    def forward(self, *inputs: Any) -> Any:
        """The output with the channels that would stay if the search ended now."""
        return self.gated(torch.from_numpy(self.gates.kept()).to(self.decision), *inputs)
