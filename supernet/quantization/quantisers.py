"""Eight bits in training: weights and layer inputs are rounded in the forward, gradients pass through unrounded.

Weights are symmetric, in steps of max|W| / 127 (Wang et al. 2020, GAN Slimming, arXiv 2008.11062). Inputs of a layer
are unsigned where they are never negative, else signed with a zero point, in 255 steps over a range that is measured,
learned (Choi et al. 2018, PACT, arXiv 1805.06085), or the paper's fixed [0, 4].
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from gantailor.supernet.training import distributed

LAYERS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
Ranges = Literal["calibrated", "learned", "published"]
PUBLISHED = (0.0, 4.0)


def quantise_weight(weight: Tensor, *, bits: int = 8, channel: int | None = None) -> Tensor:
    """Symmetric rounding to ``2**bits - 1`` levels, the gradient is the identity's.

    Args:
        channel: dimension with a step of its own for each index; None for one step over all.
    """
    top = 2 ** (bits - 1) - 1
    with torch.no_grad():
        if channel is None:
            step = (weight.abs().amax() / top).clamp(min=1e-12)
        else:
            others = [d for d in range(weight.dim()) if d != channel]
            step = (weight.abs().amax(others, keepdim=True) / top).clamp(min=1e-12)
        rounded: Tensor = (weight / step).round().clamp(-top, top) * step
    return weight + (rounded - weight).detach()


def quantise_activation(x: Tensor, low: Tensor, high: Tensor, *, bits: int = 8) -> Tensor:
    """Rounding to ``2**bits`` levels between ``low <= 0`` and ``high >= 0``, of which zero is one.

    The gradient passes inside the range and is blocked outside it, where it goes to the bound instead (PACT).
    """
    clipped = torch.where(x < low, low, torch.where(x > high, high, x))  # minimum() would share the gradient of ties
    with torch.no_grad():
        top = 2**bits - 1
        step = ((high - low) / top).clamp(min=1e-12)
        zero = (-low / step).round()
        rounded: Tensor = ((x / step).round() + zero).clamp(0, top).sub(zero) * step
    return clipped + (rounded - clipped).detach()


class ActivationRange(nn.Module):
    """The range of what enters (or leaves) one layer, and its rounding.

    Args:
        kind: ``calibrated`` follows the extremes seen in training, ``learned`` begins there and is trained,
            ``published`` is [0, 4] whatever comes (it rectifies a residual trunk, as the original code does).
    """

    low: Tensor
    high: Tensor
    seen: Tensor

    def __init__(self, kind: Ranges, *, bits: int = 8, momentum: float = 0.05) -> None:
        super().__init__()
        self.kind, self.bits, self.momentum = kind, bits, momentum
        low, high = (torch.tensor(value) for value in (PUBLISHED if kind == "published" else (0.0, 0.0)))
        if kind == "learned":
            self.low, self.high = nn.Parameter(low), nn.Parameter(high)
        else:
            self.register_buffer("low", low)
            self.register_buffer("high", high)
        self.register_buffer("seen", torch.tensor(kind == "published"))

    def forward(self, x: Tensor) -> Tensor:
        """``x`` on the steps of the range; unrounded while nothing has been measured."""
        if self.training and (self.kind == "calibrated" or not bool(self.seen)):
            self._follow(x)
        if not bool(self.seen):
            return x
        low, high = self.low, self.high
        if self.kind == "learned":
            low, high = low.clamp(max=0), high.clamp(min=1e-6)
        return quantise_activation(x.float(), low, high, bits=self.bits).to(x.dtype)

    @torch.no_grad()
    def _follow(self, x: Tensor) -> None:
        low, high = distributed.extremes(x.amin().float().clamp(max=0), x.amax().float().clamp(min=0))
        share = self.momentum if bool(self.seen) else 1.0
        self.low.lerp_(low, share)
        self.high.lerp_(high, share)
        self.seen.fill_(True)

    @torch.no_grad()
    def take(self, other: ActivationRange) -> None:
        """The other's range."""
        self.low.copy_(other.low)
        self.high.copy_(other.high)
        self.seen.copy_(other.seen)


class Quantisers(nn.Module):
    """Simulates integer layers in a model: its convolutions and linear layers.

    Weights and inputs are rounded, and outputs too: that is how runtimes compute, which read and write 8-bit tensors.

    Args:
        model: where the layers are; it is not changed.
        bits: of weights, inputs and outputs.
        per_channel: a step for each output channel of a weight, as runtimes have it; False as published.
        ranges: how the inputs' ranges come about, see ``ActivationRange``. With ``published`` outputs and the picture,
            the first layer's input, stay in float.
    """

    def __init__(
        self, model: nn.Module, *, bits: int = 8, per_channel: bool = True, ranges: Ranges = "calibrated"
    ) -> None:
        super().__init__()
        self.bits, self.per_channel = bits, per_channel
        layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, LAYERS)}
        self.layers = {name: (1 if isinstance(layer, nn.ConvTranspose2d) else 0) for name, layer in layers.items()}
        ends = {"input": ranges} if ranges == "published" else {"input": ranges, "output": ranges}
        self.ranges = nn.ModuleDict(
            {
                end: nn.ModuleDict({_key(name): ActivationRange(kind, bits=bits) for name in layers})
                for end, kind in ends.items()
            }
        )

    def weights(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors with the layers' weights rounded."""
        rounded = {
            f"{name}.weight": quantise_weight(
                tensors[f"{name}.weight"], bits=self.bits, channel=channel if self.per_channel else None
            )
            for name, channel in self.layers.items()
            if f"{name}.weight" in tensors
        }
        return {**tensors, **rounded}

    def _is_picture(self, end: str, layer: str) -> bool:
        """Whether it is the generator's own input, which [0, 4] does not suit."""
        return end == "input" and layer == next(iter(self.layers)) and self._range(end, layer).kind == "published"

    def _range(self, end: str, layer: str) -> Any:
        by_layer: Any = self.ranges[end]
        return by_layer[_key(layer)]

    @contextmanager
    def rounding(self, model: nn.Module) -> Iterator[None]:
        """Within the block the layers' inputs and outputs are rounded.

        A tensor that one layer writes and another reads is one tensor in the runtime too, rounded once, to its writer's
        range.
        """
        handles: list[Any] = []
        written: tuple[Tensor, Any] = (torch.empty(0), None)
        for name in self.layers:
            layer, before = model.get_submodule(name), self._range("input", name)
            if self._is_picture("input", name):
                continue

            def enter(_layer: nn.Module, inputs: tuple[Any, ...], *, quantiser: Any = before) -> tuple[Any, ...]:
                if inputs[0] is written[0]:
                    quantiser.take(written[1])
                    return inputs
                return (quantiser(inputs[0]), *inputs[1:])

            handles.append(layer.register_forward_pre_hook(enter))
            if "output" in self.ranges:
                after = self._range("output", name)

                def leave(_layer: nn.Module, _inputs: Any, output: Tensor, *, quantiser: Any = after) -> Tensor:
                    nonlocal written
                    written = (quantiser(output), quantiser)
                    return written[0]

                handles.append(layer.register_forward_hook(leave))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @torch.no_grad()
    def set(self, found: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
        """Take over the ranges that ``found`` gave."""
        for end, by_layer in found.items():
            for name, (low, high) in by_layer.items() if end in self.ranges else ():
                if name not in self.layers:  # of a branch that is gone
                    continue
                quantiser = self._range(end, name)
                if quantiser.kind == "published":
                    continue
                quantiser.low.fill_(low)
                quantiser.high.fill_(high)
                quantiser.seen.fill_(True)

    def without_outputs(self, layers: Iterable[str]) -> Quantisers:
        """A copy that knows nothing of what these layers write."""
        other = copy.deepcopy(self)
        for name in layers if "output" in self.ranges else ():
            other._range("output", name).seen.fill_(False)
        return other

    def found(self) -> dict[str, dict[str, tuple[float, float]]]:
        """The range of each layer's ``input`` and ``output`` that has been measured."""
        result: dict[str, dict[str, tuple[float, float]]] = {}
        for end in self.ranges:
            ranges = {name: self._range(end, name) for name in self.layers if not self._is_picture(end, name)}
            ranges = {name: found for name, found in ranges.items() if bool(found.seen)}
            result[end] = {name: (min(0.0, float(r.low)), max(0.0, float(r.high))) for name, r in ranges.items()}
        return result


class Quantised(nn.Module):
    """A plain generator whose forward is that of its 8-bit form; ``generator`` is the plain one."""

    wraps_generator = True

    def __init__(self, generator: nn.Module, quantisers: Quantisers) -> None:
        super().__init__()
        self.generator, self.quantisers = generator, quantisers

    def forward(self, *inputs: Any, **options: Any) -> Any:
        tensors = self.quantisers.weights(dict(self.generator.named_parameters()))
        with self.quantisers.rounding(self.generator):
            return functional_call(self.generator, tensors, inputs, options)


def _key(name: str) -> str:
    """A module's path as a key without dots."""
    return name.replace(".", "/")
