"""Cost: MACs and parameters as polynomials of the widths, read off the graph once; most are quadratic."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from gantailor.supernet.errors import ConfigError, nearest
from gantailor.supernet.graph import Axis, WidthGraph

CONVENTIONS = ("true", "layers", "published", "published_convs")

# A quadratic form over (widths, 1), and products of more than two linear ones with their coefficients.
Polynomial = tuple[np.ndarray, list[tuple[float, np.ndarray]]]


class CostModel:
    """Costs of whole matrices of candidates: ``[N, n_widths]`` integer sizes to ``[N]``, exact below 2**53."""

    def __init__(self, graph: WidthGraph) -> None:
        self.count, self._terms = len(graph.widths), graph.terms
        self._macs = {
            convention: self._polynomial((term.coefficients[convention], term.axes) for term in graph.terms)
            for convention in CONVENTIONS
        }
        products = []
        for name, shape in graph.parameters:
            axes = graph.axes.get(name, {})
            fixed = float(np.prod([size for d, size in enumerate(shape) if d not in axes]))
            products.append((fixed, tuple(axes.values())))
        self._parameters = self._polynomial(products)

    def _linear(self, axis: Axis | None) -> np.ndarray:
        """The axis's size as coefficients of (widths, 1); of no axis, 1."""
        row = np.zeros(self.count + 1)
        if axis is None:
            row[-1] = 1
            return row
        for w, count in axis.counts.items():
            row[w] = count
        row[-1] = axis.fixed
        return row

    def _polynomial(self, products: Iterable[tuple[float, Sequence[Axis]]]) -> Polynomial:
        """Most costs have one or two axes of widths: all these together are one matrix."""
        total, higher = np.zeros((self.count + 1, self.count + 1)), []
        for given, axes in products:
            free = [axis for axis in axes if axis.counts]
            coefficient = given * math.prod(axis.fixed for axis in axes if not axis.counts)
            if len(free) > 2 and coefficient:
                higher.append((coefficient, np.array([self._linear(axis) for axis in free])))
                continue
            first, second = (*free, None, None)[:2]
            total += coefficient * np.outer(self._linear(first), self._linear(second))
        return (total + total.T) / 2, higher

    def _evaluate(self, polynomial: Polynomial, sizes: np.ndarray) -> np.ndarray:
        quadratic, higher = polynomial
        columns = np.ones((self.count + 1, len(sizes)))  # widths in rows: the products below then run along memory
        columns[:-1] = np.asarray(sizes).T
        totals: np.ndarray = np.einsum("ij,ij->j", quadratic @ columns, columns)
        for coefficient, forms in higher:
            totals = totals + coefficient * np.prod(forms @ columns, axis=0)
        rounded: np.ndarray = np.rint(totals).astype(np.int64)
        return rounded

    def macs(self, sizes: np.ndarray, *, convention: str = "true") -> np.ndarray:
        """Multiply-accumulates of each row, in the named convention.

        Raises:
            ConfigError: there is no such convention.
        """
        if convention not in self._macs:
            raise ConfigError(f"convention {convention!r} is unknown; {nearest(convention, CONVENTIONS)}")
        return self._evaluate(self._macs[convention], np.asarray(sizes))

    def macs_of(self, sizes: Sequence[int]) -> dict[str, float]:
        """True multiply-accumulates of one subnet, by module; they need not be whole numbers each."""
        found: dict[str, float] = {}
        for term in self._terms:
            count = term.coefficients["true"] * math.prod(axis.size(sizes) for axis in term.axes)
            found[term.layer] = found.get(term.layer, 0.0) + count
        return found

    def parameters(self, sizes: np.ndarray) -> np.ndarray:
        """Number of parameters of each row."""
        return self._evaluate(self._parameters, np.asarray(sizes))
