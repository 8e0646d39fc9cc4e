"""Commands ``inspect`` and ``verify``: widths, costs and space of a generator."""

from __future__ import annotations

import argparse
from typing import Any

import torch
from torch import nn

from gantailor.cli.flags import flag_value
from gantailor.run.progress import Reporter
from gantailor.search.spaces.space import space
from gantailor.supernet.errors import ConfigError, UntraceableError, first_line
from gantailor.supernet.supernet import Supernet
from gantailor.supernet.traits import traits_of
from gantailor.supernet.verify import verify as prove
from gantailor.zoo.generators.record import build

DEFAULT_SHAPE = (3, 256, 256)

# What freezes channels, by the first words of the reason, and what to do about it.
_REMEDIES = {
    "meets a tensor of fixed size": "make that tensor for x.shape[1] channels, or let a layer of its own make them",
    "is cut at": "write chunk, or keep the sizes as attributes of the module",
    "is split at": "write chunk, or keep the sizes as attributes of the module",
    "fails the proof: a branch": "decide that once, in __init__, and keep the answer as a bool",
    "fails the proof": "read that size off x.shape, or keep it as an attribute of the module",
    "is indexed by a number": "let a layer of its own make what is picked out",
    "enters": "give the operation a rule, Supernet(..., rules={name: rule})",
}
_AS_IT_SHOULD = ("is the generator's output", "is handed out by the generator", "frozen by the user")


def inspect(arguments: argparse.Namespace) -> dict[str, Any]:
    """Print a generator's widths, costs and what froze; one's own is proved as well."""
    return _show(arguments, proved=":" in arguments.name)


def verify(arguments: argparse.Namespace) -> dict[str, Any]:
    """The same, proved."""
    return _show(arguments, proved=True)


def _show(arguments: argparse.Namespace, *, proved: bool) -> dict[str, Any]:
    model = build(arguments.name, **_options(arguments.options))
    supernet = _supernet(arguments.name, model, _shapes(arguments, model))
    with Reporter().proving() as tell:
        proof = prove(supernet, repair=True, on_progress=tell) if proved else None
    print(supernet.graph)
    spaces = space(arguments.space, supernet)
    subnets = {"full": supernet.full_config()}
    subnets |= {"largest": spaces.to_config(spaces.largest), "smallest": spaces.to_config(spaces.smallest)}
    print(f"space {spaces.name!r}: {spaces.count:,} subnets")
    print(f"{'':<10}{'MACs (true)':>20}{'MACs (published)':>20}{'parameters':>14}")
    costs = {}
    for name, config in subnets.items():
        macs = {f"macs_{c}": supernet.macs(config, convention=c) for c in ("true", "published")}
        costs[name] = found = {**macs, "parameters": supernet.parameter_count(config)}
        print(f"{name:<10}{found['macs_true']:>20,}{found['macs_published']:>20,}{found['parameters']:>14,}")
    if proof:
        print(proof)
    print(summary(supernet))
    return {
        "generator": arguments.name,
        "widths": {width.name: width.size for width in supernet.graph.widths},
        "frozen": supernet.graph.frozen,
        "space": {"name": spaces.name, "subnets": spaces.count},
        "costs": costs,
        "proof": str(proof) if proof else None,
        "summary": summary(supernet),
    }


def summary(supernet: Supernet) -> str:
    """One line: how many of the MACs can go, which freezes cost most, and what to do about each."""
    graph = supernet.graph
    full = supernet.full_config()
    halves = {width.name: max(1, width.size // 2) for width in graph.widths}
    gone = 1 - supernet.macs(halves) / max(1, supernet.macs(full))
    costly: dict[str, tuple[float, str]] = {}
    for name, reason in graph.frozen.items():
        if not reason.startswith(_AS_IT_SHOULD) and graph.shares.get(name, 0) >= 0.01:
            costly.setdefault(reason, (graph.shares[name], name))
    worst = sorted(costly.items(), key=lambda item: -item[1][0])[:3]
    text = f"{gone:.0%} of the MACs go at half of every width (75% if everything could shrink); "
    if not worst:
        return f"{text}no freeze that could be avoided costs 1% or more"
    told = [f"{name}, {share:.0%} more: {why} - {_remedy(why)}" for why, (share, name) in worst]
    return f"{text}frozen: {'; '.join(told)}"


def _remedy(reason: str) -> str:
    usual = "put a layer before it whose channels may stay, so that the others can go"
    return next((remedy for start, remedy in _REMEDIES.items() if reason.startswith(start)), usual)


def _shapes(arguments: argparse.Namespace, model: nn.Module) -> list[list[int]]:
    """Of the inputs, with a batch of one: what was given, else what the generator declares."""
    traits = traits_of(model)
    given = [_shape(text) for text in arguments.input or ()]
    shapes = given or [[1, *shape] for shape in traits.input_shapes or (DEFAULT_SHAPE,)]
    multiple = traits.size_multiple
    if len(shapes[0]) == 4 and (shapes[0][2] % multiple or shapes[0][3] % multiple):
        raise ConfigError(
            f"{arguments.name} takes heights and widths that are multiples of {multiple}, not {shapes[0][2:]}"
        )
    return shapes


def _supernet(name: str, model: nn.Module, shapes: list[list[int]]) -> Supernet:
    inputs = tuple(torch.randn(shape) for shape in shapes)
    try:
        try:
            return Supernet(model, inputs)
        except UntraceableError as error:
            Reporter().note(f"{error}\nHere what enters it stays whole.")
            return Supernet(model, inputs, unknown="freeze")
    except (RuntimeError, TypeError) as error:
        given = " and ".join("x".join(map(str, shape)) for shape in shapes)
        raise ConfigError(
            f"{name} cannot run on an input of {given}: {first_line(error)}; give the shape of every input with --input"
        ) from None


def _shape(text: str) -> list[int]:
    sides = [part.strip() for part in text.split(",")]
    if not all(side.isdigit() and int(side) for side in sides):
        raise ConfigError(f"--input {text!r} is no shape; write it as 1,3,256,256")
    return [int(side) for side in sides]


def _options(text: str) -> dict[str, Any]:
    value = flag_value("options", text) if text else {}
    if not isinstance(value, dict):
        raise ConfigError(f"--options {text!r} is no mapping; write it as '{{ngf: 32}}'")
    return value
