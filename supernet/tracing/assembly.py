"""From the identities of a trace to the width graph: joined ones are units, units of the same places are a width."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from gantailor.supernet.graph import FIXED, Axis, SizeAttribute, Term, Width, WidthGraph
from gantailor.supernet.tracing.tracer import Tracer

Place = tuple[str, int]
MOST_TIED = 0.2  # of a group norm's channels, in widths of one unit
_NO_AXIS = Axis(np.array([FIXED]), np.array([FIXED]))


class _Axes:
    """From the identities of a trace to the widths and units of its axes."""

    def __init__(self, component: np.ndarray, width_of: np.ndarray, unit_of: np.ndarray) -> None:
        self.component, self.width_of, self.unit_of = component, width_of, unit_of

    def axis(self, labels: np.ndarray | None) -> Axis | None:
        """The axis with these identities; None for an axis without."""
        if labels is None:
            return None
        units = np.where(labels == FIXED, FIXED, self.component[labels])
        found = np.where(units == FIXED, FIXED, self.width_of[units])
        return Axis(found, np.where(found == FIXED, FIXED, self.unit_of[units]))

    def free(self, labels: np.ndarray | None) -> Axis | None:
        """The same; None also where nothing of the axis belongs to a width."""
        found = self.axis(labels)
        return found if found is not None and found.counts else None

    def widths(self, labels: np.ndarray) -> set[int]:
        """The widths, by number, that these identities belong to."""
        return {int(w) for w in set(self.width_of[self.component[labels]].tolist()) - {FIXED}}


def assemble(tracer: Tracer, whole: Mapping[str, str]) -> WidthGraph:
    """Joined identities become units, units with the same places become a width.

    Args:
        whole: names of widths that stay at full size, with the reason; names that do not occur have no effect.
    """
    component = components(tracer)
    reasons: dict[int, str] = {}
    for labels, reason in reversed(tracer.frozen):
        reasons.update(dict.fromkeys(component[labels].tolist(), reason))
    groups = _groups(tracer, component, reasons)
    named, width_of, unit_of, members = _name_widths(tracer, component, groups, whole)
    tied = {width.name: "all its channels stay or go together" for width in named if width.size == 1}
    if tied:
        whole = {**tied, **whole}
        named, width_of, unit_of, members = _name_widths(tracer, component, groups, whole)
    axes = _Axes(component, width_of, unit_of)
    narrowed = {
        name: {d: found for d, labels in enumerate(stored) if (found := axes.free(labels)) is not None}
        for name, stored in tracer.touched.items()
    }
    shapes = {name: tensor.shape for name, tensor in tracer.model.named_parameters()}
    kept_whole = {name: whole[name] + _literal(tracer, component, units) for name, units in members.items()}
    for name, units in members.items():
        reasons.update(dict.fromkeys(units, kept_whole[name]))
    frozen = _frozen_names(tracer, component, reasons) | kept_whole
    return WidthGraph(
        widths=tuple(width for width in named if width.name not in whole),
        axes={name: found for name, found in narrowed.items() if found},
        consumers=_consumers(tracer, narrowed),
        frozen=frozen,
        shares=_shares(tracer, component, reasons, frozen),
        inexact={w: why for labels, why in tracer.inexact for w in axes.widths(labels)},
        activations={p: found for p, labels in tracer.activations.items() if (found := axes.free(labels)) is not None},
        attributes=_attributes(tracer, axes.free),
        terms=tuple(
            Term(p, c, tuple(a for x in found if (a := axes.axis(x)) is not None)) for p, c, found in tracer.costs
        ),
        parameters=tuple((name, tuple(shape)) for name, shape in shapes.items()),
    )


def collapsed(tracer: Tracer) -> set[str]:
    """Group norms by whose groups channels hang together that could not go then, and those that share them.

    Groups of a concatenation may lie across its parts: what joins them is a width of one unit. With many of these
    in one norm, dropping whole groups costs more than it gives.
    """
    if not tracer.grouped:
        return set()
    component = components(tracer)
    kept = np.unique(np.concatenate([component[labels] for labels, _ in tracer.frozen] or [np.zeros(0, np.int64)]))
    places = _groups(tracer, component, dict.fromkeys(kept.tolist(), ""))
    alone = np.array([units[0] for units in places.values() if len(units) == 1], np.int64)
    lost, found = set[int](), []
    for path, labels in tracer.grouped:
        units = component[labels[labels != FIXED]]
        found.append((path, set(units.tolist())))
        tied = np.isin(units, alone)
        if tied.mean() > MOST_TIED or len(found[-1][1]) == 1:
            lost |= set(units[tied].tolist()) or found[-1][1]
    return {path for path, units in found if units & lost}


def _present(axes: Iterable[Axis | None]) -> tuple[Axis, ...]:
    return tuple(axis for axis in axes if axis is not None)


def _groups(tracer: Tracer, component: np.ndarray, frozen: Mapping[int, str]) -> dict[tuple[Place, ...], list[int]]:
    """The units that may go, by the places (tensor, dimension) where they sit."""
    places: dict[int, list[Place]] = defaultdict(list)
    for name, axes in tracer.touched.items():
        for dimension, labels in enumerate(axes):
            if labels is not None:
                for unit in component[labels].tolist():
                    places[unit].append((name, dimension))
    for number, labels in enumerate(tracer.parts):
        for unit in dict.fromkeys(component[labels[labels != FIXED]].tolist()):
            if unit in places:
                places[unit].append(("", number))
    groups: dict[tuple[Place, ...], list[int]] = defaultdict(list)
    for unit, where in places.items():
        if unit not in frozen:
            groups[tuple(where)].append(unit)
    return groups


def _consumers(tracer: Tracer, axes: Mapping[str, Mapping[int, Axis]]) -> dict[int, tuple[Place, ...]]:
    consumers: dict[int, list[Place]] = defaultdict(list)
    for name, dimension in dict.fromkeys(tracer.sums):
        for w in axes.get(name, {}).get(dimension, _NO_AXIS).counts:
            consumers[w].append((name, dimension))
    return {w: tuple(where) for w, where in consumers.items()}


def _attributes(tracer: Tracer, free: Callable[[np.ndarray | None], Axis | None]) -> tuple[SizeAttribute, ...]:
    """The integers to set; one that means two different widths (a layer called twice) means none."""
    found: dict[tuple[str, str], SizeAttribute] = {}
    torn: set[tuple[str, str]] = set()
    for path, name, labels, as_tuple in tracer.sizes:
        axis = free(labels)
        if axis is None:
            continue
        known = found.setdefault((path, name), SizeAttribute(path, name, axis, as_tuple)).axis
        if known is not axis and not (
            np.array_equal(known.width, axis.width) and np.array_equal(known.unit, axis.unit)
        ):
            torn.add((path, name))
    return tuple(attribute for key, attribute in found.items() if key not in torn)


def components(tracer: Tracer) -> np.ndarray:
    """For each identity a number that joined ones share."""
    from scipy.sparse import coo_array  # slow to import, and mistakes of the data are told before
    from scipy.sparse.csgraph import connected_components

    if tracer.edges:
        rows = np.concatenate([a for a, _ in tracer.edges])
        columns = np.concatenate([b for _, b in tracer.edges])
    else:
        rows = columns = np.zeros(0, np.int64)
    matrix = coo_array((np.ones(len(rows), np.int8), (rows, columns)), shape=(tracer.count, tracer.count))
    return connected_components(matrix, directed=False)[1] if tracer.count else np.zeros(0, np.int64)


def _name_widths(
    tracer: Tracer,
    component: np.ndarray,
    groups: Mapping[tuple[Place, ...], list[int]],
    whole: Mapping[str, str],
) -> tuple[list[Width], np.ndarray, np.ndarray, dict[str, list[int]]]:
    """Widths in forward order, named after the first module that produces them, those of ``whole`` too.

    Beside them the width and the unit of each joined identity, ``FIXED`` for those of ``whole``; and those, by name.
    """
    total = int(component.max()) + 1 if len(component) else 0
    group_of = np.full(total, FIXED)
    for number, units in enumerate(groups.values()):
        group_of[units] = number
    made: dict[int, list[str]] = defaultdict(list)
    order: dict[int, int] = {}
    for name, labels in tracer.producers:
        for number in dict.fromkeys(group_of[component[labels[labels != FIXED]]].tolist()):
            module = name.rpartition(".")[0] or name
            if number != FIXED and module not in made[number]:
                made[number].append(module)
    for number in made:
        order.setdefault(number, len(order))
    for number, where in enumerate(groups):  # learned tensors that no layer produces (a constant input)
        if number not in order and len([name for name, _ in where if name]) > 1:  # one alone was looked at, not used
            order[number] = len(order)
            made[number] = [where[0][0].rpartition(".")[0] or where[0][0]]
    width_of, unit_of = np.full(total + 1, FIXED), np.full(total + 1, FIXED)
    widths: list[Width] = []
    kept: dict[str, list[int]] = {}
    free = 0
    taken: dict[str, int] = {}
    members = list(groups.values())
    for number in sorted(order, key=order.__getitem__):
        base = made[number][0]
        taken[base] = taken.get(base, 0) + 1
        name = base if taken[base] == 1 else f"{base}#{taken[base]}"
        units = members[number]
        widths.append(Width(name, len(units), tuple(made[number])))
        if name not in whole:
            width_of[units], unit_of[units] = free, np.arange(len(units))
            free += 1
        else:
            kept[name] = units
    return widths, width_of, unit_of, kept


def _literal(tracer: Tracer, component: np.ndarray, units: list[int]) -> str:
    """Where the forward gives a number of these channels as a plain integer."""
    mine = set(units)
    found = (where for labels, where in tracer.literals if mine & set(component[labels[labels != FIXED]].tolist()))
    where = next(found, None)
    return "" if where is None else f": {where}"


def _shares(
    tracer: Tracer, component: np.ndarray, reasons: Mapping[int, str], frozen: Mapping[str, str]
) -> dict[str, float]:
    """For each frozen module the share of the MACs that would go if half of what has its reason could."""
    number = {reason: n for n, reason in enumerate(dict.fromkeys(reasons.values()))}
    cause = np.full(len(component) + 1, FIXED)
    for unit, reason in reasons.items():
        cause[unit] = number[reason]
    total, saved = 1e-9, np.zeros(len(number))
    for _, coefficients, axes in tracer.costs:
        carried = [axis for axis in axes if axis is not None]
        macs = coefficients["true"] * float(np.prod([len(axis) for axis in carried]))
        left = np.ones(len(number))
        for axis in carried:
            causes = cause[component[axis[axis != FIXED]]]
            left *= 1 - 0.5 * np.bincount(causes[causes != FIXED], minlength=len(number)) / len(axis)
        total, saved = total + macs, saved + macs * (1 - left)
    return {name: float(saved[number[reason]] / total) for name, reason in frozen.items() if reason in number}


def _frozen_names(tracer: Tracer, component: np.ndarray, reasons: Mapping[int, str]) -> dict[str, str]:
    """Producing modules whose channels are frozen, with why."""
    frozen: dict[str, str] = {}
    for name, labels in tracer.producers:
        why = next((reasons[u] for u in component[labels[labels != FIXED]].tolist() if u in reasons), None)
        if why is not None:
            frozen.setdefault(name.rpartition(".")[0] or name, why)
    return frozen
