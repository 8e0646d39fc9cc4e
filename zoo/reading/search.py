"""Which of the mappings in a checkpoint is the generator: the one whose names and shapes are the generator's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gantailor.supernet.errors import CheckpointError, GantailorError
from gantailor.zoo.generators.record import Generator
from gantailor.zoo.reading import names
from gantailor.zoo.reading.candidate import Candidate, completed
from gantailor.zoo.reading.paths import joined
from gantailor.zoo.reading.refusal import contradiction, refusal
from gantailor.zoo.reading.tensors import check_tensors

MOST = 8  # candidates that a message lists
DEPTH = 6  # mappings within mappings
FEWEST = 0.1  # of the names in common, below which it is not worth while to build the generator


class Search:
    """Looks for a generator of one family in a loaded file.

    Args:
        record: the family.
        options: the user's.
        reading: options of the family's reader (``side``).
        source: the file, for messages.
    """

    def __init__(self, record: Generator, options: Mapping[str, Any], reading: Mapping[str, Any], source: str) -> None:
        self.record, self.options, self.reading, self.source = record, dict(options), dict(reading), source
        self.misses: list[Candidate] = []
        self.refusals: list[tuple[int, GantailorError]] = []  # what is said of parts, and their numbers of tensors
        self._built: dict[str, nn.Module] = {}
        self._usual = self._names_of_ones_own()

    def one(self, loaded: Any, inside: str = "") -> Candidate:
        """The one mapping that fits.

        Raises:
            CheckpointError: none does, or several do.
        """
        found = list(self._within(loaded, inside, 0))
        if not found:
            raise refusal(
                self.record,
                self.options,
                self.source,
                loaded,
                self.misses,
                refusals=[error for _, error in sorted(self.refusals, key=lambda found: -found[0])],
                usual=self._usual,
            )
        first = found[0]
        if any(not _equal(first.state, other.state) for other in found[1:]):
            listed = [candidate.where for candidate in found[:MOST]]
            raise CheckpointError(
                f"{self.source!r} holds {len(found)} generators that fit: {', '.join(listed)}; name the one that is "
                f"meant: {self.source}:{listed[0]}"
            )
        return first

    def _within(self, value: Any, where: str, depth: int) -> Iterator[Candidate]:
        """Those that fit in a value; nothing is looked for inside one that fits."""
        if depth > DEPTH or (isinstance(value, Mapping) and "param_groups" in value):  # an optimiser
            return
        if isinstance(value, list | tuple):
            value = dict(enumerate(value))
        if not isinstance(value, Mapping):
            return
        own = list(self._here({str(name): inner for name, inner in value.items()}, where))
        yield from own
        if not any(candidate.where == where for candidate in own):
            for name, inner in value.items():
                if isinstance(inner, Mapping | list | tuple):
                    yield from self._within(inner, joined(where, str(name)), depth + 1)

    def _here(self, mapping: Mapping[str, Any], where: str) -> Iterator[Candidate]:
        """The mapping itself, or the parts of it that one prefix makes."""
        taken: list[str] = []
        tensors = {name: value for name, value in mapping.items() if isinstance(value, Tensor)}
        for prefix in names.prefixes(tensors):
            if any(prefix.startswith(other) for other in taken):
                continue
            part: Mapping[str, Any] = mapping
            if prefix:
                part = {name.removeprefix(prefix): tensors[name] for name in tensors if name.startswith(prefix)}
            found = self._fitting(part, joined(where, prefix.rstrip(".")), bare=not prefix)
            if found is not None:
                whole = len(part) == len(mapping)  # a prefix that all names share is no name of a part
                taken.append(prefix)
                yield found if not whole else Candidate(**{**vars(found), "where": where})

    def _fitting(self, part: Mapping[str, Any], where: str, *, bare: bool) -> Candidate | None:
        for variant in self._variants(part, bare=bare):
            candidate = self._candidate(variant, where)
            if candidate is not None and candidate.fits:
                return candidate
            if candidate is not None:
                self.misses.append(candidate)
        return None

    def _variants(self, part: Mapping[str, Any], *, bare: bool) -> Iterator[Mapping[str, Any]]:
        """The names as they are, without what is no tensor, without wrappers, with the generator's own prefix."""
        yield part
        tensors = {name: value for name, value in part.items() if isinstance(value, Tensor)}
        if 0 < len(tensors) < len(part):
            yield tensors
        plain = names.unwrapped(tensors)
        if list(plain) != list(tensors):
            yield plain
        missing = names.common_prefix(self._usual)
        if bare and missing and plain:
            yield {missing + name: value for name, value in plain.items()}

    def _candidate(self, part: Mapping[str, Any], where: str) -> Candidate | None:
        """How the part compares with the generator; None where it has next to nothing of one."""
        try:
            state = self.record.state_of(part, **self.reading)
        except CheckpointError as error:
            self._refuse(part, CheckpointError(f"{self.source!r}: {error}"))
            return None
        except (RuntimeError, TypeError, IndexError, AttributeError) as error:  # arithmetic with what is no weight
            self._refuse(part, self._fault(part, error))
            return None
        if not state or not all(isinstance(value, Tensor) for value in state.values()):
            return None
        common = sum(name in self._usual for name in state)
        if self._usual and common < FEWEST * min(len(self._usual), len(state)):
            return None
        options = self.record.options_for(state, **self.options)
        try:
            module = self._module(options)
        except GantailorError as error:  # the user's options beside the file's
            wrong = self.record.contradicted(state, **self.options)
            self._refuse(state, contradiction(self.record, self.source, wrong) if wrong else error)
            return None
        expected = module.state_dict()
        whole = completed(expected, self.record.completed(module, state))
        return Candidate(where=where, state=state, options=options, expected=expected, whole=whole)

    def _refuse(self, part: Mapping[str, Any], error: GantailorError) -> None:
        """Keep what is said of the part with the most tensors."""
        self.refusals.append((sum(isinstance(value, Tensor) for value in part.values()), error))

    def _fault(self, part: Mapping[str, Any], error: Exception) -> CheckpointError:
        try:
            floating = {name: torch.empty(0) for name in part if name.rpartition(".")[2].startswith(("weight", "bias"))}
            check_tensors(part, self.source, floating)
        except CheckpointError as found:
            return found
        said = " ".join(str(error).split())[:120]
        return CheckpointError(f"{self.source!r} cannot be read as {self.record.name} ({said}); name its generator")

    def _names_of_ones_own(self) -> Mapping[str, Tensor]:
        """Names with the user's options alone; none where the generator needs options that the file tells."""
        try:
            return self._module(self.options).state_dict()
        except GantailorError:
            raise
        except (TypeError, ValueError):
            return {}

    def _module(self, options: Mapping[str, Any]) -> nn.Module:
        """The generator with these options, without memory and numbers where it can be made so."""
        key = repr(sorted(options.items()))
        if key not in self._built:
            try:
                with torch.device("meta"):
                    self._built[key] = self.record.make(**options)
            except (RuntimeError, NotImplementedError):  # one's own that computes as it is made
                with torch.random.fork_rng(devices=[]):
                    self._built[key] = self.record.make(**options)
        return self._built[key]


def _equal(one: Mapping[str, Tensor], two: Mapping[str, Tensor]) -> bool:
    """Whether two states are one, saved twice."""
    return one.keys() == two.keys() and all(torch.equal(value, two[name]) for name, value in one.items())
