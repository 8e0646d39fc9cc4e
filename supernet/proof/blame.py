"""Who makes a subnet fail: widths, found by halving with few tries where few are guilty, or integers of modules."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from gantailor.supernet.errors import FIXED_SIZE, VerificationError
from gantailor.supernet.graph import SizeAttribute, WidthGraph
from gantailor.supernet.proof.dry import DryRuns, Fault

Fails = Callable[[Sequence[int]], bool]


def guilty(fails: Fails, widths: Sequence[int]) -> list[list[int]]:
    """Small groups of widths that fail, of one each where they fail alone.

    Args:
        fails: whether these widths fail together; all of ``widths`` do.
    """
    if len(widths) <= 1:
        return [[*widths]] if widths else []
    middle = len(widths) // 2
    halves = widths[:middle], widths[middle:]
    found = [group for half in halves if fails(half) for group in guilty(fails, half)]
    return found or [_smallest(fails, list(widths))]


def _smallest(fails: Fails, widths: list[int]) -> list[int]:
    """A group that fails, of which nothing can be left out."""
    step = len(widths) // 2
    while step:
        start = 0
        while start < len(widths):
            rest = widths[:start] + widths[start + step :]
            if rest and fails(rest):
                widths = rest
            else:
                start += step
        step //= 2
    return widths


def accused(
    graph: WidthGraph,
    text: str,
    groups: Sequence[Sequence[int]],
    *,
    inexact: bool = False,
    reason: str = FIXED_SIZE,
) -> VerificationError:
    """An error that names the widest of each group: with it whole, no other can reach its size."""
    chosen = [max(group, key=lambda w: graph.widths[w].size) for group in groups]
    names = list(dict.fromkeys(graph.widths[w].name for w in chosen))
    if not names:
        return VerificationError(f"{text}; give the operation a rule, or freeze its module with freeze=[...]")
    message = (
        f"{text}; width(s) {', '.join(names)}; keep them whole with verify(supernet, repair=True) or freeze=[...], "
        "or give the operation a rule"
    )
    return VerificationError(message, () if inexact else names, names if inexact else (), reason=reason)


def blamed(runs: DryRuns, subnets: Mapping[str, Mapping[str, int]], name: str, fault: Fault) -> VerificationError:
    """What is to blame for a subnet's fault; ``subnets`` are others that must hold as well."""
    graph, config, text = runs.graph, subnets[name], f"{fault.text} ({name})"
    constants = _to_keep(runs, [config, *itertools.islice(subnets.values(), 2)], fault)
    if constants:
        hint = "keep them as they are with verify(supernet, repair=True)"
        return VerificationError(f"{text}; it compares {', '.join(constants)}; {hint}", constants=constants)
    narrow = [graph.index[width] for width, size in config.items() if size < graph.widths[graph.index[width]].size]

    def fails(widths: Sequence[int]) -> bool:
        return runs.fault({n: config[n] for n in (graph.widths[w].name for w in widths)}) is not None

    return accused(graph, text, guilty(fails, narrow), reason=fault.reason)


def _to_keep(runs: DryRuns, configs: Sequence[Mapping[str, int]], fault: Fault) -> list[str]:
    """Integers of the module where another branch was taken that must not be set when it is narrowed.

    Its forward then compares what it compares in the whole generator. They are left alone in all modules of the kind,
    if that does no harm.
    """
    if fault.module is None:
        return []
    generator, attributes = runs.supernet.generator, runs.graph.attributes
    kind = type(generator.get_submodule(fault.module))
    alike = {path for path, module in generator.named_modules() if type(module) is kind}
    own = [a for a in attributes if a.module == fault.module and not kind.__module__.startswith("torch.")]
    for chosen in _subsets(own):
        names = {a.name for a in chosen}
        for modules in (alike, {fault.module}):
            kept = [a for a in attributes if a.module in modules and a.name in names]
            tried = replace(runs.graph, attributes=tuple(a for a in attributes if a not in kept))
            if not any(runs.fault(config, tried) for config in configs):
                return [a.path for a in kept]
    return []


def _subsets(own: Sequence[SizeAttribute]) -> Iterator[Sequence[SizeAttribute]]:
    yield from ([own] if own else [])
    for size in (1, 2):
        yield from (chosen for chosen in itertools.combinations(own, size) if size < len(own))
