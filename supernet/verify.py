"""Proof that a traced graph describes its generator, in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gantailor.supernet.double import flat, in_double
from gantailor.supernet.errors import VerificationError
from gantailor.supernet.gates import GatePlaces
from gantailor.supernet.graph import Selection
from gantailor.supernet.supernet import Supernet

SLICE_TOLERANCE = 1e-12  # sliced against extracted: the same operations on the same numbers
SAME_TOLERANCE = 1e-8  # another order of summation: relative to the output's largest value


# What a forward raises when it cannot run at some width.
_FAILURES = (RuntimeError, IndexError, ValueError, TypeError, AssertionError, KeyError, ZeroDivisionError)


@dataclass(frozen=True)
class Verification:
    """Largest absolute differences found, in float64."""

    sliced_extracted: float
    permuted: float
    removed: float
    widths: int

    def __str__(self) -> str:
        return (
            f"{self.widths} widths hold: sliced = extracted to {self.sliced_extracted:.1e}, "
            f"permuted = original to {self.permuted:.1e}, removed = zeroed at the consumers to {self.removed:.1e}"
        )


@torch.no_grad()
def verify(
    supernet: Supernet,
    *,
    selections: int = 2,
    seed: int = 0,
    inputs: tuple[Any, ...] | None = None,
    repair: bool = False,
) -> Verification:
    """Prove the graph with random selections; the supernet's weights are not changed.

    1. A sliced forward equals the extracted plain module.
    2. Permuting all widths leaves the output as it was (a wrong tie or order shows here).
    3. Removing channels equals zeroing them where they are consumed (widths marked inexact are left out).

    Args:
        selections: number of random subnets for the first comparison.
        seed: of the selections.
        inputs: what to run on. Default: the supernet's example, its pictures made smaller where the generator runs on
            smaller ones: the proof is about channels, and float64 convolutions are slow.
        repair: keep widths that fail whole (a size written as a number in the generator's forward, say), listed in
            ``graph.frozen``, and prove the rest.

    Raises:
        VerificationError: names the widths that fail.
    """
    while True:
        double, inputs = in_double(supernet, inputs)
        try:
            return _prove(double, inputs, selections, np.random.default_rng(seed))
        except VerificationError as error:
            if not repair or not (error.widths or error.inexact):
                raise
            supernet.amend(
                whole=dict.fromkeys(error.widths, "fails the proof: its size is fixed in the forward"),
                inexact=dict.fromkeys(error.inexact, "the forward depends on the number of channels"),
            )


def _prove(double: Supernet, inputs: Any, selections: int, rng: np.random.Generator) -> Verification:
    widths = range(len(double.graph.widths))
    try:
        full = _run(double, inputs)
    except _FAILURES as error:
        raise VerificationError(f"the generator does not run in float64: {str(error)[:300]}") from None
    scale = float(full.abs().max()) + 1e-30
    worst = 0.0
    try:
        for number in range(selections):
            selection = _random_selection(double, rng)
            extracted = double.extract(selection)
            plain = _run(extracted, inputs)
            if number == 0 and not _same(_run(extracted, inputs), plain):  # a narrow net: cheaper than the full one
                raise VerificationError(
                    "two forwards on the same input differ, so nothing can be proved; is there a state that each call "
                    "changes (a power iteration, a counter)? Make the forward repeatable"
                )
            worst = max(worst, _difference(_run(double, inputs, selection), plain))
        removed = _removal_error(double, inputs, full, widths, rng)
        permuted = _permutation_error(double, inputs, full, widths, rng)
    except VerificationError:
        raise
    except _FAILURES as error:
        raise _blame(double, inputs, f"a narrow forward fails: {str(error)[:300]}") from None
    if not worst <= SLICE_TOLERANCE * max(1.0, scale):
        raise VerificationError(f"sliced and extracted subnets differ by {worst:.2e}; allowed is {SLICE_TOLERANCE}")
    if not removed <= SAME_TOLERANCE * scale:
        raise _blame(double, inputs, f"removing channels is not zeroing them (off by {removed:.2e})")
    if not permuted <= SAME_TOLERANCE * scale:
        raise _blame(double, inputs, f"permuting the widths changes the output by {permuted:.2e}")
    return Verification(worst, permuted, removed, len(widths))


def _run(model: Callable[..., Any], inputs: Any, config: Any = None) -> Tensor:
    """All outputs as one vector; noise in the forward is the same at every call, new tensors are float64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return flat(model(*inputs) if config is None else model(*inputs, config=config))
    finally:
        torch.set_default_dtype(before)


@torch.no_grad()
def _removal_error(
    supernet: Supernet, inputs: Any, full: Tensor, widths: Iterable[int], rng: np.random.Generator
) -> float:
    graph = supernet.graph
    exact = [w for w in widths if w not in graph.inexact]
    random = _random_selection(supernet, rng)
    selection = Selection({graph.widths[w].name: random[graph.widths[w].name] for w in exact})
    gates = torch.from_numpy(np.concatenate(graph.masks(selection))).double()
    tensors = GatePlaces(graph, exact).apply(supernet.tensors, gates)
    return _difference(
        _run(lambda *given: supernet.call_with(tensors, given), inputs), _run(supernet, inputs, selection)
    )


def _permutation_error(
    supernet: Supernet, inputs: Any, full: Tensor, widths: Iterable[int], rng: np.random.Generator
) -> float:
    orders = {supernet.graph.widths[w].name: rng.permutation(supernet.graph.widths[w].size) for w in widths}
    try:
        return _difference(_run(supernet.permute_(orders), inputs), full)
    finally:
        supernet.permute_({name: np.argsort(order) for name, order in orders.items()})


def _blame(supernet: Supernet, inputs: Any, what: str) -> VerificationError:
    """Which widths fail alone."""
    full = _run(supernet, inputs)
    allowed = SAME_TOLERANCE * (float(full.abs().max()) + 1e-30)
    guilty, inexact = [], []
    for w, width in enumerate(supernet.graph.widths):
        rng = np.random.default_rng(w)
        try:
            _run(supernet, inputs, Selection({width.name: range(max(1, width.size // 2))}))
            if not _permutation_error(supernet, inputs, full, [w], rng) <= allowed:
                guilty.append(width.name)
            elif w not in supernet.graph.inexact and not _removal_error(supernet, inputs, full, [w], rng) <= allowed:
                inexact.append(width.name)
        except _FAILURES:
            guilty.append(width.name)
    return VerificationError(
        f"{what}; width(s) {', '.join(guilty + inexact) or '(only together)'}; keep them whole with "
        "verify(supernet, repair=True) or freeze=[...], or give the operation a rule",
        guilty,
        inexact,
    )


def _random_selection(supernet: Supernet, rng: np.random.Generator) -> Selection:
    kept = {}
    for width in supernet.graph.widths:
        size = int(rng.integers(1, width.size + 1))
        kept[width.name] = sorted(rng.choice(width.size, size, replace=False).tolist())
    return Selection(kept)


def _difference(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max()) if a.shape == b.shape else float("inf")


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool(((a == b) | (a.isnan() & b.isnan())).all())


def count_parameters(model: nn.Module) -> int:
    """Number of parameters of a plain module."""
    return sum(p.numel() for p in model.parameters())
