"""Proof that a traced graph describes its generator.

Which subnets are tried, what their forwards do, what they compute and who is to blame: ``supernet/proof/``.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from torch import nn

from gantailor.supernet.cost import CostModel
from gantailor.supernet.errors import VerificationError, check_whole, told
from gantailor.supernet.proof.blame import blamed
from gantailor.supernet.proof.comparisons import Comparisons, original
from gantailor.supernet.proof.double import in_best, new_tensors
from gantailor.supernet.proof.dry import DryRuns
from gantailor.supernet.proof.stand_ins import Fake, Meta, Real
from gantailor.supernet.proof.subnets import alone, together
from gantailor.supernet.proof.values import Values
from gantailor.supernet.proof.verification import Verification
from gantailor.supernet.supernet import Supernet, check_supernet
from gantailor.supernet.tracing.trace import trace


def verify(
    supernet: Supernet,
    *,
    selections: int = 2,
    seed: int = 0,
    inputs: tuple[Any, ...] | None = None,
    repair: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> Verification:
    """Prove the graph; the supernet's weights are not changed.

    1. Every width is narrowed, alone and together, to half, to one unit, to sizes that coincide: the forward runs, does
       the operations that the whole one does, and takes the multiply-accumulates that ``macs`` says.
    2. At full width the supernet computes what the generator does that it was made from.
    3. A sliced forward equals the extracted plain module.
    4. Permuting all widths leaves the output as it was (a wrong tie or order shows here).
    5. Removing channels equals zeroing them where they are consumed; widths marked inexact are narrow in both.

    Values are in float64, or in the generator's own precision with a looser tolerance where it insists on that.

    Args:
        selections: number of random subnets beside the others.
        seed: of the selections.
        inputs: what to compute values on. Default: the supernet's example, made smaller where the generator runs on
            smaller ones: the proof is about channels, and float64 convolutions are slow.
        repair: keep widths that fail whole (a size written as a number in the generator's forward, say), listed in
            ``graph.frozen``, and prove the rest.
        on_progress: told how many of how many steps are done; both begin anew after a repair.

    Raises:
        VerificationError: names the widths that fail.
        ConfigError: it is no supernet, or selections or seed are no whole numbers.
    """
    check_supernet(supernet)
    check_whole("selections", selections, least=0)
    check_whole("seed", seed, least=0)
    while True:
        try:
            return _prove(supernet, inputs, selections, seed, on_progress)
        except VerificationError as error:
            if not repair or not (error.widths or error.inexact or error.constants):
                raise
            before = supernet.decisions
            supernet.amend(
                whole=dict.fromkeys(error.widths, f"fails the proof: {error.reason}"),
                inexact=dict.fromkeys(error.inexact, "the forward depends on the number of channels"),
                constants=dict.fromkeys(error.constants, "the forward compares it"),
            )
            if supernet.decisions == before:
                raise


def _prove(
    supernet: Supernet,
    inputs: tuple[Any, ...] | None,
    selections: int,
    seed: int,
    on_progress: Callable[[int, int], None] | None,
) -> Verification:
    configs = together(supernet.graph, selections=selections, seed=seed)
    single = dict(alone(supernet.graph))
    done, total = itertools.count(1), len(configs) + len(single) + 8 + selections

    def tell() -> None:
        if on_progress is not None:
            on_progress(min(next(done), total), total)

    runs, values = _dry(supernet), None
    if runs is None:
        values = in_best(supernet, inputs, Values)
        runs, single = _real(supernet, values), dict(alone(supernet.graph, fewer=True))
    subnets = {"full width": {}, **configs, **single}
    for name, config in subnets.items():
        tell()
        fault = runs.fault(config)
        if fault is not None:
            raise blamed(runs, subnets, name, fault)
    values = values or in_best(supernet, inputs, Values)
    if not configs:
        whole = original(supernet, values)
        return Verification(0.0, 0.0, 0.0, 0, whole, 0, values.bits, frozen=supernet.graph.frozen)
    compared = Comparisons(values, configs, seed, tell)
    sliced, whole = compared.sliced(), original(supernet, values)
    permuted, removed = compared.permuted(), compared.removed()
    if on_progress is not None:
        on_progress(total, total)
    return Verification(sliced, permuted, removed, len(supernet.graph.widths), whole, len(subnets) - 1, values.bits)


def _dry(supernet: Supernet) -> DryRuns | None:
    """Runs without values; None for a generator that asks for values."""
    for kind in (Meta(), Fake()):
        with suppress(Exception):  # whatever a stranger's forward raises when there are no numbers
            return DryRuns(supernet, kind)
    return None


def _real(supernet: Supernet, values: Values) -> DryRuns:
    """Runs with values, of the proof's inputs; their costs are traced there."""
    precise = values.precise
    inside, inputs = precise.supernet.generator, precise.inputs
    with new_tensors(precise.dtype):
        cost = CostModel(trace(inside, inputs, decisions=supernet.decisions, rules=supernet.rules))
    try:
        return DryRuns(precise.supernet, Real(), inputs=inputs, cost=cost, dtype=precise.dtype)
    except Exception as error:
        raise VerificationError(f"the generator does not run a second time: {told(error)}") from None


def count_parameters(model: nn.Module) -> int:
    """Number of parameters of a plain module."""
    return sum(p.numel() for p in model.parameters())
