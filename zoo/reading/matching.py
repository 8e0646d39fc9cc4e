"""Names that differ, matched by the order of tensors of equal shapes, and proved by a known input and output."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from gantailor.supernet.calling import evaluating
from gantailor.supernet.errors import CheckpointError, GantailorError
from gantailor.zoo.generators.record import Generator
from gantailor.zoo.reading.candidate import completed
from gantailor.zoo.reading.example import Example
from gantailor.zoo.reading.parts import parts
from gantailor.zoo.reading.tensors import check_tensors

COUNTER = "num_batches_tracked"
STATISTICS = ("running_mean", "running_var", COUNTER)
CLEAR = 2.0  # a second way that passes must be so many times worse

Use = Callable[[nn.Module], nn.Module]  # from a loaded generator to the one that gives the known output


@dataclass(frozen=True)
class Matched:
    """Names of a file and what they are in the generator.

    Attributes:
        inside: path of the mapping inside the file.
        names: from the file's, without the prefix that all share, to the generator's.
        said: how they were matched and what that was proved with, in a line.
    """

    inside: str
    names: Mapping[str, str]
    said: str = ""

    def to_json(self) -> dict[str, Any]:
        """For ``from_json``."""
        return {"inside": self.inside, "names": dict(self.names)}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Matched:
        """What ``to_json`` gave."""
        return cls(stored["inside"], stored["names"])

    def state(self, loaded: Any, source: str) -> dict[str, Tensor]:
        """The file's tensors by the generator's names.

        Raises:
            CheckpointError: the file has not these names.
        """
        for where, part in parts(loaded):
            if where == self.inside and set(self.names) <= set(part):
                return {own: part[name] for name, own in self.names.items()}
        missing = next(iter(self.names), "")
        raise CheckpointError(
            f"{source!r} is not the file whose names were matched ({missing!r} is not in it); give that file, or start "
            "a run of its own in another --out"
        )


def match(
    record: Generator, options: Mapping[str, Any], loaded: Any, example: Example, source: str, use: Use
) -> Matched | None:
    """The way to match a file's names to the generator's that gives the known output; None where no shapes fit.

    Within each shape (and kind: weight, bias, ...) the file's tensors in their order are the generator's in theirs.
    Orders tried: the file's own and its names sorted; the generator's modules as they are made, sorted, and as they
    run.

    Raises:
        CheckpointError: none gives the output (the best error is told), several do, or a tensor is no weight.
    """
    tried = sorted(_tried(record, options, loaded, example, source, use), key=lambda way: way.error)
    if not tried:
        return None
    best, other = tried[0], f"{source!r} has other names than {record.name}"
    if not best.error <= example.allowed:
        raise CheckpointError(
            f"{other}; of {len(tried)} ways to match them by shape and order none gives teacher.example, the best "
            f"differs by {example.said(best.error)}; give teacher.rename, or look at the generator's options and "
            "teacher.statistics"
        )
    if len(tried) > 1 and tried[1].error <= min(example.allowed, CLEAR * best.error):
        raise CheckpointError(
            f"{other}, and two ways to match them give teacher.example, by {example.said(best.error)} and "
            f"{example.said(tried[1].error)}; give the tensors input and output in an .npz file"
        )
    said = f"names of {source!r} matched by shape and order ({best.how}), {len(best.names)} tensors; with them "
    return Matched(best.where, best.names, f"{said}teacher.example is met to {example.said(best.error)}")


@dataclass(frozen=True)
class _Way:
    """One way to match names, and what it differs from the example by."""

    where: str
    how: str
    names: Mapping[str, str]
    state: Mapping[str, Tensor]
    error: float


def _tried(
    record: Generator, options: Mapping[str, Any], loaded: Any, example: Example, source: str, use: Use
) -> list[_Way]:
    """Every way that gives other tensors, each run on the example."""
    with torch.random.fork_rng(devices=[]):
        model = record.make(**options)
    expected = {name: value.clone() for name, value in model.state_dict().items()}
    orders = {"made": list(expected), "sorted": sorted(expected, key=natural), "run": _as_run(model, example, expected)}
    tried: list[_Way] = []
    for where, part in parts(loaded):
        for how, names in assignments(part, expected, orders):
            state = {own: part[name] for name, own in names.items()}
            if any(_equal(state, other.state) for other in tried):
                continue
            check_tensors(state, source, expected)
            model.load_state_dict(completed(expected, record.completed(model, state)))
            tried.append(_Way(where, how, names, state, example.error(use(model))))
    return tried


def assignments(
    state: Mapping[str, Tensor], expected: Mapping[str, Tensor], orders: Mapping[str, Iterable[str]]
) -> Iterator[tuple[str, dict[str, str]]]:
    """Ways to give a state the generator's names, each once, and how: within each shape and kind, in order.

    Args:
        orders: of the generator's names, by what they are called.
    """
    kinds = {_kind(name) for name in expected}
    named = all(_kind(name) in (*kinds, *STATISTICS) for name in state)
    if named:  # old instance norms have idle statistics
        state = {name: value for name, value in state.items() if _kind(name) in kinds}
    left_out = {name for name in expected if _kind(name) == COUNTER and not any(v.ndim == 0 for v in state.values())}

    def group(name: str, value: Tensor) -> tuple[Any, ...]:
        return tuple(value.shape), _kind(name) if named else value.ndim == 0

    groups = {name: group(name, value) for name, value in expected.items() if name not in left_out}
    theirs = {name: group(name, value) for name, value in state.items()}
    if not theirs or Counter(groups.values()) != Counter(theirs.values()):
        return
    seen: list[dict[str, str]] = []
    for file_order, names in {"file": list(state), "sorted": sorted(state, key=natural)}.items():
        for own_order, own in orders.items():
            waiting: dict[Any, list[str]] = defaultdict(list)
            for name in own:
                if name in groups:
                    waiting[groups[name]].append(name)
            found = {name: waiting[theirs[name]].pop(0) for name in names}
            if found not in seen:
                seen.append(found)
                yield f"{file_order} order, the generator's as {own_order}", found


def natural(name: str) -> list[tuple[int, int | str]]:
    """A key to sort by, in which 10 comes after 9."""
    return [(0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"(\d+)", name) if part]


def _as_run(model: nn.Module, example: Example, expected: Mapping[str, Tensor]) -> list[str]:
    """The generator's names in the order in which its modules first run; those that do not, with what they are in."""
    when: dict[str, int] = {}

    def watch(name: str, module: nn.Module) -> RemovableHandle:
        def hook(*_: Any) -> None:
            when.setdefault(name, len(when))

        return module.register_forward_pre_hook(hook)

    handles = [watch(name, module) for name, module in model.named_modules()]
    try:
        with torch.no_grad(), evaluating(model):
            model(*example.inputs(model))
    except GantailorError:
        raise
    except (RuntimeError, TypeError):  # told where its error is taken
        return list(expected)
    finally:
        for handle in handles:
            handle.remove()

    def place(name: str) -> int:
        path = name.rpartition(".")[0]
        while path and path not in when:
            path = path.rpartition(".")[0]
        return when.get(path, 0)

    return sorted(expected, key=place)


def _kind(name: str) -> str:
    return name.rpartition(".")[2]


def _equal(one: Mapping[str, Tensor], two: Mapping[str, Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(value, two[name]) for name, value in one.items())
