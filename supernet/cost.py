"""Cost: MACs and parameters as quadratic polynomials of the widths, read off the graph once."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from gantailor.supernet.errors import ConfigError, nearest
from gantailor.supernet.graph import Axis, WidthGraph

CONVENTIONS = ("true", "published", "published_convs")


class CostModel:
    """Costs of whole matrices of candidates: ``[N, n_widths]`` integer sizes to ``[N]``, exact below 2**53."""

    def __init__(self, graph: WidthGraph) -> None:
        self.count = len(graph.widths)
        self._macs = {
            convention: self._quadratic(
                (term.coefficients[convention], (term.rows, term.columns)) for term in graph.terms
            )
            for convention in CONVENTIONS
        }
        products = []
        for name, shape in graph.parameters:
            axes = graph.axes.get(name, {})
            fixed = float(np.prod([size for d, size in enumerate(shape) if d not in axes]))
            products.append((fixed, tuple(axes.values())))
        self._parameters = self._quadratic(products)

    def _linear(self, axis: Axis | None) -> np.ndarray:
        """The axis's size as coefficients of (widths, 1)."""
        row = np.zeros(self.count + 1)
        if axis is None:
            row[-1] = 1
            return row
        for w, count in axis.counts.items():
            row[w] = count
        row[-1] = axis.fixed
        return row

    def _quadratic(self, products: Iterable[tuple[float, tuple[Axis | None, ...]]]) -> np.ndarray:
        total = np.zeros((self.count + 1, self.count + 1))
        for coefficient, axes in products:
            assert len(axes) <= 2, "a weight with more than two width axes"
            first, second = (*axes, None, None)[:2]
            total += coefficient * np.outer(self._linear(first), self._linear(second))
        return (total + total.T) / 2

    def _evaluate(self, form: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        columns = np.ones((self.count + 1, len(sizes)))  # widths in rows: the products below then run along memory
        columns[:-1] = np.asarray(sizes).T
        totals: np.ndarray = np.rint(np.einsum("ij,ij->j", form @ columns, columns))
        return totals.astype(np.int64)

    def macs(self, sizes: np.ndarray, *, convention: str = "true") -> np.ndarray:
        """Multiply-accumulates of each row, in the named convention.

        Raises:
            ConfigError: there is no such convention.
        """
        if convention not in self._macs:
            raise ConfigError(f"convention {convention!r} is unknown; {nearest(convention, CONVENTIONS)}")
        return self._evaluate(self._macs[convention], np.asarray(sizes))

    def parameters(self, sizes: np.ndarray) -> np.ndarray:
        """Number of parameters of each row."""
        return self._evaluate(self._parameters, np.asarray(sizes))
