"""Rules of products of two tensors: with a weight (a layer written by hand) or of two activations (attention)."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from torch import Tensor

from gantailor.supernet.tracing.elementwise import Args, Kwargs, argument, freeze_all
from gantailor.supernet.tracing.tracer import Tracer

Extent = tuple[int, np.ndarray | None]  # elements along an axis, and their identities

OF_ACTIVATIONS = {"layers": 0.0, "published": 0.0, "published_convs": 0.0}  # what is not as ``true`` counts it


def add_cost(t: Tracer, extents: Iterable[Extent], *, of_activations: bool = False, times: float = 1.0) -> None:
    """Cost of the product of these extents, those with identities as wide as their widths are."""
    extents = list(extents)
    count = times * math.prod(size for size, labels in extents if labels is None)
    kinds = dict.fromkeys(("true", "layers", "published", "published_convs"), count)
    t.cost(kinds | (OF_ACTIVATIONS if of_activations else {}), *(labels for _, labels in extents))


def matmul(t: Tracer, func: object, args: Args, kwargs: Kwargs, out: Tensor) -> None:
    """``[.., i, k] @ [.., k, j]``: the summed axes are tied.

    With a weight on one side it is a linear layer. Of two activations the summed width is inexact: it has no gate.
    """
    a, b = args[0], argument(args, kwargs, 1, "mat2", argument(args, kwargs, 1, "other"))
    if a.dim() < 2 or b.dim() < 2:
        freeze_all(t, func, args, kwargs, out)
        return
    left, right = t.labels(a), t.labels(b)
    batch = joined_batch(t, [a, b], out.dim() - 2)
    summed = t.join(left[-1], right[-2])
    weights = [t.is_weight(a), t.is_weight(b)]
    if weights[0] != weights[1]:
        t.sum_over(left[-1] if weights[0] else right[-2])
        t.produce(left[-2] if weights[0] else right[-1])
    else:
        t.mark_inexact(summed, "summed in a product of activations")
    t.set(out, (*batch, left[-2], right[-1]))
    ends = ((a.shape[-2], left[-2]), (a.shape[-1], summed), (b.shape[-1], right[-1]))
    add_cost(t, (*zip(out.shape, batch, strict=False), *ends), of_activations=not any(weights))


def addmm(t: Tracer, func: object, args: Args, kwargs: Kwargs, out: Tensor) -> None:
    """addmm, addbmm, baddbmm: a product, and what is added to it."""
    a = argument(args, kwargs, 1, "mat1", kwargs.get("batch1"))
    b = argument(args, kwargs, 2, "mat2", kwargs.get("batch2"))
    added = [*zip(args[0].shape, t.labels(args[0]), strict=True)]  # before: in place it is the result
    matmul(t, func, (a, b), {}, out)
    labels = list(t.labels(out))
    for d, (size, axis) in enumerate(reversed(added), 1):
        if size > 1:
            labels[-d] = t.join(labels[-d], axis)
    t.set(out, labels)


def joined_batch(t: Tracer, parts: Iterable[Tensor], count: int) -> list[np.ndarray | None]:
    """Identities of the leading axes of a batched product, under broadcasting; of ``count`` axes."""
    found: list[np.ndarray | None] = [None] * count
    for offset in range(3, count + 3):
        here = [t.labels(part)[-offset] for part in parts if part.dim() >= offset and part.shape[-offset] > 1]
        for number, axis in enumerate(here):
            found[-offset + 2] = axis if number == 0 else t.join(found[-offset + 2], axis)
    return found


def attention(t: Tracer, func: object, args: Args, kwargs: Kwargs, out: Tensor) -> None:
    """Scaled dot-product attention: what queries and keys share is summed over, values pass."""
    query, key, value = (argument(args, kwargs, n, name) for n, name in enumerate(("query", "key", "value")))
    q, k, v = map(t.labels, (query, key, value))
    summed = t.join(q[-1], k[-1])
    t.mark_inexact(summed, "attention: summed in a product of activations")
    places = t.join(k[-2], v[-2])
    batch = joined_batch(t, (query, key, value), out.dim() - 2)
    t.set(out, (*batch, q[-2], v[-1]))
    around = [*zip(out.shape, batch, strict=False), (query.shape[-2], q[-2]), (key.shape[-2], places)]
    for inner in ((query.shape[-1], summed), (value.shape[-1], v[-1])):
        add_cost(t, (*around, inner), of_activations=True)


def einsum(t: Tracer, func: object, args: Args, kwargs: Kwargs, out: Tensor) -> None:
    """Axes of one letter are one; a summed letter ends in a weight, or in a product of activations (inexact)."""
    equation, *given = args
    operands = list(given[0]) if len(given) == 1 and not isinstance(given[0], Tensor) else given
    if not isinstance(equation, str):  # operands and lists of axes by turns
        freeze_all(t, func, tuple(x for x in args if isinstance(x, Tensor)), kwargs, out)
        return
    terms, right = _letters(equation, operands)
    found: dict[str, np.ndarray | None] = {}
    sizes: dict[str, int] = {}
    for term, operand in zip(terms, operands, strict=True):
        for letter, axis, size in zip(term, t.labels(operand), operand.shape, strict=True):
            sizes[letter] = max(size, sizes.get(letter, 1))
            if size > 1:
                found[letter] = t.join(found[letter], axis) if letter in found else axis
    weights = [(term, operand) for term, operand in zip(terms, operands, strict=True) if t.is_weight(operand)]
    with_weight = len(terms) == 2 and len(weights) == 1
    for letter in dict.fromkeys("".join(terms)):
        own = dict(zip(weights[0][0], t.labels(weights[0][1]), strict=True)).get(letter) if with_weight else None
        if letter in right:
            t.produce(own if sum(letter in term for term in terms) == 1 else None)
        elif own is not None:
            t.sum_over(own)
        else:
            t.mark_inexact(found.get(letter), "summed in a product of activations")
    t.set(out, [found.get(letter) for letter in right])
    for letters in _pairs(terms, operands, right):
        add_cost(t, [(sizes[x], found.get(x)) for x in letters], of_activations=not weights)


def tensordot(t: Tracer, func: object, args: Args, kwargs: Kwargs, out: Tensor) -> None:
    """The last axes of one tensor with the first of another, or those that are named: an einsum."""
    a, b, dims = args[0], args[1], argument(args, kwargs, 2, "dims", 2)
    left, right = (range(a.dim() - dims, a.dim()), range(dims)) if isinstance(dims, int) else dims
    letters = [chr(0x61 + number) for number in range(a.dim() + b.dim())]
    ours, theirs = letters[: a.dim()], letters[a.dim() :]
    for one, other in zip(left, right, strict=True):
        theirs[other] = ours[one]
    kept = [x for x in (*ours, *theirs) if not (x in ours and x in theirs)]
    einsum(t, func, (f"{''.join(ours)},{''.join(theirs)}->{''.join(kept)}", a, b), {}, out)


def _letters(equation: str, operands: list[Tensor]) -> tuple[list[str], str]:
    """The terms of an einsum and its result, a letter for each axis, those of ``...`` too."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    given = left.split(",")
    if not arrow:
        right = "..." + "".join(sorted(x for x in set(left) - set(".,") if left.count(x) == 1))
    more = [x.dim() - len(term.replace("...", "")) for term, x in zip(given, operands, strict=True)]
    longest = max([0, *(n for n, term in zip(more, given, strict=True) if "..." in term)])
    shared = "".join(chr(0x3B1 + number) for number in range(longest))  # Greek: none that an equation may have
    terms = [term.replace("...", shared[longest - n :] if n else "") for term, n in zip(given, more, strict=True)]
    return terms, right.replace("...", shared)


def _pairs(terms: list[str], operands: list[Tensor], right: str) -> Iterable[str]:
    """The letters of each matrix product that an einsum is made of, from the left to the right.

    Letters of one operand alone are summed before; without a letter to sum over it multiplies element by element.
    """
    done, real = terms[0], set(_real(terms[0], operands[0]))
    for position, term in enumerate(terms[1:], 1):
        other = set(_real(term, operands[position]))
        later = set(right).union(*terms[position + 1 :])
        common = {x for x in set(done) & set(term) if x not in later}
        if common:
            yield "".join(sorted((real & other) | (((real | other) - (real & other)) & later)))
        done = "".join(sorted((set(done) | set(term)) & later))
        real = (real | other) & later


def _real(term: str, operand: Tensor) -> str:
    return "".join(letter for letter, size in zip(term, operand.shape, strict=True) if size > 1)
