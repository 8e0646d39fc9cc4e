"""Why no mapping of a checkpoint is the generator, in one line with the way out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from gantailor.supernet.errors import CheckpointError, GantailorError
from gantailor.supernet.plugins import find
from gantailor.zoo.generators import GENERATORS
from gantailor.zoo.generators.record import Generator
from gantailor.zoo.reading import names
from gantailor.zoo.reading.candidate import Candidate, differences
from gantailor.zoo.reading.files import SAVE
from gantailor.zoo.reading.parts import parts

LISTED = 3
UNFOLDED = {  # parts of names by which reparametrised layers are known, and what undoes them
    ".parametrizations.": "torch.nn.utils.parametrize.remove_parametrizations",
    ".weight_g": "torch.nn.utils.remove_weight_norm",
    ".weight_orig": "torch.nn.utils.remove_spectral_norm",
}


def refusal(
    record: Generator,
    options: Mapping[str, Any],
    source: str,
    loaded: Any,
    misses: Sequence[Candidate],
    *,
    refusals: Sequence[GantailorError],
    usual: Mapping[str, Tensor],
) -> GantailorError:
    """The mistake to tell: the nearest mapping's, or the reader's, or what the file holds.

    Args:
        misses: mappings that have something of the generator.
        refusals: what the family's reader said, of the largest part first.
        usual: the generator's tensors with the user's options alone.
    """
    best = max(misses, key=lambda candidate: (candidate.common, -len(candidate.where)), default=None)
    expected = usual if best is None else best.expected
    wrong = {} if best is None else record.contradicted(best.state, **options)
    if best is not None and wrong:
        return contradiction(record, source, wrong, where=best.where, said=_said(best.expected, best.whole))
    for where, part in parts(loaded):
        found = names.proposed(part, expected)
        if found is not None:
            (old, new), place = next(iter(found.items())), f" ({where})" if where else ""
            return CheckpointError(
                f"{source!r}{place} has other names and the shapes of {record.name}; exchange them: --teacher.rename "
                f"'{old}={new}', or load_teacher(..., rename={{{old!r}: {new!r}}})"
            )
    if best is not None:
        return CheckpointError(_mismatch(record, source, best))
    if refusals:
        return refusals[0]
    return CheckpointError(_strange(record, source, loaded, expected))


def contradiction(
    record: Generator,
    source: str,
    wrong: Mapping[str, tuple[Any, Any]],
    *,
    where: str = "",
    said: str = "",
) -> CheckpointError:
    """The mistake of options, the user's or of the generator's name, of which the file's tensors tell others.

    Args:
        wrong: options with their own value and the file's.
        where: path inside the file.
        said: how names and shapes differ.
    """
    asked = ", ".join(f"{name} is {own}, the file has {told}" for name, (own, told) in wrong.items())
    detail, place = f" ({said})" if said else "", f" ({where})" if where else ""
    return CheckpointError(f"{source!r}{place} was made with other options: {asked}{detail}; {_way_out(record, wrong)}")


def _mismatch(record: Generator, source: str, best: Candidate) -> str:
    """How the nearest mapping differs."""
    said, where = _said(best.expected, best.whole), f" ({best.where})" if best.where else ""
    extra = differences(best.expected, best.whole)[1]
    undo = next((way for part, way in UNFOLDED.items() if any(part in name for name in extra)), None)
    if undo is not None:
        return (
            f"{source!r}{where} has weights that a norm of them is not folded into ({said}); call {undo}, then {SAVE}"
        )
    return (
        f"{source!r}{where} belongs to another architecture than {record.name} ({said}); name the generator that it "
        "was trained with, and its options"
    )


def _said(expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    missing, extra, shapes = differences(expected, state)
    parts = [f"missing: {', '.join(missing[:LISTED])}"] * bool(missing)
    parts += [f"not in the generator: {', '.join(extra[:LISTED])}"] * bool(extra)
    parts += [f"shapes: {'; '.join(shapes[:LISTED])}"] * bool(shapes)
    return ". ".join(parts)


def _way_out(record: Generator, wrong: Mapping[str, tuple[Any, Any]]) -> str:
    told = {name: value for name, (_, value) in wrong.items()}
    by_name = {name: value for name, value in told.items() if name in record.options}
    if by_name:
        wanted = {**record.options, **by_name}
        known = [name for name in GENERATORS if _same_family(find(name, GENERATORS, "generator"), record, wanted)]
        if known:
            return f"name generator {known[0]}" + (_options(told, by_name) and f" and {_options(told, by_name)}")
    left = [name for name in told if name not in record.options]
    return _options(told, {}) + (f", or leave {', '.join(left)} out: the file tells" if left else "")


def _options(told: Mapping[str, Any], without: Mapping[str, Any]) -> str:
    inside = ", ".join(f"{name}: {value}" for name, value in told.items() if name not in without)
    return f"set options {{{inside}}}" if inside else ""


def _same_family(one: Generator, other: Generator, options: Mapping[str, Any]) -> bool:
    return one.build == other.build and dict(one.options) == dict(options)


def _strange(record: Generator, source: str, loaded: Any, expected: Mapping[str, Tensor]) -> str:
    """What a file without anything of the generator holds."""
    if isinstance(loaded, Tensor):
        return f"{source!r} is a single tensor, not a state_dict; save with {SAVE}"
    if isinstance(loaded, list | tuple):
        if loaded and all(isinstance(value, Tensor) for value in loaded):
            said = f"is a list of {len(loaded)} tensors without names, as model.parameters() gives"
            return f"{source!r} {said}; save with {SAVE}"
        loaded = dict(enumerate(loaded))
    if not isinstance(loaded, Mapping):
        return f"{source!r} is a {type(loaded).__name__}, not a state_dict of tensors; save with {SAVE}"
    if not loaded:
        return f"{source!r} is an empty state_dict; save with {SAVE} those of the trained model"
    if all(isinstance(value, Tensor) for value in loaded.values()):
        said = _said(expected, {str(name): value for name, value in loaded.items()})
        return (
            f"{source!r} belongs to another architecture than {record.name} ({said}); name the generator that it was "
            "trained with"
        )
    listed = ", ".join(_described(str(name), value) for name, value in list(loaded.items())[:8])
    return f"{source!r} is not a state_dict of tensors and holds none of {record.name}: {listed}; save with {SAVE}"


def _described(name: str, value: Any) -> str:
    if isinstance(value, Mapping):
        tensors = [str(inner) for inner, found in value.items() if isinstance(found, Tensor)]
        return f"{name!r} is a dict" + (f" of tensors ({', '.join(tensors[:2])}, ...)" if tensors else "")
    return f"{name!r} is a {type(value).__name__}"
